"""Shared by the tests of the proxy: a compressor that never says the same twice, requests of all protocols."""

from __future__ import annotations

import itertools
import json
import threading
from types import SimpleNamespace

from laconic.budget import counter

WORDS = counter("words")
PROTOCOLS = ("chat", "responses", "messages")
ROUTES = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
POISON = "poison"
_numbers = itertools.count()  # of all of them together: what is sent twice can only come from the store
_lock = threading.Lock()


class Fickle:
    """The first third of the words, with a number that no other call gives; fails on the word "poison"."""

    counter, structure = WORDS, True

    def __init__(self, meanwhile=bool, reads_question=True):
        self.meanwhile = meanwhile  # is called while it works
        self.scorer = SimpleNamespace(name="fickle", model="", reads_question=reads_question)
        self.calls = []

    def compress(self, text, *, progress=None, **options):
        self.calls.append((text, options))
        self.meanwhile()
        if POISON in text:
            raise RuntimeError("a bug")
        with _lock:
            number = next(_numbers)
        words = text.split()
        short = " ".join([f"#{number}", *words[: len(words) // 3]])
        return SimpleNamespace(text=short, tokens_after=WORDS(short))


def long(name, words=60):
    """A text that is worth compressing."""
    return " ".join(f"{name}{k}" for k in range(words))


def user(protocol, text):
    if protocol == "responses":
        return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    return {"role": "user", "content": text}


def tool(protocol, text, call="c1"):
    """The result of a tool."""
    if protocol == "chat":
        return {"role": "tool", "tool_call_id": call, "content": text}
    if protocol == "responses":
        return {"type": "function_call_output", "call_id": call, "output": text}
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call, "content": text}]}


def calls(protocol, name="look", call="c1"):
    """The model calls a tool."""
    if protocol == "chat":
        function = {"name": name, "arguments": json.dumps({"q": long("argument")})}
        return {"role": "assistant", "content": None, "tool_calls": [{"id": call, "function": function}]}
    if protocol == "responses":
        return {"type": "function_call", "call_id": call, "name": name, "arguments": '{"q": "x"}'}
    return {"role": "assistant", "content": [{"type": "tool_use", "id": call, "name": name, "input": {"q": "x"}}]}


def says(protocol, text):
    """The model answers."""
    if protocol == "responses":
        return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    return {"role": "assistant", "content": text}


def entry_key(protocol):
    return "input" if protocol == "responses" else "messages"


def body(protocol, messages, **more):
    return json.dumps({"model": "m", entry_key(protocol): messages, **more}).encode()


def entries(protocol, sent):
    """The messages of a body."""
    return json.loads(sent)[entry_key(protocol)]
