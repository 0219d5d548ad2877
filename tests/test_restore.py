"""Restoring what an answer quotes: by hand, as properties, against a search without an index, and against llmlingua."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import laconic
from laconic.errors import InputError
from laconic.prompt import Part, Prompt
from laconic.restore import Restorer, _suffix_array, tells
from laconic.result import Compression, KeptPart
from laconic.segment import sentences, words
from laconic.text import mend
from texts import texts

TFIDF = laconic.load(method="tfidf")


def part(marked: str) -> KeptPart:
    """What stays when the words in brackets are dropped."""
    pieces = re.split(r"([\[\]])", marked)
    text, inside, dropped = "", False, []
    for piece in pieces:
        if piece in ("[", "]"):
            inside = piece == "["
            continue
        if inside:
            dropped.append((len(text), len(text) + len(piece)))
        text += piece
    tiling = words(text)
    middle = (tiling.edges.core + tiling.bounds[1:]) / 2
    keep = np.array([not any(s <= m < e for s, e in dropped) for m in middle], bool)
    return KeptPart(tiling, np.zeros(len(tiling), np.float32), keep, mend(tiling, keep))


def compression(*marked: str) -> Compression:
    parts = tuple(part(m) for m in marked)
    prompt = Prompt(tuple(Part(p.original) for p in parts), None if len(parts) == 1 else ())
    return Compression(parts, prompt, 1, 1, True, "test", "", "words", 0.0)


def restored(marked: str | list[str], answer: str) -> str:
    return compression(*([marked] if isinstance(marked, str) else marked)).restore(answer)


@pytest.mark.parametrize(
    ("marked", "answer", "expected"),
    [
        ("the Willmar [Reds of the year] 1912 won", "It was Willmar 1912.", "It was Willmar Reds of the year 1912."),
        ("the Willmar [Reds of the year] 1912 won", "It was Willmar, 1912.", "It was Willmar, 1912."),
        (
            "Anna [Maria] Berg met [the old] king Olaf",
            "Anna Berg met king Olaf",
            "Anna Maria Berg met the old king Olaf",
        ),
        ("founded [early] in [May] 1912", "in 1912, founded in 1912", "in 1912, founded early in May 1912"),
        ("price [of 3.75] rose [by] 7 again", "The price rose 7 now", "The price of 3.75 rose by 7 now"),
        ("我们[今天]去北京", "他说我们去北京了", "他说我们今天去北京了"),
        ("nothing dropped here", "nothing dropped here", "nothing dropped here"),
        ("Alpha [x] Beta", "", ""),
        ("Alpha [x] Beta", "Alpha", "Alpha"),
        ("Alpha [x] Beta", "alpha beta", "alpha beta"),
        ("Alpha [x] Beta", "Alpha  Beta\tgamma", "Alpha x Beta\tgamma"),
    ],
)
def test_by_hand(marked, answer, expected):
    assert restored(marked, answer) == expected


def test_words_that_stand_together_by_chance_are_no_quotation():
    marked = "some of [his brothers and of] the Crown [he wore] is [not here]"
    assert restored(marked, "the end of the day") == "the end of the day"
    assert restored(marked, "The Crown is gone") == "The Crown is gone"


def test_a_gap_is_closed_only_within_a_sentence_and_if_it_is_short():
    assert restored("He saw Alpha [today. Then came] Beta first.", "Alpha Beta") == "Alpha Beta"
    long = " ".join(["very"] * 13)
    assert restored(f"Alpha [{long}] Beta", "Alpha Beta") == "Alpha Beta"
    fitting = " ".join(["very"] * 11)
    assert restored(f"Alpha [{fitting}] Beta", "Alpha Beta") == f"Alpha {fitting} Beta"


def test_what_is_beyond_a_long_gap_is_restored_by_itself():
    long = " ".join(["very"] * 13)
    marked = f"Alpha [one] Beta [{long}] Gamma [two] Delta"
    assert restored(marked, "Alpha Beta Gamma Delta") == "Alpha one Beta Gamma two Delta"


def test_a_line_break_in_the_answer_ends_a_quotation():
    assert restored("Alpha [one] Beta", "Alpha\nBeta") == "Alpha\nBeta"


def test_of_several_sources_one_without_a_gap_means_no_change():
    assert restored("Alpha [one] Beta. And Alpha Beta.", "Alpha Beta") == "Alpha Beta"
    assert restored("Alpha [one] Beta. [And Alpha Beta.]", "Alpha Beta") == "Alpha Beta"


def test_several_sources_must_agree():
    assert restored("Alpha [one] Beta. And Alpha [one] Beta.", "Alpha Beta") == "Alpha one Beta"
    assert restored("Alpha [one] Beta. And Alpha [two] Beta.", "Alpha Beta") == "Alpha Beta"
    assert restored("Alpha [one] Beta. And Alpha [two] Beta.", "And Alpha Beta") == "And Alpha two Beta"


def test_a_longer_quotation_that_starts_a_word_later_counts():
    marked = "saw Alpha. The Alpha [one] Beta [two] Gamma"
    assert restored(marked, "saw Alpha Beta Gamma") == "saw Alpha one Beta two Gamma"


def test_quotations_of_several_parts_do_not_run_over_their_edges():
    assert restored(["Alpha [one]", "Beta [two] Gamma"], "Alpha Beta Gamma") == "Alpha Beta two Gamma"


def test_messages_and_texts_restore_alike():
    text = "Dr. Berg measured the harbour of Emden in 1912 and again in 1925, at low water."
    c = laconic.compress([{"role": "tool", "content": text}], rate=0.5)
    alone = laconic.compress(text, rate=0.5)
    assert c.messages[0]["content"] == alone.text
    assert c.restore(alone.text) == alone.restore(alone.text)
    assert laconic.compress([], rate=0.5).restore("Nothing came in.") == "Nothing came in."


def test_the_answer_must_be_a_string():
    with pytest.raises(InputError, match="answer must be a str, got list"):
        compression("a b").restore(["a"])


@settings(max_examples=100, deadline=None)
@given(texts, texts)
def test_an_uncompressed_prompt_changes_no_answer(text, answer):
    assert TFIDF.compress(text, rate=1).restore(answer) == answer


@settings(max_examples=200, deadline=None)
@given(texts, texts, st.floats(0.1, 0.9))
def test_any_answer_comes_back_with_nothing_invented(text, answer, rate):
    c = TFIDF.compress(text, rate=rate)
    quoting = answer + " " + c.text + answer
    for said in (answer, quoting):
        result = c.restore(said)
        known = Counter(said) + Counter(dict.fromkeys(text, 10**6))
        assert not Counter(result) - known
        read = iter(result)
        assert all(ch in read for ch in "".join(said.split()))  # in this order


FEW = st.lists(st.sampled_from(["Ann", "Bo", "of", "the", "1912", "bread", ",", "."]), min_size=1, max_size=14)


@settings(max_examples=500, deadline=None)
@given(FEW, st.lists(st.booleans(), min_size=14, max_size=14), FEW, st.booleans())
def test_the_index_finds_what_a_plain_search_finds(original, keep, said, two):
    text = " ".join(original)
    tiling = words(text)
    mask = np.array((keep * 2)[: len(tiling)], bool)
    kept = KeptPart(tiling, np.zeros(len(tiling), np.float32), mask, mend(tiling, mask))
    parts = [kept, kept] if two else [kept]
    answer = " ".join(said)
    assert Restorer(parts).restore(answer) == plainly(parts, answer)


def plainly(parts: list[KeptPart], answer: str) -> str:
    """The rules of `laconic.restore` by comparing every place with every place. White space is single blanks here."""
    places: list[tuple[str, int, int, int, int] | None] = []
    for number, p in enumerate(parts):
        at = [k for s, e in p.spans for k in range(s, e)]  # the original place of each compressed character
        edges = p.tiling.bounds[sentences(p.tiling)]
        before = None
        for m in re.finditer(r"\w+|[,.]", p.text):
            start, end = at[m.start()], at[m.end() - 1] + 1
            if before is not None:
                dropped = start - before[1] - (m.start() - before[0])
                crosses = any(before[1] <= b <= start for b in edges[1:-1])
                if dropped and (dropped > 60 or crosses):
                    places.append(None)
            places.append((m.group(), start, end, number, m.start()))
            before = (m.end(), end)
        places.append(None)
    said = [(m.group(), m.start(), m.end()) for m in re.finditer(r"\w+|[,.]", answer)]

    def longest(k):
        best, where = 0, []
        for j in range(len(places)):
            n = 0
            while k + n < len(said) and places[j + n] is not None and places[j + n][0] == said[k + n][0]:
                n += 1
            if n and n >= best:
                where = [j] if n > best else [*where, j]
                best = n
        return best, where

    out, done, k = "", 0, 0
    while k < len(said):
        n, where = longest(k)
        if not n or longest(k + 1)[0] > n:
            k += 1
            continue
        telling = [i for i in range(n) if tells(said[k + i][0])]
        if telling:
            first, last = telling[0], telling[-1]
            start, end = said[k + first][1], said[k + last][2]
            sources = [(places[j + first], places[j + last]) for j in where]
            quoted = " ".join(said[k + i][0] for i in range(first, last + 1))
            stretches = {parts[a[3]].original[a[1] : b[2]] for a, b in sources}
            gaps = [b[2] - a[1] != b[4] + len(b[0]) - a[4] for a, b in sources]
            same = any(answer[start:end] in p.original for p in parts)
            if all(gaps) and len(stretches) == 1 and not same and len(quoted.replace(" ", "")) >= 4:
                out += answer[done:start] + stretches.pop()
                done = end
        k += n
    return out + answer[done:]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_suffixes_are_sorted(ids):
    assert _suffix_array(np.array(ids, np.int64)) == sorted(range(len(ids)), key=lambda k: ids[k:])


def test_a_megabyte_of_repetition():
    """The hard case for an index: every run stands everywhere. All that is asked is that it ends."""
    text = "Alpha one Beta two " * 50_000
    tiling = words(text)
    keep = np.random.default_rng(0).random(len(tiling)) < 0.5
    kept = KeptPart(tiling, np.zeros(len(tiling), np.float32), keep, mend(tiling, keep))
    answer = "Alpha Beta " * 2_000
    result = Restorer([kept]).restore(answer)
    read = iter(result.split())
    assert all(word in read for word in answer.split())  # in this order
