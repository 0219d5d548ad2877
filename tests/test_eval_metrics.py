"""Measures, by hand and against libraries."""

from __future__ import annotations

from math import exp

import pytest

from laconic.eval.data import Example
from laconic.eval.kinds import bleu, class_named, code_similarity, corpus_bleu, kind, numbers_right, rouge
from laconic.eval.metrics import (
    bbh_answer,
    bbh_correct,
    evidence_recall,
    exact_match,
    exact_prefix,
    gsm8k_answer,
    gsm8k_correct,
    line_numbers,
    normalise,
    number_recall,
    numbers_whole,
    qa_score,
    survives,
    token_accuracy,
    token_f1,
    within,
)

TEXT = "Ann paid $1,200.50 on 3/4.\nBob paid nothing.\nThe fine of 75 was due at 14:30."


def spans(*pieces):
    return [(TEXT.index(p), TEXT.index(p) + len(p)) for p in pieces]


def test_normalisation_is_squads():
    assert normalise("  The  U.S. Army's an A-team\n") == "us armys ateam"
    assert normalise("a an the") == ""


@pytest.mark.parametrize(
    ("answer", "golds", "em", "f1"),
    [
        ("The Cat!", ["cat"], 1, 1),
        ("big cat", ["cat", "dog"], 0, 2 / 3),  # precision 1/2, recall 1
        ("cat cat", ["cat"], 0, 2 / 3),  # a word counts as often as both have it
        ("", ["cat"], 0, 0),
        ("the", ["a"], 1, 1),  # nothing is left of either
        ("cat", [], 0, 0),
    ],
)
def test_exact_match_and_f1_by_hand(answer, golds, em, f1):
    assert exact_match(answer, golds) == em
    assert token_f1(answer, golds) == pytest.approx(f1)


def test_qa_score_reads_the_first_line_only():
    assert qa_score("It was the Denver Broncos, I think.", ["Denver Broncos"]) == 1
    assert qa_score("\nDenver", ["denver"]) == 1
    assert qa_score("I think\nDenver", ["Denver"]) == 0


def test_an_answer_survives_as_whole_words():
    assert survives("In 2010, the Cat sat.", ["cat"]) == 1
    assert survives("In 2010 it sat.", ["10", "concatenate"]) == 0
    assert survives("Yes.", ["yes"]) is None  # no text loses or keeps it


def test_evidence_recall_counts_words_within_kept_spans():
    evidence = ["Bob paid nothing.", "The fine of 75"]  # 3 + 4 words
    assert evidence_recall(TEXT, [(0, len(TEXT))], evidence) == 1
    assert evidence_recall(TEXT, spans("Bob", "nothing", "fine"), evidence) == pytest.approx(3 / 7)
    assert evidence_recall(TEXT, spans("Bo"), ["Bob"]) == 0  # half a word is none
    assert evidence_recall(TEXT, [(0, len(TEXT))], ["not in the text"]) == 0
    assert evidence_recall(TEXT, [], []) is None


def test_numbers_by_hand():
    assert number_recall(TEXT, "1,200.50 14:30 75") == 3 / 4  # 3/4 is a number, too
    assert number_recall("7 and 7", "7") == 1 / 2
    assert number_recall("none", "") is None
    assert numbers_whole(TEXT, "1,200 and 75") == 1 / 2
    assert numbers_whole(TEXT, "no number") is None


def test_numbers_of_kept_lines():
    assert line_numbers(TEXT, spans("Ann", "1,200.50")) == 1 / 2  # 3/4 is lost; the third line is not kept at all
    assert line_numbers(TEXT, spans("fine of 75 was due at 14:30")) == 1
    assert line_numbers(TEXT, spans("Bob")) is None
    assert line_numbers(TEXT, spans("fine of 7")) == 0  # a number that is cut is lost


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("6 * 3 = 18.\nThe answer is 18.", 18),
        ("The answer is $1,018.50.", 1018.5),
        ("The answer is 3.\nQuestion: the next has 7 ducks", 3),
        ("so 4 and 5", 5),
        ("none", None),
    ],
)
def test_gsm8k_takes_the_last_number_of_the_answers_line(text, number):
    assert gsm8k_answer(text) == number


def test_gsm8k_compares_numbers_not_strings():
    assert gsm8k_correct("The answer is 1,000.00", ["1000"]) == 1
    assert gsm8k_correct("I do not know", ["1000"]) == 0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So the answer is (B) Tuesday.", "(B)"),
        ("The answer is 5? No, the answer is valid.\nQ: next", "valid"),
        ("So the answer is ] ) ].", "] ) ]"),
        ("True", "True"),
        ("", ""),
    ],
)
def test_bbh_answer_is_a_letter_or_free_form(text, answer):
    assert bbh_answer(text) == answer
    assert bbh_correct(text, [answer]) == 1
    assert bbh_correct(text, ["another"]) == 0


def test_the_budget_is_the_floor_of_rate_times_tokens():
    assert within(0.29, 100, 29) == 1
    assert within(0.25, 7, 2) == 0


