"""What every registered method promises, and that the four places that name methods agree."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")

import decoders
import families
import laconic
from laconic.cli import main
from laconic.scorers import METHODS, scorer
from laconic.segment import words

DECODERS = ("llmlingua", "longllmlingua", "selective-context", "selective-context-phrase", "selective-context-sentence")
TEXTS = [
    "",
    " \n\n ",
    "\ud800 \x00 👍",
    "我们今天去北京。他住在巴黎，不喜欢伦敦。",
    "a" * 700,
    *families.TEXTS,
    "\n\n".join(families.TEXTS * 3) + "\n\nWhat did the committee discuss?",
]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return str(decoders.build(tmp_path_factory.mktemp("m") / "tiny", "llama"))


@pytest.fixture(params=METHODS)
def method(request, decoder, monkeypatch):
    """(name, model) of every method; the parser of phrases finds none."""
    pipeline = SimpleNamespace(pipe=lambda texts: [SimpleNamespace(noun_chunks=[]) for _ in texts])
    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=lambda name, exclude: pipeline))
    return request.param, decoder if request.param in DECODERS else laconic.DEFAULT_MODEL


def test_scores_are_finite_or_missing_and_the_same_in_company(method):
    made = scorer(*method)
    tilings = [words(t) for t in TEXTS]
    together = made.score(tilings)
    for tiling, scores in zip(tilings, together, strict=True):
        assert scores.values.shape == (len(tiling),) and scores.values.dtype == np.float32
        assert not np.isinf(scores.values).any()
        (alone,) = made.score([tiling])
        np.testing.assert_allclose(alone.values, scores.values, atol=1e-4)
    assert np.isfinite(together[-1].values).mean() > 0.9


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
def test_results_are_verbatim_and_within_the_budget(method, rate):
    name, model = method
    k = laconic.load(model, method=name)
    for text, c in zip(TEXTS, k.compress_many(TEXTS, rate=rate), strict=True):
        assert c.met and c.rate <= max(rate, float(not c.tokens_before))
        assert c.text == "".join(text[s:e] for s, e in c.spans)
        if k.scorer.reads_question:
            asked = k.compress(text, rate=rate, question="Who met?")
            assert asked.met and asked.text == "".join(text[s:e] for s, e in asked.spans)


def test_progress_is_told_every_character_of_a_text_that_stays(method):
    name, model = method
    seen = []
    laconic.load(model, method=name).compress(TEXTS[-1], rate=0.6, progress=seen.append)
    assert sum(seen) in (0, len(TEXTS[-1]))


def test_every_method_is_documented(method):
    table = Path(__file__).parents[1].joinpath("docs", "methods.md").read_text(encoding="utf-8")
    assert f"`{method[0]}`" in table


def test_the_command_line_runs_it(method, tmp_path, capfd):
    path = tmp_path / "text.txt"
    path.write_text(TEXTS[-1])
    name, model = method
    assert main(["compress", str(path), "--method", name, "--model", model, "--rate", "0.4"]) == 0
    out, err = capfd.readouterr()
    assert 0 < len(out) < len(TEXTS[-1]) and err.count("\n") == 1


@pytest.mark.parametrize("name", DECODERS[:3])
def test_the_wrong_kind_of_model_is_one_line_of_advice(name, tmp_path, capfd, decoder):
    path = tmp_path / "text.txt"
    path.write_text(TEXTS[-1])
    assert main(["compress", str(path), "--method", name]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and "needs a causal language model" in err
    assert main(["compress", str(path), "--model", decoder]) == 2
    assert "needs a token classifier" in capfd.readouterr().err
    assert main(["compress", str(path), "--method", name, "--model", decoder, "--threshold", "2"]) == 2
    assert "threshold must be in [0, 1]" in capfd.readouterr().err
