"""The token classifier as a scorer, and the default model."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import laconic
from laconic.hub import load_folder
from laconic.scorers.classifier import Classifier
from laconic.scorers.foreign import foreign_sentences
from laconic.segment import sentences, words
from texts import texts

PROSE = (
    "The harbour committee met on Tuesday to discuss the repair of the northern pier, which had been closed since the "
    "storm of 14 January. The harbour master did not think that the ferry could use the southern berth. "
)


@pytest.fixture(scope="module")
def small():
    return laconic.load()


class Recorder:
    """An encoder that notes what it is asked and answers with the position in the window."""

    def __init__(self):
        self.rows = []

    def logits(self, ids, mask, types=None):
        self.rows += [row[: m.sum()].tolist() for row, m in zip(ids, mask, strict=True)]
        out = np.zeros((*ids.shape, 2), np.float32)
        out[..., 1] = np.linspace(-2, 2, ids.shape[1])
        return out


@pytest.fixture
def recorded():
    model = load_folder("laconic-small")
    model = replace(model, manifest=model.manifest.replace(question=False, embedding=0))
    recorder = Recorder()
    return Classifier(replace(model, encoder=recorder)), recorder, model


def test_windows_hold_every_token_once_and_fit(recorded):
    scorer, recorder, model = recorded
    text = PROSE * 40 + "word " * 900 + PROSE  # a sentence of 900 words fits no window
    scorer.score([words(text)])
    head, tail = recorder.rows[0][0], recorder.rows[0][-1]
    assert all(len(row) <= model.manifest.window and row[0] == head and row[-1] == tail for row in recorder.rows)
    assert [i for row in recorder.rows for i in row[1:-1]] == model.tokenizer.encode(text, add_special_tokens=False).ids


def test_windows_end_where_sentences_end(recorded):
    scorer, recorder, model = recorded
    scorer.score([words(PROSE * 40)])
    stop = model.tokenizer.token_to_id(".")
    assert all(row[-2] == stop for row in recorder.rows)
    assert len(recorder.rows) > 1


def test_a_unit_gets_the_mean_of_its_tokens(recorded):
    scorer, recorder, _ = recorded
    (scores,) = scorer.score([words("unbelievability now")])
    p = 1 / (1 + np.exp(-np.linspace(-2, 2, len(recorder.rows[0]))))
    pieces = len(recorder.rows[0]) - 3
    assert scores.values[0] == pytest.approx(p[1 : 1 + pieces].mean(), abs=1e-6)
    assert scores.values[1] == pytest.approx(p[1 + pieces], abs=1e-6)


def test_scores_do_not_depend_on_company_or_threads(small):
    alone = small.scorer.score([words(PROSE)])[0].values
    among = small.scorer.score([words("Other text. " * 50), words(PROSE), words("x")])[1].values
    assert np.array_equal(alone, among, equal_nan=True)
    one = Classifier(load_folder("laconic-small", threads=1)).score([words(PROSE * 20)])[0].values
    two = Classifier(load_folder("laconic-small", threads=2)).score([words(PROSE * 20)])[0].values
    assert np.array_equal(one, two, equal_nan=True)


@settings(max_examples=300, deadline=None)
@given(texts, st.floats(0.05, 1))
def test_any_text_goes_through_the_model(small, text, rate):
    c = small.compress(text, rate=rate)
    assert c.met or text.strip()[:1] in ("[", "{")  # the outermost brackets of JSON stay
    assert c.text == "".join(text[s:e] for s, e in c.spans)
    for part in c.parts:
        known = part.scores[~np.isnan(part.scores)]
        assert ((known >= 0) & (known <= 1)).all()


def test_what_matters_is_kept(small):
    c = small.compress(PROSE, rate=0.6)
    assert all(w in c.text for w in ("committee", "14 January", "not", "ferry"))
    assert c.method == "llmlingua2"


@pytest.mark.parametrize(
    "text",
    [
        "今天下午，委员会在市政厅开会，讨论了北码头的维修问题。港务长认为渡轮不能使用南泊位。" * 3,
        "Комитет гавани собрался во вторник, чтобы обсудить ремонт северного пирса. " * 3,
        "اجتمعت لجنة الميناء يوم الثلاثاء لمناقشة إصلاح الرصيف الشمالي. " * 3,
        "QUFBQmFzZTY0" * 40,
        "function a(b,c){var d=b.e(c);return d&&d.f?d.f(c):null};" * 10,
    ],
    ids=["Chinese", "Russian", "Arabic", "base64", "minified"],
)
def test_text_the_model_was_not_made_for_is_noticed(small, text):
    c = small.compress(text, rate=0.5)
    assert c.method == "tfidf"
    assert 0 < c.tokens_after <= c.tokens_before // 2
    assert "(tfidf)" in c.stats()


def test_a_mixed_text_says_so_and_keeps_both(small):
    text = PROSE * 2 + "\n\n港务长认为渡轮不能使用南泊位。委员会同意了。\n\n" + PROSE
    c = small.compress(text, rate=0.6)
    assert c.method == "llmlingua2+tfidf"
    assert any("\u4e00" <= ch <= "\u9fff" for ch in c.text)


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        "x = [1.5, 2.25, 3.125]\n" * 5,
        "Größe über Straße, señor, naïve café. " * 3,
        "👍 " * 20,
        "",
        "1 2 3 4 5 6",
    ],
)
def test_text_in_latin_letters_numbers_and_code_is_not_foreign(text):
    tiling = words(text)
    assert not foreign_sentences(tiling, sentences(tiling), ("en",)).any()


def test_a_model_without_stated_languages_reads_any_script():
    tiling = words("今天下午，委员会在市政厅开会。")
    assert foreign_sentences(tiling, sentences(tiling), ("en",)).all()
    assert not foreign_sentences(tiling, sentences(tiling), ()).any()


def test_valid_json_stays_valid(small):
    rows = [
        {"id": k, "name": f"pier {k}", "open": k % 2 == 0, "note": PROSE, "tags": ["a", "b", None]} for k in range(6)
    ]
    for indent in (None, 2):
        text = json.dumps({"rows": rows, "total": 6}, indent=indent)
        for rate in (0.05, 0.2, 0.5, 0.8):
            c = small.compress(text, rate=rate)
            json.loads(c.text)
            assert c.met


def test_the_default_model_fits_the_wheel():
    folder = load_folder("laconic-small").path
    assert sum(f.stat().st_size for f in folder.iterdir()) < 25e6
