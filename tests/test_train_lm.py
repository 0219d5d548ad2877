"""A language model from scratch: its tokenizer, its windows, and that it learns, resumes exactly and can be loaded."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter
from math import log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

import texts
from laconic.cli import main
from laconic.errors import InputError
from laconic.train import bpe, lm, tasks
from laconic.train.corpus import Corpus, Packed, Texts, prepare
from laconic.train.lm import Settings, train
from laconic.train.publish import publish_lm

NOUNS = ["harbour", "pier", "engineer", "report", "winter", "ferry", "ladder", "council", "bridge", "lantern"]
VERBS = ["repairs", "counts", "paints", "moves", "finds", "keeps", "opens", "sells"]


def story(k: int) -> str:
    pick = random.Random(k)
    return " ".join(
        f"The {pick.choice(NOUNS)} {pick.choice(VERBS)} {pick.randint(2, 99)} of the {pick.choice(NOUNS)}s."
        for _ in range(pick.randint(3, 9))
    )


@pytest.fixture
def files(tmp_path):
    """Training texts, and dev texts of which one stands in training too."""
    rows = [story(k) for k in range(60)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in rows))
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in [rows[7], story(1000)] * 3))
    return Texts((tmp_path / "train.jsonl",), (tmp_path / "dev.jsonl",))


@pytest.fixture(scope="module")
def tokenizer():
    return bpe.train([story(k) for k in range(60)], 300)


@pytest.fixture(scope="module")
def reloaded(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    bpe.save(tokenizer, folder, 512)
    return AutoTokenizer.from_pretrained(folder)


TINY = {"window": 32, "vocabulary": 300, "width": 32, "layers": 2, "heads": 2, "batch": 4, "recall": 0.0}


# The tokenizer


@settings(max_examples=200, deadline=None)
@given(text=texts.texts)
def test_tokens_give_exactly_their_text_back(reloaded, text):
    text = bpe.encodable(text)
    made = reloaded(text, return_offsets_mapping=True)
    assert made["input_ids"][:1] == [bpe.BOS] and set(made["input_ids"][1:]).isdisjoint({bpe.BOS, bpe.EOS, bpe.PAD})
    assert reloaded.decode(made["input_ids"][1:]) == text
    covered = {k for start, end in made["offset_mapping"] for k in range(start, end)}
    assert covered == set(range(len(text)))


def test_what_looks_like_a_special_token_is_text(reloaded, tokenizer, tmp_path):
    ids = reloaded("a <s> b</s><pad>")["input_ids"]
    assert Counter(ids) & Counter([bpe.BOS, bpe.EOS, bpe.PAD]) == Counter([bpe.BOS])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert bpe.load(tmp_path).encode("a <s> b</s><pad>").ids == ids


def test_digits_stand_alone_and_words_keep_their_blank(tokenizer):
    tokens = tokenizer.encode("The 99 of the 1234", add_special_tokens=False).tokens
    assert tokens == ["The", "Ġ", "9", "9", "Ġof", "Ġthe", "Ġ", "1", "2", "3", "4"]


def test_lone_surrogates_become_replacement_characters():
    assert bpe.encodable("\ufeffa\ud800b") == "\ufeffa\ufffdb"


# The windows


def corpus(documents) -> Corpus:
    """Documents given as numbers of tokens; every token of them is distinct."""
    bounds, tokens = [0], []
    for size in documents:
        tokens += [bpe.BOS, *range(len(tokens) + 3, len(tokens) + 3 + size), bpe.EOS]
        bounds.append(len(tokens))
    return Corpus(np.array(tokens, np.uint16), np.array(bounds))


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12), window=st.integers(4, 30), seed=st.integers(0, 9))
def test_an_epoch_predicts_every_token_once(sizes, window, seed):
    """Documents whole, in some order; what is not predicted is <s>, and the rest of the last window."""
    made = corpus(sizes)
    packed = Packed(made, window, np.random.default_rng(seed))
    windows = [packed[k].tolist() for k in range(len(packed))]
    assert all(len(w) == window and w[0] == bpe.BOS for w in windows)
    order = np.argsort(packed.order)
    predicted = [token for k in order for token in windows[k][1:]]
    stream = [t for d in packed.documents for t in made.tokens[made.bounds[d] : made.bounds[d + 1]].tolist()]
    assert sorted(packed.documents) == list(range(len(sizes)))
    assert predicted == stream[1 : len(predicted) + 1] and len(stream) - len(predicted) <= window


def test_windows_of_an_epoch_come_in_another_order_each_time():
    one, two = (Packed(corpus([400]), 8, np.random.default_rng(k)) for k in (1, 2))
    assert [w.tolist() for w in one] != [w.tolist() for w in two]
    assert sorted(w.tolist() for w in one) == sorted(w.tolist() for w in two)


def test_only_beginnings_are_not_learnt_in_text():
    window = tasks.text(np.array([bpe.BOS, 9, bpe.EOS, bpe.BOS, 8]))
    assert window.learn.tolist() == [False, True, True, False, True] and (window.asked == -1).all()


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 90), min_size=1, max_size=5), window=st.integers(32, 99), seed=st.integers(0, 99))
def test_a_copy_window_says_passages_twice(sizes, window, seed):
    made = corpus(sizes)
    w = tasks.copies(made, window, np.random.default_rng(seed))
    assert w.ids.shape == w.learn.shape == w.asked.shape == (window,)
    ids = w.ids.tolist()
    text = " ".join(map(str, ids)).removesuffix(" 2" * ids.count(bpe.PAD))
    assert text.endswith(" 1")
    at = 0
    for k, copied in enumerate(text[:-2].split(" 1 ")):
        first, second = copied.removeprefix("0 ").split(" 0 ")
        n = len(first.split())
        assert first == second and f" {first} " in " " + " ".join(map(str, made.tokens.tolist())) + " "
        assert w.asked[at : at + 2 * n + 3].tolist() == [-1] * (n + 2) + [k] * n + [-1]
        at += 2 * n + 3
    assert w.learn.tolist() == [t not in (bpe.BOS, bpe.PAD) for t in ids]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_recall_window_asks_what_it_told(tokenizer, fresh):
    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    asked = 0
    for seed in range(20):
        w = tasks.recalls(encode, 1024, np.random.default_rng(seed), fresh=fresh)
        ids = [t for t in w.ids.tolist() if t != bpe.PAD]
        assert encode("Answer: Oslo") == encode("Answer:") + encode(" Oslo")
        for context in tokenizer.decode(ids, skip_special_tokens=False).split("<s>")[1:]:
            told, *questions = context.split("\nQuestion: ")
            facts = [f.removesuffix(".") for f in told.split(". ")]
            assert 4 <= len(facts) <= 16 and len(set(facts)) == len(facts)
            assert len(questions) == len(set(questions)) == min(8, len(facts))
            for question in questions:
                (name,) = [word.rstrip("?") for word in question.split("?")[0].split() if word.istitle()][1:]
                answer = question.split(" Answer: ")[1].removesuffix("</s>")
                assert any(name in f.split() and f.endswith(f" {answer}") for f in facts)
                asked += 1
                assert tasks.held_out(name) == fresh
        answers = [tokenizer.decode(w.ids[w.asked == k].tolist()) for k in range(w.asked.max() + 1)]
        assert all(a.startswith(" ") and "?" not in a and w.learn[w.asked >= 0].all() for a in answers)
    assert asked > 80


def test_names_of_dev_are_never_trained_on():
    seen = {n for k in range(300) for n in tasks._names(8, np.random.default_rng(k), False)}
    unseen = {n for k in range(300) for n in tasks._names(8, np.random.default_rng(k), True)}
    assert len(seen) > 2000 and len(unseen) > 2000 and not seen & unseen


@pytest.mark.parametrize(("people", "kinds"), [(1, 6), (3, 2), (2, 5)])
def test_facts_tell_each_kind_of_each_person_and_ask_for_all(people, kinds):
    """Read back with patterns of their own: a name and a value of every fact, and the same by question."""
    patterns = {
        r"(\w+) lives in (\w+)": r"Where does (\w+) live\?",
        r"(\w+) works as a (\w+)": r"What does (\w+) work as\?",
        r"(\w+) keeps a (\w+)": r"What animal does (\w+) keep\?",
        r"(\w+) likes (\w+)": r"What food does (\w+) like\?",
        r"The colour of (\w+) is (\w+)": r"What is the colour of (\w+)\?",
        r"The code of (\w+) is (\d{4})": r"What is the code of (\w+)\?",
    }
    orders = set()
    for seed in range(30):
        told = tasks.facts(people, kinds, np.random.default_rng(seed))
        found = {}
        for fact in told.text.removesuffix(".").split(". "):
            ((kind, match),) = [(k, m) for k, p in enumerate(patterns) if (m := re.fullmatch(p, fact))]
            found[kind, match[1]] = match[2]
        assert len({name for _, name in found}) == people and len({kind for kind, _ in found}) == kinds
        asked = {}
        for question, answer in told.questions:
            ((kind, match),) = [(k, m) for k, p in enumerate(patterns.values()) if (m := re.fullmatch(p, question))]
            asked[kind, match[1]] = answer
        assert asked == found and len(found) == len(told.questions) == people * kinds
        orders.add(tuple(kind for kind, _ in found))
    assert len(orders) > 10


def test_what_is_told_and_asked_in_tokens_is_the_text_of_a_window(tokenizer):
    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    told = tasks.facts(1, 6, np.random.default_rng(0), fresh=True)
    asked = told.asked(encode)
    assert tokenizer.decode(asked.context) == told.text
    for (question, answer), (q, a) in zip(told.questions, asked.questions, strict=True):
        assert tokenizer.decode(q + a) == f"\nQuestion: {question} Answer: {answer}"
        assert tokenizer.decode(a) == f" {answer}"


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 64), seed=st.integers(0, 10**6))
def test_pairs_have_distinct_keys_and_answers_that_they_told(count, seed):
    asked = tasks.pairs(count, np.random.default_rng(seed))
    assert len(asked.context) == 3 * count - 1
    between, told = asked.context[2::3], dict(zip(asked.context[::3], asked.context[1::3], strict=True))
    assert len(told) == count and len(set(between)) == (count > 1)
    assert len(asked.questions) == min(4, count) == len({tuple(q) for q, _ in asked.questions})
    signs = {(question[0], question[2]) for question, _ in asked.questions}
    assert len(signs) == 1 and all(len(question) == 3 for question, _ in asked.questions)
    assert all([told[question[1]]] == answer for question, answer in asked.questions)
    groups = [set(told), set(told.values()), {*between, *signs.pop()}]
    assert len(set.union(*groups)) == sum(map(len, groups)) and set.union(*groups) <= set(range(3, bpe.LEAST))


def test_a_pair_is_six_bits():
    """Keys and values are uniform over 64 symbols each, and nothing about a value follows from its key or its place."""
    drawn = [tasks.pairs(16, np.random.default_rng(k)) for k in range(2000)]
    keys = np.array([a.context[::3] for a in drawn])
    values = np.array([a.context[1::3] for a in drawn])
    for symbols in (keys, values):
        counts = np.unique(symbols, return_counts=True)[1]
        assert len(counts) == 64 and ((counts / counts.sum() * 64 - 1) ** 2).mean() < 0.01
    table = np.histogram2d(keys.ravel(), values.ravel(), bins=64)[0] / keys.size
    expected = table.sum(1)[:, None] * table.sum(0)
    information = np.nansum(table * np.log2(np.where(table > 0, table, np.nan) / expected))
    assert information < 1.2 * 63**2 / (2 * log(2) * keys.size)  # what chance alone gives
    places = [a.context.index(q[1]) // 3 for a in drawn for q, _ in a.questions]
    assert np.ptp(np.bincount(places, minlength=16)) < 200  # 500 each


@pytest.mark.parametrize("window", [32, 69, 200])
def test_a_lookup_window_holds_whole_contexts_and_learns_no_pair(window):
    sizes = Counter()
    for seed in range(80):
        w = tasks.lookups(window, np.random.default_rng(seed))
        assert w.ids.shape == w.learn.shape == w.asked.shape == (window,)
        text = " ".join(map(str, w.ids)).removesuffix(" 2" * int((w.ids == bpe.PAD).sum()))
        at = answers = 0
        for context in text.removeprefix("0 ").split(" 0 "):
            told, *asked = [list(map(int, part.split())) for part in re.split(r" 4 | 1(?:$| 4 )", context) if part]
            pairs_told = dict(zip(told[::3], told[1::3], strict=True))
            sizes[len(pairs_told)] += 1
            assert all(pairs_told[k] == v for k, _, v in asked) and len(asked) == 4
            start = at + 1 + len(told)
            assert not w.learn[at:start].any() and w.learn[start : start + 20].all()
            numbers = [n for k in range(4) for n in (-1, -1, -1, answers + k, -1)]
            assert w.asked[at : start + 20].tolist() == [-1] * (len(told) + 1) + numbers
            at, answers = start + 20, answers + 4
        assert not w.learn[at:].any()
    assert min(sizes) == 4 and max(sizes) == {32: 4}.get(window, 16)


def test_numbers_of_facts_and_pairs_that_make_no_sense_are_refused():
    random = np.random.default_rng(0)
    for people, kinds in ((0, 1), (1, 0), (1, 7)):
        with pytest.raises(InputError, match=f"got {people} and {kinds}"):
            tasks.facts(people, kinds, random)
    for count in (0, 65):
        with pytest.raises(InputError, match=f"from 1 to 64 pairs, got {count}"):
            tasks.pairs(count, random)


def test_a_mix_has_its_shares_and_is_the_same_from_any_step(tokenizer):
    def mix():
        return tasks.Mix(
            corpus([300]), lambda text: [7] * 9, 256, copy=0.2, recall=0.3, lookup=0.1, steps=100, rows=8, seed=3
        )

    shares = [float((mix().kinds == k).mean()) for k in range(4)]
    assert shares == pytest.approx([0.4, 0.2, 0.3, 0.1], abs=0.06)
    whole, late = mix(), mix()
    windows = [whole[s, r] for s in range(100) for r in range(8)]
    assert all((late[99, r].ids == windows[99 * 8 + r].ids).all() for r in range(8))


# The texts


def test_texts_of_dev_are_never_trained_on(files, tmp_path):
    data = prepare(files, 300, tmp_path / "out")
    learnt = [data.tokenizer.decode(data.train.tokens[a:b].tolist()) for a, b in pairs(data.train)]
    judged = [data.tokenizer.decode(c.tokens[a:b].tolist()) for c in data.dev.values() for a, b in pairs(c)]
    assert learnt == [story(k) for k in range(60) if k != 7] and judged == [story(7), story(1000)] * 3
    assert data.files["train"] == [{"file": "train.jsonl", "texts": 59}]


def pairs(made: Corpus):
    return zip(made.bounds, made.bounds[1:], strict=False)


def test_prepared_texts_are_used_again_unless_they_change(files, tmp_path):
    data = prepare(files, 300, tmp_path / "out")
    before = (tmp_path / "out" / data.key / "tokenizer.json").stat().st_mtime_ns
    assert prepare(files, 300, tmp_path / "out").key == data.key
    assert (tmp_path / "out" / data.key / "tokenizer.json").stat().st_mtime_ns == before
    files.train[0].write_text(files.train[0].read_text().replace("winter", "summer"))
    assert prepare(files, 300, tmp_path / "out").key != data.key


def test_gzipped_lines_are_read(files, tmp_path):
    packed = tmp_path / "train.jsonl.gz"
    packed.write_bytes(gzip.compress(files.train[0].read_bytes()))
    one, two = (prepare(Texts((p,), files.dev), 300, tmp_path / "out") for p in (packed, files.train[0]))
    assert one.train.tokens.tolist() == two.train.tokens.tolist()


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b'{"text": "a"}\n' * 99)[:-9]])
def test_a_broken_gzip_is_named(files, tmp_path, content):
    (tmp_path / "bad.jsonl.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.jsonl\.gz is not a whole gzip file"):
        prepare(Texts((tmp_path / "bad.jsonl.gz",), files.dev), 300, tmp_path / "out")


# Training


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on little text: its folder."""
    out = tmp_path_factory.mktemp("lm")
    for name, ks in (("train", range(40)), ("dev", range(1000, 1006))):
        (out / f"{name}.jsonl").write_text("".join(json.dumps({"text": story(k)}) + "\n" for k in ks))
    settings = Settings(steps=120, **{**TINY, "window": 64, "batch": 8, "lr": 1e-2, "copy": 0.3})
    said = []
    train(Texts((out / "train.jsonl",), (out / "dev.jsonl",)), out / "run", settings, say=said.append)
    assert any("tokens/s" in line for line in said)
    return out / "run"


