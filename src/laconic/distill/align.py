"""Labels from a teacher's compression: which units of the text did the teacher keep?

The teacher is told to delete only, so its output should be a subsequence of the text. The labels are an exact longest
common subsequence of the two unit lists; among the many longest ones the one with the fewest breaks is taken, because
a teacher deletes in runs. LLMLingua-2 (arXiv 2403.12968, section 3.2) searches each word in a window around the last
match instead; that is here to be measured against (`compare`, bench/annotation.py), labels are always the exact ones.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from laconic.text import Span

WINDOW = 150  # units to either side, as in the paper
_UNIT = re.compile(r"\w+|[^\w\s]")


def units(text: str) -> list[tuple[int, int]]:
    """Half-open code point spans of the words and single punctuation marks of `text`.

    >>> [ "It cost $3."[s:e] for s, e in units("It cost $3.") ]
    ['It', 'cost', '$', '3', '.']
    """
    return [m.span() for m in _UNIT.finditer(text)]


def kept_units(original: Sequence[str], compressed: Sequence[str]) -> npt.NDArray[np.bool_]:
    """A keep mask over `original`: bool[len(original)], an exact longest common subsequence with `compressed`.

    Comparison is exact: casing and punctuation count. Ties prefer pairs that are adjacent on both sides.

    >>> kept_units(["the", "cat", "sat"], ["cat", "sat"]).tolist()
    [False, True, True]
    """
    n, m = len(original), len(compressed)
    keep = np.zeros(n, bool)
    if not n or not m:
        return keep
    ids: dict[str, int] = {}
    a = np.array([ids.setdefault(w, len(ids)) for w in original])
    b = np.array([ids.setdefault(w, len(ids)) for w in compressed])
    pair = n + m + 1  # one more matched pair outweighs any number of adjacencies
    # best[i, j]: best score of a[:i], b[:j]; ends[i, j]: the same, with a[i-1] paired with b[j-1].
    best = np.zeros((n + 1, m + 1), np.int64)
    ends = np.full((n + 1, m + 1), -1, np.int64)
    for d in range(2, n + m + 1):  # anti-diagonals: every cell of one depends on the two before only
        i = np.arange(max(1, d - m), min(n, d - 1) + 1)
        j = d - i
        same = a[i - 1] == b[j - 1]
        before = np.maximum(best[i - 1, j - 1], np.where(ends[i - 1, j - 1] >= 0, ends[i - 1, j - 1] + 1, 0))
        ends[i, j] = np.where(same, before + pair, -1)
        best[i, j] = np.maximum(np.maximum(best[i - 1, j], best[i, j - 1]), ends[i, j])
    row, column = n, m
    paired = False  # the pair after this one was taken, and earned its adjacency with this one
    while row and column:
        if paired or best[row, column] == ends[row, column]:
            row, column = row - 1, column - 1
            keep[row] = True
            paired = bool(0 <= ends[row, column] >= best[row, column] - 1)
        elif best[row, column] == best[row - 1, column]:
            row -= 1
        else:
            column -= 1
    return keep


def kept_spans(places: Sequence[Span], keep: npt.NDArray[np.bool_]) -> list[Span]:
    """Runs of kept units as spans of the text; `places`: the units' own spans, `keep`: bool[len(places)].

    >>> kept_spans([(0, 2), (3, 7), (8, 9)], np.array([True, True, False]))
    [(0, 7)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], keep.astype(np.int8), [0]]))).tolist()
    return [(places[first][0], places[stop - 1][1]) for first, stop in zip(edges[::2], edges[1::2], strict=True)]


def windowed_pairs(original: Sequence[str], compressed: Sequence[str], window: int = WINDOW) -> npt.NDArray[np.int64]:
    """The paper's search: for each unit of `compressed` the index of its match in `original`, or -1: int64[m].

    The match is the nearest unlabelled unit of the same lower-cased form, fewer than `window` away from the last match;
    at equal distance the later one. The paper compares lemmas; word forms are all that units have. Unlike the
    reference code, places outside the text are skipped, not clipped to its ends, and a far match is not halved.

    >>> windowed_pairs(["The", "cat", "sat"], ["sat", "the", "dog"]).tolist()
    [2, 0, -1]
    """
    forms = [w.lower() for w in original]
    free = [True] * len(forms)
    pairs, last = np.full(len(compressed), -1, np.int64), 0
    for j, word in enumerate(w.lower() for w in compressed):
        for k in (place for step in range(window) for place in (last + step, last - step)):
            if 0 <= k < len(forms) and free[k] and forms[k] == word:
                pairs[j], last, free[k] = k, k, False
                break
    return pairs


@dataclass(frozen=True)
class Comparison:
    """Exact labels against windowed ones, as counts over one pair of texts."""

    units: int  # of the text
    teacher: int  # units of the compression
    same: int  # units of the text with the same label in both
    exact: int  # kept units
    windowed: int
    moved: int  # the same word form kept by both, but at another place
    backward: int  # windowed matches before the match of an earlier word: wrong if words were only deleted


def compare(original: Sequence[str], compressed: Sequence[str], window: int = WINDOW) -> Comparison:
    """Label with both methods and count where they differ.

    >>> compare("a b c a d".split(), "c a".split())
    Comparison(units=5, teacher=2, same=5, exact=2, windowed=2, moved=0, backward=0)
    """
    exact = kept_units(original, compressed)
    pairs = windowed_pairs(original, compressed, window)
    found = pairs[pairs >= 0]
    windowed = np.zeros(len(original), bool)
    windowed[found] = True
    moved = _forms(original, exact & ~windowed) & _forms(original, windowed & ~exact)
    return Comparison(
        units=len(original),
        teacher=len(compressed),
        same=int((exact == windowed).sum()),
        exact=int(exact.sum()),
        windowed=len(found),
        moved=sum(moved.values()),
        backward=int((np.diff(found) < 0).sum()),
    )


def _forms(original: Sequence[str], where: npt.NDArray[np.bool_]) -> Counter[str]:
    return Counter(w.lower() for w, here in zip(original, where.tolist(), strict=True) if here)
