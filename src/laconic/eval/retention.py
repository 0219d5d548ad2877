"""How much of what a context tells a reader is still there in a memory of it, in bits.

Every argument holds one number an item, in the same order: the negative log-likelihood (NLL), in nats, of the tokens
that are asked for (an answer, a continuation), summed over them, by the same frozen reader. Intervals are bootstrap
intervals over items (95 %), paired; groups: one name an item, whole groups are drawn (`laconic.eval.stats`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np

from laconic.errors import InputError
from laconic.eval.stats import Array, Interval, Sample, share

Groups = Sequence[str] | None


def retention(none: Sample, memory: Sample, full: Sample, groups: Groups = None) -> Interval:
    """Information-gain retention: (NLL without - NLL with the memory) / (NLL without - NLL with the full context).

    A ratio of means, so that items of which the context tells little weigh little. 1: as good as the full context;
    0: as good as none; below 0: misleading, as a memory of another text should be. NaN where the full context tells
    nothing.
    """
    without, with_memory, with_all = _items(none, memory, full)
    return share(without - with_memory, without - with_all, groups)


def retention_gap(
    none: Sample,
    left: Sample,
    right: Sample,
    full: Sample,
    groups: Groups = None,
) -> Interval:
    """Retention of the memories `left` minus that of the memories `right`, of the same contexts."""
    without, with_left, with_right, with_all = _items(none, left, right, full)
    return share(with_right - with_left, without - with_all, groups)


def bits_per(none: Sample, memory: Sample, size: Sample, groups: Groups = None) -> Interval:
    """Bits that the memories save, (NLL without context - NLL with the memory) / ln 2, by slot or byte of them.

    size: slots, or bytes, of each item's memory. What is not asked for is not counted: where each of P pairs is as
    likely to be asked for as any other and an item asks for n of them, P / n times as much is in the memory.
    """
    without, with_memory, sizes = _items(none, memory, size)
    return share((without - with_memory) / log(2), sizes, groups)


def _items(*columns: Sample) -> list[Array]:
    arrays = [np.asarray(column, np.float64) for column in columns]
    if len({a.shape for a in arrays}) != 1 or not len(arrays[0]) or not all(np.isfinite(a).all() for a in arrays):
        raise InputError(
            f"each must have one finite number an item, and there must be items; got {[a.shape for a in arrays]}"
        )
    return arrays
