"""The baselines that only an evaluation has."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tokenizers import Tokenizer

import tiny
from laconic.backends.sentence_encoder import default_folder
from laconic.budget import counter
from laconic.compressor import Compressor
from laconic.errors import ModelError
from laconic.eval.embedding import Embedding
from laconic.eval.methods import FULL, NONE, LLMLingua, baselines, method
from laconic.segment import sentences, words

TEXT = "The harbour was repaired in May. Nobody paid for the pier. It cost 1,200 yen. The committee met again."


@pytest.fixture(scope="module")
def embedding(tmp_path_factory):
    """Sentence embeddings by a tiny random BERT."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer: Tokenizer = tiny.wordpiece([TEXT] * 3, 200)
    config = BertConfig(**tiny.SIZES, vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=64)
    return Embedding(tiny._save(folder, BertModel, config, tokenizer, tiny.BERT_SPECIALS, 0))


def test_units_have_the_cosine_of_their_sentence_and_the_question(embedding):
    tiling = words(TEXT)
    (scores,) = embedding.score([tiling], questions=["Nobody paid for the pier."])
    bounds = sentences(tiling).tolist()
    of_sentence = [set(scores.values[s:e].tolist()) for s, e in pairwise(bounds)]
    assert all(len(values) == 1 for values in of_sentence)
    assert scores.values[bounds[1]] == pytest.approx(1, abs=1e-5)  # the sentence itself
    assert scores.values.max() == scores.values[bounds[1]]


def test_scores_do_not_depend_on_what_is_scored_together(embedding):
    other = words("A longer text. " * 40)
    alone = embedding.score([words(TEXT)], questions=["Who paid?"])[0].values
    together = embedding.score([other, words(TEXT)], questions=["Why?", "Who paid?"])[1].values
    assert together == pytest.approx(alone, abs=1e-5)


def test_without_a_question_all_units_are_alike(embedding):
    assert not embedding.score([words(TEXT), words("")])[0].values.any()


def test_the_most_similar_sentence_stays(embedding):
    c = Compressor(embedding, counter()).compress(TEXT, rate=0.3, question="Nobody paid for the pier.")
    assert "Nobody paid for the pier." in c.text  # what the budget has left goes to the next one


def test_full_and_none_are_the_ends_of_the_scale():
    full, none = (m.compress(TEXT, m.rate, None) for m in (FULL, NONE))
    assert (full.text, full.tokens_after) == (TEXT, full.tokens_before)
    assert (none.text, none.tokens_after, none.tokens_before) == ("", 0, full.tokens_before)


def test_llmlingua_runs_as_installed_and_gives_no_spans(tmp_path, monkeypatch):
    reference = pytest.importorskip("llmlingua.prompt_compressor")

    class Encoding:
        """In place of the vocabulary that llmlingua fetches from the network."""

        def encode(self, text):
            return text.split()

    monkeypatch.setattr(reference.tiktoken, "encoding_for_model", lambda name: Encoding())
    folder = tiny.build_mbert(tmp_path / "bert-base-multilingual-cased", [TEXT] * 3)
    output = LLMLingua("llmlingua2-package", str(folder)).compress(TEXT, 0.5, None)
    assert output.spans is None and 0 < output.tokens_after == counter()(output.text) < output.tokens_before


def test_baselines_are_methods_and_wrong_specs_are_refused(monkeypatch):
    assert {"random", "lead", "tfidf", "stopwords", "bm25"} <= set(baselines())
    assert method("bm25").reads_question and not method("lead").reads_question
    for module in ("eval.methods", "backends.sentence_encoder"):
        monkeypatch.setattr(f"laconic.{module}.find_spec", lambda name: None)
    assert "embedding" not in baselines()
    for wrong in (lambda: method("llmlingua2-package"), default_folder, lambda: method("embedding=/nonexistent")):
        with pytest.raises(ModelError, match=r"DIR|folder"):
            wrong()


def test_a_blind_method_is_never_told_the_question():
    told, blind = method("bm25"), method("blind:bm25")
    question = "Who met again?"
    assert "committee met again" in told.compress(TEXT, 0.4, question).text
    assert blind.name == "blind:bm25" and not blind.reads_question
    assert blind.compress(TEXT, 0.4, question).text == blind.compress(TEXT, 0.4, None).text
