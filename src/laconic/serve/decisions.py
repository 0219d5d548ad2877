"""What was decided, on disk: the first decision stays for ever, whoever made it.

Two tables. `texts`: a text under some settings and a question is compressed once; the key is the SHA-256 of all three.
`turns`: what was done with each part when the conversation up to the end of its turn was first sent (parts.py); a part
names its text's key. Both are written in one transaction, so that a turn never names a text that is not there.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from laconic.errors import InputError
from laconic.store import Database

SHORTEST = 12  # characters of an id: few enough to copy, too many to guess
_AT_ONCE = 500  # keys in one query
_HEX = set("0123456789abcdef")
_SCHEMA = """
PRAGMA synchronous = NORMAL;  -- a power cut may lose the last decisions, a killed process none; neither halves one
CREATE TABLE IF NOT EXISTS texts (
    key TEXT PRIMARY KEY, reason TEXT NOT NULL, tokens INTEGER NOT NULL,
    compressed BLOB, original BLOB,  -- UTF-8 with lone surrogates; NULL where the text was left alone
    created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS turns (key TEXT PRIMARY KEY, parts TEXT NOT NULL, created REAL NOT NULL);
"""


def store_file(folder: Path | str | None = None) -> Path:
    """The file of decisions in a folder; of whoever names none, in `default_folder()`."""
    return Path(folder or default_folder()) / "decisions.sqlite"


def default_folder() -> Path:
    """Where originals are kept, which cannot be made again: LACONIC_STORE, or `laconic` in the user's data."""
    if given := os.environ.get("LACONIC_STORE", "").strip():  # as `Config` reads it
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "laconic"


@dataclass(frozen=True)
class Verdict:
    """What became of a text."""

    key: str
    reason: str  # "compressed", or a key of `report.REASONS` that says why not
    tokens: int  # of what is sent
    compressed: str | None = None
    original: str | None = None  # None also where it was not asked for


@dataclass(frozen=True)
class Outcome:
    """What was decided for a part of a turn."""

    tokens: int  # before
    reason: str = ""  # why it was left alone; empty if the verdict on its text says what became of it
    text: str = ""  # key of that verdict


class Decisions:
    """Decisions in a SQLite file that only its owner may read, shared by threads and processes.

        with Decisions(Path("decisions.sqlite")) as decisions:
            original = decisions.restore("3f2a91c07d44")

    All raise InputError where the file cannot be used (no access, a full disk, damage). What is in it stays for ever:
    its size grows with what was compressed.
    """

    def __init__(self, path: Path, patience: float = 60) -> None:
        self._file = Database(path, _SCHEMA, "the store of decisions", private=True, patience=patience)

    def __enter__(self) -> Decisions:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def turns(self, keys: Collection[str]) -> dict[str, list[Outcome]]:
        """Of those turns that were sent: an outcome for each part."""
        rows = self._rows("SELECT key, parts FROM turns", keys)
        return {key: [Outcome(*values) for values in json.loads(parts)] for key, parts in rows}

    def verdicts(self, keys: Collection[str]) -> dict[str, Verdict]:
        """Of those texts that were decided, without their originals."""
        rows = self._rows("SELECT key, reason, tokens, compressed FROM texts", keys)
        return {key: Verdict(key, reason, tokens, _text(data)) for key, reason, tokens, data in rows}

    def settle(self, turns: Mapping[str, list[Outcome]], verdicts: Iterable[Verdict]) -> None:
        """Add what was decided; it is on disk when this returns. What is there already stays: read it again."""
        with self._file.transaction() as database:
            database.executemany("INSERT OR IGNORE INTO texts VALUES (?, ?, ?, ?, ?, ?)", map(_row, verdicts))
            rows = [(key, _packed(outcomes), time.time()) for key, outcomes in turns.items()]
            database.executemany("INSERT OR IGNORE INTO turns VALUES (?, ?, ?)", rows)

    def replace(self, turns: Mapping[str, list[Outcome]]) -> None:
        """Decide turns anew that nobody has accepted; they are on disk when this returns."""
        with self._file.transaction() as database:
            rows = [(_packed(outcomes), key) for key, outcomes in turns.items()]
            database.executemany("UPDATE turns SET parts = ? WHERE key = ?", rows)

    def restore(self, identity: str) -> str:
        """The original of a compressed part, by its id or the beginning of it; InputError if there is not just one."""
        if len(identity) < SHORTEST or not set(identity) <= _HEX:
            raise InputError(f"an id has {SHORTEST} to 64 characters of 0-9 and a-f, got {identity[:64]!a}")
        query = "SELECT original FROM texts WHERE key >= ? AND key < ? AND original IS NOT NULL LIMIT 2"
        found = self._file.read(query, identity, identity + "g")
        if len(found) != 1:
            number = "several parts begin" if found else "no compressed part begins"
            raise InputError(f"{number} with {identity}; pass the id that the report names")
        original = _text(found[0][0])
        assert original is not None
        return original

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _rows(self, query: str, keys: Collection[str]) -> Iterator[Any]:
        listed = list(keys)
        for start in range(0, len(listed), _AT_ONCE):
            some = listed[start : start + _AT_ONCE]
            yield from self._file.read(f"{query} WHERE key IN ({', '.join('?' * len(some))})", *some)


def text_key(settings: object, question: str | None, text: str) -> str:
    """The key of a text: SHA-256, in hex, of the settings (JSON) it is compressed with, the question, and itself.

    >>> text_key([0.5], None, "text") == text_key([0.4], None, "text")
    False
    """
    return sha256(json.dumps([settings, question, text]).encode()).hexdigest()


def _row(verdict: Verdict) -> tuple[object, ...]:
    data = [
        None if text is None else text.encode(errors="surrogatepass") for text in (verdict.compressed, verdict.original)
    ]
    return (verdict.key, verdict.reason, verdict.tokens, *data, time.time())


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode(errors="surrogatepass")


def _packed(outcomes: Iterable[Outcome]) -> str:
    return json.dumps([[o.tokens, o.reason, o.text] for o in outcomes], separators=(",", ":"))
