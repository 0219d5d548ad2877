"""The last requests and the sum of all: counts on disk, shared by workers, kept over restarts; never contents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from laconic.errors import InputError
from laconic.store import Database

KEPT = 500  # requests
_SUMS = ("requests", "tokens_before", "tokens_after")
_SCHEMA = f"""
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS requests (number INTEGER PRIMARY KEY AUTOINCREMENT, entry TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT OR IGNORE INTO totals VALUES {", ".join(f"('{name}', 0)" for name in _SUMS)};
"""


class Ledger:
    """Entries wait in memory for the next `flush`, so that no request waits for the disk.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ledger = Ledger(Path(folder, "ledger.sqlite"))
    ...     ledger.add({"tokens_before": 900, "tokens_after": 500})
    ...     ledger.read()["totals"]
    ...     ledger.close()
    {'requests': 1, 'tokens_before': 900, 'tokens_after': 500}
    """

    def __init__(self, path: Path) -> None:
        self._file = Database(path, _SCHEMA, "the ledger", private=True, patience=1)
        self._waiting: list[Mapping[str, Any]] = []

    def add(self, entry: Mapping[str, Any]) -> None:
        """Note a request."""
        self._waiting.append(entry)

    def flush(self) -> None:
        """Write what waits; what the disk refuses is lost, since nothing but a display needs it."""
        entries, self._waiting = self._waiting, []
        if not entries:
            return
        sums = [(sum(int(e.get(name, 1)) for e in entries), name) for name in _SUMS]
        try:
            with self._file.transaction() as database:
                rows = [(json.dumps(entry),) for entry in entries[-KEPT:]]
                database.executemany("INSERT INTO requests (entry) VALUES (?)", rows)
                oldest = "(SELECT max(number) FROM requests) - ?"
                database.execute(f"DELETE FROM requests WHERE number <= {oldest}", (KEPT,))
                database.executemany("UPDATE totals SET value = value + ? WHERE name = ?", sums)
        except InputError:
            pass

    def read(self) -> dict[str, Any]:
        """`requests`, newest first, and `totals`; InputError where the file cannot be used."""
        self.flush()
        rows = self._file.read("SELECT entry FROM requests ORDER BY number DESC")
        totals = dict(self._file.read("SELECT name, value FROM totals"))
        return {"requests": [json.loads(entry) for (entry,) in rows], "totals": {name: totals[name] for name in _SUMS}}

    def close(self) -> None:
        """Write what waits and close the file."""
        self.flush()
        self._file.close()
