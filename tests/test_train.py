"""Training learns, resumes exactly, and what it writes can be used."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer

import tiny
from laconic import load
from laconic.cli import main
from laconic.errors import InputError, ModelError
from laconic.hub import load_folder
from laconic.scorers.classifier import Classifier
from laconic.segment import words
from laconic.train import classifier, data
from laconic.train.base import Embedder
from laconic.train.base import classifier as classifier_of
from laconic.train.base import tokenizer as fast_tokenizer
from laconic.train.classifier import Settings, Source, train
from laconic.train.publish import publish
from laconic.train.split import held_out

NAMES = ["Ada", "Bob", "Cleo", "Dan"]
PLACES = ["Paris", "Oslo", "Rome", "Lima"]
AGES = ["nine", "ten", "twelve", "twenty"]


def passage(k: int) -> dict:
    """Two facts, the first one asked for; the teacher drops "really" and "of course"."""
    name, place, age = NAMES[k % 4], PLACES[k // 2 % 4], AGES[(k + 1) % 4]
    facts = [f"{name} really lives in {place}, of course.", f"{name} really is {age} years old, of course."]
    text = " ".join(facts if k % 2 else facts[::-1])
    short = text.replace(" really", "").replace(", of course", "")
    question, answer = (f"Where does {name} live?", place) if k % 2 else (f"How old is {name}?", age)
    return {
        "text": text,
        "compressed": short,
        "question": question,
        "evidence": [facts[0] if k % 2 else facts[1]],
        "answer": answer,
    }


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    texts = [passage(k)["text"] + passage(k)["question"] for k in range(8)]
    return tiny.build_mbert(tmp_path_factory.mktemp("base"), texts, vocab_size=120)


@pytest.fixture
def files(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(passage(k)) + "\n" for k in range(8)))
    return path


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    """A run that overfits: its folder."""
    out = tmp_path_factory.mktemp("run")
    path = out / "rows.jsonl"
    path.write_text("".join(json.dumps(passage(k)) + "\n" for k in range(8)))
    settings = Settings(
        str(base), epochs=60, lr=5e-3, tokens=512, window=64, average=0.9, foreign=0.0, embedder=str(base)
    )
    train([Source(path)], path, out, settings, save_every=1000)
    return out


def tokenizer(base):
    return AutoTokenizer.from_pretrained(base, model_max_length=1_000_000)


def test_it_learns_what_the_teacher_kept_and_what_answers(trained):
    record = json.loads((trained / "run.json").read_text())
    first, best = record["history"][0], record["best"]
    assert best["keep_f1"] > 0.97 and best["evidence_auc"] > 0.97
    assert best["keep_f1"] > first["keep_f1"]


def test_what_it_writes_compresses_with_and_without_a_question(trained):
    folder = publish(trained, {"name": "two-facts", "window": 64, "languages": ["en"], "licence": "MIT"})
    text = passage(0)["text"]
    model = load(folder)
    assert "really" not in model.compress(text, threshold=0.5).text
    asked = model.compress(text, rate=0.4, question=passage(0)["question"]).text
    assert "ten years old" in asked and "lives" not in asked
    card = (folder / "README.md").read_text()
    assert "two-facts" in card and str(json.loads((trained / "run.json").read_text())["best"]["keep_f1"]) in card


@pytest.mark.filterwarnings("error")
def test_a_question_without_tokens_asks_nothing(trained):
    """Control characters: the tokenizer drops them all."""
    scorer = Classifier(load_folder(publish(trained, {"window": 64})))
    tiling = words(passage(0)["text"])
    for question in ("\u200b", "\x00\ud800", ""):
        (found,), (plain,) = scorer.score([tiling], questions=[question]), scorer.score([tiling])
        assert (found.values == plain.values).all()


def test_lone_surrogates_are_learnt_from_too(base):
    row = data.row({"text": "Ada \ud800 lives", "question": "W\ud800?", "evidence": []}, tokenizer(base), 64)
    assert len(row.ids) and len(row.question)


def test_it_learns_the_embeddings_of_sentences_and_questions(trained, base):
    """The cosine of a sentence and the question is that of the embedder's own vectors."""
    scorer = Classifier(load_folder(publish(trained, {"window": 64}, int8=False)))
    text, question = passage(0)["text"], passage(0)["question"]
    found = scorer.heads(words(text), question)[:, 3]
    embedder = Embedder(str(base))
    first, second, asked = torch.nn.functional.normalize(embedder([*text.split(". ", 1), question])).numpy()
    assert found[0] == pytest.approx(first @ asked, abs=0.15)
    assert found[-1] == pytest.approx(second @ asked, abs=0.15)
    assert (scorer.heads(words(text))[:, 3] == 0).all()


