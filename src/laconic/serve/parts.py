"""What a request is made of: messages, the texts in them that may be compressed, and the turns that were sent together.

A turn is a run of messages that are not the model's. What stands before the model's words has been sent, because the
model answered it; only the last turn can be new. Keys chain: the key after a message stands for it and for all that was
said to the model before. Left out is what clients change from one request to the next without saying anything else:
where `cache_control` stands, a text alone or as a list of one block, how they give the model its own words back (they
count as "the model spoke"), and the system prompt, which may hold the time of day.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from typing import Any

Path = tuple[str | int, ...]
KINDS = ("tool", "document", "user")
SYSTEM_ROLES = ("system", "developer")
INPUT_ROLES = ("user", "tool", "function")  # all others but the system's count as the model's
_READERS = "laconic turns 1"  # to be raised when a reader finds other parts than before: rows of turns list them


@dataclass(frozen=True)
class Part:
    """One text of a request that some rules may allow to change."""

    path: Path  # keys and indices from the top of the request to the string
    role: str  # "user", or "tool" for what a tool answered
    kind: str  # one of KINDS
    text: str
    fixed: str = ""  # why no rules may change it, a key of `report.REASONS`
    tool: str = ""  # whose result it is, where the request says


@dataclass(frozen=True)
class Message:
    """One entry of `messages` or `input`."""

    value: Any  # as parsed
    model: bool  # the model's own words, calls or thoughts
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Request:
    """What a protocol's reader finds, system prompts left out.

    scope: what else tells conversations apart, such as the id of the response before.
    """

    messages: tuple[Message, ...]
    scope: tuple[str, ...]


@dataclass(frozen=True)
class Turn:
    """A run of messages that are not the model's."""

    messages: tuple[Message, ...]
    keys: tuple[str, ...]  # one a message, in hex
    answered: bool  # the model's words follow, and more after them

    @property
    def key(self) -> str:
        """It stands for the conversation up to the end of this turn."""
        return self.keys[-1]

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(part for message in self.messages for part in message.parts)


def turns(request: Request) -> list[Turn]:
    """The turns of a request that hold a text, in order.

    The model's words at the very end are the beginning of an answer that it is to continue: they answer nothing yet.
    """
    keyed = zip(request.messages, _chain(request), strict=True)
    runs = [list(run) for model, run in groupby(keyed, key=lambda pair: pair[0].model) if not model]
    found = [Turn(tuple(m for m, _ in run), tuple(key for _, key in run), run is not runs[-1]) for run in runs]
    return [turn for turn in found if turn.parts]


def newest_user(request: Request) -> Message | None:
    """The last message in which the user says something."""
    return next((m for m in reversed(request.messages) if any(p.kind == "user" for p in m.parts)), None)


def texts(content: Any, path: Path, types: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """(path, text) of a content: a string, or a list of blocks of which those of `types` have a `text`."""
    if isinstance(content, str):
        yield path, content
    for k, block in blocks(content):
        if block.get("type") in types and isinstance(block.get("text"), str):
            yield (*path, k, "text"), block["text"]


def blocks(content: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(index, block) of the objects in a list; nothing of anything else."""
    for k, block in enumerate(content if isinstance(content, list) else ()):
        if isinstance(block, dict):
            yield k, block


def learn(tools: dict[str, str], identity: Any, name: Any) -> None:
    """Note the tool of a call. An id that is used again means the new call from here on, and the old one before."""
    if isinstance(identity, str):
        tools[identity] = name if isinstance(name, str) else ""


def called(tools: Mapping[str, str], identity: Any) -> str:
    """The tool of the call with this id; empty if there was none."""
    return tools.get(identity, "") if isinstance(identity, str) else ""


def _chain(request: Request) -> Iterator[str]:
    """A key for each message."""
    key, spoke = _hash([_READERS, *request.scope]), False
    for message in request.messages:
        if not message.model:
            key = _hash([key, spoke, _same(message.value), [part.tool for part in message.parts]])
        spoke = message.model
        yield key


def _hash(value: Any) -> str:
    return sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()  # ASCII: lone surrogates pass, too


def _same(value: Any) -> Any:
    """The value without what clients change between requests although the model reads the same."""
    if isinstance(value, list):
        return [_same(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: _same(item) for key, item in value.items() if key != "cache_control"}
    if isinstance(kept.get("content"), str):
        kept["content"] = [{"type": "text", "text": kept["content"]}]
    return kept
