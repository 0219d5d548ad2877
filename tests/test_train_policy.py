"""Policies: what is paid, the gradient, that the reward rises, and that what is learnt compresses."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForTokenClassification

import decoders
import laconic
import tiny
from laconic.cli import main
from laconic.errors import EndpointError, InputError, ModelError
from laconic.eval.data import Example
from laconic.export import export
from laconic.hub import Manifest, load_decoder, load_folder
from laconic.scorers.classifier import Classifier
from laconic.segment import words
from laconic.train import policy
from laconic.train.policy import Settings, above, objective, train
from laconic.train.publish import publish
from laconic.train.rewards import MEASURES, Agreement, Likelihood, Local, Pcrl, Remote, TacoRl, algorithm, quality

NAMES = ["Ada", "Bob", "Cleo", "Dan", "Eve"]
FILLERS = [
    "so",
    "then",
    "there",
    "really",
    "was",
    "some",
    "more",
    "talk",
    "very",
    "little",
    "went",
    "on",
    "and",
    "such",
]


def passage(k: int) -> str:
    """Ten words, two of them names."""
    pick = random.Random(k)
    some = [*pick.sample(NAMES, 2), *pick.choices(FILLERS, k=8)]
    pick.shuffle(some)
    return " ".join(some)


class Names:
    """A model that answers with the names it reads; `seen`: the texts."""

    name = "names"

    def __init__(self):
        self.seen = []

    def takes(self, example):
        return True

    def answers(self, contexts, examples):
        self.seen += contexts
        return [" ".join(w for w in context.split() if w in NAMES) for context in contexts]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.build_mbert(tmp_path_factory.mktemp("base"), [passage(k) for k in range(40)], vocab_size=120)


@pytest.fixture
def files(tmp_path):
    """Texts to learn from, and others to judge on."""
    return rows(tmp_path / "train.jsonl", range(40)), rows(tmp_path / "dev.jsonl", range(100, 120))


def rows(path, numbers, **fields):
    path.write_text("".join(json.dumps({"text": passage(k), **fields}) + "\n" for k in numbers))
    return path


def small(base, kind=None, **changes):
    """Settings for a policy that learns in seconds."""
    given = {"lr": 1e-2, "batch": 8, "samples": 4, "baseline": "greedy", "steps": 4, "window": 64, **changes}
    return Settings.of(str(base), kind or Pcrl(tau=0.9, hidden=64), **given)


# What is paid


def test_pcrl_pays_the_removed_share_where_the_answer_stays():
    """80 of 100 tokens may go, 30 of them did: 0.375; at tau itself and below there is only the penalty."""
    paid = Pcrl(tau=0.9, penalty=-0.01).reward(
        np.array([1.0, 0.91, 0.9, 0.0]), *(np.full(4, n) for n in (70, 100)), np.full(4, 20)
    )
    assert paid == pytest.approx([0.375, 0.375, -0.01, -0.01])


def test_taco_rl_pays_the_quality_within_the_tolerance():
    kept = np.array([20, 30, 31, 9, 11, 10])
    paid = TacoRl(rate=0.2, tolerance=10).reward(np.full(6, 0.6), kept, np.full(6, 100), np.zeros(6, int))
    assert paid == pytest.approx([0.6, 0.6, -0.1, -0.4, 0.6, -0.4])


def test_taco_rl_asks_only_where_the_answer_is_paid():
    kind = TacoRl(rate=0.5, tolerance=5)
    assert kind.asks(np.array([44, 45, 55, 56]), np.full(4, 100)).tolist() == [False, True, True, False]
    assert not TacoRl(rate=0.05, tolerance=30).asks(np.array([10]), np.array([100]))[0]


def test_greedy_decisions():
    chance, cost = np.array([0.2, 0.9, 0.5, 0.8], np.float32), np.array([1, 5, 1, 2])
    assert Pcrl().greedy(chance, cost, 9, 0).tolist() == [False, True, True, True]
    assert TacoRl(rate=0.8).greedy(chance, cost, 9, 0).tolist() == [False, True, False, True]
    assert TacoRl(rate=0.8).greedy(chance, cost, 10, 3).tolist() == [False, True, False, False]


def test_measures_by_hand():
    """One of two words right, and one missing; a subsequence of 3 of 4 words."""
    assert MEASURES["f1"]("Ada Dan", "Ada Bob") == pytest.approx(0.5)
    assert MEASURES["rouge-l"]("one two four", "one two three four") == pytest.approx(6 / 7)
    assert MEASURES["bleu"]("one two three four", "one two three four") == pytest.approx(1.0)


def test_agreement_compares_with_the_answer_on_the_full_text():
    example = Example("", "Ada met Bob", answers=("Dan",))
    near = Agreement(Names(), "f1")
    assert near(["Ada met", "Ada Bob", "met"], [example] * 3) == pytest.approx([2 / 3, 1.0, 0.0])


def test_what_cannot_be_had_or_says_nothing_is_worth_nothing():
    class Mute(Names):
        def answers(self, contexts, examples):
            return [EndpointError("refused") if "Dan" in c else "" if "Eve" in c else "x" for c in contexts]

    pairs = [("Dan", "x"), ("x", "Dan"), ("Eve", "Eve"), ("x", "x")]
    found = Agreement(Mute(), "f1")([a for a, _ in pairs], [Example("", b) for _, b in pairs])
    assert found == [0.0, 0.0, 0.0, 1.0]


# A model on this machine


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    texts = [passage(k) for k in range(20)]
    return decoders.build(tmp_path_factory.mktemp("lm") / "tiny", "llama", texts, max_position_embeddings=128)


@pytest.fixture
def local(lm, tmp_path):
    made = Local(str(lm), 5, tmp_path / "answers.sqlite")
    yield made
    made.close()


ASKED = Example("", "Ada and Bob really went on", "Who went?", ("Ada and Bob",))


def prompt(tokens, text, question):
    return tokens(f"{text}\nQuestion: {question} Answer:")[0].tolist()


def test_the_likelihood_is_a_ratio_of_mean_probabilities(lm, local):
    model = load_decoder(lm)

    def nats(text):
        ids = [model.decoder.start, *prompt(model.tokens, text, "Who went?")]
        answer = model.tokens(" Ada and Bob")[0].tolist()
        return decoders.plain_nll(model.decoder._model, np.array(ids + answer))[len(ids) :].mean()

    examples = [Example("", passage(k), "Who went?", ("Ada and Bob",)) for k in range(10)]
    texts = ["", *(passage(k) for k in range(10, 18)), examples[9].context]
    found = Likelihood(local)(texts, examples)
    expected = [min(1, np.exp(nats(e.context) - nats(t))) for t, e in zip(texts, examples, strict=True)]
    assert found == pytest.approx(expected, rel=1e-4) and found[-1] == 1.0
    assert min(found) < 0.99 and found.count(1.0) > 1


def test_a_local_model_answers_with_what_is_most_probable(lm, local):
    """Rows of different length in one batch say what each of them says alone."""
    model = load_decoder(lm)
    texts = ["Ada really went on and on as such", "Bob", ASKED.context]
    for text, said in zip(texts, local.answers(texts, [ASKED] * 3), strict=True):
        ids = [model.decoder.start, *prompt(model.tokens, text, "Who went?")]
        new = []
        while len(new) < 5:
            with torch.no_grad():
                best = int(model.decoder._model(torch.tensor([ids + new])).logits[0, -1].argmax())
            if best == model.decoder._model.config.eos_token_id:
                break
            new.append(best)
        assert said == model.tokenizer.decode(new).strip().split("\n")[0]


def test_the_checkpoints_own_settings_of_generation_are_not_used(lm, tmp_path):
    rows = [np.array([load_decoder(lm).decoder.start, 40, 41])]
    plain = load_decoder(lm).decoder.greedy(rows, 8)[0].tolist()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((lm / name).read_bytes())
    odd = {"do_sample": True, "temperature": 5.0, "repetition_penalty": 9.0, "eos_token_id": plain[2]}
    (tmp_path / "generation_config.json").write_text(json.dumps(odd))
    decoder = load_decoder(tmp_path).decoder
    assert decoder.greedy(rows, 8)[0].tolist() == plain[: plain.index(plain[2])]


def test_what_was_asked_before_is_read_from_the_cache(lm, local, tmp_path, monkeypatch):
    first = local.answers(["Ada", "Bob", "Ada"], [ASKED] * 3), local.nats(["Ada"], [ASKED])
    assert first[0][0] == first[0][2]
    again = Local(str(lm), 5, tmp_path / "answers.sqlite")
    monkeypatch.setattr(again, "_say", None)
    monkeypatch.setattr(again, "_surprisal", None)
    assert (again.answers(["Ada", "Bob", "Ada"], [ASKED] * 3), again.nats(["Ada"], [ASKED])) == first
    with pytest.raises(TypeError):
        again.answers(["Cleo"], [ASKED])
    again.close()


def test_it_takes_what_fits_its_window_and_has_an_answer(local):
    assert local.takes(ASKED) and not local.takes(Example("", "Ada " * 200, "Who?"))
    assert Likelihood(local).takes(ASKED) and not Likelihood(local).takes(Example("", "Ada", "Who?"))


# The gradient


def exactly(chance, reward, entropy):
    """The expected reward over all masks plus the entropy bonus: a function of float[U], differentiable."""
    total = -entropy * (chance * chance.log() + (1 - chance) * (1 - chance).log()).sum()
    for mask in product([False, True], repeat=len(chance)):
        weight = torch.where(torch.tensor(mask), chance, 1 - chance).prod()
        total = total + weight * reward[mask]
    return total


def gradient(value, theta):
    return torch.autograd.grad(value, theta)[0]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.3]), st.floats(-2, 2))
def test_the_gradient_is_that_of_the_expected_reward_for_any_baseline(seed, entropy, baseline):
    theta = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    pick = random.Random(seed)
    reward = {mask: pick.uniform(-1, 1) for mask in product([False, True], repeat=4)}
    found = torch.zeros(4, dtype=torch.float64)
    for mask in reward:
        chance = theta.sigmoid()
        weight = torch.where(torch.tensor(mask), chance, 1 - chance).prod().detach()
        keep = torch.tensor([[[*mask, True]]])  # the last unit is protected
        padded = torch.cat([chance, torch.full((1,), 0.7, dtype=torch.float64)])[None]
        free = torch.tensor([[True] * 4 + [False]])
        loss = objective(
            padded, keep, torch.tensor([[reward[mask] - baseline]], dtype=torch.float64), free, entropy=entropy
        )
        found += weight * gradient(loss, theta)
    expected = -gradient(exactly(theta.sigmoid(), reward, entropy), theta)
    assert torch.allclose(found, expected, atol=1e-10)


def test_the_mean_of_the_other_samples_is_a_baseline_that_does_not_bias():
    """Over all pairs of masks of three units."""
    theta = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64, requires_grad=True)
    masks = list(product([False, True], repeat=3))
    reward = {mask: sum(mask) ** 2 - 3.0 * mask[1] for mask in masks}
    found = torch.zeros(3, dtype=torch.float64)
    for pair in product(masks, repeat=2):
        chance = theta.sigmoid()
        weight = torch.stack([torch.where(torch.tensor(m), chance, 1 - chance).prod() for m in pair]).prod().detach()
        advantage = above(np.array([[reward[m] for m in pair]]), np.zeros(1), "others")
        free = torch.ones(1, 3, dtype=torch.bool)
        loss = objective(chance[None], torch.tensor([pair]), torch.from_numpy(advantage), free, entropy=0.0)
        found += weight * gradient(loss, theta)
    assert torch.allclose(found, -gradient(exactly(theta.sigmoid(), reward, 0.0), theta), atol=1e-10)


def test_certain_decisions_have_a_finite_gradient():
    chance = torch.tensor([[0.0, 1.0, 0.5]], requires_grad=True)
    keep = torch.tensor([[[False, True, True]]])
    loss = objective(chance, keep, torch.ones(1, 1), torch.ones(1, 3, dtype=torch.bool), entropy=0.1)
    assert torch.isfinite(gradient(loss, chance)).all()


def test_the_greedy_baseline_is_that_of_the_same_text():
    assert above(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0.5, 1.0]), "greedy").tolist() == [
        [0.5, -0.5],
        [-0.5] * 2,
    ]


# Learning


@pytest.fixture(scope="module")
def learnt(base, tmp_path_factory):
    """Runs that learn to keep names: PCRL and TACO-RL."""
    out = tmp_path_factory.mktemp("runs")
    texts, dev = rows(out / "train.jsonl", range(60)), rows(out / "dev.jsonl", range(100, 120))
    pcrl = small(base, steps=120, entropy=0.0)
    train([texts], dev, out / "pcrl", pcrl, Agreement(Names(), "rouge-l"), save_every=1000)
    taco = small(base, TacoRl(rate=0.3, tolerance=4), steps=60, lr=3e-3, samples=6, baseline="others")
    train([texts], dev, out / "taco-rl", taco, Agreement(Names(), "f1"), save_every=1000)
    return out


@pytest.mark.parametrize(("kind", "least"), [("pcrl", 0.45), ("taco-rl", 0.9)])
def test_the_reward_rises_and_the_words_that_matter_stay(learnt, kind, least):
    """At best PCRL removes 8 of 10 words: 0.8; the quality of TACO-RL is 1 when both names are among three words."""
    record = json.loads((learnt / kind / "run.json").read_text())
    start, best = record["history"][0], record["best"]
    assert start["step"] == 0 and best["reward"] > max(least, start["reward"] + 0.2)
    model = laconic.load(publish(learnt / kind, {"window": 64}))
    for k in range(200, 210):
        budget = {"threshold": 0.5} if kind == "pcrl" else {"rate": 0.5}
        text = passage(k)
        kept = model.compress(text, **budget)
        assert {w for w in text.split() if w in NAMES} <= set(kept.text.split()) and kept.rate < 0.7
        assert kept.text == "".join(text[s:e] for s, e in kept.spans)
    assert "laconic train policy" in (learnt / kind / "model" / "README.md").read_text()


def test_pcrl_learns_a_head_and_nothing_else(base, learnt):
    before, after = (
        load_file(base / "model.safetensors"),
        load_file(learnt / "pcrl" / "checkpoint" / "model.safetensors"),
    )
    shared = [n for n in before if not n.startswith("classifier")]
    assert shared and all(torch.equal(before[n], after[n]) for n in shared)
    assert {n for n in after if n.startswith("classifier")} == {
        f"classifier.{n}" for n in ("0.weight", "2.weight", "2.bias")
    }


def test_taco_rl_writes_a_plain_token_classifier(base, learnt):
    model, info = AutoModelForTokenClassification.from_pretrained(
        learnt / "taco-rl" / "checkpoint", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert model.config.id2label == {0: "drop", 1: "keep"}
    before, after = load_file(base / "model.safetensors"), model.state_dict()
    assert any(not torch.equal(before[n], after[n]) for n in before if "encoder" in n)


@pytest.mark.parametrize("kind", ["pcrl", "taco-rl"])
def test_what_is_learnt_is_what_is_used(learnt, kind, files, monkeypatch):
    """P(keep) of units while training and of the exported model, with marks, numbers and words of many tokens."""
    monkeypatch.setattr(policy._Run, "_calibrate", lambda self, rate: None)
    checkpoint = learnt / kind / "checkpoint"
    run = policy._Run(
        [files[0]],
        files[1],
        files[0].parent / "o",
        small(learnt / "taco-rl" / "checkpoint", TacoRl()),
        names(),
        9,
        print,
    )
    folder = export(checkpoint, files[0].parent / "onnx", int8=False)
    text = "Ada then unforeseenly met Bob (so there), on 1,000 and on; really."
    made = run._passage({"text": text})
    from laconic.export import _read_checkpoint

    with torch.no_grad():
        trained = run._chance(_read_checkpoint(checkpoint), [made, run._passage({"text": "Dan"})])[0].numpy()
    used = Classifier(load_folder(folder)).heads(words(text))[:, 0]
    assert made.free.all() and trained == pytest.approx(used, abs=1e-4)


def names():
    return Agreement(Names(), "f1")


def test_taco_rl_starts_from_the_head_of_the_base_at_the_wanted_rate(base, files, tmp_path):
    """The base calls its labels LABEL_0 and LABEL_1; every token's odds are moved alike."""
    run = policy._Run([files[0]], files[1], tmp_path / "o", small(base, TacoRl(rate=0.2), lr=0.0), names(), 9, print)
    own = AutoModelForTokenClassification.from_pretrained(base).eval()
    with torch.no_grad():
        moved = [run._odds(m, run.passages[:8]) for m in (run.accelerator.unwrap_model(run.model), own)]
        text = [[slice(1, 1 + len(p.ids)) for p in run.passages], None][0]
        shift = torch.cat([(moved[0] - moved[1])[k, text[k]] for k in range(8)])
        everything = [run._odds(run.model, [p])[0, 1 : 1 + len(p.ids)].sigmoid() for p in run.passages]
    assert float(shift.std()) < 0.05 and float(torch.cat(everything).mean()) == pytest.approx(0.2, abs=0.01)


