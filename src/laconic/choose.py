"""From scores to a keep mask: order the units, then take as many as the budget allows.

Every unit gets an *entry*: the place in the order at which it joins. The mask for a cut-off k is `entry <= k`, so a
smaller budget always keeps a subset of what a larger one keeps, and rules ("a word needs the negation of its clause",
"a member needs its bracket") are settled once, on the entries, not per budget.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from laconic.segment import Segmentation
from laconic.text import Bools, Floats, Ints


def entries(scores: Floats, rules: Segmentation, protected: Bools) -> tuple[Ints, Ints]:
    """The entry of every unit, int64[n], and the units in order of their score, int64[r].

    Best score first, ties to the earlier unit, NaN last. Protected and pinned units enter at 0. Marks have no place of
    their own: they enter with the first unit that needs them (`r + 1`, so never, where none does).
    """
    rank = np.argsort(-scores, kind="stable")  # NaN sorts last
    rank = rank[~rules.mark[rank]]
    entry = np.full(len(scores), len(rank) + 1, np.int64)
    entry[rank] = np.arange(1, len(rank) + 1)
    entry[protected | rules.pinned] = 0
    if len(rules.needs):
        _with_what_they_need(entry, rules.needs)
    if len(rules.commas):
        _commas(entry, rules.commas)
    return entry, rank


def _with_what_they_need(entry: Ints, needs: Ints) -> None:
    """Whatever a unit needs enters no later than the unit; repeated until chains of needs are settled."""
    unit, required = needs.T
    while True:
        before = entry[required]
        np.minimum.at(entry, required, entry[unit])
        if (entry[required] == before).all():
            return


def _commas(entry: Ints, commas: Ints) -> None:
    """A comma enters with its member, but not before another member stands in front of it."""
    earliest: dict[int, int] = {}
    for comma, member, container in commas.tolist():
        own = int(entry[member])
        first = earliest.get(container)
        if comma >= 0:
            entry[comma] = max(own, len(entry) + 1 if first is None else first)
        earliest[container] = own if first is None else min(own, first)


def largest_cutoff(last: int, limit: int, count: Callable[[int], int]) -> int:
    """The cut-off in 0..last whose rendering fits `limit` tokens while the next one's does not.

    `count(k)` is the exact count of the rendered output at cut-off k. It need not be monotone (tokenizers merge
    across units): plain bisection with fixed midpoints never gives a smaller limit a larger cut-off.
    """
    if count(last) <= limit:
        return last
    low, high = 0, last
    while high - low > 1:
        middle = (low + high) // 2
        if count(middle) <= limit:
            low = middle
        else:
            high = middle
    return low
