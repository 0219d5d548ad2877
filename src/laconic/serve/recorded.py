"""Recorded requests, read from files: one body a line, or a body in an object that says more about it.

    {"model": "m", "messages": [...]}
    {"body": {...}, "path": "/v1/messages", "session": "s1"}

With `expand` a record holds a whole conversation, in `messages` or `input`, or in `traj` or `history` as the recordings
of tau-bench and SWE-agent have it; it becomes one request for each time the model was called.
"""

from __future__ import annotations

import gzip
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laconic.errors import InputError
from laconic.serve.parts import blocks
from laconic.serve.rewrite import READERS, protocol_of

_KINDS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
_ANTHROPIC = {"tool_use", "tool_result", "document", "search_result", "thinking", "redacted_thinking"}  # blocks
_OPENAI = ("system", "developer", "tool", "function")  # roles


@dataclass(frozen=True)
class Recorded:
    """A request as a client would send it."""

    body: Mapping[str, Any]
    protocol: str  # a key of `READERS`
    session: str  # requests of one may find in the provider's cache what others of it sent


def recorded(path: Path, protocol: str = "", expand: bool = False, limit: int | None = None) -> Iterator[Recorded]:
    """The requests of a file, or of all files in a folder, in order; `limit`: so many records of each file.

    A record that is none raises InputError with its place.
    """
    for file in _files(path):
        for place, record in itertools.islice(_records(file), limit):
            try:
                yield from _requests(record, place if expand else str(file), protocol, expand)
            except InputError as error:
                raise InputError(f"{place}: {error}") from None


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.is_file() and file.name.endswith(_KINDS))
    if not found:
        raise InputError(f"{path} has no file that ends in {', '.join(_KINDS)}; pass a folder of recorded requests")
    return found


def _records(file: Path) -> Iterator[tuple[str, Any]]:
    """(place, value) of each record of a file."""
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8-sig") as lines:
            if ".json" not in file.suffixes:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield f"{file}, line {number}", _parsed(line, f"{file}, line {number}")
                return
            value = _parsed(lines.read(), str(file))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}; pass JSON lines in UTF-8, or a folder of them") from None
    for number, record in enumerate(value if isinstance(value, list) else [value], 1):
        yield f"{file}, record {number}", record


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is not JSON ({error}); write one request a line, or end the name in .json") from None


def _requests(record: Any, session: str, protocol: str, expand: bool) -> Iterable[Recorded]:
    body, said = _body(record)
    session = str(said.get("session", session))
    if expand:
        body = _conversation(body)
    elif not any(isinstance(body.get(key), (list, str)) for key in ("messages", "input")):
        raise InputError("there is no request: neither messages nor input; recorded conversations need --expand")
    kind = protocol or _told(said) or _shape(body)
    bodies = _expanded(body) if expand else [body]
    return (Recorded(one, kind, session) for one in bodies)


def _body(record: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the request, what is said about it)."""
    body, said = (record["body"], record) if isinstance(record, dict) and "body" in record else (record, {})
    if isinstance(body, str):
        body = _parsed(body, "the body")
    if not isinstance(body, dict):
        raise InputError('a record must be an object, a request or {"body": …}; remove what is none')
    return body, said


def _conversation(record: dict[str, Any]) -> dict[str, Any]:
    """A request with all that was said."""
    if isinstance(record.get("input"), list):
        return record
    inner = record.get("traj")
    places = (record.get("messages"), inner, inner.get("history") if isinstance(inner, dict) else None)
    found = next((place for place in (*places, record.get("history")) if isinstance(place, list)), None)
    if found is None:
        if "traj" in record and inner is None:  # nothing was recorded
            return {"messages": []}
        raise InputError("there is no conversation: no list in messages, input, traj or history; leave --expand out")
    return {**record, "messages": found} if "messages" in record else {"messages": found}


def _expanded(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What was sent for each answer."""
    key = "input" if isinstance(body.get("input"), list) else "messages"
    entries = body[key]
    for k in range(1, len(entries)):
        if _model(entries[k]) and not (key == "input" and _model(entries[k - 1])):  # one answer may be many items
            yield {**body, key: entries[:k]}


def _model(entry: Any) -> bool:
    """Is it the model's?"""
    if not isinstance(entry, dict):
        return False
    kind = str(entry.get("type", "message"))
    return entry.get("role") == "assistant" if kind == "message" else not kind.endswith("_output")


def _told(said: dict[str, Any]) -> str:
    """The protocol of a record that says it, or has a path; empty if it does not."""
    if "protocol" in said:
        if str(said["protocol"]) not in READERS:
            raise InputError(f"protocol must be one of {', '.join(READERS)}, got {said['protocol']!r}")
        return str(said["protocol"])
    return protocol_of(str(said.get("path", "")).split("?")[0])


def _shape(body: Mapping[str, Any]) -> str:
    """The protocol that a request looks like."""
    if "input" in body:
        return "responses"
    entries = [entry for _, entry in blocks(body["messages"])]
    if any(entry.get("role") in _OPENAI or "tool_calls" in entry for entry in entries):
        return "chat"
    kinds = [block.get("type") for entry in entries for _, block in blocks(entry.get("content"))]
    schemas = any("input_schema" in tool for _, tool in blocks(body.get("tools")))
    anthropic = "system" in body or schemas or any(str(kind) in _ANTHROPIC for kind in kinds)
    return "messages" if anthropic or (kinds and "max_tokens" in body) else "chat"
