"""Information-gain retention and bits, by hand and against intervals made another way."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from laconic.errors import InputError
from laconic.eval.retention import bits_per, retention, retention_gap


def test_retention_by_hand():
    # gains of 4 and 0 nats in full, of 1 and 1 with the memory: 2/4, not the mean of 1/4 and infinity
    assert retention([5, 2], [4, 1], [1, 2]).value == pytest.approx(1 / 2)


def test_the_full_context_retains_all_and_no_context_nothing():
    none, full = [3.0, 4.0, 5.0], [1.0, 1.0, 2.0]
    assert vars(retention(none, full, full)) == {"value": 1, "low": 1, "high": 1}
    assert vars(retention(none, none, full)) == {"value": 0, "low": 0, "high": 0}
    assert retention(none, [4, 5, 6], full).high < 0  # a memory that misleads


def test_a_reader_that_gains_nothing_from_the_context_has_no_retention():
    assert np.isnan(retention([1, 2], [1, 1], [1, 2]).value)


def made(seed, n=400):
    """Items as a reader would have them: how much is told differs far more than what is kept of it."""
    random = np.random.default_rng(seed)
    told = random.exponential(3.0, n)
    none = told + random.exponential(1.0, n)
    kept = {share: none - share * told + random.normal(0, 0.1, n) for share in (0.3, 0.4)}
    return none, kept[0.3], kept[0.4], none - told


def test_intervals_cover_what_is_kept():
    inside = 0
    for seed in range(60):
        none, left, _, full = made(seed, 100)
        found = retention(none, left, full)
        inside += found.low <= 0.3 <= found.high
    assert 52 <= inside <= 60


def test_the_interval_is_a_bootstrap_of_the_ratio_of_means():
    none, left, _, full = made(1)
    random, ratios = np.random.default_rng(9), []
    for _ in range(3000):
        k = random.integers(0, 400, 400)
        ratios.append((none[k] - left[k]).sum() / (none[k] - full[k]).sum())
    found = retention(none, left, full)
    assert (found.low, found.high) == pytest.approx(np.quantile(ratios, [0.025, 0.975]), abs=1e-3)


def test_a_gap_is_the_difference_and_pairing_makes_it_narrow():
    none, left, right, full = made(2)
    gap, one, two = retention_gap(none, right, left, full), retention(none, right, full), retention(none, left, full)
    assert gap.value == pytest.approx(one.value - two.value)
    assert 0 < gap.low < 0.1 < gap.high + 0.01
    assert retention_gap(none, left, right, full).high < 0
    same = retention_gap(none, left, left, full)
    assert (same.low, same.value, same.high) == (0, 0, 0)


def test_groups_of_questions_are_drawn_whole():
    none, left, _, full = (np.repeat(values, 20) for values in made(3, 30))
    groups = [str(k) for k in np.repeat(np.arange(30), 20)]
    alone, grouped = retention(none, left, full), retention(none, left, full, groups)
    assert grouped.high - grouped.low > 3 * (alone.high - alone.low) and grouped.value == pytest.approx(alone.value)


def test_bits_by_hand():
    # four answers of 6 bits each, of which the memory gives one in two items all, in the others none; 4 slots, 1 KiB
    none, memory = [24 * log(2)] * 4, [0, 24 * log(2)] * 2
    assert bits_per(none, memory, [4] * 4).value == pytest.approx(24 / 8)
    assert bits_per(none, memory, [1024] * 4).value == pytest.approx(12 / 1024)
    assert bits_per([2 * log(2)] * 2, [0, 0], [1, 3]).value == pytest.approx(1)  # all bits by all slots


@pytest.mark.parametrize(
    "items",
    [([1, 2], [1], [0, 1]), ([], [], []), ([1.0, float("nan")], [1, 1], [0, 0]), ([1, 2], [1, 1], [0, float("inf")])],
)
def test_items_that_do_not_match_or_count_are_refused(items):
    with pytest.raises(InputError, match="one finite number an item"):
        retention(*items)
