"""Unified diffs: a hunk is one unit, whatever its size, so that what is kept still applies (`git apply`)."""

from __future__ import annotations

from functools import cache

import regex

from laconic.segment.plan import Plan


@cache
def _hunk() -> regex.Pattern[str]:
    return regex.compile(r"@@ -\d++(?:,(?P<old>\d++))? \+\d++(?:,(?P<new>\d++))? @@[^\n]*+(?:\n|\Z)")


@cache
def _head() -> regex.Pattern[str]:
    """The lines that name a file."""
    return regex.compile(
        r"(?:diff --git [^\n]*+\n(?:(?!@@ |diff --git |--- )[^\n]++(?:\n|\Z))*+)?(?:--- [^\n]*+\n\+\+\+ [^\n]*+(?:\n|\Z))?"
    )


def plan_diff(plan: Plan, start: int, limit: int) -> int:
    """Plan the diff that opens at `start`; returns where it ends. A unit here holds its own last line break."""
    text, position = plan.text, start
    while position < limit:
        head = _head().match(text, position, limit)
        header = position
        if head and head.end() > position:
            position = head.end()
            plan.atom(header, position, mark=text.startswith("@@ ", position))
        hunks = position
        while hunk := _hunk().match(text, position, limit):
            end = _hunk_end(text, hunk, limit)
            plan.atom(position, end)
            if hunks > header:
                plan.need(position, position + 1, header)
            position = end
        if position == header:
            break
    plan.claim(start, max(position, start))
    return max(position, text.find("\n", start) if position == start else position)


def _hunk_end(text: str, hunk: regex.Match[str], limit: int) -> int:
    """Where the lines that the hunk's header counts end."""
    old, new = (int(hunk[name]) if hunk[name] else 1 for name in ("old", "new"))
    position = hunk.end()
    while position < limit and (old > 0 or new > 0 or text[position] == "\\"):
        kind = text[position]
        if kind not in " +-\\\n":
            break
        old -= kind in " -\n"
        new -= kind in " +\n"
        line_end = text.find("\n", position, limit)
        position = limit if line_end < 0 else line_end + 1
    return position
