"""Unified diffs: a hunk is one unit, so that what is kept still applies (`git apply`).

Only a hunk that is most of the text goes by its lines, or nothing of it could be kept.
"""

from __future__ import annotations

import regex

from laconic.segment.plan import Plan
from laconic.segment.words import compiled

STARTS = r"diff --git |--- [^\n]+\n\+\+\+ |@@ -\d"
_HUNK = r"@@ -\d++(?:,(?P<old>\d++))? \+\d++(?:,(?P<new>\d++))? @@[^\n]*+(?:\n|\Z)"
_HEADER = (
    r"(?:diff --git [^\n]*+\n(?:(?!@@ |diff --git |--- )[^\n]++(?:\n|\Z))*+)?"
    r"(?:--- [^\n]*+\n\+\+\+ [^\n]*+(?:\n|\Z))?"
)


def plan_diff(plan: Plan, start: int, limit: int) -> int:
    """Plan the diff that opens at `start`; returns where it ends. A unit here holds its own last line break."""
    text, position = plan.text, start
    while position < limit:
        header = position
        head = compiled(_HEADER).match(text, position, limit)
        if head and head.end() > position:
            position = head.end()
            plan.atom(header, position, mark=text.startswith("@@ ", position))
        first = position
        while hunk := compiled(_HUNK).match(text, position, limit):
            end = _hunk_end(text, hunk, limit)
            if plan.is_part(end - position):
                plan.atom(position, end)
            else:
                _lines(plan, position, end)
            if first > header:
                plan.need(position, position + 1, header)
            position = end
        if position == header:
            break
    plan.claim(start, position)
    return position


def _lines(plan: Plan, start: int, end: int) -> None:
    """The lines of a hunk, each a unit that needs the hunk's first."""
    position = start
    while position < end:
        stop = plan.text.find("\n", position, end) + 1 or end
        plan.atom(position, stop)
        if position > start:
            plan.need(position, stop, start)
        position = stop


def _hunk_end(text: str, hunk: regex.Match[str], limit: int) -> int:
    """Where the lines that the hunk's header counts end."""
    old, new = (int(hunk[name]) if hunk[name] else 1 for name in ("old", "new"))
    position: int = hunk.end()
    while position < limit and (old > 0 or new > 0 or text[position] == "\\"):
        kind = text[position]
        if kind not in " +-\\\n":
            break
        old -= kind in " -\n"
        new -= kind in " +\n"
        line_end = text.find("\n", position, limit)
        position = limit if line_end < 0 else line_end + 1
    return position