def test_it_learns_far_more_than_the_frequencies(trained):
    """Below half the entropy of single tokens, on texts it was not trained on."""
    dev = next(trained.glob("tokens-*/dev/dev"))
    seen = Counter(Corpus.open(dev).tokens.tolist())
    total = sum(n for t, n in seen.items() if t > bpe.PAD)
    entropy = -sum(n / total * log(n / total) for t, n in seen.items() if t > bpe.PAD)
    record = json.loads((trained / "run.json").read_text())
    assert record["best"]["loss"] < entropy / 2
    assert [h["step"] for h in record["history"]] == [50, 100, 120]


def test_what_it_writes_is_a_hugging_face_model_with_the_scores_it_names(trained):
    """Read with transformers alone, and computed another way."""
    folder = publish_lm(trained, {"name": "tiny-lm", "licence": "MIT"})
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert {p.dtype for p in AutoModelForCausalLM.from_pretrained(folder).parameters()} == {torch.float16}
    made = Packed(Corpus.open(next(trained.glob("tokens-*/dev/dev"))), 64, np.random.default_rng(0))
    nats = tokens = size = 0
    for ids in made:
        with torch.no_grad():
            odds = model(torch.from_numpy(ids)[None]).logits[0].log_softmax(-1)
        for k in range(1, 64):
            if ids[k] > bpe.PAD:
                nats, tokens = nats - odds[k - 1, ids[k]].item(), tokens + 1
                size += len(tokenizer.decode(ids[k]))  # all ASCII
    best = json.loads((trained / "run.json").read_text())["best"]
    assert best["loss"] == pytest.approx(nats / tokens, abs=1e-3)
    assert best["bits_per_byte dev"] == pytest.approx(nats / log(2) / size, abs=1e-3)
    card = (folder / "README.md").read_text()
    assert "tiny-lm" in card and str(best["loss"]) in card and "train.jsonl | 40" in card


