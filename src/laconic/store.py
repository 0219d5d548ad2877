"""JSON objects on disk by key, for answers that were paid for."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

from laconic.errors import InputError


class Store:
    """An SQLite file: a kill loses or halves no entry, threads and processes may share it.

    It is made by the first `get` or `put`, so that a plan or a mistake leaves none. All raise InputError where the path
    cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._opened: sqlite3.Connection | None = None

    def peek(self, key: str) -> dict[str, Any] | None:
        """As `get`, but makes no file."""
        return self.get(key) if self._path.exists() else None

    def get(self, key: str) -> dict[str, Any] | None:
        """The entry, or None."""
        with self._lock:
            row = self._database().execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Add an entry; it is on disk when this returns. The first one for a key stays."""
        with self._lock:
            self._database().execute("INSERT OR IGNORE INTO answers VALUES (?, ?)", (key, json.dumps(answer)))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._opened:
                self._opened.close()

    def _database(self) -> sqlite3.Connection:
        if self._opened is None:
            try:
                self._opened = _open(self._path)
            except (OSError, sqlite3.Error) as error:
                raise InputError(f"{self._path} cannot be the cache of answers ({error}); pass another path") from None
        return self._opened


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode=WAL")  # readers do not wait for writers
        database.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
    except sqlite3.Error:
        database.close()
        raise
    return database
