"""Selective-Context against the self-information that a plain computation gives."""

from __future__ import annotations

import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

import decoders  # noqa: E402
import families  # noqa: E402
import laconic  # noqa: E402
from laconic.errors import MissingExtraError, ModelError  # noqa: E402
from laconic.scorers import scorer  # noqa: E402
from laconic.scorers.phrases import noun_phrases  # noqa: E402
from laconic.scorers.selective import SelectiveContext  # noqa: E402
from laconic.segment import sentences, words  # noqa: E402

TEXT = "The harbour committee met. It cost 3.75 € on Tuesday; nobody paid 23!  Nobody. "


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return decoders.build(tmp_path_factory.mktemp("m"), "llama", [TEXT, *families.TEXTS])


def information(folder, text):
    """(start, end, nats) of each token, by transformers alone, [CLS] before the text."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    given = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    nats = decoders.plain_nll(model, np.array([2, *given["input_ids"]]))[1:]
    return [(s, e, n) for (s, e), n in zip(given["offset_mapping"], nats.tolist(), strict=True)]


def score(tokens, start, end, pooled=np.mean):
    """I / (1 + I) of a stretch of the text."""
    inside = [n for s, e, n in tokens if s < end and e > start]
    nats = pooled(inside) if inside else np.nan
    return nats / (1 + nats)


@pytest.mark.parametrize(
    ("method", "level", "pooled"),
    [("selective-context", None, np.sum), ("selective-context-sentence", sentences, np.mean)],
)
def test_words_have_the_sum_and_sentences_the_mean_of_their_tokens(folder, method, level, pooled):
    tiling = words(TEXT)
    bounds = level(tiling) if level else np.arange(len(tiling) + 1)
    (found,) = scorer(method, str(folder)).score([tiling])
    tokens = information(folder, TEXT)
    for first, end in pairwise(bounds.tolist()):
        expected = score(tokens, tiling.bounds[first], tiling.bounds[end], pooled)
        np.testing.assert_allclose(found.values[first:end], expected, rtol=1e-5)
    assert found.method == method


def test_the_unforeseen_stays():
    """ "the" has probability 1/2 wherever it stands, every other word 1/64."""
    text = "the cat saw the dog and the bird of the mill"
    model = decoders.word_model(lambda w, before: 0.5 if w.strip() == "the" else 1 / 64, list(words(text)))
    selective = SelectiveContext(model, "selective-context", lambda t: np.arange(len(t) + 1))
    (found,) = selective.score([words(text)])
    nats = np.log([2 if w.strip() == "the" else 64 for w in words(text)])
    assert found.values == pytest.approx(nats / (1 + nats))
    kept = laconic.Compressor(selective, laconic.budget.counter("words")).compress(text, tokens=7).text
    assert kept == "cat saw dog and bird of mill"


def test_a_phrase_shares_the_mean_of_its_tokens(folder, monkeypatch):
    pipeline = SimpleNamespace(pipe=lambda texts: [chunked(t) for t in texts])
    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=lambda name, exclude: pipeline))

    def chunked(text):
        places = [(text.find(p), p) for p in ("The harbour committee", "Tuesday") if p in text]
        return SimpleNamespace(noun_chunks=[SimpleNamespace(start_char=s, end_char=s + len(p)) for s, p in places])

    tiling = words(TEXT)
    assert list(np.diff(noun_phrases()(tiling))) == [3] + [1] * (len(tiling) - 3)
    (found,) = scorer("selective-context-phrase", str(folder)).score([tiling])
    tokens = information(folder, TEXT)
    assert found.values[:3] == pytest.approx([score(tokens, 0, 21)] * 3, rel=1e-5)
    assert found.values[4] == pytest.approx(score(tokens, *tiling.bounds[4:6]), rel=1e-5)


def test_without_spacy_or_its_pipeline_phrases_say_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(MissingExtraError, match=r"laconic\[spacy\]"):
        scorer("selective-context-phrase", "anything")

    def missing(name, exclude):
        raise OSError("[E050] Can't find model")

    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=missing))
    with pytest.raises(ModelError, match="python -m spacy download en_core_web_sm"):
        scorer("selective-context-phrase", "anything")
