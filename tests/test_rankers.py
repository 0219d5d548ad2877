"""Rankers: by hand where that is possible, else against the model itself."""

from __future__ import annotations

import gzip
import itertools
import json
import math
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.errors import InputError, ModelError
from laconic.rankers import RANKERS, ranker
from laconic.rankers.evidence import Evidence, best_sentences
from laconic.scorers import scorer
from laconic.scorers.relevance import Bm25, bm25_of, terms
from laconic.segment import words
from laconic.text import Tiling
from texts import texts

DOCUMENTS = [
    "The mill stands by the river. Nobody works there.",
    "The mayor reads. The baker is called Ann Berg. It rains often.",
    "",
    "Stars move slowly, and nobody knows why.",
]
QUESTION = "Who is the baker?"


def test_bm25_by_hand():
    """Three documents of 2, 3 and 1 words; "x" stands in two of them, "y" in one."""
    got = bm25_of([["x", "x"], ["x", "y", "z"], ["w"]], "x y")
    idf = {"x": math.log(1 + 1.5 / 2.5), "y": math.log(1 + 2.5 / 1.5)}
    norm = [1.2 * (0.25 + 0.75 * n / 2) for n in (2, 3)]
    by_hand = [idf["x"] * 2 / (2 + norm[0]), (idf["x"] + idf["y"]) / (1 + norm[1]), 0]
    assert got == pytest.approx(np.array(by_hand) / (idf["x"] + idf["y"]))
    assert ranker("bm25").rank(["X x", "x y z", "w"], "x y") == pytest.approx(got)


def test_gzip_by_hand():
    def size(text: str) -> int:
        return len(gzip.compress(text.encode()))

    sizes = [(size(d), size(QUESTION), size(f"{d} {QUESTION}")) for d in DOCUMENTS]
    by_hand = [-(both - min(d, q)) / max(d, q) for d, q, both in sizes]
    assert ranker("gzip").rank(DOCUMENTS, QUESTION) == pytest.approx(by_hand)


def test_a_document_is_worth_its_best_sentence():
    tilings = [words("One two. Three."), words(" "), words("Four."), words("")]
    tiling, firsts = Tiling.joined(tilings)
    assert list(tiling) == ["One", " two", ".", " Three", ".", "\n\n ", "\n\nFour", "."]
    values = np.array([1, 2, 6, np.nan, 4, np.nan, np.nan, 2], np.float32)
    assert best_sentences(tiling, firsts, values).tolist() == [4, 2, 2, 2]  # (1 + 2 + 6) / 3 < 4 / 1; none: the worst


def test_documents_are_ranked_by_the_scores_of_a_question_reading_method():
    relevance = Evidence(Bm25()).rank(DOCUMENTS, QUESTION)
    assert relevance.dtype == np.float32 and int(relevance.argmax()) == 1
    assert relevance[2] == relevance.min()


def test_the_default_model_finds_the_document_that_answers():
    assert int(ranker("evidence").rank(DOCUMENTS, QUESTION).argmax()) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, max_size=5), texts)
@pytest.mark.parametrize("name", ["bm25", "gzip"])
def test_any_documents_get_a_finite_number_each(name, documents, question):
    relevance = ranker(name).rank(documents, question)
    assert relevance.shape == (len(documents),) and np.isfinite(relevance).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, max_size=5), texts)
def test_any_documents_are_joined_without_loss(documents, question):
    tilings = [words(d) for d in documents]
    tiling, firsts = Tiling.joined(tilings)
    assert tiling.text == "\n\n".join(d for d in documents if d)
    assert [list(tiling)[a:z] for a, z in itertools.pairwise(firsts)] == [
        [("\n\n" if n == 0 and any(documents[:k]) else "") + unit for n, unit in enumerate(t)]
        for k, t in enumerate(tilings)
    ]
    assert np.isfinite(Evidence(Bm25()).rank(documents, question)).all()