def test_a_second_run_starts_from_the_heads_of_the_first(trained, files, tmp_path):
    settings = Settings(str(trained / "checkpoint"), epochs=1, lr=0.0, window=64, average=0.0)
    train([Source(files)], files, tmp_path / "out", settings)
    before, after = (json.loads((f / "run.json").read_text())["best"] for f in (trained, tmp_path / "out"))
    assert after["keep_f1"] == before["keep_f1"] and after["evidence_auc"] == before["evidence_auc"]


def test_a_base_gives_some_of_its_layers(base, trained):
    whole = load_checkpoint(trained / "checkpoint", 2)
    half = load_checkpoint(trained / "checkpoint", 1)
    assert half.config.num_hidden_layers == 1
    first = [n for n, _ in half.named_parameters() if "layer.0." in n]
    own, theirs = half.state_dict(), whole.state_dict()
    assert first and all((own[n] == theirs[n]).all() for n in first) and not any("layer.1." in n for n in own)
    with pytest.raises(InputError, match=r"layers must be in \[1, 2\]"):
        load_checkpoint(trained / "checkpoint", 3)


def load_checkpoint(folder, layers):
    return classifier_of(str(folder), asks=True, embedding=0, with_features=True, window=64, layers=layers)


def test_a_card_takes_only_what_it_shows(trained):
    with pytest.raises(InputError, match="takes name, window"):
        publish(trained, {"nmae": "x"})


