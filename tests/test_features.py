"""Capitals and layout as token types."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from laconic.features import TYPES, Features


def kinds(text: str) -> list[tuple[int, int]]:
    """(layout, case) of the words of a text split at blanks."""
    starts, ends, at = [], [], 0
    for word in text.split():
        at = text.index(word, at)
        starts.append(at)
        at += len(word)
        ends.append(at)
    types = Features(text).types(np.array(starts), np.array(ends)) - 1
    return [divmod(int(t), 3) for t in types]


def test_case_is_none_one_in_front_or_other():
    assert [case for _, case in kinds("the cat The Cat NASA iPhone I Élan x")] == [0, 0, 1, 1, 2, 2, 1, 1, 0]


def test_layout_is_glued_blank_line_or_paragraph():
    text = "one two\nthree\n\nfour \n five"
    assert [layout for layout, _ in kinds(text)] == [3, 1, 2, 3, 2]
    glued = Features("don't").types(np.array([0, 3, 4]), np.array([3, 4, 5])) - 1
    assert (glued // 3).tolist() == [3, 0, 0]


@given(st.text(max_size=60))
def test_any_text_gives_types_in_range(text):
    places = np.arange(len(text))
    types = Features(text).types(places, places + 1)
    assert len(types) == len(text) and ((types >= 1) & (types < TYPES)).all()