def test_names():
    for name in RANKERS:
        module, factory = RANKERS[name]
        assert callable(getattr(import_module(module), factory))
    with pytest.raises(InputError, match="no ranker 'best'; there are evidence, bm25"):
        ranker("best")
    with pytest.raises(InputError, match="bm25 has no model"):
        ranker("bm25=x")
    with pytest.raises(ModelError, match="write reranker=DIR"):
        ranker("reranker")
    with pytest.raises(ModelError, match="holds no encoder"):
        ranker("reranker=/nonexistent")
    with pytest.raises(ModelError, match="holds no encoder"):
        ranker("embedding=/nonexistent")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Makes tiny random BERTs: an encoder, or a classifier with some outputs."""
    pytest.importorskip("torch")
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    import tiny

    def make(outputs: int):
        place = tmp_path_factory.mktemp("encoder")
        tokenizer = tiny.wordpiece([*DOCUMENTS, QUESTION] * 3, 200)
        sizes = {**tiny.SIZES, "num_labels": max(1, outputs)}
        config = BertConfig(**sizes, vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=512)
        kind = BertForSequenceClassification if outputs else BertModel
        return tiny._save(place, kind, config, tokenizer, tiny.BERT_SPECIALS, 0)

    return make


def test_embeddings_are_the_mean_of_the_tokens_or_the_first(folder):
    import torch
    from transformers import AutoModel, AutoTokenizer

    from laconic.backends.sentence_encoder import SentenceEncoder

    place = folder(0)
    text = DOCUMENTS[0]
    batch = AutoTokenizer.from_pretrained(place)([text], return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(place)(**batch).last_hidden_state[0].numpy()
    mean, first = states.mean(0), states[0]
    others = [DOCUMENTS[3] * 3, text]  # a row beside it that needs padding changes nothing
    assert SentenceEncoder(place).embed(others)[1] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
    (place / "1_Pooling").mkdir()
    (place / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    assert SentenceEncoder(place).embed(others)[1] == pytest.approx(first / np.linalg.norm(first), abs=1e-5)


def test_the_best_passage_of_a_document_counts(folder):
    """Of a long document every passage is read."""
    from laconic.rankers.encoders import Embedding, _passages

    long = "The committee met again and again. " * 60 + QUESTION
    pieces, whose = _passages([*DOCUMENTS, long])
    assert " ".join(p for p, k in zip(pieces, whose, strict=True) if k == 4) == long
    assert all(len(p) < 1100 for p in pieces) and whose.tolist() == [0, 1, 3, 4, 4, 4]
    made = Embedding(folder(0))
    vectors = made._encoder.embed([*pieces, QUESTION])
    cosines = vectors[:-1] @ vectors[-1]
    by_hand = [cosines[whose == k].max() if (whose == k).any() else -1 for k in range(5)]
    assert made.rank([*DOCUMENTS, long], QUESTION) == pytest.approx(by_hand, abs=1e-5)
    assert made.rank([], QUESTION).shape == (0,)


def test_a_reranker_reads_question_and_passage_together(folder):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    place = folder(1)
    tokenizer, model = AutoTokenizer.from_pretrained(place), AutoModelForSequenceClassification.from_pretrained(place)
    by_hand = []
    for document in (d for d in DOCUMENTS if d):
        with torch.inference_mode():
            by_hand.append(model(**tokenizer(QUESTION, document, return_tensors="pt")).logits[0, 0].item())
    relevance = ranker(f"reranker={place}").rank(DOCUMENTS, QUESTION)
    assert relevance[[0, 1, 3]] == pytest.approx(by_hand, abs=1e-5)
    assert relevance[2] == pytest.approx(min(by_hand), abs=1e-5)
    with pytest.raises(ModelError, match="has 3 outputs; a reranker has one"):
        ranker(f"reranker={folder(3)}")


def test_encoders_take_any_text(folder):
    strange = ["\ud800 half", "\x00", "  ", "👍🏽" * 2000]
    for spec in (f"embedding={folder(0)}", f"reranker={folder(1)}"):
        assert np.isfinite(ranker(spec).rank(strange, "\udc00?")).all()


def test_terms_are_those_of_the_scorer():
    """One implementation of BM25: as a scorer of sentences and as a ranker of documents."""
    text = "The mill stands. The baker is Ann."
    (scores,) = scorer("bm25", "").score([words(text)], questions=[QUESTION])
    ranked = ranker("bm25").rank(["The mill stands.", "The baker is Ann."], QUESTION)
    assert sorted(set(scores.values.tolist())) == pytest.approx(sorted(ranked.tolist()))
    assert terms("Bakers") == ["baker"]
