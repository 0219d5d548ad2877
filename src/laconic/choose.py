"""From scores to a keep mask: order the units, then take as many as the budget allows.

Every unit gets an *entry*: the place in the order at which it joins. The mask for a cut-off k is `entry <= k`, so a
smaller budget always keeps a subset of what a larger one keeps, and rules ("a word needs the negation of its clause",
"a member needs its bracket") are settled once, on the entries, not per budget.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np

from laconic.segment import Rules
from laconic.text import Bools, Floats, Ints

_LINE = 40  # characters: a unit up to this size never waits


def by_score(scores: Floats, rules: Rules) -> Ints:
    """The units, best score first: int64[r]. Ties go to the earlier unit, NaN is last, marks have no place."""
    rank = np.argsort(-scores, kind="stable")  # NaN sorts last
    return rank[~rules.mark[rank]]


def entries(rank: Ints, rules: Rules, protected: Bools) -> Ints:
    """The entry of every unit when they join in the order `rank`: int64[n].

    Protected and pinned units enter at 0. A mark enters with the first unit that needs it, at `len(rank) + 1` (so
    never) where none does.
    """
    entry = np.full(len(rules.mark), len(rank) + 1, np.int64)
    entry[rank] = np.arange(1, len(rank) + 1)
    entry[protected | rules.pinned] = 0
    if len(rules.needs):
        _with_what_they_need(entry, rules.needs)
    if len(rules.commas):
        _commas(entry, rules.commas)
    return entry


def _with_needs(sizes: Ints, needs: Ints) -> Ints:
    """What each unit costs with the units it needs at once, in characters."""
    cost: Ints = sizes.copy()
    if len(needs):
        np.add.at(cost, needs[:, 0], sizes[needs[:, 1]])
    return cost


def in_front(rank: Ints, units: Ints) -> Ints:
    """The order with these units first, in the order of the text."""
    return np.concatenate([units[np.isin(units, rank)], rank[~np.isin(rank, units)]])


def large_ones_wait(rank: Ints, rules: Rules, sizes: Ints) -> Ints:
    """The order, changed so that a unit of more than `_LINE` characters joins only when as much is in already.

    Otherwise one long line of code with the best score would leave a small budget empty. So the next unit never costs
    more than what is kept, a budget is at least half filled, and smaller budgets still keep subsets. `sizes`: int64[n],
    characters.
    """
    if not (sizes > _LINE).any():
        return rank
    cost = _with_needs(sizes, rules.needs)
    order: list[int] = []
    waiting: list[tuple[int, int, int]] = []  # (cost, place, unit), the cheapest first
    total = 0
    costs = cost[rank].tolist()
    for place, (unit, size) in enumerate(zip(rank.tolist(), costs, strict=True)):
        if size > max(total, _LINE):
            heapq.heappush(waiting, (size, place, unit))
            continue
        order.append(unit)
        total += size
        while waiting and waiting[0][0] <= total:
            size, _, unit = heapq.heappop(waiting)
            order.append(unit)
            total += size
    return np.array(order + [unit for _, _, unit in sorted(waiting)], np.int64)


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
