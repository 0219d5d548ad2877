"""Read texts, to distill from or to model: JSON lines, Parquet, text files, folders of text files."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from laconic.errors import InputError, MissingExtraError

_TEXTS = (".txt", ".md")
_LINES = (".jsonl", ".ndjson", ".jsonl.gz")

Broken = Callable[[str], None]  # told of each record that cannot be used, in one line


@dataclass(frozen=True)
class Fields:
    """Where a record keeps what. Only the text is required; the others are used where they are."""

    text: str = "text"
    id: str = "id"
    question: str = "question"
    answer: str = "answer"


@dataclass(frozen=True)
class Document:
    """One text; `source` names the file it came from, relative to the input."""

    id: str
    text: str
    source: str
    question: str = ""
    answer: str = ""


def read(path: Path, fields: Fields | None = None, broken: Broken | None = None) -> Iterator[Document]:
    """The documents of a .jsonl(.gz), .parquet, .txt or .md file, or of a folder of .txt and .md, in a fixed order.

    A record that is broken raises InputError with its number; with `broken` it is reported there and skipped.
    """
    for parse in _records(path, fields or Fields()):
        try:
            yield parse()
        except InputError as error:
            if broken is None:
                raise InputError(f"{error}; mend it, or skip such records with --broken skip") from None
            broken(str(error))


def _records(path: Path, fields: Fields) -> Iterator[Callable[[], Document]]:
    """The records of the input, not yet parsed: a broken one must not end the reading."""
    if path.is_dir():
        return _folder(path)
    suffix = path.suffix.lower()
    if path.is_file() and path.name.lower().endswith(_LINES):
        return _lines(path, fields)
    if path.is_file() and suffix == ".parquet":
        return _rows(path, fields)
    if path.is_file() and suffix in _TEXTS:
        return iter([partial(_file, path, path.name)])
    problem = f"unknown kind {suffix!r}" if path.is_file() else "no such file or folder"
    raise InputError(f"{path}: {problem}; pass .jsonl, .jsonl.gz, .parquet, .txt, .md or a folder of .txt and .md")


def _lines(path: Path, fields: Fields) -> Iterator[Callable[[], Document]]:
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield partial(_line, line, path, number, fields)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{path} is not a whole gzip file: {error}") from None


def _rows(path: Path, fields: Fields) -> Iterator[Callable[[], Document]]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtraError("reading Parquet", "distill") from None
    try:
        with parquet.ParquetFile(path) as file:
            batches = file.iter_batches(batch_size=256)
            rows = (row for batch in batches for row in batch.to_pylist())
            for number, row in enumerate(rows, 1):
                yield partial(_document, row, path, f"row {number}", number, fields)
    except arrow.ArrowException as error:
        raise InputError(f"{path} is not a whole Parquet file: {error}") from None


def _folder(path: Path) -> Iterator[Callable[[], Document]]:
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in _TEXTS and f.is_file())
    if not files:
        raise InputError(f"no .txt or .md file in {path}")
    for file in files:
        yield partial(_file, file, file.relative_to(path).as_posix())


def _file(path: Path, name: str) -> Document:
    return Document(id=name, text=_decoded(path.read_bytes(), str(path)), source=name)


def _line(line: bytes, path: Path, number: int, fields: Fields) -> Document:
    where = f"line {number}"
    try:
        record = json.loads(_decoded(line, f"{path}, {where}"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}, {where} is not JSON ({error})") from None
    if not isinstance(record, dict):
        raise InputError(f"{path}, {where} is no JSON object but a {type(record).__name__}")
    return _document(record, path, where, number, fields)


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8 (byte {error.start})") from None


def _document(record: Mapping[str, Any], path: Path, where: str, number: int, fields: Fields) -> Document:
    text, name = record.get(fields.text), record.get(fields.id)
    if not isinstance(text, str):
        found = ", ".join(map(str, record)) or "none at all"
        raise InputError(f"{path}, {where} has no text in {fields.text!r} (its fields: {found}); see --text-field")
    return Document(
        id=f"{path.stem}-{number}" if name is None else str(name),
        text=text,
        source=path.name,
        question=_string(record.get(fields.question)),
        answer=_string(record.get(fields.answer)),
    )


def _string(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