def test_a_killed_run_goes_on_to_the_same_weights(base, files, tmp_path, monkeypatch):
    texts, dev = files
    settings = small(base, TacoRl(tolerance=5), steps=8, baseline="others")
    whole = train([texts], dev, tmp_path / "whole", settings, names(), save_every=2)
    step = policy._Run._step

    def killed(self, batch):
        if self.state.step == 5:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(policy._Run, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train([texts], dev, tmp_path / "cut", settings, names(), save_every=2)
    monkeypatch.undo()
    torch.manual_seed(99)
    train([texts], dev, tmp_path / "cut", settings, names(), save_every=2)
    both = [torch.load(tmp_path / name / "resume.pt", weights_only=True) for name in ("whole", "cut")]
    assert all(torch.equal(a, both[1]["model"][n]) for n, a in both[0]["model"].items())
    assert both[0]["state"] == both[1]["state"]
    assert (whole / "model.safetensors").read_bytes() == (tmp_path / "cut/checkpoint/model.safetensors").read_bytes()


def test_two_processes_learn_together(base, server, tmp_path):
    """As `torchrun` starts them: each draws for texts of its own, their gradients meet, and one of them writes."""
    texts, dev = rows(tmp_path / "train.jsonl", range(160)), rows(tmp_path / "dev.jsonl", range(200, 220))
    command = ["train", "policy", str(texts), "--dev", str(dev), "--base", str(base), "--algorithm", "taco-rl"]
    command += ["--rate", "0.3", "--tolerance", "4", "--steps", "20", "--lr", "3e-3", "--samples", "6", "--batch", "4"]
    command += ["--baseline", "others", "--window", "64", "-o", str(tmp_path / "run")]
    command += ["--endpoint", f"http://127.0.0.1:{server.server_port}", "--endpoint-model", "m"]
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "laconic.cli"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, *run, *command], capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = {content.split("\n")[0] for content, _ in server.asked}
    assert sum(passage(k) in seen for k in range(160)) > 120  # one process alone, or both with the same texts: 80
    both = torch.load(tmp_path / "run" / "resume.pt", weights_only=True)
    assert len(both["rng"]) == 2 and not torch.equal(both["rng"][0][0], both["rng"][1][0])
    history = both["state"]["history"]
    assert len(history) == 11 and max(h["reward"] for h in history) > history[0]["reward"] + 0.2
    assert done.stdout.splitlines() == [str(tmp_path / "run" / "model")]


