"""Examples, and the reading of files: JSON, JSONL, gzipped or not, from the disk or the Hugging Face hub."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from laconic.errors import InputError, MissingExtraError

Record = dict[str, Any]


@dataclass(frozen=True)
class Example:
    """One case of a task: a context to compress, and by what the result is judged."""

    id: str  # unique in its task
    context: str
    question: str | None = None
    answers: tuple[str, ...] = ()  # any of them is right
    evidence: tuple[str, ...] = ()  # verbatim pieces of the context that the answer rests on
    group: str = ""  # examples on one context have one group: they are not independent
    meta: Record = field(default_factory=dict)  # what only the task's own measures read


def located(path: str) -> Path:
    """A path as it is; `hf:org/name/file` is fetched from the data set org/name of the hub."""
    if not path.startswith("hf:"):
        if not Path(path).exists():
            raise InputError(f"no file or folder {path}; pass a path, or hf:org/name/file for one on the hub")
        return Path(path)
    parts = path[3:].split("/", 2)
    if len(parts) != 3:
        raise InputError(f"{path} is not of the form hf:org/name/file")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise MissingExtraError(f"fetching {path}", "torch") from None
    try:
        return Path(hf_hub_download("/".join(parts[:2]), parts[2], repo_type="dataset"))
    except Exception as error:  # the network's, the hub's and the disk's errors alike
        raise InputError(f"{path} cannot be fetched ({error}); check the name, or pass a file on this disk") from None


def text_of(path: Path) -> str:
    """A UTF-8 file, unpacked if its name ends in .gz."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return data.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}; pass a UTF-8 text file, plain or gzipped") from None


def parsed(path: Path) -> Any:
    """A JSON document."""
    try:
        return json.loads(text_of(path))
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}; fetch it again") from None


def each(path: Path, make: Callable[[Record], Iterable[Example]]) -> Iterator[Example]:
    """What `make` makes of every record of a file: JSON lines, or one JSON list or object of records.

    Raises InputError with the place of the first record that is broken or lacks a field.
    """
    for place, record in _records(path):
        try:
            examples = list(make(record))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else f"is malformed: {error}"
            raise InputError(f"{place} {what}; correct or remove it") from None
        yield from examples


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, record): the place is a line number, or a position in the list."""
    if ".jsonl" not in path.name:
        document = parsed(path)
        values = document.values() if isinstance(document, dict) else document
        yield from ((f"{path}: record {k}", value) for k, value in enumerate(values, 1))
        return
    for number, line in enumerate(text_of(path).split("\n"), 1):  # not splitlines: U+2028 may be in a string
        if not line.strip():
            continue
        try:
            yield f"{path}:{number}", json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}:{number} is not JSON: {error}; correct or remove it") from None


def sample(examples: Iterable[Example], limit: int | None, seed: int = 0) -> list[Example]:
    """At most `limit` examples at random, in their order; refuses ids that occur twice."""
    if limit is not None and limit < 1:
        raise InputError(f"limit must be 1 or more, got {limit}")
    everything = list(examples)
    if len({e.id for e in everything}) < len(everything):
        raise InputError("two examples have the same id; give every record its own")
    if not everything:
        raise InputError("there is no example in the data; check that the file is of the task's format")
    if limit is None or limit >= len(everything):
        return everything
    chosen = random.Random(seed).sample(range(len(everything)), limit)
    return [everything[k] for k in sorted(chosen)]


def joined(docs: Sequence[tuple[str, str]]) -> str:
    """Documents as one context: title, line break, text, empty line."""
    return "".join(f"{title}\n{text}\n\n" for title, text in docs)
