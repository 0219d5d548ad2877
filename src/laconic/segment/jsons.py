"""JSON: members are units, brackets and commas follow them, so that what is kept still parses.

A member `"key": value` with a short value is one unit. A long string is a head `"key": "`, words and a closing quote;
an escape never starts a unit that touches the one before it, because `laconic.text.mend` may keep the first character
of a dropped unit as a separator and half an escape is no separator.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise

import regex

from laconic.segment.plan import Plan
from laconic.segment.words import LONGEST, compiled, json_opening, json_string, pieces
from laconic.text import Span

DEEPEST = 64  # levels
LONG_WORDS = 12  # blanks in a string from which on its words are units
LONG_CHARS = 256  # or its length
LONG_WIDE = 48  # or its length when it is not ASCII: Chinese has no blanks


@cache
def _tokens() -> regex.Pattern[str]:
    return regex.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}:,]|[^\s\[\]{}:,"]++', regex.DOTALL)


def is_json(text: str) -> bool:
    """Is the whole text one JSON object or array?"""
    core = text.strip(" \t\r\n")
    if not (core[:1] in ("{", "[") and core[-1:] in ("}", "]")):
        return False
    try:
        json.loads(core)
    except (ValueError, RecursionError):
        return False
    return _depth(core) <= DEEPEST


class Finder:
    """Finds JSON values inside other text with a bounded total effort, so that near-JSON stays linear."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.effort = 4 * len(text) + 100_000  # code points that failed attempts may read
        self.decoder = json.JSONDecoder()

    def end(self, start: int) -> int:
        """Where the object or array that opens at `start` ends, or -1."""
        if self.effort <= 0:
            return -1
        try:
            end = self.decoder.raw_decode(self.text, start)[1]
        except json.JSONDecodeError as error:
            self.effort -= max(error.pos - start, 100)
            return -1
        except (ValueError, RecursionError):
            self.effort -= 20_000
            return -1
        return end if _depth(self.text[start:end]) <= DEEPEST else -1


def _depth(text: str) -> int:
    depth = deepest = 0
    for token in compiled(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}]').findall(text):
        depth += (token in "[{") - (token in "]}")
        deepest = max(deepest, depth)
    return deepest


def plan_json(plan: Plan, start: int, end: int) -> tuple[int, int]:
    """Units and rules of the valid JSON value `text[start:end]`; returns the positions of its outermost brackets."""
    scan = _Scan(plan)
    plan.claim(start, end)
    for token in _tokens().finditer(plan.text, start, end):
        scan.token(token.group()[0], token.start(), token.end())
    return scan.outermost


class _Scan:
    """One pass over the tokens of a value. `open` holds (position, is it an object) of the containers around."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.open: list[tuple[int, bool]] = []
        self.comma = -1  # of the member to come
        self.key = -1  # start of the member's key
        self.keyed = False  # the colon was read
        self.outermost = (-1, -1)

    def token(self, first: str, start: int, end: int) -> None:
        if first == ",":
            self.comma = self.plan.atom(start, end, mark=True)
        elif first == ":":
            self.keyed = True
        elif first in "]}":
            self._close(start, end)
        elif first == '"' and self.open and self.open[-1][1] and not self.keyed:
            self.key = start
        else:
            self._value(first, start, end)

    def _value(self, first: str, start: int, end: int) -> None:
        head = self.key if self.keyed else start
        if self.open:
            container = self.open[-1][0]
            self.plan.need(head, head + 1, container)
            self.plan.commas.append((self.comma, head, container))
        self.comma, self.key, self.keyed = -1, -1, False
        if first in "[{":
            self.plan.atom(head, end, mark=True)
            self.open.append((head, first == "{"))
        elif first == '"' and _is_long(self.plan.text, start, end):
            self._long(head, start, end)
        else:
            self.plan.atom(head, end)

    def _close(self, start: int, end: int) -> None:
        plan, position = self.plan, self.open.pop()[0]
        self.comma = -1
        self.outermost = (position, start)
        if plan.atoms[-1][0] == position:  # empty: nothing would ever ask for its brackets
            plan.atoms.pop()
            plan.marks.pop()
            self.outermost = (plan.atom(position, end), position)
            return
        plan.atom(start, end, mark=True)
        plan.pair(position, start)

    def _long(self, head: int, start: int, end: int) -> None:
        """A string by its words: each needs the head, and head and closing quote need each other."""
        plan, tail = self.plan, end - 1
        opened = json_opening().match(plan.text, start, tail)
        assert opened, "a string opens with a quote"
        if opened.end() == tail:  # nothing stands apart from the quote, so nothing would ask for it
            plan.atom(head, end)
            return
        plan.atom(head, opened.end(), mark=True)
        stop = opened.end()
        for unit in json_string().finditer(plan.text, stop, tail):
            stop = unit.end()
            plan.atoms += _pieces(plan.text, unit.start(), stop)
        plan.atom(tail, end, mark=True)
        plan.need(opened.end(), stop, head)
        plan.pair(head, tail)
        plan.spoken.append((opened.end(), tail))


def _pieces(text: str, start: int, end: int) -> list[Span]:
    """A unit of a string, cut when it is a long run without escapes."""
    if end - start <= LONGEST or "\\" in text[start:end]:
        return [(start, end)]
    edges = [start, *pieces(text, start, end).tolist(), end]
    return list(pairwise(edges))


def _is_long(text: str, start: int, end: int) -> bool:
    size = end - start
    if size <= LONG_WIDE or (size <= LONG_CHARS and text.count(" ", start, end) < LONG_WORDS):
        return size > LONG_WIDE and not text[start:end].isascii()
    return True
