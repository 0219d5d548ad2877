"""Tilings and spans: the invariants of laconic live here.

A `Tiling` cuts a text into units with one array of bounds. A keep mask over the units becomes spans of the text, and
the spans are the result: nothing is ever decoded from model tokens, so nothing can be invented.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Span = tuple[int, int]

PARAGRAPH = "\n\n"

# str.isspace and line breaks, as code points
_BLANKS = np.array([ord(c) for c in map(chr, range(0x3001)) if c.isspace()], np.uint32)
_BREAKS = np.array([ord(c) for c in "\n\r\v\f\x85\u2028\u2029"], np.uint32)
_SURROGATES = re.compile("[\ud800-\udfff]")
_BREAK = re.compile(r"\r\n|[\n\r\v\f\x85\u2028\u2029]")
_SIGNS = np.array([ord(c) for c in ".,:;/+-*^=<>%$€£¥#@~±−–"], np.uint32)
# Scripts that put no blank between words: neighbours there do not read as one word.
_UNSPACED = ((0x2E80, 0xA4D0), (0xF900, 0xFB00))


@dataclass(frozen=True)
class Tiling:
    """A text cut into units: unit k is `text[bounds[k]:bounds[k + 1]]`, and the units joined are the text.

    A unit carries the white space before it. White space at the very end of the text is a unit of its own.

    >>> from laconic.segment import words
    >>> list(words("It cost $3.75."))
    ['It', ' cost', ' $3.75', '.']
    """

    text: str
    bounds: Ints  # int64[n + 1], strictly increasing, from 0 to len(text)

    def __post_init__(self) -> None:
        b = self.bounds
        assert len(b) >= 1 and b[0] == 0 and b[-1] == len(self.text) and bool((np.diff(b) > 0).all()), "not a tiling"

    @classmethod
    def of(cls, text: str, starts: Sequence[int] | Ints) -> Tiling:
        """The tiling whose units start at `starts` (sorted; 0 may be left out)."""
        inner = np.asarray(starts, dtype=np.int64)
        edges = np.concatenate([[0], inner, [len(text)]]).astype(np.int64)
        return cls(text, np.unique(edges))

    @classmethod
    def joined(cls, tilings: Sequence[Tiling]) -> tuple[Tiling, Ints]:
        """The texts as paragraphs of one, and where each one's units begin in it: int64[k + 1].

        The empty line before a paragraph is part of its first unit, so every unit keeps its place among the units.
        """
        bounds, pieces, size = [np.zeros(0, np.int64)], [""], 0
        for tiling in tilings:
            gap = PARAGRAPH if size and tiling.text else ""
            own = tiling.bounds[:-1] + size + len(gap)
            own[:1] -= len(gap)
            bounds.append(own)
            pieces += [gap, tiling.text]
            size += len(gap) + len(tiling.text)
        firsts = np.cumsum([0, *(len(t) for t in tilings)], dtype=np.int64)
        return cls("".join(pieces), np.append(np.concatenate(bounds), size)), firsts

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __iter__(self) -> Iterator[str]:
        edges = self.bounds.tolist()
        return (self.text[s:e] for s, e in pairwise(edges))

    def unit_at(self, positions: npt.ArrayLike) -> Ints:
        """The unit that holds each code point position: int64, the shape of `positions`."""
        return np.searchsorted(self.bounds, np.asarray(positions), side="right").astype(np.int64) - 1

    @cached_property
    def codes(self) -> npt.NDArray[np.uint32]:
        """The text as code points: uint32[len(text)]."""
        return np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), np.uint32)

    @cached_property
    def edges(self) -> Edges:
        """What `mend` needs to know of every unit, found once."""
        return Edges.of(self)


@dataclass(frozen=True)
class Edges:
    """White space and word characters at the edges of units: arrays over units."""

    core: Ints  # where the unit's leading white space ends (= its end for a unit of white space only)
    glued: Bools  # a word or a signed number starts the unit, with no white space before it
    open_end: Bools  # the unit ends in a word, or in a mark that would join numbers (3. 7: 2-)
    has_break: Bools  # a line break is in the leading white space
    blank: Separators
    mark: Separators  # one punctuation mark
    line: Separators
    paragraph: Separators  # two line breaks with at most blanks between

    @classmethod
    def of(cls, tiling: Tiling) -> Edges:
        codes, starts, ends = tiling.codes, tiling.bounds[:-1], tiling.bounds[1:]
        space = np.isin(codes, _BLANKS)
        core = np.minimum(_at_or_after(np.flatnonzero(~space), starts, len(codes)), ends)
        bare = core == starts
        word = _fuses(codes)
        empty = core == ends
        first = np.where(empty, False, word[np.minimum(core, len(codes) - 1)])
        second = np.where(core + 1 < ends, word[np.minimum(core + 1, len(codes) - 1)], False)
        signed = second & np.isin(codes[np.minimum(core, len(codes) - 1)], _SIGNS)
        breaks = np.flatnonzero(np.isin(codes, _BREAKS) & space)
        one = _at_or_after(breaks, starts, len(codes))
        has_break = one < core
        units = np.flatnonzero(has_break)
        places = zip(one[units].tolist(), core[units].tolist(), strict=True)
        spots = np.array([_line_breaks(tiling.text, s, e) for s, e in places], np.int64).reshape(-1, 4)
        double = spots[:, 2] >= 0
        blank, mark = np.flatnonzero(~bare), np.flatnonzero(bare & ~first)
        return cls(
            core=core,
            glued=(first | signed) & bare,
            open_end=~empty & (word[ends - 1] | np.isin(codes[ends - 1], _SIGNS)),
            has_break=has_break,
            blank=Separators(blank, starts[blank], starts[blank] + 1),
            mark=Separators(mark, starts[mark], starts[mark] + 1),
            line=Separators(units, spots[:, 0], spots[:, 1]),
            paragraph=Separators(units[double], spots[double, 2], spots[double, 3]),
        )


@dataclass(frozen=True)
class Separators:
    """One kind of separator: the units that have one, in order, and where it is in the text."""

    units: Ints
    starts: Ints
    ends: Ints


def _at_or_after(positions: Ints, places: Ints, none: int) -> Ints:
    """The first of the sorted positions at or after each place; `none` where there is no such."""
    index = np.searchsorted(positions, places)
    return np.append(positions, none)[index]


def _fuses(codes: npt.NDArray[np.uint32]) -> Bools:
    """Would this character read as one word with another of its kind?"""
    kinds = np.flatnonzero(np.bincount(codes))
    word = np.zeros(kinds[-1] + 1 if len(kinds) else 0, bool)
    word[kinds] = [chr(c).isalnum() or c == 0x5F for c in kinds.tolist()]
    for low, high in _UNSPACED:
        word[low:high] = False
    return word[codes]


def _line_breaks(text: str, start: int, end: int) -> tuple[int, int, int, int]:
    """The first line break in a stretch of white space, and the first two: (start, end, start, end), -1 for none."""
    found: list[int] = []
    for match in _BREAK.finditer(text, start, end):
        found += match.span()
        if len(found) == 4:
            return found[0], found[1], found[0], found[3]
    return found[0], found[1], -1, -1


def mend(tiling: Tiling, keep: Bools) -> Ints:
    """Kept units as spans of the text, with one original separator where a gap needs it: int64[m, 2].

    The spans are sorted, disjoint and do not touch. Where units were dropped between two kept ones:

    * a line break in between stays a line break (two stay two: a paragraph), and takes the place of the blank;
    * a word that lost the white space before it keeps one blank of the gap;
    * two words (or numbers and their signs) that would still fuse keep one punctuation mark of the gap;
    * blanks that open the result because all before them was dropped go.

    >>> from laconic.segment import words
    >>> t = words("One, two.\\nThree four.")
    >>> [t.text[s:e] for s, e in mend(t, np.array([1, 0, 0, 0, 0, 1, 0], bool))]
    ['One', '\\n', 'four']
    """
    kept = np.flatnonzero(keep)
    if not len(kept):
        return np.zeros((0, 2), np.int64)
    edges = tiling.edges
    starts, ends = tiling.bounds[kept], tiling.bounds[kept + 1]
    if kept[0] > 0:  # the result must not open with the blanks before its first word (an indent stays)
        starts[0] = _after_last_break(tiling, int(starts[0]), int(edges.core[kept[0]]))
    gap = np.flatnonzero(np.diff(kept) > 1)  # between kept[gap] and kept[gap + 1] something was dropped
    left, right = kept[gap], kept[gap + 1]
    pieces = np.zeros((len(gap), 2), np.int64)
    for kind, wanted in (
        (edges.paragraph, ~edges.has_break[right]),
        (edges.line, ~edges.has_break[right]),
        (edges.blank, edges.glued[right]),
        (edges.mark, edges.open_end[left] & edges.glued[right]),
    ):
        first = np.searchsorted(kind.units, left + 1)
        inside = np.append(kind.units, len(tiling))[first] < right
        here = np.flatnonzero(inside & wanted & (pieces[:, 1] == 0))
        pieces[here, 0], pieces[here, 1] = kind.starts[first[here]], kind.ends[first[here]]
        if kind is edges.paragraph or kind is edges.line:  # it takes the place of the blank before the unit
            starts[gap[here] + 1] = edges.core[right[here]]
    spans = np.concatenate([np.stack([starts, ends], 1), pieces[pieces[:, 1] > 0]])
    spans = spans[spans[:, 1] > spans[:, 0]]
    return join(spans[np.argsort(spans[:, 0], kind="stable")])


def _after_last_break(tiling: Tiling, start: int, core: int) -> int:
    """Where the line of `core` begins, if a break stands between, else `core`."""
    breaks = np.flatnonzero(np.isin(tiling.codes[start:core], _BREAKS))
    return start + int(breaks[-1]) + 1 if len(breaks) else core


def join(spans: Ints) -> Ints:
    """Sorted spans with touching neighbours made one: int64[m, 2]."""
    if len(spans) < 2:
        return spans
    fresh = np.concatenate([[True], spans[1:, 0] > spans[:-1, 1]])
    first = np.flatnonzero(fresh)
    last = np.append(first[1:], len(spans)) - 1
    return np.stack([spans[first, 0], spans[last, 1]], 1)


def cut(tiling: Tiling, spans: Ints) -> str:
    """The text of the spans."""
    edge = np.zeros(len(tiling.text) + 1, np.int8)
    edge[spans[:, 0]] = 1
    edge[spans[:, 1]] = -1
    inside = np.cumsum(edge[:-1], dtype=np.int8).view(bool)
    kept: bytes = tiling.codes[inside].tobytes()
    return kept.decode("utf-32-le", "surrogatepass")


def readable(text: str) -> str:
    """Without lone surrogates, which no tokenizer takes, one for one: offsets stay true."""
    return _SURROGATES.sub("\ufffd", text)


def pool(values: Floats, starts: Ints, ends: Ints, tiling: Tiling) -> Floats:
    """Mean of the token values that touch each unit: float32[n], NaN where none does.

    `values`, `starts`, `ends`: float32[T], int64[T], int64[T], one entry a model token, code point offsets into the
    text; tokens that cover no character are ignored, a token over several units counts for each of them.
    """
    summed, count = _summed(values, starts, ends, tiling)
    with np.errstate(invalid="ignore"):
        return (summed / count).astype(np.float32)


def total(values: Floats, starts: Ints, ends: Ints, tiling: Tiling) -> Floats:
    """The sum where `pool` has the mean: what adds up over the tokens of a unit, such as surprisal."""
    summed, count = _summed(values, starts, ends, tiling)
    return np.where(count > 0, summed, np.nan).astype(np.float32)


def _summed(values: Floats, starts: Ints, ends: Ints, tiling: Tiling) -> tuple[npt.NDArray[Any], Ints]:
    """Of each unit, the sum of the values that touch it, and how many do."""
    token, unit = touching(starts, ends, tiling)
    summed = np.bincount(unit, values[token].astype(np.float64), minlength=len(tiling))
    return summed, np.bincount(unit, minlength=len(tiling))


def touching(starts: Ints, ends: Ints, tiling: Tiling) -> tuple[Ints, Ints]:
    """Every pair of a token and a unit that it touches: int64[P] each; tokens as in `pool`."""
    real = np.flatnonzero(ends > starts)
    first = tiling.unit_at(starts[real])
    last = tiling.unit_at(ends[real] - 1)
    reach = last - first + 1
    unit = np.repeat(first, reach) + np.arange(reach.sum()) - np.repeat(np.cumsum(reach) - reach, reach)
    return np.repeat(real, reach), unit
