"""What comes in: a text, or chat messages of which some parts may be touched."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from laconic.errors import InputError

Messages = Sequence[Mapping[str, Any]]
ROLES = ("user", "assistant", "tool", "function")
_TEXT_TYPES = ("text", "input_text", "output_text")


@dataclass(frozen=True)
class Part:
    """One text of a prompt. `path` leads to it inside the messages (empty for a plain text)."""

    text: str
    path: tuple[int | str, ...] = ()
    fixed: bool = False  # counted, never touched


@dataclass(frozen=True)
class Layout:
    """How documents become one text: in this order, what is empty left out."""

    order: tuple[int, ...]  # all parts of the prompt, by their index
    separator: str

    def joined(self, texts: Sequence[str]) -> str:
        """The texts (one a part) as one."""
        return self.separator.join(texts[k] for k in self.order if texts[k])


@dataclass(frozen=True)
class Prompt:
    """The texts of a prompt, in order."""

    parts: tuple[Part, ...]
    messages: Messages | None = None
    layout: Layout | None = None  # for documents

    def counted(self, texts: Sequence[str]) -> Sequence[str]:
        """What the target counts tokens of when these are the texts of the parts: each one, or what they are joined to.

        `texts`: of all parts; of messages perhaps only of some.
        """
        return texts if self.layout is None else [self.layout.joined(texts)]

    def with_texts(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """The messages with each part's text replaced; everything else deeply equal, the original unchanged."""
        result: list[dict[str, Any]] = _rebuilt(list(self.messages or ()))
        for part, text in zip(self.parts, texts, strict=True):
            if text != part.text:
                node: Any = result
                for step in part.path[:-1]:
                    node = node[step]
                node[part.path[-1]] = text
        return result


def _rebuilt(node: Any) -> Any:
    """A copy in which nothing is shared, also where the original uses one block twice."""
    if isinstance(node, Mapping):
        return {key: _rebuilt(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_rebuilt(value) for value in node]
    return copy.deepcopy(node)


def read(prompt: str | Messages, roles: Collection[str] = ROLES, newest: bool = False) -> Prompt:
    """The parts of a text or of chat messages (OpenAI's and Anthropic's forms).

    `roles`: whose texts may be shortened; system prompts are not among them by default. `newest`: may the newest user
    turn be shortened too? Tool calls, images and unknown blocks are never parts. Results of tools are, as role "tool".
    """
    if isinstance(roles, str):
        raise InputError(f"roles takes several names; write roles=[{roles!r}]")
    if isinstance(prompt, str):
        return Prompt((Part(prompt),))
    _check(prompt)
    found = [(k, role, path, text) for k, m in enumerate(prompt) for role, path, text in _texts(k, m)]
    users = [k for k, role, _, _ in found if role == "user"]
    last = users[-1] if users else -1
    parts = [
        Part(text, path, fixed=role not in roles or (role == "user" and k == last and not newest))
        for k, role, path, text in found
    ]
    return Prompt(tuple(parts), prompt)


def _check(prompt: Any) -> None:
    if not isinstance(prompt, Sequence) or isinstance(prompt, (bytes, bytearray)):
        raise InputError(f"a prompt is a str or a list of chat messages, got {type(prompt).__name__}")
    for k, message in enumerate(prompt):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            hint = "; for a list of texts use compress_many" if isinstance(message, str) else ""
            raise InputError(f"message {k} must be a mapping with a role, got {type(message).__name__}{hint}")


def _texts(k: int, message: Mapping[str, Any]) -> list[tuple[str, tuple[int | str, ...], str]]:
    """(role, path, text) of every text in a message."""
    return _content(str(message["role"]), (k, "content"), message.get("content"))


def _content(role: str, path: tuple[int | str, ...], content: Any) -> list[tuple[str, tuple[int | str, ...], str]]:
    if isinstance(content, str):
        return [(role, path, content)]
    if not isinstance(content, list):  # None beside tool calls
        return []
    found: list[tuple[str, tuple[int | str, ...], str]] = []
    for k, block in enumerate(content):
        if not isinstance(block, Mapping):
            continue
        if block.get("type") in _TEXT_TYPES and isinstance(block.get("text"), str):
            found.append((role, (*path, k, "text"), block["text"]))
        elif block.get("type") == "tool_result":  # Anthropic: a tool's answer inside a user message
            found += _content("tool", (*path, k, "content"), block.get("content"))
    return found