def test_other_rewards_or_settings_do_not_go_on(base, files, tmp_path):
    texts, dev = files
    train([texts], dev, tmp_path / "out", small(base, steps=1), names())
    with pytest.raises(InputError, match="other data"):
        train([texts], dev, tmp_path / "out", small(base, steps=1), Agreement(Names(), "bleu"))
    with pytest.raises(InputError, match="other settings"):
        train([texts], dev, tmp_path / "out", small(base, Pcrl(tau=0.5, hidden=64), steps=1), names())


def test_protected_spans_always_stay_and_are_not_counted_by_pcrl(base, tmp_path):
    text = passage(1)
    first = text.split()[0]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": text, "protect": [[0, len(first)]]}) + "\n")
    reader = Names()
    train([path], path, tmp_path / "out", small(base, steps=3), Agreement(reader, "f1"))
    assert reader.seen and all(seen.startswith(first) for seen in reader.seen)
    run = policy._Run([path], path, tmp_path / "other", small(base), names(), 9, print)
    (made,) = run.passages
    everything, nothing = made.kept(np.ones(9, bool)), made.kept(np.zeros(9, bool))
    assert everything.all() and made.text(nothing) == first
    run.quality = lambda texts, examples: [1.0] * len(texts)
    assert run._rewards([(made, everything), (made, nothing)])[0].tolist() == [0.0, 1.0]