def test_a_killed_run_goes_on_to_the_same_weights(base, files, tmp_path, monkeypatch):
    settings = Settings(str(base), epochs=4, tokens=128, window=64)
    whole = train([Source(files)], files, tmp_path / "whole", settings, save_every=2)
    step = classifier._Run._step

    def killed(self, batch):
        if self.state.step == 5:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(classifier._Run, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train([Source(files)], files, tmp_path / "cut", settings, save_every=2)
    monkeypatch.undo()
    torch.manual_seed(99)
    again = train([Source(files)], files, tmp_path / "cut", settings, save_every=2)
    assert (whole / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()


def test_two_processes_share_the_work(base, files, tmp_path):
    """As `torchrun` starts them: each takes every other batch, and one of them writes."""
    command = ["train", "classifier", str(files), "--dev", str(files), "--base", str(base), "-o", str(tmp_path / "run")]
    command += ["--epochs", "2", "--window", "64", "--batch", "64", "--save-every", "1"]
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "laconic.cli"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, *run, *command], capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    train([Source(files)], files, tmp_path / "alone", Settings(str(base), epochs=2, window=64, tokens=64))
    both, alone = (torch.load(tmp_path / name / "resume.pt", weights_only=True) for name in ("run", "alone"))
    assert len(both["rng"]) == 2 and 2 * both["state"]["step"] == alone["state"]["step"]
    assert (tmp_path / "run" / "model" / "laconic.json").exists()


def test_other_settings_do_not_go_on(base, files, tmp_path):
    train([Source(files)], files, tmp_path / "out", Settings(str(base), epochs=1, window=64))
    with pytest.raises(InputError, match="other settings"):
        train([Source(files)], files, tmp_path / "out", Settings(str(base), epochs=2, window=64))


def test_it_stops_when_dev_gets_no_better(base, files, tmp_path):
    settings = Settings(str(base), epochs=30, lr=0.0, window=64, patience=1)
    said = []
    train([Source(files)], files, tmp_path / "out", settings, say=said.append)
    assert "no better for 2 epochs" in said[-1]
    assert len(torch.load(tmp_path / "out" / "resume.pt", weights_only=True)["state"]["history"]) == 3


def test_without_questions_it_is_a_plain_llmlingua2_classifier(base, files, tmp_path):
    rows = [json.loads(line) for line in files.read_text().splitlines()]
    files.write_text("".join(json.dumps({"text": r["text"], "compressed": r["compressed"]}) + "\n" for r in rows))
    out = train([Source(files)], files, tmp_path / "out", Settings(str(base), epochs=1, window=64, features=False))
    config = json.loads((out / "config.json").read_text())
    assert list(config["id2label"].values()) == ["drop", "keep"] and config["type_vocab_size"] == 2


def test_spans_and_compressed_are_the_same_labels(base):
    record = passage(0)
    text = record["text"]
    spans, at = [], 0
    for word in record["compressed"].split():
        at = text.index(word.rstrip(".,"), at)
        spans.append([at, at + len(word.rstrip(".,"))])
    spans += [[k, k + 1] for k, c in enumerate(text) if c == "."]
    one = data.row(record, tokenizer(base), 64)
    two = data.row({**record, "compressed": None, "spans": spans}, tokenizer(base), 64)
    assert (one.keep == two.keep).all() and (one.keep == 1).any() and (one.keep == 0).any()


def test_labels_are_where_the_strings_stand(base):
    row = data.row({**passage(0), "relevance": [[0, 71, 0.25]]}, tokenizer(base), 64)
    half = len(row.ids) // 2
    assert set(row.evidence[: half - 2]) == {1} and set(row.evidence[half + 2 :]) <= {0.25, 0}
    assert 0 < (row.answer == 1).sum() < 6 and (row.answers == -1).all()


def test_soft_labels_are_learnt_as_they_are(base, tmp_path):
    """Soft labels are probabilities to reach, not a side to take."""
    text = passage(0)["text"]
    places = [(m.start(), m.end()) for m in re.finditer(" really", text)]
    soft = {"text": text, "keep": [[0, len(text), 0.8], *([s, e, 0.3] for s, e in places)]}
    row = data.row(soft, tokenizer(base), 64)
    assert np.unique(row.keep) == pytest.approx([0.3, 0.8]) and not len(row.kept)
    rows, dev = tmp_path / "rows.jsonl", tmp_path / "dev.jsonl"
    rows.write_text((json.dumps(soft) + "\n") * 150)
    dev.write_text(json.dumps(passage(0)) + "\n")
    settings = Settings(str(base), epochs=1, lr=5e-3, tokens=64, window=64, average=0.0)
    train([Source(rows)], dev, tmp_path / "run", settings)
    tiling = words(text)
    found = load(publish(tmp_path / "run", {"window": 64}, int8=False)).scorer.heads(tiling)[:, 0]
    wanted = [0.3 if "really" in unit else 0.8 for unit in tiling]
    assert found == pytest.approx(wanted, abs=0.1)


def test_the_teacher_counts_before_soft_labels(base):
    row = data.row({**passage(0), "keep": [[0, 80, 0.5]]}, tokenizer(base), 64)
    assert set(row.keep.tolist()) == {0, 1}


def test_a_row_never_grows_past_the_window(base):
    long = {**passage(1), "text": passage(1)["text"] * 9, "question": "Where? " * 90}
    rows = [data.row(r, tokenizer(base), 128) for r in (long, passage(0), long)]
    frame = data.Frame.of(tokenizer(base))
    for seed in range(20):
        shown = list(data.items(rows, random.Random(seed), 0.3, 0.9, 128))
        assert max(map(len, shown)) <= 128
        made = data.collate(shown, frame)
        assert made["ids"].shape[1] <= 128 and made["labels"].shape == (*made["ids"].shape, 3)
        assert (made["labels"][made["mask"] == 0] == -1).all()


def test_batches_hold_every_item_once_within_the_budget(base):
    rows = [data.row(passage(k), tokenizer(base), 64) for k in range(8)] * 9
    shown = list(data.items(rows, random.Random(0), 0.5, 0.1, 64))
    made = data.batches(shown, 256, random.Random(1))
    assert sorted(map(id, (i for b in made for i in b))) == sorted(map(id, shown))
    assert all(len(b) * data.padded(max(map(len, b))) <= 256 for b in made)


def test_a_source_takes_the_next_rows_in_each_epoch():
    rows = list(range(10))
    first, second = (classifier._share(rows, 5, epoch, 0) for epoch in (0, 1))
    assert sorted(first + second) == rows
    assert classifier._share(rows, None, 3, 0) == rows
    assert Source.parse("a/b.jsonl:300") == Source(data.Path("a/b.jsonl"), 300)
    assert Source.parse("C:/x.jsonl") == Source(data.Path("C:/x.jsonl"))
    assert Source.parse("x.jsonl:\u00b2") == Source(data.Path("x.jsonl:\u00b2"))
    with pytest.raises(InputError, match="1 or more"):
        Source.parse("x.jsonl:0")


def test_a_broken_line_is_named(base, tmp_path):
    path = tmp_path / "broken.jsonl"
    path.write_text(json.dumps(passage(0)) + "\n{\n")
    with pytest.raises(InputError, match="line 2"):
        data.read(path, tokenizer(base), 64)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"text": 5}, "line 1"),
        ({"spans": [[0, 999]]}, "within the text"),
        ({"spans": [3, 4]}, "within the text"),
        ({"evidence": "Ada really lives"}, "list of strings"),
        ({"answer": 5}, "must be a string"),
        ({"relevance": [0.5]}, "relevance must be"),
        ({"keep": [[0, 4, 1.5]]}, "keep must be"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(base, tmp_path, change, says):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**passage(0), **change}) + "\n")
    with pytest.raises(InputError, match=says):
        data.read(path, tokenizer(base), 64)


