"""Sentences by BM25, and what a question does to a compression."""

from __future__ import annotations

import numpy as np
import pytest

import laconic
from laconic.errors import InputError
from laconic.scorers.relevance import bm25, terms, worth
from laconic.segment import segment, sentences, words

TEXT = "The mill stands by the river. Its owner is Karl Voss. Tours cost 4 euros. The river is called Ems."


def scores(question: str, text: str = TEXT) -> list[float]:
    tiling = words(text)
    return bm25(tiling, sentences(tiling), question).tolist()


def test_bm25_by_hand():
    """Sentences of two and four words; "x" stands once in the first: 1 / (1 + norm) of the most there is."""
    norm = 1.2 * (1 - 0.75 + 0.75 * 2 / 3)
    assert scores("x", "X left. He saw it there.") == pytest.approx([1 / (1 + norm), 0], rel=1e-6)


def test_the_sentence_with_the_rare_words_of_the_question_is_first():
    assert int(np.argmax(scores("Who is the owner?"))) == 1
    assert int(np.argmax(scores("How many euros does a tour cost?"))) == 2


def test_a_question_of_other_words_finds_nothing():
    assert scores("quantum chromodynamics") == [0, 0, 0, 0]
    assert scores("", "") == []


def test_terms_share_their_stem():
    assert terms("Moves moving moved") == ["mov"] * 3
    assert terms("他住在巴黎") == list("他住在巴黎")


def test_bm25_is_a_method_that_keeps_what_is_asked_for():
    k = laconic.load(method="bm25")
    assert "Karl Voss" in k.compress(TEXT, rate=0.3, question="Who is the owner?").text


def test_other_methods_refuse_a_question_and_nobody_minds_an_empty_one():
    k = laconic.load(method="tfidf")
    with pytest.raises(InputError, match="tfidf does not read questions"):
        k.compress(TEXT, question="Who?")
    assert k.compress(TEXT, question=" \n").text == k.compress(TEXT).text
    with pytest.raises(InputError, match="question must be a str, got int"):
        k.compress(TEXT, question=3)


def test_another_script_does_not_stand_before_the_answer():
    text = "我们今天去北京。他住在巴黎，不喜欢伦敦。" * 8 + "\n\nThe owner is Karl Voss. It rains."
    assert "Karl Voss" in laconic.compress(text, tokens=12, question="Who is the owner?").text


def test_a_paragraph_named_by_the_best_one_comes_before_others():
    """Two hops: the document that answers the first half names the one that has the second."""
    film, town = "Grey Harbour\nGrey Harbour is a film shot in Port Elsa.", "Port Elsa\nIt has 3,120 people."
    other = "Lake Orme\nIt has 4,510 people."
    parts = [other, town, film]
    tiling = segment("\n\n".join(parts)).tiling
    bounds = sentences(tiling)
    heads = np.full((len(tiling), 4), 0.3, np.float32)
    heads[:, 3] = 0
    value = worth(tiling, bounds, heads, "How many people has the town where Grey Harbour was shot?")
    place = dict(zip([u.strip() for u in tiling], value.tolist(), strict=True))
    assert place["3,120"] > place["4,510"]
    plain = "\n\n".join(p.replace("\n", " ") for p in parts)  # without titles nothing is named
    tiling = segment(plain).tiling
    value = worth(tiling, sentences(tiling), heads[: len(tiling)], "How many people has the town where it was shot?")
    place = dict(zip([u.strip() for u in tiling], value.tolist(), strict=True))
    assert place["3,120"] == pytest.approx(place["4,510"], abs=0.2)
