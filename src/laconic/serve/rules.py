"""Which parts of a request are compressed, and how much: from a TOML file, the environment, and request headers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from laconic.budget import Budget
from laconic.errors import InputError
from laconic.serve.parts import KINDS
from laconic.serve.reading import VARIABLE, is_whole, number, require, short, switch, table, whole

HEADER = "x-laconic-"
_OWN_TOOLS = "laconic_*"  # what a model asked `laconic_restore` for arrives whole
HEADERS = ("bypass", "rate", "tokens", "question")  # what a request may say
_COMPRESSIBLE = (*KINDS, "newest")


@dataclass(frozen=True)
class Rules:
    """What may be compressed. All raise InputError for a wrong value.

    >>> rules, notes = Rules().for_request({"x-laconic-rate": "0.3", "x-laconic-tokens": "many"})
    >>> rules.rate, notes
    (0.3, ("'x-laconic-tokens' was ignored: tokens must be a whole number, got 'many'",))
    """

    parts: tuple[str, ...] = KINDS  # of "tool", "document", "user" (what the user said before), "newest" (says now)
    rate: float | None = None  # share of a part's tokens that stays; None with no `tokens` either: 0.5
    tokens: int | None = None  # in place of a rate: most tokens of all that is compressed in one request
    floor: int = 300  # tokens: shorter parts are left alone
    gain: float = 0.1  # share of a part's tokens that must be saved
    question: bool = True  # documents and user's texts: keep what answers the user's question, if there is one
    skip_tools: tuple[str, ...] = ()  # patterns of tools whose results are left alone, besides `laconic_*`
    tags: tuple[str, ...] = ("laconic-keep",)  # a part with <laconic-keep> in it is left alone
    protect: tuple[str, ...] = ()  # regular expressions: what matches stays
    marker: bool = False  # each compressed part ends with a line that says so and how to get the whole text
    bypass: bool = False  # compress nothing
    largest: int = 32 << 20  # bytes of a request body

    def __post_init__(self) -> None:
        for rule in fields(self):
            _check(rule.name, getattr(self, rule.name))
        Budget(self.rate, self.tokens)

    @classmethod
    def read(cls, file: Path | None = None, environment: Mapping[str, str] = os.environ) -> Rules:
        """The rules of the table [rules] in a TOML file, and over them those of `LACONIC_RATE`, `LACONIC_FLOOR` …"""
        names = [rule.name for rule in fields(cls)]
        rules = cls()._over(table(file, "rules", names)) if file else cls()
        named = {f"{VARIABLE}{name.upper()}": name for name in names}
        return rules._over({named[v]: _value(named[v], text) for v, text in environment.items() if v in named})

    def for_request(self, headers: Mapping[str, str]) -> tuple[Rules, tuple[str, ...]]:
        """The rules of one request, and a note for every `x-laconic-` header that was ignored because it is wrong."""
        layer, notes = dict[str, Any](), list[str]()
        for header, text in headers.items():
            name = header.lower().removeprefix(HEADER)
            if name == header.lower():
                continue
            try:
                layer[name] = self._header(name, text)
            except InputError as error:
                notes.append(f"{short(header.lower())} was ignored: {error}")
        if {"rate", "tokens"} <= layer.keys():
            notes.append(f"{HEADER}rate and {HEADER}tokens were ignored: one budget at a time; leave out one")
            layer = {name: value for name, value in layer.items() if name not in ("rate", "tokens")}
        return self._over(layer), tuple(notes)

    def skips(self, tool: str) -> bool:
        """Are the results of this tool left alone?"""
        return any(fnmatchcase(tool, pattern) for pattern in (_OWN_TOOLS, *self.skip_tools))

    def tagged(self, text: str) -> bool:
        """Does a tag in the text say that it is to be left alone?"""
        return any(re.search(rf"<{re.escape(tag)}[\s/>]", text) for tag in self.tags)

    def _header(self, name: str, text: str) -> Any:
        if name not in HEADERS:
            raise InputError(f"there is no such header; there are {', '.join(HEADER + known for known in HEADERS)}")
        value = _value(name, text)
        self._over({name: value})
        return value

    def _over(self, layer: Mapping[str, Any]) -> Rules:
        """These rules with others over them. A budget takes the place of the other one below it."""
        budget = {"rate": None, "tokens": None} if layer.keys() & {"rate", "tokens"} else {}
        return replace(self, **{**budget, **layer})


def _value(name: str, text: str) -> Any:
    """A rule from the text of a variable or a header."""
    return _READERS.get(name, _names)(name, text.strip())


def _names(name: str, text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


_READERS: dict[str, Callable[[str, str], Any]] = {
    "rate": number,
    "tokens": whole,
    "floor": whole,
    "gain": number,
    "question": switch,
    "protect": lambda name, text: (text,) if text else (),  # one expression, which may hold commas
    "marker": switch,
    "bypass": switch,
    "largest": whole,
}


def _check(name: str, value: Any) -> None:
    if name in ("question", "marker", "bypass"):
        require(isinstance(value, bool), name, "true or false", value)
    elif name in ("floor", "largest"):
        require(is_whole(value, 0), name, "0 or more", value)
    elif name == "gain":
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        require(number and 0 <= value < 1, name, "in [0, 1)", value)
    elif name in ("parts", "skip_tools", "tags", "protect"):
        texts = isinstance(value, tuple) and all(isinstance(item, str) and item for item in value)
        require(texts, name, "a list of texts", value)
        _check_items(name, value)


def _check_items(name: str, items: tuple[str, ...]) -> None:
    for item in items:
        if name == "parts":
            require(item in _COMPRESSIBLE, name, f"some of {', '.join(_COMPRESSIBLE)}", item)
        if name == "protect":
            try:
                re.compile(item)
            except re.error as error:
                raise InputError(f"protect takes regular expressions, got {short(item)}: {error}") from None
