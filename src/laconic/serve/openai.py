"""Requests of OpenAI's protocols: which texts there are, whose they are, what they are.

`/v1/chat/completions`: results of tools and the user's texts, as strings or `text` blocks. `/v1/responses`: `input` as
a string or as items; results of functions and custom tools, the user's texts, as strings or `input_text` blocks. System
and developer messages, `instructions`, the assistant's, calls, reasoning, files, images and all that is unknown have no
parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from laconic.serve.parts import INPUT_ROLES, SYSTEM_ROLES, Message, Part, Path, Request, blocks, called, learn, texts

_CALLS = ("function_call", "custom_tool_call")
_RESULTS = ("function_call_output", "custom_tool_call_output")
_TEXTS = ("text", "input_text")
_SCOPE = ("previous_response_id", "conversation")  # what came before, where the upstream keeps it


def chat(request: Mapping[str, Any]) -> Request | None:
    """A request of `/v1/chat/completions`; None if it is none."""
    entries = request.get("messages")
    if not isinstance(entries, list):
        return None
    tools: dict[str, str] = {}
    found = [_chat_message(("messages", k), entry, tools) for k, entry in enumerate(entries) if not _system(entry)]
    return Request(tuple(found), ("chat",))


def responses(request: Mapping[str, Any]) -> Request | None:
    """A request of `/v1/responses`; None if it is none."""
    given = request.get("input")
    scope = ("responses", *(str(request.get(key) or "") for key in _SCOPE))
    if isinstance(given, str):
        return Request((Message(given, False, (Part(("input",), "user", "user", given),)),), scope)
    if not isinstance(given, list):
        return None
    tools: dict[str, str] = {}
    found = [_item(("input", k), item, tools) for k, item in enumerate(given) if not _system(item)]
    return Request(tuple(found), scope)


def _chat_message(path: Path, entry: Any, tools: dict[str, str]) -> Message:
    """`tools` has the names of calls by their ids, and learns those of this message."""
    if not isinstance(entry, dict):
        return Message(entry, True)
    role, tool = entry.get("role"), ""
    for _, call in blocks(entry.get("tool_calls")):
        form = call.get("function") or call.get("custom")
        learn(tools, call.get("id"), form.get("name") if isinstance(form, dict) else None)
    if role in ("tool", "function"):
        tool = called(tools, entry.get("tool_call_id")) or str(entry.get("name") or "")
    return Message(entry, role not in INPUT_ROLES, _parts(role, entry.get("content"), (*path, "content"), tool))


def _item(path: Path, item: Any, tools: dict[str, str]) -> Message:
    """As `_chat_message`."""
    if not isinstance(item, dict):
        return Message(item, True)
    kind, role = item.get("type", "message"), item.get("role")
    if kind in _CALLS:
        learn(tools, item.get("call_id"), item.get("name"))
    if kind in _RESULTS:
        tool = called(tools, item.get("call_id"))
        return Message(item, False, _parts("tool", item.get("output"), (*path, "output"), tool))
    if kind == "message" and role in INPUT_ROLES:
        return Message(item, False, _parts(role, item.get("content"), (*path, "content")))
    return Message(item, not str(kind).endswith("_output"))


def _system(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("role") in SYSTEM_ROLES


def _parts(role: Any, content: Any, path: Path, tool: str = "") -> tuple[Part, ...]:
    if role not in INPUT_ROLES:
        return ()
    kind = "user" if role == "user" else "tool"
    return tuple(Part(at, kind, kind, text, tool=tool) for at, text in texts(content, path, _TEXTS))
