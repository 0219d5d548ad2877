"""What cost time or money, on disk by key: one SQLite file that threads and processes may share."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from laconic.errors import InputError

_REMEDIES = {"malformed": "it is damaged: remove it", "full": "free some space on its disk"}  # by a word of the error


class Database:
    """An SQLite file: a kill or a full disk halves no transaction, threads and processes may share it.

    It is made by the first use, so that a plan or a mistake leaves none. All raise InputError where the file cannot be
    used; `role` says there what it was to be, such as "the cache of answers". `private`: only its owner may read it.
    `patience`: seconds to wait for another process.
    """

    def __init__(self, path: Path, schema: str, role: str, private: bool = False, patience: float = 60) -> None:
        self.path, self._schema, self._role, self._private, self._patience = path, schema, role, private, patience
        self._lock = threading.Lock()
        self._opened: sqlite3.Connection | None = None

    def read(self, query: str, *values: object) -> list[Any]:
        """The rows of a query."""
        with self._using() as database:
            return database.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is done inside, on disk when it ends, or nothing of it."""
        with self._using() as database:
            database.execute("BEGIN IMMEDIATE")  # what is read inside stays true until the end
            with database:
                yield database

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._opened:
                self._opened.close()
                self._opened = None

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._opened is None:
                    self._opened = _open(self.path, self._schema, self._private, self._patience)
                yield self._opened
            except (OSError, sqlite3.Error) as error:
                remedy = next((r for word, r in _REMEDIES.items() if word in str(error)), "pass another path")
                raise InputError(f"{self.path} cannot be {self._role} ({error}); {remedy}") from None


class Store:
    """JSON objects by key, for answers that were paid for; all raise InputError where the path cannot be used."""

    def __init__(self, path: Path) -> None:
        schema = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)"
        self._file = Database(path, schema, "the cache of answers")

    def peek(self, key: str) -> dict[str, Any] | None:
        """As `get`, but makes no file."""
        return self.get(key) if self._file.path.exists() else None

    def get(self, key: str) -> dict[str, Any] | None:
        """The entry, or None."""
        rows = self._file.read("SELECT answer FROM answers WHERE key = ?", key)
        return json.loads(rows[0][0]) if rows else None

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Add an entry; it is on disk when this returns. The first one for a key stays."""
        with self._file.transaction() as database:
            database.execute("INSERT OR IGNORE INTO answers VALUES (?, ?)", (key, json.dumps(answer)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _open(path: Path, schema: str, private: bool, patience: float) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    if private:  # before SQLite writes anything; it gives its other files the same permissions
        path.touch(mode=0o600)
        path.chmod(0o600)
    database = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
    try:
        _share(database, patience)
        database.executescript(schema)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _share(database: sqlite3.Connection, patience: float) -> None:
    """Readers do not wait for writers. SQLite's own timeout does not hold where two make one file such at a time."""
    end = time.monotonic() + patience
    while True:
        try:
            database.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.01)
