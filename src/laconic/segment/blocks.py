"""Blocks of several lines: fences, tracebacks, stack frames, tables."""

from __future__ import annotations

import regex

from laconic.segment.code import code_lines
from laconic.segment.diffs import STARTS, plan_diff
from laconic.segment.jsons import Finder, plan_json
from laconic.segment.plan import Plan
from laconic.segment.words import compiled

_FRAME = r"\n[^\S\n]*+File [^\n]*+(?:\n(?![^\S\n]*+File )[^\S\n]++\S[^\n]*+)*+"
_ERROR = r"\n[^\S\n]*+(?P<error>[\w.]++[^\n]*+)"
_AT = r"(?P<blank>[^\S\n]++)(?P<frame>(?:at |\.\.\. \d)[^\n]*+)(?:\n|\Z)"
_ROW = r"[^\S\n]*+(?P<row>[|+][^\n]*[|+])[^\S\n]*+(?:\n|\Z)"


def line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def content_end(text: str, start: int) -> int:
    """Where the line ends, blanks at its end aside."""
    return start + len(text[start : line_end(text, start)].rstrip())


def line_above(plan: Plan, start: int) -> tuple[int, int] | None:
    """The content of the line above the one at `start`, unless it is blank or already part of a block."""
    text = plan.text
    if start == 0:
        return None
    above = text.rfind("\n", 0, start - 1) + 1
    line = text[above : start - 1]
    taken = any(spans and spans[-1][1] > above for spans in (plan.claimed, plan.atoms))
    if taken or not line.strip():
        return None
    return above + len(line) - len(line.lstrip()), above + len(line.rstrip())


def fence(plan: Plan, match: regex.Match[str]) -> int:
    """Each line of the block needs both fences; JSON and diffs inside follow their own rules."""
    text, start, ticks = plan.text, match.start("ticks"), match.group("ticks")
    close = compiled(rf"^[^\S\n]*+({ticks[0]}{{{len(ticks)},}}+)[^\S\n]*+$", regex.M).search(text, match.end())
    inner_end, stop = (int(close.start()), int(close.end())) if close else (len(text), len(text))
    fences = [plan.atom(start, content_end(text, start), mark=True)]
    if close:
        fences.append(plan.atom(close.start(1), close.end(1), mark=True))
        plan.pair(*fences)
    first, last = _inner(plan, min(match.end() + 1, inner_end), inner_end)
    for mark in fences:
        plan.need(first, last, mark)
    plan.claim(start, stop)
    return stop


def _inner(plan: Plan, start: int, end: int) -> tuple[int, int]:
    """Plan what a fence encloses: one JSON value, a diff, or lines of code. Returns where its units are."""
    text = plan.text
    begin = end - len(text[start:end].lstrip())
    stop = begin + len(text[begin:end].rstrip())
    if begin < stop and text[begin] in "{[" and Finder(text[:stop]).end(begin) == stop:
        plan_json(plan, begin, stop)
    elif compiled(STARTS).match(text, begin, stop):
        stop = plan_diff(plan, begin, end)
    else:
        code_lines(plan, begin, stop)
    return begin, stop


def diff(plan: Plan, match: regex.Match[str]) -> int:
    stop: int = match.end()
    return max(plan_diff(plan, match.start(), len(plan.text)), stop)


def traceback(plan: Plan, match: regex.Match[str]) -> int:
    """A Python traceback: frames need the header and the exception; a frame is its place and its code."""
    text = plan.text
    header = plan.atom(*match.span("header"))
    position = line_end(text, header)
    frames = []
    while frame := compiled(_FRAME).match(text, position):
        frames.append(plan.atom(frame.end() - len(frame.group().lstrip()), frame.end()))
        position = frame.end()
    error = compiled(_ERROR).match(text, position)
    if error and plan.line(error.start("error"), content_end(text, error.start("error"))):
        position = error.end()
        plan.pair(header, error.start("error"))
    for start in frames:
        plan.need(start, start + 1, header)
    plan.claim(match.start(), position)
    return position


def frames(plan: Plan, match: regex.Match[str]) -> int:
    """A run of `at ...` lines: each needs the line above the run, which names the error."""
    text, position = plan.text, int(match.start())
    head = line_above(plan, position)
    if head and plan.line(*head):
        plan.claim(head[0], position)
    while frame := compiled(_AT).match(text, position):
        start = frame.start("frame")
        if plan.line(start, content_end(text, start)) and head:
            plan.need(start, start + 1, head[0])
        position = frame.end()
    plan.claim(match.start(), position)
    return max(position, int(match.end()))


def table(plan: Plan, match: regex.Match[str]) -> int:
    """Rows are units; body rows need the rule under the header, and that needs the header."""
    text, position = plan.text, int(match.start())
    rows: list[tuple[int, int]] = []
    while row := compiled(_ROW).match(text, position):
        if plan.line(*row.span("row")):
            rows.append(row.span("row"))
        position = row.end()
    if len(rows) > 1 and not text[slice(*rows[1])].strip("|+-=: \t"):
        rule = rows[1][0]
        plan.marks.append(rule)
        for start, end in rows[2:]:
            plan.need(start, end, rule)
        plan.need(rule, rule + 1, rows[0][0])
    plan.claim(match.start(), position)
    return max(position, int(match.end()))
