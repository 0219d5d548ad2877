"""Bootstrap intervals hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from laconic.eval.stats import difference, mean, share


def test_the_interval_covers_the_true_mean_as_often_as_its_level_says():
    rng = np.random.default_rng(0)
    samples = rng.exponential(2.0, (200, 60))
    found = [mean(s) for s in samples]
    covered = np.mean([i.low <= 2.0 <= i.high for i in found])
    assert 0.88 <= covered <= 0.98  # a percentile interval is a little short on skewed data


def test_the_interval_is_as_wide_as_the_standard_error_says():
    values = np.random.default_rng(1).normal(0, 1, 400)
    interval = mean(values)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert interval.value == pytest.approx(values.mean())


def test_pairing_removes_what_the_examples_have_in_common():
    rng = np.random.default_rng(2)
    hardness = rng.normal(0, 1, 200)
    left, right = hardness + rng.normal(0.1, 0.1, 200), hardness + rng.normal(0, 0.1, 200)
    paired = difference(left, right)
    assert 0 < paired.low < 0.1 < paired.high + 0.02
    assert paired.high - paired.low < 0.25 * (mean(left).high - mean(left).low)


def test_groups_are_drawn_whole():
    rng = np.random.default_rng(3)
    of_group = np.repeat(rng.normal(0, 1, 20), 50)  # fifty questions on each of twenty texts, all alike
    names = [str(k) for k in np.repeat(np.arange(20), 50)]
    alone, grouped = mean(of_group), mean(of_group, names)
    assert grouped.high - grouped.low > 5 * (alone.high - alone.low)
    assert grouped.value == pytest.approx(alone.value)


def test_groups_of_different_size_keep_the_mean_of_examples():
    assert mean([1, 1, 1, 0], ["a", "a", "a", "b"]).value == pytest.approx(3 / 4)


def test_share_is_the_quotient_of_the_means():
    interval = share([0.5, 0, 1], [1, 0, 1])
    assert interval.value == pytest.approx(0.75)
    assert interval.low <= 0.75 <= interval.high <= 1
    assert np.isnan(share([0, 0], [0, 0]).value) and np.isnan(share([1, 0], [1, -1]).value)


def test_equal_values_have_no_width_and_a_seed_repeats():
    assert str(mean([0.5] * 10)) == "0.500 [0.50, 0.50]"
    values = np.random.default_rng(4).random(30)
    assert mean(values) == mean(values)
