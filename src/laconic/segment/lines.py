"""Lines and blocks: which lines have a form of their own, and what their words need.

One expression finds the next line of interest; its handler plans the block and says where it ends. Every handler reads
what it consumes once, so the pass is linear.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import regex

from laconic.segment.code import CODE, code_block
from laconic.segment.diffs import plan_diff
from laconic.segment.jsons import Finder, plan_json
from laconic.segment.plan import Plan

_LIST = r"(?:[-*+\u2022\u2023\u25e6]|\d{1,3}[.)]|\([a-z0-9]{1,3}\)|[a-zA-Z][.)])"
_LEVEL = r"(?:TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|ERR|CRITICAL|FATAL|SEVERE)"
_STAMP = r"\[?(?:\d{4}[-/]\d\d[-/]\d\d(?:[T\ ]\d\d:\d\d(?::\d\d)?(?:[.,]\d++)?(?:Z|[+-]\d\d:?\d\d)?)?|\d\d:\d\d:\d\d(?:[.,]\d++)?|[A-Z][a-z]{2}\ {1,2}\d{1,2}\ \d\d:\d\d:\d\d)\]?"
_ROLES = r"user|assistant|system|human|tool|thought|action|observation|answer|question"


@cache
def _line() -> regex.Pattern[str]:
    """A line of interest; `json` aside, which another kind may take over when it is none."""
    return regex.compile(rf"(?V1)^(?:{_blocks()}|(?P<json>[^\n\[{{=]{{0,80}}+[\[{{])(?=\s*+[\"\[{{])|{_single()})", _FLAGS)


@cache
def _plain_line() -> regex.Pattern[str]:
    return regex.compile(rf"(?V1)^(?:{_single()})", _FLAGS)


_FLAGS = regex.VERBOSE | regex.MULTILINE


def _blocks() -> str:
    return r"""
    (?P<fence>[^\S\n]*+(?P<ticks>`{3,}+|~{3,}+)[^\n`]*+$)
  | (?P<diff>diff\ --git\ |---\ [^\n]++\n\+\+\+\ [^\n]++\n@@\ -|@@\ -\d[\d,]*+\ \+\d[\d,]*+\ @@)
  | (?P<trace>[^\S\n]*+Traceback\ \(most\ recent\ call\ last\):[^\S\n]*+$)"""


def _single() -> str:
    return rf"""
    (?P<frame>[^\S\n]++at\ [^\s(]++(?:\ [^\s(]++)?\ ?\([^\n]*+$|[^\S\n]++at\ [^\s]++:\d++:\d++$)
  | (?P<table>[^\S\n]*+\|(?=[^\n]*\|[^\S\n]*+$))
  | (?P<rule>[^\S\n]*+(?:={{3,}}+|-{{3,}}+|~{{3,}}+|\^{{3,}}+|\*{{3,}}+|_{{3,}}+|[+|][-=+|]{{3,}}+)[^\S\n]*+$)
  | (?P<prefix>[^\S\n]*+(?:>[^\S\n]?)*+(?:(?:\#{{1,6}}|{_LIST}(?:\ \[[\ xX]\])?)[^\S\n]++|(?<=>\ ?))(?=\S))
  | (?P<log>(?P<stamp>{_STAMP})?[^\S\n]*+(?:(?<!\n)[^\n]{{0,60}}?(?<!\w))?(?P<level>\[{_LEVEL}\]|{_LEVEL})(?=[\s:\]|-])(?=[^\n]*\S))
  | (?P<code>{CODE})
  | (?P<label>[^\S\n]*+(?:\p{{Lu}}[\w.'’-]*+(?:\ [\p{{Lu}}\d][\w.'’-]*+){{0,3}}|{_ROLES}):)(?=[^\S\n]++\S)
  | (?P<indented>(?:(?<=\n[^\S\n]*\n)|(?<!\n))(?:\ {{4}}|\t)[^\S\n]*+(?=\S))"""


def plan_lines(plan: Plan) -> None:
    """Plan every block and line of interest."""
    finder, position, length = Finder(plan.text), 0, len(plan.text)
    while position < length and (match := _line().search(plan.text, position)):
        if match.lastgroup == "json" or match.group("json"):
            position = _json(plan, match, finder)
            if position >= 0:
                continue
            taken = _plain_line().match(plan.text, match.start())
            position = _handle(plan, taken) if taken else _line_end(plan.text, match.end())
        else:
            position = _handle(plan, match)


def _handle(plan: Plan, match: regex.Match[str]) -> int:
    for kind, handler in _HANDLERS.items():
        if match.groupdict().get(kind) is not None:
            return handler(plan, match)
    raise AssertionError("every kind has a handler")


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _content_end(text: str, start: int) -> int:
    """Where the line ends, blanks at its end aside."""
    return start + len(text[start : _line_end(text, start)].rstrip())


def _json(plan: Plan, match: regex.Match[str], finder: Finder) -> int:
    """A JSON value up to the end of its line, perhaps after a label; -1 for none."""
    text, start = plan.text, match.end("json") - 1
    end = finder.end(start)
    if end < 0 or text[end : _line_end(text, end)].strip() or '"' not in text[start:end]:
        return -1
    first, _ = plan_json(plan, start, end)
    label = match.start() + len(text[match.start() : start].rstrip())
    begin = match.start() + len(text[match.start() : label]) - len(text[match.start() : label].lstrip())
    if label > begin and text[label - 1] == ":" and label - begin <= 40:
        plan.need(first, first + 1, plan.atom(begin, label, mark=True))
        plan.claim(begin, label)
    return max(end, match.end())


def _fence(plan: Plan, match: regex.Match[str]) -> int:
    """Each line of the block needs both fences; JSON and diffs inside follow their own rules."""
    text, start = plan.text, match.start("ticks")
    ticks = match.group("ticks")
    close = regex.compile(rf"^[^\S\n]*+({ticks[0]}{{{len(ticks)},}}+)[^\S\n]*+$", regex.M).search(text, match.end())
    inner_end = close.start() if close else len(text)
    fences = [plan.atom(start, _content_end(text, start), mark=True)]
    if close:
        fences.append(plan.atom(close.start(1), close.end(1), mark=True))
        plan.pair(*fences)
    inner = _inner(plan, min(match.end() + 1, inner_end), inner_end)
    for begin, end in inner:
        for fence in fences:
            plan.need(begin, end, fence)
    stop = close.end() if close else len(text)
    plan.claim(start, stop)
    return stop


def _inner(plan: Plan, start: int, end: int) -> list[tuple[int, int]]:
    """Plan what a fence encloses: one JSON value, a diff, or lines of code."""
    text = plan.text
    begin = end - len(text[start:end].lstrip())
    stop = begin + len(text[begin:end].rstrip())
    if begin >= stop:
        return []
    if text[begin] in "{[" and Finder(text[:stop]).end(begin) == stop:
        plan_json(plan, begin, stop)
        return [(begin, stop)]
    if regex.match(r"diff --git |--- [^\n]+\n\+\+\+ |@@ -\d", text[begin : begin + 500]):
        stop = max(stop, plan_diff(plan, begin, end))
        return [(begin, stop)]
    code_lines(plan, begin, stop)
    return [(begin, stop)]


def code_lines(plan: Plan, start: int, end: int) -> None:
    """Every line one unit."""
    for line in regex.finditer(r"\S[^\n]*+", plan.text, pos=start, endpos=end):
        plan.line(line.start(), line.start() + len(line.group().rstrip()))


def _diff(plan: Plan, match: regex.Match[str]) -> int:
    return plan_diff(plan, match.start(), len(plan.text))


def _trace(plan: Plan, match: regex.Match[str]) -> int:
    """A Python traceback: frames need the header and the exception; a frame is its place and its code."""
    text = plan.text
    header = plan.atom(match.end() - len(match.group().strip()), match.start() + len(match.group().rstrip()))
    body = regex.compile(r"(?:\n[^\S\n]*+File [^\n]*+(?:\n(?![^\S\n]*+File )[^\S\n]++\S[^\n]*+)*+)").finditer
    frames, position = [], _line_end(text, match.start() + 1)
    for frame in body(text, position):
        if frame.start() != position:
            break
        frames.append(plan.atom(frame.start() + len(frame.group()) - len(frame.group().lstrip()), frame.end()))
        position = frame.end()
    final = regex.compile(r"\n[^\S\n]*+(?P<error>[\w.]++[^\n]*+)").match(text, position)
    if final and plan.line(final.start("error"), _content_end(text, final.start("error"))):
        position = final.end()
        plan.pair(header, final.start("error"))
    for frame_start in frames:
        plan.need(frame_start, frame_start + 1, header)
    plan.claim(match.start(), position)
    return position


def _frame(plan: Plan, match: regex.Match[str]) -> int:
    """A run of `at ...` lines: each needs the line before the run, which names the error."""
    text, position = plan.text, match.start()
    above = text.rfind("\n", 0, max(position - 1, 0)) + 1
    titled = position > 0 and bool(text[above : position - 1].strip()) and not _taken(plan, above)
    head = above + len(text[above:position]) - len(text[above:position].lstrip())
    if titled and plan.line(head, _content_end(text, head)):
        plan.claim(head, position)
    else:
        titled = False
    frames = regex.compile(r"[^\S\n]++(?:at |\.\.\. \d)[^\n]*+(?:\n|\Z)")
    while frame := frames.match(text, position):
        begin = frame.end() - len(frame.group().lstrip())
        if plan.line(begin, _content_end(text, begin)) and titled:
            plan.need(begin, begin + 1, head)
        position = frame.end()
    plan.claim(match.start(), position)
    return max(position, match.end())


def _taken(plan: Plan, position: int) -> bool:
    return bool(plan.claimed) and plan.claimed[-1][1] > position or bool(plan.atoms) and plan.atoms[-1][1] > position


def _table(plan: Plan, match: regex.Match[str]) -> int:
    """Rows are units; body rows need the header and the rule under it."""
    text, position = plan.text, match.start()
    rows = regex.compile(r"[^\S\n]*+(?P<row>[|+][^\n]*[|+])[^\S\n]*+(?:\n|\Z)")
    found: list[tuple[int, int]] = []
    while row := rows.match(text, position):
        if plan.line(*row.span("row")):
            found.append(row.span("row"))
        position = row.end()
    if len(found) > 1 and not text[slice(*found[1])].strip("|+-=: \t"):
        plan.marks.append(found[1][0])
        plan.need(found[1][0], found[1][1], found[0][0])
        for start, end in found[2:]:
            plan.need(start, end, found[1][0])
    plan.claim(match.start(), max(position, match.end()))
    return max(position, match.end())


def _rule(plan: Plan, match: regex.Match[str]) -> int:
    """An underline belongs to the title above it (and an overline to the title between); else it stands alone."""
    text, start = plan.text, match.start()
    rule = start + len(match.group()) - len(match.group().lstrip())
    end = _content_end(text, rule)
    above = text.rfind("\n", 0, max(start - 1, 0)) + 1
    title = text[above : max(start - 1, 0)]
    plan.claim(start, match.end())
    titled = bool(title.strip()) and start > 0 and not _taken(plan, above) and text[rule] not in "+|"
    plan.atom(rule, end, mark=titled)
    if titled:
        plan.need(above, above + len(title.rstrip()), rule)
    return match.end()


def _prefix(plan: Plan, match: regex.Match[str]) -> int:
    """Heading, list and quotation marks: the words of the line need them."""
    text, start, end = plan.text, match.start(), match.end()
    core = text[start:end]
    mark = plan.atom(start + len(core) - len(core.lstrip()), start + len(core.rstrip()), mark=True)
    plan.need(end, _content_end(text, end), mark)
    return _line_end(text, end)


def _log(plan: Plan, match: regex.Match[str]) -> int:
    """The words of a log line need its level."""
    start, end = match.start(), _content_end(plan.text, match.end())
    if match.group("stamp"):
        plan.atom(*match.span("stamp"))
    level = plan.atom(*match.span("level"))
    plan.need(start + len(match.group()) - len(match.group().lstrip()), end, level)
    return _line_end(plan.text, end)


def _label(plan: Plan, match: regex.Match[str]) -> int:
    """The words of a turn need its speaker, up to the next blank line or line of interest."""
    text, end = plan.text, match.end("label")
    core = match.group("label")
    mark = plan.atom(end - len(core.lstrip()), end, mark=True)
    stop = _line_end(text, end)
    while (after := _line_end(text, stop + 1)) > stop + 1 and not _line().match(text, stop + 1):
        if after - end > 20_000 or not text[stop + 1 : after].strip():
            break
        stop = after
    plan.need(end, end + len(text[end:stop].rstrip()), mark)
    return stop


def _code(plan: Plan, match: regex.Match[str]) -> int:
    start, end = match.start(), code_block(plan.text, match.start())
    code_lines(plan, start, end)
    plan.claim(start, end)
    return max(end, match.end())


def _indented(plan: Plan, match: regex.Match[str]) -> int:
    """An indented block is code when its paragraph announced it (`::`) or when it looks like code."""
    text, start = plan.text, match.start()
    announced = text[max(0, start - 200) : start].rstrip().endswith("::")
    if not announced and not regex.match(r"[^\n]*(?:[\w)\]]\s?[=({;]|[;{}]$|->|::|\w_\w)", text[match.end() : match.end() + 200]):
        return _line_end(text, match.end())
    indent = regex.escape(match.group().replace("\n", ""))
    block = regex.compile(rf"(?:{indent}[^\n]*+(?:\n|\Z)|[^\S\n]*+\n)++").match(text, start)
    end = start + len(block.group().rstrip()) if block else _line_end(text, start)
    code_lines(plan, start, end)
    plan.claim(start, end)
    return max(end, match.end())


_HANDLERS: dict[str, Callable[[Plan, regex.Match[str]], int]] = {
    "fence": _fence,
    "diff": _diff,
    "trace": _trace,
    "frame": _frame,
    "table": _table,
    "rule": _rule,
    "prefix": _prefix,
    "log": _log,
    "code": _code,
    "label": _label,
    "indented": _indented,
}
