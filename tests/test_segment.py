"""Words, sentences and negation: total, linear, and facts stay whole."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.segment import Segmentation, segment, sentences, words
from laconic.segment.words import LONGEST, PIECE

# fmt: off
ODD = [
    "\u200b", "\u200d", "\ufe0f", "\u0301", "\u064e", "\u05b4", "\u093f", "\u094d", "\u0600", "\ud83d",
    "\udc00", "\x00", "\r\n", "\r", "\n", "\n\n", "\t", " ", "\xa0", "\u2028", "\x1c", "\x85", "\u200f",
    "\u202e", "👩", "👩\u200d💻", "👍🏽", "🇩", "🇫🇷", "1\ufe0f\u20e3", "中", "が", "か\u3099", "ア", "ー", "한",
    "\u1100\u1161", "ก", "ำ", "１", "，", "。", "字", "a", "é", "Ж", "ع", "ש", "ह", "🏴\u200d☠\ufe0f",
]
FORMS = [
    "- ", "# ", "```", "`", "**", "*", "_", "|", "{", "}", "[", "](", ")", "\"", ":", ",", "<b>", "</b>",
    "<br/>", "---", "===", "USER:", "ERROR", "    at x(y:1)", "def f(x):", "    ", "@@ -1 +1 @@",
    "--- a\n+++ b\n", "x = 1;", "Traceback (most recent call last):", "not", "isn't", "word", "3.75", "=", "/",
    "\\", ".", "!", "http://", "@", "> ", "1. ", "{\"a\": 1}",
]
# fmt: on
texts = st.lists(st.sampled_from(ODD + FORMS), max_size=25).map("".join) | st.text(max_size=40)


def check(seg: Segmentation) -> None:
    """What holds for every segmentation."""
    text, n = seg.tiling.text, len(seg.tiling)
    assert "".join(seg.tiling) == text
    assert len(seg.mark) == len(seg.pinned) == n
    if len(seg.needs):
        assert seg.needs.min() >= 0 and seg.needs.max() < n
        assert (seg.needs[:, 0] != seg.needs[:, 1]).all()
    bounds = set(seg.tiling.bounds.tolist())
    position = 0
    for cluster in regex.findall(r"\X", text):
        if len(cluster) <= LONGEST:
            assert not bounds & set(range(position + 1, position + len(cluster))), cluster
        position += len(cluster)


@settings(max_examples=2000, deadline=None)
@given(texts)
def test_any_text_is_tiled_and_no_grapheme_is_cut(text: str) -> None:
    for structure in (True, False):
        check(segment(text, structure))
    ends = sentences(words(text))
    assert ends[0] == 0 and ends[-1] == len(words(text)) and (np.diff(ends) > 0).all()


@settings(max_examples=100, deadline=None)
@given(texts)
def test_same_text_same_segmentation(text: str) -> None:
    one, two = segment(text), segment(text)
    assert np.array_equal(one.tiling.bounds, two.tiling.bounds) and np.array_equal(one.needs, two.needs)


FACTS = """
3.75 1,000 -5 50% $1,000.50 €20 5€ 21°C 1990–2000 2024-05-15 12:30 12:30:45.123 2024-05-15T15:00:00+00:00
v1.2.3 1.2.3-beta.4 snake_case dotted.names CamelCase state-of-the-art 10-minute 0xdeadbeef
550e8400-e29b-41d4-a716-446655440000 C++ C# #123 @name std::vector https://example.com/a?b=1&c=d#e
https://en.wikipedia.org/wiki/Foo_(bar) me@example.com first.last+tag@ex.co.uk /usr/bin/env ./run.sh
../../lib/x.py ~/notes.txt src/laconic/text.py C:\\Users\\me\\a.txt don't O'Brien O’Brien's １２３ １，０００
e.g. U.S. AT&T localhost:8080 --verbose -v naïve 한국어 カタカナ हिन्दी עִבְרִית مُحَمَّد 👩‍💻 👍🏽 🇩🇪 1️⃣ and/or
24/7 3,75 x86_64 $HOME file.py:123
""".split()  # noqa: SIM905


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize("sentence", ["It is {} here", "It is {}, and", "We saw {}", "({})", "{}; {}"])
def test_facts_are_one_unit(fact: str, sentence: str) -> None:
    units = [unit.strip() for unit in words(sentence.format(fact, fact))]
    assert fact in units, units


@pytest.mark.parametrize(
    "fact", ["3.75", "https://example.com/a", "/usr/bin/env", "me@example.com", "1,000", "v1.2.3", "50%"]
)
@pytest.mark.parametrize("stop", [".", "!", "?", ",", ";", ")", "...", '."'])
def test_the_punctuation_after_a_fact_is_not_part_of_it(fact: str, stop: str) -> None:
    assert fact in [unit.strip() for unit in words(f"See {fact}{stop} Then")]


def test_scripts_without_blanks_go_by_character() -> None:
    assert list(words("我不喜欢2024年，谢谢。")) == [*"我不喜欢", "2024", *"年，谢谢。"]
    assert list(words("テスト中です")) == ["テスト", "中", "で", "す"]
    assert list(words("กำลัง")) == ["กำ", "ลั", "ง"]


@pytest.mark.parametrize("run", ["a", "é", "e\u0301", "👩‍", "9", "x/", "0123456789abcdef", "가"])
def test_long_runs_are_cut_into_pieces(run: str) -> None:
    text = run * 3000
    lengths = np.diff(words("see " + text + " then").bounds)
    assert lengths.max() <= (LONGEST if run.endswith("\u200d") else PIECE) + 1  # endless joiners are one long grapheme


def split(text: str) -> list[str]:
    tiling = words(text)
    edges = tiling.bounds[sentences(tiling)].tolist()
    return [text[s:e].strip() for s, e in pairwise(edges)]


@pytest.mark.parametrize(
    "parts",
    [
        ["Dr. Wu left.", "He had 3.5 reasons."],
        ["See Mr. J. Smith, e.g. at No. 5 of the U.S. list.", "Then go."],
        ["“Is it?”", "She nodded!", "(Yes.)", "No…", "Well."],
        ["It costs $3.75.", "See https://a.b/c.", "End"],
    ],
)
def test_sentences(parts: list[str]) -> None:
    assert split(" ".join(parts)) == parts


def test_sentences_of_chinese_and_of_lines() -> None:
    assert split("今天下雨。我不去！好吗？") == ["今天下雨。", "我不去！", "好吗？"]
    assert split("Buy:\n- milk\n- eggs") == ["Buy:", "- milk", "- eggs"]
    assert split("First\n\nSecond") == ["First", "Second"]
    assert sentences(words("")).tolist() == [0]
    assert split("One. \n") == ["One."]


def required(text: str, unit: str) -> set[str]:
    """What a unit needs, as text."""
    seg = segment(text)
    units = [u.strip() for u in seg.tiling]
    return {units[r] for u, r in seg.needs.tolist() if units[u] == unit}


@pytest.mark.parametrize(
    ("text", "word", "negations"),
    [
        ("We do not accept returns.", "accept", {"not"}),
        ("It isn’t ready, but the door is open.", "ready", {"isn’t"}),
        ("It isn't ready, but the door is open.", "door", set()),
        ("No refunds after May; exchanges are fine.", "refunds", {"No"}),
        ("Pay now. You cannot leave without a receipt.", "receipt", {"without"}),
        ("Pay now. You cannot leave without a receipt.", "leave", {"cannot"}),
        ("Das ist nicht teuer.", "teuer", {"nicht"}),
        ("Je n'ai rien vu ici.", "vu", {"n'ai"}),
        ("No lo sabe nadie aquí.", "sabe", {"No"}),
        ("Он не знает этого.", "знает", {"не"}),
        ("see No. 5 here", "see", set()),
        ("a knot is tight", "knot", set()),
        ("It does not\nbreak at a wrapped line.", "break", {"not"}),
    ],
)
def test_negations_stay_with_their_clause(text: str, word: str, negations: set[str]) -> None:
    assert required(text, word) == negations


def test_chinese_negation() -> None:
    assert required("他不喜欢猫，狗很好。", "喜") == {"不"}
    assert required("他不喜欢猫，狗很好。", "狗") == set()


def test_negation_rules_are_linear() -> None:
    assert len(segment("not " * 20_000).needs) < 50_000


def test_punctuation_needs_no_negation() -> None:
    assert required("He did not go.", ".") == set()


# fmt: off
HOSTILE = [
    "(", "a", "<a>", "[", "```\n", "- \n", "- a\n", "é", "\n", " ", "1,", "a.", "http://", "中", "e\u0301",
    "👩\u200d", "./", "../", "a@", "a+", "\\", "--", "$", "'", "(a", "\u0301", "/.", "*a", "**", "**a", "`",
    "`a", "_a ", "[a](", "|", "|\n|", "<a>\n</a>", "x=", "A: ", "A:\n", "    at ", "ERROR ", "{", "{\"",
    "{\"a\":", "@@ -1 +1 @@\n", "--- a\n+++ b\n", "===\n", "a\n===\n", "a ", "if (", "> ", "not ", "a;", ".",
    "?!",
]
# fmt: on


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_repeats_take_linear_time(piece: str) -> None:
    """Four times the text takes about four times the time; the bound leaves room for a busy machine."""
    times = []
    for size in (20_000, 80_000):
        text = piece * (size // len(piece))
        start = time.process_time()
        seg = segment(text)
        sentences(seg.tiling)
        times.append(time.process_time() - start)
        assert "".join(seg.tiling) == text
    assert times[1] < 10 * times[0] + 0.1, times
