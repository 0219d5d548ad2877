"""Lines: which have a form of their own, and what their words need.

One expression finds the next line of interest; its handler plans the line or the block that it opens and says where
that ends. Every handler reads what it consumes once, so the pass is linear.
"""

from __future__ import annotations

from collections.abc import Callable

import regex

from laconic.segment import blocks
from laconic.segment.blocks import content_end, line_above, line_end
from laconic.segment.code import CODE, looks_indented, plan_code
from laconic.segment.jsons import Finder, plan_json
from laconic.segment.plan import Plan
from laconic.segment.words import compiled

_ITEM = r"(?:[-*+\u2022\u2023\u25e6]|\d{1,3}[.)]|\([a-z0-9]{1,3}\)|[a-zA-Z][.)])(?:\ \[[\ xX]\])?"
_LEVEL = r"(?:TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|ERR|CRITICAL|FATAL|SEVERE)"
_CLOCK = r"\d\d:\d\d(?::\d\d)?(?:[.,]\d++)?(?:Z|[+-]\d\d:?\d\d)?"
_STAMP = rf"\[?(?:\d{{4}}[-/]\d\d[-/]\d\d(?:[T\ ]{_CLOCK})?|{_CLOCK}|[A-Z][a-z]{{2}}\ {{1,2}}\d{{1,2}}\ {_CLOCK})\]?"
_NAME = r"\p{Lu}[\w.'’-]*+(?:\ [\p{Lu}\d][\w.'’-]*+){0,3}"
_ROLE = r"user|assistant|system|human|tool|thought|action|observation|answer|question|[a-z]{2,20}_[a-z]{2,20}"

_BLOCKS = r"""
    (?P<fence>[^\S\n]*+(?P<ticks>`{3,}+|~{3,}+)[^\n`]*+$)
  | (?P<diff>diff\ --git\ |---\ [^\n]++\n\+\+\+\ [^\n]++\n@@\ -|@@\ -\d[\d,]*+\ \+\d[\d,]*+\ @@)
  | (?P<trace>[^\S\n]*+(?P<header>Traceback\ \(most\ recent\ call\ last\):)[^\S\n]*+$)"""

_JSON = r"""(?P<json>[^\n\[{=]{0,80}+[\[{])(?=\s*+["\[{])"""

_SINGLE = rf"""
    (?P<frame>[^\S\n]++at\ [^\s(]++(?:\ [^\s(]++)?\ ?\([^\n]*+$|[^\S\n]++at\ [^\s]++:\d++:\d++$)
  | (?P<table>[^\S\n]*+\|(?=[^\n]*\|[^\S\n]*+$))
  | [^\S\n]*+(?P<rule>={{3,}}+|-{{3,}}+|~{{3,}}+|\^{{3,}}+|\*{{3,}}+|_{{3,}}+|'{{3,}}+|\"{{4,}}+|[+|][-=+|]{{3,}}+)
      [^\S\n]*+$
  | [^\S\n]*+(?P<prefix>(?:>[^\S\n]?)*+(?:(?:\#{{1,6}}|{_ITEM})[^\S\n]++|(?<=>\ ?))(?=\S))
  | (?P<log>(?:(?P<stamp>{_STAMP})[^\n]{{0,60}}?(?<!\w)(?P<level>\[{_LEVEL}\]|{_LEVEL})(?=[\s:\]|-])
      |[^\S\n]*+(?P<level>\[{_LEVEL}\]|{_LEVEL}(?=:|\ ?[-|\[(]|\ \ |\t)))(?=[^\n]*\S))
  | (?P<code>{CODE})
  | [^\S\n]*+(?P<label>(?![\w.]*(?:Error|Exception):)(?:{_NAME}|{_ROLE}):)(?=[^\S\n]++\S)
  | (?P<indented>(?:(?<=\n[^\S\n]*\n)|(?<!\n))(?:\ {{4}}|\t)[^\S\n]*+(?=\S))"""

_FLAGS = regex.VERBOSE | regex.MULTILINE | regex.VERSION1


