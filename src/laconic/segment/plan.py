"""The plan of a text: what the recognisers found, in code points, and its translation into units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from laconic.segment.words import within_graphemes
from laconic.text import Bools, Ints, Span, Tiling

HUGE = 2000  # code points; a longer line is minified or a dump, and falls back to words
SMALL = 400  # code points; a longer unit may be no more than half of the text, or a budget could not be filled


@dataclass(frozen=True)
class Rules:
    """What holds between units, so that what is kept stays usable."""

    mark: Bools  # bool[n]: means nothing alone; never chosen for itself, enters only through `needs` or `commas`
    needs: Ints  # int64[m, 2]: (unit, required); when `unit` is kept, `required` is kept as well
    commas: Ints  # int64[c, 3]: (comma, member, container) in text order; comma is -1 for the first member
    pinned: Bools  # bool[n]: kept whatever the budget: the outermost brackets of a text that is one JSON value

    @classmethod
    def joined(cls, parts: Sequence[Rules]) -> Rules:
        """The rules of several texts as of one: unit numbers (and containers, of which a text has fewer) shifted."""
        mark = np.concatenate([np.zeros(0, bool), *(p.mark for p in parts)])
        pinned = np.concatenate([np.zeros(0, bool), *(p.pinned for p in parts)])
        shifts = np.cumsum([0, *(len(p.mark) for p in parts)])[:-1].tolist()
        needs = [p.needs + by for p, by in zip(parts, shifts, strict=True)]
        commas = [np.where(p.commas < 0, -1, p.commas + by) for p, by in zip(parts, shifts, strict=True)]
        return cls(
            mark,
            np.concatenate([np.zeros((0, 2), np.int64), *needs]),
            np.concatenate([np.zeros((0, 3), np.int64), *commas]),
            pinned,
        )


@dataclass(frozen=True)
class Segmentation(Rules):
    """A tiling and the rules between its units."""

    tiling: Tiling


@dataclass
class Plan:
    """Recognisers add to it, left to right or not; all numbers are positions in `text`."""

    text: str
    atoms: list[Span] = field(default_factory=list)  # one unit each; disjoint
    marks: list[int] = field(default_factory=list)
    needs: list[tuple[int, int, int]] = field(default_factory=list)  # every unit of [start, end) needs the one at
    commas: list[tuple[int, int, int]] = field(default_factory=list)
    pinned: list[int] = field(default_factory=list)
    claimed: list[Span] = field(default_factory=list)  # no prose: no inline markup, no clauses
    spoken: list[Span] = field(default_factory=list)  # but these are: the insides of long JSON strings

    def atom(self, start: int, end: int, mark: bool = False) -> int:
        """One unit; returns its position, for rules."""
        self.atoms.append((start, end))
        if mark:
            self.marks.append(start)
        return start

    def line(self, start: int, end: int) -> bool:
        """A line as one unit, unless it is huge. Did it become one?"""
        fits = end - start <= HUGE and self.is_part(end - start)
        if fits:
            self.atoms.append((start, end))
        return fits

    def is_part(self, size: int) -> bool:
        """Is a unit of this size only a part of the text?"""
        return size <= max(SMALL, len(self.text) // 2)

    def need(self, start: int, end: int, required: int) -> None:
        """All units that begin in `[start, end)` need the unit at `required`; the end must follow no blank."""
        if end > start:
            self.needs.append((start, end, required))

    def pair(self, one: int, other: int) -> None:
        """Two units that need each other."""
        self.needs += [(one, one + 1, other), (other, other + 1, one)]

    def claim(self, start: int, end: int) -> None:
        self.claimed.append((start, end))

    def prose(self) -> list[Span]:
        """What no recogniser claimed, in order."""
        free, position = [], 0
        for start, end in sorted(self.claimed):
            if start > position:
                free.append((position, start))
            position = max(position, end)
        return [*free, (position, len(self.text))] if position < len(self.text) else free

    def build(self, words: Ints, negated: Ints) -> Segmentation:
        """Units and rules; `words`: bounds of the plain tiling; `negated`: (word, negation) rows, as positions."""
        tiling = Tiling(self.text, self._bounds(words))
        n = len(tiling)
        commas = np.array(sorted(self.commas, key=lambda row: row[1]), np.int64).reshape(-1, 3)
        units = np.where(commas < 0, -1, tiling.unit_at(np.maximum(commas, 0)))
        rows = np.concatenate([self._rows(tiling), tiling.unit_at(negated)])
        return Segmentation(_mask(tiling, self.marks), _distinct(rows, n), units, _mask(tiling, self.pinned), tiling)

    def _bounds(self, words: Ints) -> Ints:
        """The plain bounds with every atom made one unit; white space before an atom is part of it."""
        if not self.atoms:
            return words
        starts, ends = np.array(sorted(self.atoms), np.int64).T
        floor = np.append(0, ends[:-1])
        gaps = zip(floor.tolist(), starts.tolist(), strict=True)
        starts = floor + np.array([len(self.text[s:e].rstrip()) for s, e in gaps], np.int64)
        atom = np.searchsorted(starts, words, side="right") - 1
        inner = words[(atom < 0) | (words >= ends[atom])]
        return within_graphemes(self.text, _set(np.concatenate([inner, starts, ends])))

    def _rows(self, tiling: Tiling) -> Ints:
        """(unit, required) for every unit of every range."""
        spans = np.array(self.needs, np.int64).reshape(-1, 3)
        first = tiling.unit_at(spans[:, 0])
        reach = tiling.unit_at(spans[:, 1] - 1) - first + 1
        unit = np.repeat(first, reach) + np.arange(reach.sum()) - np.repeat(np.cumsum(reach) - reach, reach)
        return np.stack([unit, np.repeat(tiling.unit_at(spans[:, 2]), reach)], 1)


def _mask(tiling: Tiling, positions: list[int]) -> Bools:
    mask = np.zeros(len(tiling), bool)
    mask[tiling.unit_at(np.array(positions, np.int64))] = True
    return mask


def _set(values: Ints) -> Ints:
    """The values sorted, each once; several times as fast as `np.unique`, which hashes."""
    values = np.sort(values)
    return values[np.append(True, values[1:] != values[:-1])] if len(values) else values


def _distinct(rows: Ints, n: int) -> Ints:
    """Rows sorted, each once, none that needs itself."""
    rows = rows[rows[:, 0] != rows[:, 1]]
    codes = _set(rows[:, 0] * n + rows[:, 1])
    return np.stack([codes // max(n, 1), codes % max(n, 1)], 1)
