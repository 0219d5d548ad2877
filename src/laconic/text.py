"""Tilings and spans: the invariants of laconic live here.

A `Tiling` cuts a text into units with one array of bounds. A keep mask over the units becomes spans of the text, and
the spans are the result: nothing is ever decoded from model tokens, so nothing can be invented.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Span = tuple[int, int]

_BREAKS = "\n\r\v\f\x85\u2028\u2029"


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

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __iter__(self) -> Iterator[str]:
        edges = self.bounds.tolist()
        return (self.text[s:e] for s, e in pairwise(edges))

    def unit_at(self, positions: npt.ArrayLike) -> Ints:
        """The unit that holds each code point position: int64, the shape of `positions`."""
        return np.searchsorted(self.bounds, np.asarray(positions), side="right").astype(np.int64) - 1

    @cached_property
    def edges(self) -> Edges:
        """What `mend` needs to know of every unit, found once."""
        return Edges.of(self)


@dataclass(frozen=True)
class Edges:
    """White space and word characters at the edges of units (arrays over units, positions in the text)."""

    core: Ints  # where the unit's leading white space ends (= its end for a unit of white space only)
    glued: Bools  # a word character starts the unit, with no white space before it
    ends_word: Bools  # a word character ends the unit
    fusing: Bools  # a word character starts the unit's core
    gap: Ints  # start of a one-character separator in the unit, or -1
    line: Ints  # start of the first line break in the leading white space, or -1
    line_end: Ints
    paragraph: Ints  # start of the first two line breaks there with at most blanks between, or -1
    paragraph_end: Ints

    @classmethod
    def of(cls, tiling: Tiling) -> Edges:
        text, n = tiling.text, len(tiling)
        starts, ends = tiling.bounds[:-1].tolist(), tiling.bounds[1:].tolist()
        core = np.array(ends, np.int64)
        word = np.zeros((3, n), bool)
        marks = np.full((5, n), -1, np.int64)  # gap, line, line_end, paragraph, paragraph_end
        for k, (s, e) in enumerate(zip(starts, ends, strict=True)):
            c = s
            while c < e and text[c].isspace():
                c += 1
            core[k] = c
            if c > s:
                marks[0, k] = s
                if c > s + 1 or text[s] != " ":
                    marks[1:, k] = _line_breaks(text, s, c)
            if c < e:
                first = _fuses(text[c])
                word[0, k] = first and c == s
                word[1, k] = _fuses(text[e - 1])
                word[2, k] = first
                if c == s and not first:
                    marks[0, k] = s
        return cls(core, word[0], word[1], word[2], *marks)


def _fuses(char: str) -> bool:
    """Would this character read as one word with another of its kind? Scripts without blanks do not."""
    return (char.isalnum() or char == "_") and not ("\u2e80" <= char <= "\ua4cf" or "\uf900" <= char <= "\ufaff")


def _line_breaks(text: str, start: int, end: int) -> tuple[int, int, int, int]:
    """The first line break in a stretch of white space, and the first two: (start, end, start, end), -1 for none."""
    found: list[int] = []
    position = start
    while position < end and len(found) < 4:
        if text[position] in _BREAKS:
            stop = position + (2 if text.startswith("\r\n", position) and position + 1 < end else 1)
            found += [position, stop]
            position = stop
        else:
            position += 1
    if not found:
        return -1, -1, -1, -1
    if len(found) == 2:
        return found[0], found[1], -1, -1
    return found[0], found[1], found[0], found[3]


def mend(tiling: Tiling, keep: Bools) -> Ints:
    """Kept units as spans of the text, with one original separator where a gap needs it: int64[m, 2].

    The spans are sorted, disjoint and do not touch. Where units were dropped between two kept ones:

    * a line break in between stays a line break (two stay two: a paragraph), and takes the place of the blank;
    * two words that would fuse keep one separator of the gap: white space first, else a punctuation mark;
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
        line_starts = _after_last_break(tiling.text, int(starts[0]), int(edges.core[kept[0]]))
        starts = np.concatenate([[line_starts], starts[1:]])
    gap = np.flatnonzero(np.diff(kept) > 1)  # between kept[gap] and kept[gap + 1] something was dropped
    left, right = kept[gap], kept[gap + 1]
    pieces = np.zeros((len(gap), 2), np.int64)
    broken = edges.line[right] >= 0
    for mark, stop in ((edges.paragraph, edges.paragraph_end), (edges.line, edges.line_end)):
        following = _next(mark)  # the first unit at or after each that has one
        unit = following[left + 1]
        here = (unit < right) & ~broken & (pieces[:, 1] == 0)
        pieces[here] = np.stack([mark[unit[here]], stop[unit[here]]], 1)
        starts[gap[here] + 1] = edges.core[right[here]]
    fuse = edges.ends_word[left] & edges.glued[right] & (pieces[:, 1] == 0)
    blanks = np.where(edges.core > tiling.bounds[:-1], tiling.bounds[:-1], -1)
    for mark in (blanks, edges.gap):
        unit = _next(mark)[left + 1]
        here = (unit < right) & fuse & (pieces[:, 1] == 0)
        pieces[here] = np.stack([mark[unit[here]], mark[unit[here]] + 1], 1)
    spans = np.concatenate([np.stack([starts, ends], 1), pieces[pieces[:, 1] > 0]])
    spans = spans[spans[:, 1] > spans[:, 0]]
    return join(spans[np.argsort(spans[:, 0], kind="stable")])


def _after_last_break(text: str, start: int, core: int) -> int:
    """Where the line of `core` begins, if a break stands between, else `core`."""
    for position in range(core - 1, start - 1, -1):
        if text[position] in _BREAKS:
            return position + 1
    return core


def _next(mark: Ints) -> Ints:
    """For each unit the first one at or after it that has a mark: int64[n + 1]; n for none."""
    n = len(mark)
    found = np.where(mark >= 0, np.arange(n), n)
    return np.append(np.minimum.accumulate(found[::-1])[::-1], n).astype(np.int64)


def join(spans: Ints) -> Ints:
    """Sorted spans with touching neighbours made one: int64[m, 2]."""
    if len(spans) < 2:
        return spans
    fresh = np.concatenate([[True], spans[1:, 0] > spans[:-1, 1]])
    first = np.flatnonzero(fresh)
    last = np.append(first[1:], len(spans)) - 1
    return np.stack([spans[first, 0], spans[last, 1]], 1)


def cut(text: str, spans: Ints) -> str:
    """The text of the spans."""
    return "".join([text[s:e] for s, e in spans.tolist()])


def pool(values: Floats, starts: Ints, ends: Ints, tiling: Tiling) -> Floats:
    """Mean of the token values that touch each unit: float32[n], NaN where none does.

    `values`, `starts`, `ends`: float32[T], int64[T], int64[T], one entry a model token, code point offsets into the
    text; tokens that cover no character are ignored, a token over several units counts for each of them.
    """
    real = ends > starts
    first = tiling.unit_at(starts[real])
    last = tiling.unit_at(ends[real] - 1)
    reach = last - first + 1
    unit = np.repeat(first, reach) + np.arange(reach.sum()) - np.repeat(np.cumsum(reach) - reach, reach)
    count = np.bincount(unit, minlength=len(tiling))
    total = np.bincount(unit, np.repeat(values[real].astype(np.float64), reach), minlength=len(tiling))
    with np.errstate(invalid="ignore"):
        return (total / count).astype(np.float32)