def test_rouge_by_hand():
    # 3 of 4 words and 2 of 3 pairs of words agree; the longest common subsequence has 3 words
    found = rouge("the cat sat down", ["the cat sat here"])
    assert found == pytest.approx({"rouge1": 3 / 4, "rouge2": 2 / 3, "rougeL": 3 / 4})


def test_rouge_takes_the_best_reference_and_stems():
    assert rouge("the cats", ["a dog", "the cat"])["rouge1"] == 1


def test_bleu_is_a_share():
    assert bleu("the cat sat on the mat", ["the cat sat on the mat"]) == pytest.approx(1)
    assert bleu("dog", ["the cat sat on the mat"]) < 0.01
    # precisions 5/6, 3/5, 2/4, 1/3 and no brevity penalty
    by_hand = (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert bleu("the cat sat on a mat", ["the cat sat on the mat"]) == pytest.approx(by_hand)


def test_bleu_of_a_corpus_counts_over_all_answers():
    # words 5/6 and 4/4, pairs 3/5 and 3/3, threes 2/4 and 2/2, fours 1/3 and 1/1; 10 words, the references have 11
    answers, golds = ["the cat sat on a mat", "a dog ran off"], ["the cat sat on the mat", "a dog ran off ."]
    by_hand = exp(1 - 11 / 10) * (9 / 10 * 6 / 8 * 4 / 6 * 2 / 4) ** 0.25
    assert corpus_bleu(answers, golds) == pytest.approx(by_hand)
    assert corpus_bleu(answers, golds) != pytest.approx(
        sum(bleu(a, [g]) for a, g in zip(answers, golds, strict=True)) / 2, abs=0.01
    )


def test_longbench_measures_by_hand():
    assert numbers_right("Paragraph 3, or 7", "Paragraph 3") == 1 / 2
    assert numbers_right("none", "Paragraph 3") == 0
    assert class_named("Question of City", "City", ["City", "Country"]) == 1
    assert class_named("City or Country", "City", ["City", "Country"]) == 1 / 2
    assert class_named("Other city", "Other city", ["Other city", "city"]) == 1  # part of the gold one's name
    assert code_similarity("```python\nx = 1\ny = 2", "x = 1") == 1
    assert code_similarity("abcd", "abxy") == 1 / 2


@pytest.mark.parametrize(
    ("dataset", "answer", "gold", "score"),
    [
        ("hotpotqa", "the big cat", "cat", 2 / 3),
        ("triviaqa", "cat\nQuestion: next", "cat", 1),
        ("trec", "City", "City", 1),
        ("passage_count", "5", "5", 1),
        ("passage_retrieval_en", "Paragraph 12", "Paragraph 12", 1),
        ("gov_report", "the cat sat down", "the cat sat here", 3 / 4),
        ("lcc_e", "x = 1", "x = 1", 1),
    ],
)
def test_longbench_scores_by_data_set(dataset, answer, gold, score):
    meta = {"dataset": dataset, "classes": ["City", "Country"]}
    example = Example("1", "context", "question", (gold,), meta=meta)
    assert kind("longbench").scores(answer, example)["score"] == pytest.approx(score)
    assert "context" in kind("longbench").prompt("context", example)


@pytest.mark.parametrize(
    ("dataset", "answer", "gold", "score"),
    [
        ("quality", "(B) the second", "(B) the second", 1),
        ("quality", "C", "(B)", 0),
        ("qasper", "big cat", "cat", 2 / 3),
        ("squality", "the cat sat down", "the cat sat here", (3 / 4 * 2 / 3 * 3 / 4) ** (1 / 3)),
        ("squality", "dog", "the cat", 0),
    ],
)
def test_zeroscrolls_scores_by_data_set(dataset, answer, gold, score):
    example = Example("1", "context", "question", (gold,), meta={"dataset": dataset, "instruction": "Do."})
    assert kind("zeroscrolls").scores(answer, example)["score"] == pytest.approx(score)


def test_a_data_set_without_a_measure_is_refused_by_name():
    example = Example("1", "context", "q", ("a",), meta={"dataset": "vcsum", "classes": []})
    with pytest.raises(ValueError, match="'vcsum'; there are narrativeqa"):
        kind("longbench").scores("answer", example)


@pytest.mark.parametrize(
    ("answer", "gold", "accuracy", "prefix"),
    [
        ([1, 2, 3], [1, 2, 3], 1, 1),
        ([1, 2, 3, 3], [1, 2, 3], 3 / 4, 1),  # went on and on
        ([1, 2], [1, 2, 3, 4], 1 / 2, 1 / 2),  # stopped too early
        ([1, 9, 3, 4], [1, 2, 3, 4], 3 / 4, 1 / 4),
        ([2, 3, 4], [1, 2, 3, 4], 0, 0),  # a token too few, and all are in the wrong place
        ([], [1], 0, 0),
        ([1], [], 0, 1),
        ([], [], 1, 1),
    ],
)
def test_regenerated_tokens_by_hand(answer, gold, accuracy, prefix):
    assert token_accuracy(answer, gold) == pytest.approx(accuracy)
    assert exact_prefix(answer, gold) == pytest.approx(prefix)
