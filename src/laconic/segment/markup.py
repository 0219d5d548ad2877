"""Inline markup in prose: tags, code spans, links, emphasis, `key=value`, sums."""

from __future__ import annotations

from collections import Counter
from functools import cache

import regex

from laconic.segment.plan import Plan
from laconic.segment.words import compiled, plain
from laconic.text import Span

DEEPEST = 64  # elements around; the outermost of more count as tags left open


@cache
def _inline() -> regex.Pattern[str]:
    """Every alternative opens with one of a few characters, is bounded, and stays within its line (a tag aside)."""
    return regex.compile(
        r"""(?V1)(?=[<`!\[*_])(?:
    (?P<tag></?(?P<name>[A-Za-z][\w:.-]{0,60}+)(?:\s[^<>]{0,2000}+)?/?>|<!--(?:[^-]|-(?!->)){0,2000}+-->)
  | (?P<ticks>`{1,3}+)[^`\n]{1,200}+(?P=ticks)(?!`)
  | (?P<link>(?P<open>!?\[)[^\[\]\n]{0,300}+
      (?P<target>\]\([^()\s]{0,1000}+(?:\([^()\s]{0,200}+\)[^()\s]{0,1000}+)?(?:\ "[^"\n]{0,200}+")?\)))
  | \*\*(?=[^\s*])(?P<inner>[^*\n]{1,300}+)(?<=\S)\*\*
  | (?<![\w*])\*(?=[^\s*])(?P<inner>[^*\n]{1,300}+)(?<=\S)\*(?![\w*])
  | (?<![\w/])(?P<under>__?)(?=[^\s_])(?P<inner>[^_\n]{1,300}+)(?<=\S)(?P=under)(?!\w)
    )""",
        regex.VERBOSE,
    )


@cache
def _pair() -> regex.Pattern[str]:
    """`key=value`, looked for from its sign, which is rare."""
    return regex.compile(
        r"""(?V1)(?<=(?<![\w.?&\#/-])(?!(?<=\d,)\d)(?P<key>[\w.-]{1,80}))=(?!=)
        (?:"[^"\n]{0,300}+"|'[^'\n]{0,300}+'|[^\s,;&"'()\[\]{}<>=][^\s,;&"'()\[\]{}<>]{0,299}(?<![.:!?]))""",
        regex.VERBOSE,
    )


@cache
def _sum() -> regex.Pattern[str]:
    """Numbers with the signs between them: `(12 + 4) * $1.50 = $24`. Without one of them it says something else."""
    return regex.compile(
        r"""(?V1)(?<![\w.,])(?P<number>\(?[-\u2212]?\p{Sc}?(?:\d{1,15}+(?:[.,]\d{1,15}+){0,9}+|\.\d{1,15}+)%?\)?)
        (?:\ ?[-+*/x=<>\u2212\u2013\u00d7\u00f7\u2264\u2265]\ ?(?&number)){1,12}+(?!\w)""",
        regex.VERBOSE,
    )


def plan_markup(plan: Plan) -> None:
    """Plan the inline markup of all prose."""
    tags: list[tuple[int, int, str]] = []
    blocked = sorted(plan.atoms)
    for start, end in plan.prose():
        for match in _inline().finditer(plan.text, start, end):
            if match.group("tag"):
                tags.append((*match.span(), match.group("name") or ""))
            else:
                _emit(plan, match)
        for match in _pair().finditer(plan.text, start, end):
            plan.atom(match.start("key"), _word_end(plan.text, match.end()))
        for match in _sum().finditer(plan.text, start, end):
            plan.atom(*_balanced(plan.text, *match.span()))
    _tags(plan, tags)
    plan.atoms = _disjoint(blocked, plan.atoms)


def _word_end(text: str, position: int) -> int:
    """Where the number that a value was cut in ends: 1,000."""
    rest = compiled(r"(?<=\d)(?:,\d++)++").match(text, position)
    return int(rest.end()) if rest else position


def _balanced(text: str, start: int, end: int) -> Span:
    """The span without a bracket at its ends whose partner is outside."""
    surplus = text.count("(", start, end) - text.count(")", start, end)
    while surplus > 0 and text[start] == "(":
        start, surplus = start + 1, surplus - 1
    while surplus < 0 and text[end - 1] == ")":
        end, surplus = end - 1, surplus + 1
    return start, end


def _emit(plan: Plan, match: regex.Match[str]) -> None:
    if match.group("link"):
        opening = plan.atom(match.start("open"), match.end("open"), mark=True)
        plan.pair(opening, plan.atom(*match.span("target")))
    elif match.group("inner"):
        start, end = match.span("inner")
        if not (match.group("under") and " " not in match.group("inner")):  # __init__ is a name
            _emphasis(plan, match, start, end)
            return
        plan.atom(*match.span())
    else:
        plan.atom(*match.span())


def _emphasis(plan: Plan, match: regex.Match[str], start: int, end: int) -> None:
    """The opening marker is one unit with the word it touches: before a blank it would open nothing."""
    word = plain().match(plan.text, start, end)
    first = word.end() if word else end
    opening, closing = plan.atom(match.start(), first), plan.atom(end, match.end(), mark=True)
    plan.need(first, end, opening)
    plan.pair(opening, closing)


def _tags(plan: Plan, tags: list[tuple[int, int, str]]) -> None:
    """Words need the nearest open element, an element its parent; opening and closing tags need each other."""
    partner = _partners(plan.text, tags)
    around: list[int] = []  # positions of the opening tags of the elements around
    position = 0
    for k, (start, end, _) in enumerate(tags):
        matched = k in partner
        plan.atom(start, end, mark=matched)
        if around:
            stop = position + len(plan.text[position:start].rstrip())
            plan.need(position, stop, around[-1])
        if matched and partner[k] > k:
            if around:
                plan.need(start, start + 1, around[-1])
            plan.pair(start, tags[partner[k]][0])
            around.append(start)
        elif matched:
            around.pop()
        elif around:
            plan.need(start, start + 1, around[-1])
        position = end


def _partners(text: str, tags: list[tuple[int, int, str]]) -> dict[int, int]:
    """For each tag of a pair the other one; tags left open are no pair, and neither are void ones."""
    partner: dict[int, int] = {}
    stack: list[int] = []
    waiting: Counter[str] = Counter()
    for k, (start, end, name) in enumerate(tags):
        if not name or text[end - 2] == "/":
            continue
        if text[start + 1] != "/":
            if len(stack) == DEEPEST:
                waiting[tags[stack.pop(0)][2]] -= 1
            stack.append(k)
            waiting[name] += 1
        elif waiting[name]:
            while stack:
                other = stack.pop()
                waiting[tags[other][2]] -= 1
                if tags[other][2] == name:
                    partner[k], partner[other] = other, k
                    break
    return partner


def _disjoint(first: list[Span], atoms: list[Span]) -> list[Span]:
    """The atoms with those that touch an atom of an earlier pass left out: a level in a tag, a marker in a link."""
    kept: list[Span] = []
    planned = set(first)
    end = 0
    for span in sorted(atoms, key=lambda span: (span[0], span not in planned, -span[1])):
        if span[0] >= end:
            kept.append(span)
            end = span[1]
    return kept
