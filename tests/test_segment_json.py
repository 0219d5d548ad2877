"""JSON promises: whatever is chosen under the rules of a segmentation still parses."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from laconic.segment import Segmentation, segment
from laconic.text import mend


def closure(seg: Segmentation, chosen: set[int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The keep mask of a choice under `needs`, `pinned` and `commas`: the smallest closed set that holds it."""
    keep = seg.pinned.copy()
    keep[list(chosen)] = True
    while True:
        required = seg.needs[keep[seg.needs[:, 0]], 1]
        if keep[required].all():
            break
        keep[required] = True
    seen: set[int] = set()
    for comma, member, container in seg.commas.tolist():
        if keep[member]:
            if container in seen:
                keep[comma] = True
            seen.add(container)
    return keep


def render(seg: Segmentation, keep: np.ndarray[Any, np.dtype[np.bool_]]) -> str:
    return "".join([seg.tiling.text[s:e] for s, e in mend(seg.tiling, keep).tolist()])


def choose(seg: Segmentation, rate: float, rng: random.Random) -> str:
    """The text of a random choice among the units that may be chosen."""
    chosen = {k for k in np.flatnonzero(~seg.mark).tolist() if rng.random() < rate}
    return render(seg, closure(seg, chosen))


# fmt: off
PIECES = [
    "word", "not", "naïve", "中文", "ก", "3.75", "a\nb", "\"", "\\", "\t", "\u2028", "\x85", "👩\u200d💻", "\u0301",
    "\u0600", " ", "  ", "é", "(", ").", "/", "http://a.b/c?d=1", "\ud83d", "x_y", "\xa0", "Ж", "가", "[1]", "{",
    "}", ",",
]
# fmt: on
long_text = st.lists(st.sampled_from(PIECES), min_size=0, max_size=60).map(" ".join) | st.lists(
    st.sampled_from(PIECES), max_size=80
).map("".join)
scalar = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | long_text
keys = st.text(max_size=5) | st.sampled_from(PIECES)
value = st.recursive(scalar, lambda v: st.lists(v, max_size=5) | st.dictionaries(keys, v, max_size=5), max_leaves=20)
COMPACT: dict[str, Any] = {"separators": (",", ":")}
layout = st.sampled_from([{}, {"indent": 2}, COMPACT, {"ensure_ascii": False}, {"ensure_ascii": False, "indent": "\t"}])
rows = st.lists(value, min_size=1, max_size=4) | st.dictionaries(keys, value, min_size=1)


@settings(max_examples=250, deadline=None)
@given(rows, layout, st.integers(0, 2**32))
@example(["中\u2028" * 40, True], {"ensure_ascii": False}, 3)
@example({"": "word " * 12 + "\u2028"}, {"ensure_ascii": False}, 0)
@example(["\u2028" + "word" * 12], {"ensure_ascii": False}, 0)
@example(["ก.\n\u00e9t" + "中文(abc)" * 20 + "abc"], {}, 1)
def test_any_choice_parses(data: Any, how: dict[str, Any], seed: int) -> None:
    text = json.dumps(data, **how)
    seg = segment(text)
    assert "".join(seg.tiling) == text
    rng = random.Random(seed)
    for rate in (0.0, 0.1, 0.4, 0.8):
        kept = choose(seg, rate, rng)
        parsed = json.loads(kept)
        assert type(parsed) is type(data)
    assert choose(seg, 1.0, rng) == text.rstrip()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(keys, value, min_size=1), min_size=1, max_size=4), st.integers(0, 999))
def test_json_lines_parse_line_by_line(rows: list[Any], seed: int) -> None:
    seg = segment("\n".join(json.dumps({"k": row}) for row in rows))
    for line in choose(seg, 0.3, random.Random(seed)).split("\n"):
        assert not line or isinstance(json.loads(line), dict)


def test_duplicate_keys_and_empty_containers() -> None:
    seg = segment('{"a": 1, "a": {}, "b": [ ], "a": [[], 2]}')
    assert list(seg.tiling) == [
        "{",
        '"a": 1',
        ",",
        ' "a": {}',
        ",",
        ' "b": [ ]',
        ",",
        ' "a": [',
        "[]",
        ",",
        " 2",
        "]",
        "}",
    ]
    assert seg.pinned.tolist() == [True] + [False] * 11 + [True]


def test_exactly_as_many_commas_as_members_ask_for() -> None:
    seg = segment("[1, 2, 3, 4]")
    keep = closure(seg, {1, 7})
    assert render(seg, keep) == "[1, 4]"


def test_a_long_string_is_cut_by_its_words() -> None:
    seg = segment(json.dumps({"note": "It was late and nobody had seen the cat since Monday, so they all went home."}))
    units = list(seg.tiling)
    assert units[:4] == ["{", '"note": "', "It", " was"]
    assert units[-2:] == ['"', "}"]
    assert seg.mark[1] and seg.mark[-2]


@pytest.mark.parametrize("escape", ["\\n", '\\"', "\\u00e9", "\\ud83d\\ude00", "\\u4e2d"])
def test_escapes_are_never_cut(escape: str) -> None:
    text = json.dumps({"a": "word " * 20})[:-2] + f"x{escape}y {escape} ({escape}z){escape}" + '"}'
    bounds = segment(text).tiling.bounds
    for position in range(len(text)):
        if text.startswith(escape, position):
            assert not ((bounds > position) & (bounds < position + len(escape))).any()


def test_json_after_a_label_and_in_a_fence() -> None:
    for text in ('api_call: {"method": "Search", "n": 2}\nok then', '```json\n{"a": 1,\n "b": [1, 2]}\n```\nDone.'):
        seg = segment(text)
        assert not seg.pinned.any()
        member = next(k for k, unit in enumerate(seg.tiling) if unit.strip().startswith(('"n": 2', '"b"')))
        kept = render(seg, closure(seg, {member}))
        assert json.loads(kept[kept.index("{") : kept.rindex("}") + 1])


def test_what_only_looks_like_json_is_prose() -> None:
    for text in ("{not json}", "[1] Smith", "{" * 100, "[" * 100 + "]" * 100, '{"a": 1,}'):
        assert not segment(text).pinned.any()


@pytest.mark.parametrize(
    "text", ['{"a":' * 50_000, '[{"' * 100_000, "[[\n" * 100_000, '{"a": 1}\n' * 50_000], ids=range(4)
)
def test_hostile_json_takes_no_time(text: str) -> None:
    assert "".join(segment(text).tiling) == text
