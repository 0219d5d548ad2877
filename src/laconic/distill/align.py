"""Labels from a teacher's compression: which units of the text did the teacher keep?

The teacher is told to delete only, so its output should be a subsequence of the text. The labels are an exact longest
common subsequence of the two unit lists; among the many longest ones the one with the fewest breaks is taken, because
a teacher deletes in runs. (LLMLingua-2, section 3.2, uses a fuzzy windowed search instead.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

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