def test_the_loss_is_the_mean_over_what_is_to_be_learnt(monkeypatch):
    """In pieces, with the gradients that the whole would have."""
    monkeypatch.setattr(lm, "_CHUNK", 3)
    torch.manual_seed(0)
    model = lm._llama(Settings(**TINY), 50)
    ids, learn = torch.randint(3, 50, (2, 12)), torch.rand(2, 12) < 0.6
    loss = lm._objective(model, torch)(ids, learn)
    loss.backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    labels = ids.masked_fill(~learn, -100)
    whole = model(ids, labels=labels).loss
    whole.backward()
    assert loss.item() == pytest.approx(whole.item(), rel=1e-5)
    assert all(torch.allclose(a, p.grad, atol=1e-6) for a, p in zip(found, model.parameters(), strict=True))


def test_a_killed_run_goes_on_to_the_same_weights(files, tmp_path, monkeypatch):
    settings = Settings(steps=6, **TINY)
    whole = train(files, tmp_path / "whole", settings, save_every=2)
    step = lm._Run._step

    def killed(self, batch):
        if self.state.step == 3:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(lm._Run, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(files, tmp_path / "cut", settings, save_every=2)
    monkeypatch.undo()
    torch.manual_seed(99)
    again = train(files, tmp_path / "cut", settings, save_every=2)
    assert (whole / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    one, two = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("whole", "cut"))
    assert one == two


def test_the_seed_decides_the_weights(files, tmp_path):
    one, two, three = (
        (train(files, tmp_path / name, Settings(steps=2, **TINY, seed=s)) / "model.safetensors").read_bytes()
        for name, s in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one == two != three


def test_other_texts_or_settings_do_not_go_on(files, tmp_path):
    train(files, tmp_path / "out", Settings(steps=1, **TINY))
    with pytest.raises(InputError, match="other settings"):
        train(files, tmp_path / "out", Settings(steps=2, **TINY))
    files.train[0].write_text(files.train[0].read_text() * 2)
    with pytest.raises(InputError, match="other data"):
        train(files, tmp_path / "out", Settings(steps=1, **TINY))


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch": 0},
        {"window": 31},
        {"vocabulary": 258},
        {"vocabulary": 65537},
        {"layers": 0},
        {"heads": 3},
        {"heads": 0},
        {"width": 0},
        {"width": 50, "heads": 4},
        {"lr": float("nan")},
        {"copy": -0.1},
        {"copy": 0.6, "recall": 0.5},
        {"recall": float("nan")},
        {"lookup": -0.1},
        {"copy": 0.4, "recall": 0.3, "lookup": 0.4},
        {"lookup": float("nan")},
        {"seed": -1},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError, match="got"):
        Settings(**wrong)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        (b"", "no text in"),
        (b'{"text": " \\n"}\n', "no text in"),
        (b'{"text": "short"}\n', "less than a window of 32"),
        (b'{"txt": "a"}\n', "no text in 'text'"),
        (b"{\n", "is not JSON"),
        (b'{"text": "\xff"}\n', "is not UTF-8"),
    ],
)
@pytest.mark.parametrize("kind", ["train", "dev"])
def test_texts_that_cannot_be_used_are_refused(files, tmp_path, content, says, kind):
    bad = tmp_path / "bad.jsonl"
    if content is not None:
        bad.write_bytes(content)
    texts = Texts((bad,), files.dev) if kind == "train" else Texts(files.train, (bad,))
    with pytest.raises(InputError, match=says):
        train(texts, tmp_path / "out", Settings(steps=1, **TINY))