def test_what_cannot_be_read_whole_is_passed_over(base, files, tmp_path):
    texts, dev = files
    texts.write_text(texts.read_text() + json.dumps({"text": passage(0) * 50}) + "\n")
    said = []
    train([texts], dev, tmp_path / "out", small(base, steps=1), names(), say=said.append)
    assert "1 of 41 texts" in said[0]
    dev.write_text(json.dumps({"text": passage(0) * 50}) + "\n")
    with pytest.raises(InputError, match="no text of .* is of use"):
        train([texts], dev, tmp_path / "other", small(base, steps=1), names())


# Advice


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": float("nan")},
        {"batch": 0},
        {"samples": 0},
        {"samples": 1, "baseline": "others"},
        {"entropy": -1.0},
        {"baseline": "mean"},
        {"steps": 0},
        {"window": 8},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError, match="got"):
        Settings.of("base", Pcrl(), **wrong)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("pcrl", {"tau": 1.0}),
        ("pcrl", {"penalty": 0.5}),
        ("pcrl", {"hidden": 0}),
        ("taco-rl", {"rate": 1.0}),
        ("taco-rl", {"tolerance": -1}),
        ("taco-rl", {"penalty": 0.5}),
    ],
)
def test_algorithms_refuse_what_they_cannot_use(name, wrong):
    with pytest.raises(InputError, match="must be .*got"):
        algorithm(name, **wrong)


