"""Tilings, spans and mending."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.segment import words
from laconic.text import Tiling, cut, join, mend, pool
from texts import texts


def kept(text: str, *units: str) -> str:
    """The mended text of the units that hold these strings."""
    tiling = words(text)
    keep = np.array([u.strip() in units for u in tiling])
    return cut(tiling, mend(tiling, keep))


@settings(max_examples=1500, deadline=None)
@given(texts, st.data())
def test_spans_are_sorted_disjoint_and_do_not_touch(text, data):
    tiling = words(text)
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(tiling), max_size=len(tiling))), bool)
    spans = mend(tiling, keep)
    flat = spans.ravel().tolist()
    assert all(a < b for a, b in pairwise(flat))
    assert not flat or (flat[0] >= 0 and flat[-1] <= len(text))


@settings(max_examples=1500, deadline=None)
@given(texts, st.data())
def test_a_line_break_between_kept_units_stays_and_words_never_fuse(text, data):
    tiling = words(text)
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(tiling), max_size=len(tiling))), bool)
    out = mend(tiling, keep).tolist()
    cores = tiling.edges.core
    picked = np.flatnonzero(keep & (cores < tiling.bounds[1:]))
    for a, b in pairwise(picked.tolist()):
        end, start = int(tiling.bounds[a + 1]), int(cores[b])
        between = text[end:start]
        rendered = "".join(text[max(s, end) : min(e, start)] for s, e in out if s < start and e > end)
        if "\n" in between:
            assert any(c in rendered for c in "\n\r\v\f\x85\u2028\u2029")
        if text[end - 1].isascii() and text[start].isascii() and text[end - 1].isalnum() and text[start].isalnum():
            assert not any(c.isspace() for c in between) or any(c.isspace() for c in rendered)


@settings(max_examples=500, deadline=None)
@given(texts)
def test_keeping_all_is_the_text_and_keeping_none_is_nothing(text):
    tiling = words(text)
    assert cut(tiling, mend(tiling, np.ones(len(tiling), bool))) == text
    assert cut(tiling, mend(tiling, np.zeros(len(tiling), bool))) == ""


@pytest.mark.parametrize(
    ("text", "units", "expected"),
    [
        ("one two three", ("one", "three"), "one three"),
        ("one\ntwo three", ("one", "three"), "one\nthree"),
        ("one\r\ntwo three", ("one", "three"), "one\r\nthree"),
        ("one\n\ntwo three", ("one", "three"), "one\n\nthree"),
        ("one\n\n\n\ntwo three", ("one", "three"), "one\n\nthree"),
        ("one two\n    three", ("one", "three"), "one\n    three"),
        ("foo bar(baz)", ("foo", "baz"), "foo baz"),
        ("foo(baz)", ("foo", "baz"), "foo(baz"),
        ("foo, (baz)", ("foo", ",", "baz"), "foo, baz"),
        ("Hello, world.", ("world", "."), "world."),
        ("drop\n    indented", ("indented",), "    indented"),
        ("我们今天去", ("我", "去"), "我去"),
        ("section 3.(5)", ("section", "3", ".", "5"), "section 3.(5"),
        ("at 7:(30)", ("at", "7", ":", "30"), "at 7:(30"),
        ("a 5 (.5)", ("a", "5", ".5"), "a 5 .5"),
        ("pay 20 ($15)", ("pay", "20", "$15"), "pay 20 $15"),
    ],
)
def test_mending(text, units, expected):
    assert kept(text, *units) == expected


def test_units_keep_their_own_white_space():
    assert list(words("a  b\n\n  c ")) == ["a", "  b", "\n\n  c", " "]


def test_bounds_that_are_no_tiling_are_our_bug():
    with pytest.raises(AssertionError):
        Tiling("abc", np.array([0, 2]))


def test_join_merges_touching_spans():
    assert join(np.array([[0, 2], [2, 3], [5, 6]])).tolist() == [[0, 3], [5, 6]]


def test_pool_is_the_mean_of_the_tokens_that_touch_a_unit():
    tiling = Tiling.of("ab cd ef", [2, 5])
    values = np.array([0.2, 0.4, 0.9, 0.5], np.float32)
    starts, ends = np.array([0, 1, 1, 4]), np.array([1, 2, 1, 7])  # the third covers nothing, the last two units
    pooled = pool(values, starts, ends, tiling)
    assert pooled[:2] == pytest.approx([0.3, 0.5])
    assert pooled[2] == pytest.approx(0.5)
    assert np.isnan(pool(values[:1], starts[:1], ends[:1], tiling)[1])
