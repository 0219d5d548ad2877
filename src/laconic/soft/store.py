"""Memories on disk by what they are of: a context is encoded once and asked many times."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from laconic.errors import InputError
from laconic.store import Database
from laconic.text import readable

SHORT = 12  # characters of a key that tell memories apart
_NAME = "memories.sqlite"
_LARGEST = 1_000_000_000  # bytes that SQLite takes as one value
_SCHEMA = """
CREATE TABLE IF NOT EXISTS memories (
    key TEXT PRIMARY KEY, label TEXT NOT NULL, tokens INTEGER NOT NULL, slots INTEGER NOT NULL,
    bytes INTEGER NOT NULL, created INTEGER NOT NULL, used INTEGER NOT NULL, sha256 TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS contents (key TEXT PRIMARY KEY, data BLOB NOT NULL);  -- apart: `used` changes at every get
"""
_ENTRY = "key, label, tokens, slots, bytes, created / 1e9, used / 1e9"


@dataclass(frozen=True)
class Entry:
    """What a store knows of a memory without reading it."""

    key: str
    label: str  # whatever the caller calls it, such as a file name
    tokens: int  # of the text that it stands for
    slots: int
    size: int  # bytes
    created: float  # seconds since 1970, as `used`
    used: float  # when it was last put or got

    @property
    def short(self) -> str:
        """The beginning of the key, for people."""
        return self.key[:SHORT]


class MemoryStore:
    """Serialised memories in FOLDER/memories.sqlite, at most `max_bytes` of them: the least recently used ones go.

        with MemoryStore(Path("memories"), max_bytes=1 << 30) as store:
            key = memory_key(fingerprint, slots, text)
            if (data := store.get(key)) is None:
                store.put(key, data := encode(text), label="report.md", tokens=1234, slots=16)

    Threads and processes may share it, and a kill loses or halves no memory. All raise InputError where the folder
    cannot be used (no access, a full disk, a damaged file); what was in it before stays.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        if max_bytes < 1:
            raise InputError(f"max_bytes must be 1 or more, got {max_bytes}")
        self.max_bytes = max_bytes
        self._file = Database(folder / _NAME, _SCHEMA, "the store of memories")

    @property
    def path(self) -> Path:
        """The file; the first use makes it."""
        return self._file.path

    def __enter__(self) -> MemoryStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def get(self, key: str) -> bytes | None:
        """The memory, or None; one that is not what was put (its SHA-256 tells) is removed, and None."""
        data = self._whole(key)
        if data is not None:
            with suppress(InputError), self._file.transaction() as database:  # a store on a full disk can be read
                database.execute("UPDATE memories SET used = ? WHERE key = ?", (_now(database), key))
        return data

    def put(self, key: str, data: bytes, *, label: str, tokens: int, slots: int) -> None:
        """Add or replace a memory; it is on disk when this returns, and the least recently used ones made room."""
        limit = min(self.max_bytes, _LARGEST)
        if len(data) > limit:
            raise InputError(f"a memory of {len(data)} bytes is too large for this store; the limit is {limit}")
        with self._file.transaction() as database:
            _delete(database, [key])
            _delete(database, _least_recent(database, self.max_bytes - len(data)))
            now = _now(database)
            row = (key, readable(label), tokens, slots, len(data), now, now, sha256(data).hexdigest())
            database.execute("INSERT INTO memories VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            database.execute("INSERT INTO contents VALUES (?, ?)", (key, data))

    def entries(self) -> list[Entry]:
        """All memories, the most recently used first."""
        return [Entry(*row) for row in self._file.read(f"SELECT {_ENTRY} FROM memories ORDER BY used DESC")]

    def find(self, beginning: str) -> Entry:
        """The memory whose key begins so; InputError if there is none, or more than one."""
        query = f"SELECT {_ENTRY} FROM memories WHERE substr(key, 1, ?) = ? ORDER BY key"
        found = [Entry(*row) for row in self._file.read(query, max(1, len(beginning)), beginning)]
        if not found:
            raise InputError(f"no memory {beginning!r} in {self.path}; `laconic soft inspect` lists those there are")
        if len(found) > 1:
            raise InputError(
                f"{len(found)} memories begin with {beginning!r}: {found[0].short}, {found[1].short}, …; pass more"
            )
        return found[0]

    def remove_damaged(self) -> list[Entry]:
        """Read everything; the memories that were not what was put, which are removed now."""
        return [entry for entry in self.entries() if self._whole(entry.key) is None]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _whole(self, key: str) -> bytes | None:
        query = "SELECT sha256, data FROM memories LEFT JOIN contents USING (key) WHERE key = ?"
        for digest, data in self._file.read(query, key):
            if isinstance(data, bytes) and sha256(data).hexdigest() == digest:
                return data
            with self._file.transaction() as database:
                _delete(database, [key])
        return None


def memory_key(fingerprint: str, slots: int, content: str | Sequence[int]) -> str:
    """The key of a memory: SHA-256, in hex, of the encoder's fingerprint, the slots and the text or its token ids.

    >>> memory_key("sha256:ab", 16, "text")[:8] == memory_key("sha256:ab", 4, "text")[:8]
    False
    """
    whole = [fingerprint, slots, content if isinstance(content, str) else [int(token) for token in content]]
    return sha256(json.dumps(whole).encode()).hexdigest()


def _now(database: sqlite3.Connection) -> int:
    """Nanoseconds since 1970, later than any use before, even where a clock is coarse or was set back."""
    last = database.execute("SELECT coalesce(max(used), 0) FROM memories").fetchone()[0]
    return max(time.time_ns(), int(last) + 1)


def _least_recent(database: sqlite3.Connection, room: int) -> list[str]:
    """What has to go for the rest to fit in so many bytes."""
    held = "SELECT key, sum(bytes) OVER (ORDER BY used DESC) AS held FROM memories"
    return [key for (key,) in database.execute(f"SELECT key FROM ({held}) WHERE held > ?", (room,))]


def _delete(database: sqlite3.Connection, keys: Iterable[str]) -> None:
    for table in ("memories", "contents"):
        database.executemany(f"DELETE FROM {table} WHERE key = ?", [(key,) for key in keys])
