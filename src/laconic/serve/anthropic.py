"""Requests of Anthropic's `/v1/messages`: which texts there are, whose they are, what they are.

Results of tools (a string or blocks), documents (as text or as blocks), search results, and the user's texts. The
system prompt, tool definitions, the assistant's turns with calls and thinking, images, files and all that is unknown
have no parts. Documents that are to be cited keep their text, since the answer's citations count its characters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from laconic.serve.parts import INPUT_ROLES, Message, Part, Path, Request, blocks, called, learn, texts


def messages(request: Mapping[str, Any]) -> Request | None:
    """A request of `/v1/messages`; None if it is none."""
    entries = request.get("messages")
    if not isinstance(entries, list):
        return None
    tools: dict[str, str] = {}
    return Request(tuple(_message(("messages", k), entry, tools) for k, entry in enumerate(entries)), ("messages",))


def _message(path: Path, entry: Any, tools: dict[str, str]) -> Message:
    """`tools` has the names of calls by their ids, and learns those of this message."""
    if not isinstance(entry, dict):
        return Message(entry, True)
    role = entry.get("role")
    for _, block in blocks(entry.get("content")):
        if block.get("type") == "tool_use":
            learn(tools, block.get("id"), block.get("name"))
    parts = _user(entry.get("content"), (*path, "content"), tools) if role == "user" else ()
    return Message(entry, role not in INPUT_ROLES, tuple(parts))


def _user(content: Any, path: Path, tools: Mapping[str, str]) -> Iterator[Part]:
    """The parts of a user message in order."""
    if isinstance(content, str):
        yield Part(path, "user", "user", content)
    for k, block in blocks(content):
        at = (*path, k)
        if block.get("type") == "tool_result":
            yield from _result(block, at, tools)
        elif block.get("type") == "text":
            if isinstance(block.get("text"), str):
                yield Part((*at, "text"), "user", "user", block["text"])
        else:
            yield from _document(block, at, "user")


def _result(block: Mapping[str, Any], path: Path, tools: Mapping[str, str]) -> Iterator[Part]:
    fixed, tool = "error" if block.get("is_error") else "", called(tools, block.get("tool_use_id"))
    content, path = block.get("content"), (*path, "content")
    if isinstance(content, str):
        yield Part(path, "tool", "tool", content, fixed, tool)
    for k, inner in blocks(content):
        if inner.get("type") == "text" and isinstance(inner.get("text"), str):
            yield Part((*path, k, "text"), "tool", "tool", inner["text"], fixed, tool)
        else:
            yield from _document(inner, (*path, k), "tool", fixed, tool)


def _document(block: Mapping[str, Any], path: Path, role: str, fixed: str = "", tool: str = "") -> Iterator[Part]:
    """The texts of a `document` or `search_result`; nothing of any other block."""
    found: list[tuple[Path, str]] = []
    source = block.get("source")
    if block.get("type") == "search_result":
        found = list(texts(block.get("content"), (*path, "content"), ("text",)))
    elif block.get("type") == "document" and isinstance(source, dict):
        if source.get("type") == "text" and isinstance(source.get("data"), str):
            found = [((*path, "source", "data"), source["data"])]
        elif source.get("type") == "content":
            found = list(texts(source.get("content"), (*path, "source", "content"), ("text",)))
    if _cited(block):
        fixed = "citations"
    yield from (Part(at, role, "document", text, fixed, tool) for at, text in found)


def _cited(block: Mapping[str, Any]) -> bool:
    citations = block.get("citations")
    return isinstance(citations, dict) and bool(citations.get("enabled"))
