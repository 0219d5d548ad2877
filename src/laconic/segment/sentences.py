# ruff: noqa: SIM905  (word lists read better as words)
"""Sentences: where they end, as indices into the units of a tiling."""

from __future__ import annotations

from functools import cache

import numpy as np
import regex

from laconic.text import Ints, Tiling

_ABBREVIATIONS = frozenset(
    """
    mr mrs ms dr prof sr jr st mt rev gen col sgt capt lt hon gov sen rep pres vs etc approx est dept univ inc ltd
    corp co fig figs eq eqs sec ch vol vols pp ed eds al cf viz ca jan feb mar apr jun jul aug sep sept oct nov dec
    bzw usw vgl nr abs bd hrsg mme mlle sra srta av ул гг тыс млн млрд
    """.split()
)
_BEFORE_NUMBER = frozenset("no nos p pp art § para eq fig ch vol sec nr".split())


@cache
def _ends() -> regex.Pattern[str]:
    closing = r"[\"'\u2019\u201d\u00bb)\]\u300d\u300f\uff09]"
    return regex.compile(
        rf"""(?V1)
    (?P<stop>\.){closing}*+(?=\s)                         # a full stop, perhaps of an abbreviation
  | (?:[!?\u2026\u061f\u06d4\u0964\u203c\u2047-\u2049]|(?<!\.)\.{{2,}}+[!?]*+){{1,8}}+{closing}*+(?=\s)
  | [\u3002\uff01\uff1f\uff61]++{closing}*+               # no blank follows in Chinese and Japanese
  | (?=\n[^\S\n]*+\n)                                     # a paragraph
  | (?=\n[^\S\n]*+(?:[-*+\#>|\u2022{{}}\[\]<]|\d{{1,3}}[.)]\s|[\w.-]{{1,40}}:|\ {{4}}|\t))   # a form of its own
""",
        regex.VERBOSE,
    )


@cache
def _last_word() -> regex.Pattern[str]:
    return regex.compile(r"\w++\Z")


def sentences(tiling: Tiling) -> Ints:
    """Unit indices where sentences start and end, from 0 to n: int64[k + 1].

    >>> from laconic.segment import words
    >>> sentences(words("Dr. Wu left. He had 3.5 reasons.")).tolist()
    [0, 5, 10]
    """
    text, n = tiling.text, len(tiling)
    ends = np.array([m.end() for m in _ends().finditer(text) if _ends_here(m, text)], np.int64)
    inner = np.searchsorted(tiling.bounds, ends, side="left")
    last = n - 1 if n and text[tiling.bounds[-2] :].isspace() else n  # white space at the end is no sentence
    return np.unique(np.concatenate([[0], inner[inner < last], [n]])).astype(np.int64)


def _ends_here(match: regex.Match[str], text: str) -> bool:
    """Is this full stop the end of a sentence? Other marks always are."""
    stop = match.start("stop")
    if stop < 0:
        return True
    following = text[match.end() : match.end() + 8].lstrip()[:1]
    before = _last_word().search(text[max(0, stop - 12) : stop])
    word = before.group() if before else ""
    if following.islower() or (len(word) == 1 and word.isupper()):
        return False
    return not (word.lower() in _ABBREVIATIONS or (following.isdigit() and word.lower() in _BEFORE_NUMBER))
