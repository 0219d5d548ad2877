"""Bootstrap intervals over examples, paired and by group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Sample = Sequence[float] | Array  # one number an example
ROUNDS = 2000
TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class Interval:
    """A statistic of the sample with the ends of its percentile interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.2f}, {self.high:.2f}]"


def bootstrap(
    values: Array,
    statistic: Callable[[Array], Array],
    groups: Sequence[str] | None = None,
) -> Interval:
    """95 % percentile interval (Efron, 1979) of a statistic of the column means; float64[n, k], one row an example.

    statistic: float64[m, k], means of m samples, to float64[m]. groups: one name an example; whole groups are drawn,
    because questions on one text are not independent.
    """
    _, group = np.unique(np.arange(len(values)) if groups is None else np.array(groups), return_inverse=True)
    size = np.bincount(group).astype(np.float64)
    totals = np.stack([np.bincount(group, column) for column in values.T], 1)  # [groups, k]
    weights = _weights(len(size))
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = statistic(weights @ totals / (weights @ size)[:, None])
        value = float(statistic(values.mean(0, keepdims=True))[0])
    drawn = drawn[np.isfinite(drawn)]  # a share of nothing says nothing
    low, high = np.quantile(drawn, TAILS) if len(drawn) else (np.nan, np.nan)
    return Interval(value, float(low), float(high))


@lru_cache(maxsize=4)
def _weights(groups: int) -> npt.NDArray[np.int64]:
    """How often each group is drawn in each round: int64[ROUNDS, groups]; seeded."""
    return np.random.default_rng(0).multinomial(groups, np.full(groups, 1 / groups), ROUNDS)


def mean(values: Sample, groups: Sequence[str] | None = None) -> Interval:
    """The mean of the examples."""
    return bootstrap(np.array(values, np.float64)[:, None], lambda m: m[:, 0], groups)


def difference(left: Sample, right: Sample, groups: Sequence[str] | None = None) -> Interval:
    """Mean of `left` minus mean of `right`, measured on the same examples in the same order."""
    return bootstrap(np.array([left, right], np.float64).T, lambda m: m[:, 0] - m[:, 1], groups)


def share(part: Sample, whole: Sample, groups: Sequence[str] | None = None) -> Interval:
    """Mean of `part` as a share of the mean of `whole`, on the same examples; NaN where that is 0."""
    return bootstrap(
        np.array([part, whole], np.float64).T, lambda m: np.where(m[:, 1] == 0, np.nan, m[:, 0] / m[:, 1]), groups
    )