def test_two_dev_files_of_one_name_are_refused(files, tmp_path):
    with pytest.raises(InputError, match="called dev"):
        Texts(files.train, (*files.dev, tmp_path / "dev.txt"))


def test_a_window_too_short_for_facts_is_refused(files, tmp_path):
    with pytest.raises(InputError, match="too short for facts"):
        train(files, tmp_path / "out", Settings(steps=1, **{**TINY, "recall": 0.1}))


def test_shares_may_fill_a_mix():
    assert Settings(copy=0.3, recall=0.3, lookup=0.4) and Settings(copy=0.7, recall=0.2, lookup=0.1)


def test_lookups_are_scored_where_they_are_learnt(files, tmp_path):
    train(files, tmp_path / "out", Settings(steps=1, **{**TINY, "window": 64, "lookup": 0.5}))
    best = json.loads((tmp_path / "out" / "run.json").read_text())["best"]
    assert 0 <= best["lookup"] < 0.2 and "copy" in best


def test_broken_records_are_passed_over_where_asked_to(files, tmp_path):
    files.train[0].write_text(files.train[0].read_text() + "{\n")
    with pytest.raises(InputError, match="line 61"):
        prepare(files, 300, tmp_path / "out")
    assert prepare(Texts(files.train, files.dev, skip=True), 300, tmp_path / "out").files["train"][0]["texts"] == 59


def test_the_command_trains_and_describes(files, tmp_path, capsys):
    (tmp_path / "about.json").write_text(json.dumps({"name": "mine", "limits": "A toy."}))
    given = {"steps": 2, "batch": 2, "window": 64, "vocabulary": 300, "width": 32, "layers": 1, "heads": 2, "recall": 0}
    sizes = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    args = ["train", "lm", str(files.train[0]), "--dev", str(files.dev[0]), "-o", str(tmp_path / "out"), *sizes]
    assert main([*args, "--about", str(tmp_path / "about.json")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'checkpoint'}\n"
    assert "A toy." in (tmp_path / "out" / "checkpoint" / "README.md").read_text()
    (tmp_path / "about.json").write_text(json.dumps({"window": 64}))
    assert main([*args, "--about", str(tmp_path / "about.json")]) == 2
    assert "no 'window'" in capsys.readouterr().err