def test_nulls_and_empty_lines_are_nothing(base, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "Ada lives.", "compressed": None, "question": None, "evidence": None}) + "\n\n")
    (row,) = data.read(path, tokenizer(base), 64)
    assert (row.keep == -1).all() and (row.evidence == -1).all() and not row.question


@pytest.mark.parametrize("content", [b"", b"\n", b'{"text": "\xff"}\n', None])
def test_a_file_without_rows_is_refused(base, tmp_path, content):
    path = tmp_path / "rows.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"rows\.jsonl"):
        data.read(path, tokenizer(base), 64)


def test_what_cannot_be_judged_is_refused_before_training(base, files, tmp_path):
    bare = tmp_path / "bare.jsonl"
    bare.write_text(json.dumps({"text": "Ada lives."}) + "\n")
    for source, dev in ((files, bare), (bare, files)):
        with pytest.raises(InputError, match="labels"):
            train([Source(source)], dev, tmp_path / "out", Settings(str(base), window=64))


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"lr": float("nan")}, {"tokens": 0}, {"window": 8}, {"average": 1.0}, {"patience": -1}],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError, match="got"):
        Settings("base", **wrong)


def test_a_window_has_to_fit_the_positions_of_the_base(base, files, tmp_path):
    with pytest.raises(InputError, match="at most 512"):
        train([Source(files)], files, tmp_path / "out", Settings(str(base), window=513))


def test_other_data_does_not_go_on(base, files, tmp_path):
    settings = Settings(str(base), epochs=1, window=64)
    train([Source(files)], files, tmp_path / "out", settings)
    files.write_text(files.read_text() * 2)
    with pytest.raises(InputError, match="other data"):
        train([Source(files)], files, tmp_path / "out", settings)