def _line() -> regex.Pattern[str]:
    """A line of interest."""
    return compiled(f"^(?:{_BLOCKS}|{_JSON}|{_SINGLE})", _FLAGS)


def plan_lines(plan: Plan) -> None:
    """Plan every block and line of interest."""
    finder, position, length = Finder(plan.text), 0, len(plan.text)
    while position < length and (match := _line().search(plan.text, position)):
        if match.lastgroup != "json":
            position = _HANDLERS[str(match.lastgroup)](plan, match)
        elif (position := _json(plan, match, finder)) < 0:  # none after all: the line may be of another kind
            other = compiled(f"^(?:{_SINGLE})", _FLAGS).match(plan.text, match.start())
            position = _HANDLERS[str(other.lastgroup)](plan, other) if other else line_end(plan.text, match.end())


def _json(plan: Plan, match: regex.Match[str], finder: Finder) -> int:
    """A JSON value up to the end of its line, perhaps after a label; -1 for none."""
    text, start = plan.text, match.end("json") - 1
    end = finder.end(start)
    if end < 0 or text[end : line_end(text, end)].strip() or '"' not in text[start:end]:
        return -1
    first, _ = plan_json(plan, start, end)
    label = text[match.start() : start].strip()
    if label.endswith(":") and len(label) <= 40:
        begin = text.index(label, match.start())
        plan.need(first, first + 1, plan.atom(begin, begin + len(label), mark=True))
        plan.claim(begin, begin + len(label))
    return end


def _rule(plan: Plan, match: regex.Match[str]) -> int:
    """The line above is a title and needs its underline; a rule without one stands alone."""
    start, end = match.span("rule")
    title = line_above(plan, match.start()) if plan.text[start] not in "+|" else None
    plan.atom(start, end, mark=title is not None)
    if title:
        plan.need(*title, start)
    plan.claim(match.start(), match.end())
    return int(match.end())


def _prefix(plan: Plan, match: regex.Match[str]) -> int:
    """Heading, list and quotation marks: the words of the line need them."""
    text, (start, end) = plan.text, match.span("prefix")
    if text[start] == "#" and start - match.start() >= 4:  # no heading so far in: a comment
        return plan_code(plan, match.start())
    mark = plan.atom(start, start + len(text[start:end].rstrip()), mark=True)
    plan.need(end, content_end(text, end), mark)
    return line_end(text, end)


def _log(plan: Plan, match: regex.Match[str]) -> int:
    """The words of a log line need its level."""
    start = match.end() - len(match.group().lstrip())
    end = content_end(plan.text, match.end())
    if match.group("stamp"):
        plan.atom(*match.span("stamp"))
    plan.need(start, end, plan.atom(*match.span("level")))
    return line_end(plan.text, end)


def _label(plan: Plan, match: regex.Match[str]) -> int:
    """The words of a turn need its speaker, up to the next blank line or line of interest."""
    text, (start, end) = plan.text, match.span("label")
    mark = plan.atom(start, end, mark=True)
    stop = line_end(text, end)
    while (after := line_end(text, stop + 1)) > stop + 1 and text[stop + 1 : after].strip():
        if _line().match(text, stop + 1):
            break
        stop = after
    plan.need(end, end + len(text[end:stop].rstrip()), mark)
    return stop


def _code(plan: Plan, match: regex.Match[str]) -> int:
    return max(plan_code(plan, match.start()), int(match.end()))


def _indented(plan: Plan, match: regex.Match[str]) -> int:
    """An indented block is code when the paragraph before announced it (`::`) or when it looks like code."""
    text, start = plan.text, match.start()
    if text[max(0, start - 200) : start].rstrip().endswith("::") or looks_indented(text, match.end()):
        return max(plan_code(plan, start, literal=True), int(match.end()))
    return line_end(text, match.end())


_HANDLERS: dict[str, Callable[[Plan, regex.Match[str]], int]] = {
    "fence": blocks.fence,
    "diff": blocks.diff,
    "trace": blocks.traceback,
    "frame": blocks.frames,
    "table": blocks.table,
    "rule": _rule,
    "prefix": _prefix,
    "log": _log,
    "code": _code,
    "label": _label,
    "indented": _indented,
}