def test_a_setting_of_the_other_algorithm_is_named():
    with pytest.raises(InputError, match="taco-rl has no setting tau; it has rate, tolerance, penalty"):
        algorithm("taco-rl", tau=0.5)


def test_taco_rl_needs_a_trained_head(base, files, tmp_path):
    from transformers import AutoModel

    AutoModel.from_pretrained(base).save_pretrained(tmp_path / "encoder")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "encoder" / name).write_bytes((base / name).read_bytes())
    with pytest.raises(ModelError, match="has no trained head; pass a keep/drop classifier"):
        train([files[0]], files[1], tmp_path / "out", small(tmp_path / "encoder", TacoRl()), names())
    train([files[0]], files[1], tmp_path / "out", small(tmp_path / "encoder", steps=1), names())


def test_a_head_that_does_not_fit_its_configuration_is_refused(learnt, tmp_path):
    for file in (learnt / "pcrl" / "checkpoint").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["laconic"]["hidden"] = 63
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="cannot be read as a checkpoint"):
        export(tmp_path, tmp_path / "onnx")


def test_rewards_by_name(local):
    assert isinstance(quality("likelihood", local), Likelihood) and isinstance(quality("f1", local), Agreement)
    with pytest.raises(InputError, match="no reward 'rouge'; there are rouge-l"):
        quality("rouge", local)