def test_a_run_that_stopped_early_stays_as_it_is(base, files, tmp_path):
    settings = Settings(str(base), epochs=9, lr=0.0, window=64, patience=0)
    train([Source(files)], files, tmp_path / "out", settings)
    before = (tmp_path / "out" / "resume.pt").read_bytes()
    train([Source(files)], files, tmp_path / "out", settings)
    assert (tmp_path / "out" / "resume.pt").read_bytes() == before


@pytest.mark.parametrize("build", [tiny.build_mbert, tiny.build_xlmr])
def test_it_frames_texts_as_the_classifier_does(build, tmp_path):
    """Also where four special tokens stand around question and text: a full row still fits."""
    long = {**passage(1), "text": passage(1)["text"] * 30}
    texts = [passage(k)["text"] + passage(k)["question"] for k in range(8)]
    folder = with_pairs(build(tmp_path / "base", texts, vocab_size=120))
    (tmp_path / "rows.jsonl").write_text(json.dumps(long) + "\n")
    frame, row = data.Frame.of(tokenizer(folder)), data.row(long, tokenizer(folder), 512)
    shown = data.Item(row, row.question, row.evidence, row.answer)
    assert len(shown) == 512 == data.collate([shown], frame)["mask"].sum()
    rows = tmp_path / "rows.jsonl"
    train([Source(rows)], rows, tmp_path / "run", Settings(str(folder), epochs=1))
    scorer = Classifier(load_folder(publish(tmp_path / "run", {}, int8=False)))
    assert (frame.head, frame.between, frame.tail) == (scorer._head, scorer._between, scorer._tail)
    assert len(frame.between) == (2 if build is tiny.build_xlmr else 1)


def with_pairs(folder):
    """The tiny base with a template for pairs, as the real ones have it."""
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    first, last = ("<s>", "</s>") if made.token_to_id("<s>") is not None else ("[CLS]", "[SEP]")
    between = f"{last} {last}" if first == "<s>" else last
    made.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {between} $B {last}",
        special_tokens=[(t, made.token_to_id(t)) for t in (first, last)],
    )
    made.save(str(folder / "tokenizer.json"))
    return folder


def test_a_base_without_a_fast_tokenizer_is_refused(tmp_path):
    with pytest.raises(ModelError, match="tokenizer"):
        fast_tokenizer(str(tmp_path))


@pytest.mark.parametrize("about", ["{", "[1]", '{"nmae": 1}', '{"window": "512"}', '{"languages": "en"}'])
def test_a_wrong_card_is_refused_before_training(base, files, tmp_path, capsys, about):
    (tmp_path / "about.json").write_text(about)
    args = ["--dev", str(files), "--base", str(base), "-o", str(tmp_path / "out")]
    assert main(["train", "classifier", str(files), *args, "--about", str(tmp_path / "about.json")]) == 2
    assert not (tmp_path / "out").exists() and capsys.readouterr().err.count("\n") == 1


def test_the_command_trains_and_publishes(base, files, tmp_path, capsys):
    about = tmp_path / "about.json"
    about.write_text(json.dumps({"name": "mine", "window": 64}))
    out = tmp_path / "out"
    args = ["--dev", str(files), "--base", str(base), "-o", str(out), "--epochs", "1", "--window", "64"]
    assert main(["train", "classifier", str(files), *args, "--about", str(about)]) == 0
    assert (out / "model" / "laconic.json").exists() and str(out / "model") in capsys.readouterr().out


def test_whole_documents_are_held_out():
    some = [held_out(f"article {k}") for k in range(400)]
    assert 60 < np.sum(some) < 140 and held_out("article 1") == some[1]


def test_evidence_that_is_not_in_the_text_is_unknown_and_none_is_none(base):
    strange, none = ({**passage(0), "evidence": e} for e in (["Nobody said this."], []))
    assert (data.row(strange, tokenizer(base), 64).evidence == -1).all()
    assert (data.row(none, tokenizer(base), 64).evidence == 0).all()