# The command


class _Model(BaseHTTPRequestHandler):
    """Answers with the names in the prompt."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][0]["content"]
        self.server.asked.append((content, body["max_tokens"]))
        said = " ".join(w for w in content.split("\n")[0].split() if w in NAMES)
        answer = {"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = HTTPServer(("127.0.0.1", 0), _Model)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_endpoint_pays_and_is_asked_once(base, files, server, tmp_path, capsys):
    texts, dev = rows(files[0], range(12)), rows(files[1], range(100, 104), question="Who is there?")
    args = [
        "train",
        "policy",
        str(texts),
        "--dev",
        str(dev),
        "--base",
        str(base),
        "--algorithm",
        "pcrl",
        "--steps",
        "3",
    ]
    args += ["--window", "64", "--batch", "4", "--samples", "2", "--hidden", "16", "--answer-tokens", "7"]
    args += ["--endpoint", f"http://127.0.0.1:{server.server_port}", "--endpoint-model", "m"]
    args += ["--cache", str(tmp_path / "answers.sqlite")]
    assert main([*args, "-o", str(tmp_path / "out")]) == 0
    asked = list(server.asked)
    assert len(set(asked)) == len(asked) and {most for _, most in asked} == {7}
    assert sum("Question: Who is there?" in content for content, _ in asked) >= 4
    assert any("Summarise the text" in content for content, _ in asked)
    assert main([*args, "-o", str(tmp_path / "again")]) == 0
    assert server.asked == asked
    both = [load_file(tmp_path / name / "checkpoint" / "model.safetensors") for name in ("out", "again")]
    assert all(torch.equal(both[0][n], both[1][n]) for n in both[0])
    assert Manifest.read(tmp_path / "out" / "model").question is False
    assert str(tmp_path / "out" / "model") in capsys.readouterr().out


def test_a_local_model_pays(base, lm, files, tmp_path):
    texts, dev = (rows(f, range(8), question="Who?", answer="Ada") for f in files)
    args = ["train", "policy", str(texts), "--dev", str(dev), "--base", str(base), "--algorithm", "taco-rl"]
    args += ["--steps", "2", "--window", "64", "--reward-model", str(lm), "--reward", "likelihood", "--rate", "0.4"]
    assert main([*args, "--tolerance", "8", "-o", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert 0 < record["history"][0]["quality"] <= 1 and record["settings"]["rewards"].startswith("likelihood, tiny")
    assert laconic.load(tmp_path / "out" / "model").compress(passage(0), rate=0.5).met


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ([], "pass either --reward-model, or --endpoint and --endpoint-model"),
        (["--endpoint", "http://x"], "pass either --reward-model"),
        (["--reward-model", "{lm}", "--tau", "0.5"], "taco-rl has no setting tau"),
        (["--reward-model", "{lm}", "--reward", "rouge"], "no reward 'rouge'"),
        (["--reward-model", "{lm}", "--answer-tokens", "0"], "an answer must have 1 token or more, got 0"),
        (["--endpoint", "http://x", "--endpoint-model", "m", "--reward", "likelihood"], "tells no likelihoods"),
        (["--reward-model", "{lm}", "--baseline", "mean"], "baseline must be one of greedy, others, none"),
    ],
)
def test_wrong_options_are_one_line_of_advice(base, lm, files, tmp_path, capsys, options, advice):
    args = ["train", "policy", str(files[0]), "--dev", str(files[1]), "--base", str(base), "--algorithm", "taco-rl"]
    assert main([*args, "-o", str(tmp_path / "out"), *(o.replace("{lm}", str(lm)) for o in options)]) == 2
    err = capsys.readouterr().err
    assert advice in err and err.count("\n") == 1


def test_a_remote_model_takes_everything():
    assert Remote.takes(object.__new__(Remote), Example("", "Ada " * 10**5))
