"""Measuring memories: rows against plain passes of transformers, tables by hand, what fails a run, and resuming."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from math import log

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("sacrebleu")
from transformers import DynamicCache  # noqa: E402

import laconic  # noqa: E402
import softs  # noqa: E402
from laconic.cli import main  # noqa: E402
from laconic.errors import InputError  # noqa: E402
from laconic.eval.matrix import Rows  # noqa: E402
from laconic.soft import Base, Reader, Settings, SoftEncoder, Tuned, Tuning, items, measure, tables  # noqa: E402
from laconic.soft.measure import Plan, evaluate  # noqa: E402
from laconic.soft.ways import Hard, Soft, Upper, Whole  # noqa: E402
from laconic.train.contexts import Texts  # noqa: E402
from laconic.train.split import held_out  # noqa: E402

SMALL = Settings(slots=3, window=100, rank=4, dropout=0.0)
STORIES = [
    "The harbour committee met on Tuesday to discuss the repair of the northern pier, which storms had damaged.",
    "Ms. Okafor reported that the engineers had found 23 damaged piles, not 11 as they had first thought in May.",
    "It cost $3.75, or 1,000 yen; nobody paid. Nobody! Der Fährverkehr ruht bis Mai, said the engineers then.",
]
ASKED = {"text": "The ferry left at nine.", "question": "When did the ferry leave?", "answer": "at nine"}
OTHER = {"text": "Nobody saw the pier.", "question": "Who saw it?", "answer": "nobody"}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return softs.base_of(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "some.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in [*({"text": t} for t in STORIES), ASKED, OTHER]))
    return path


@pytest.fixture(scope="module")
def some(base, data):
    """Of three texts and two questions: nine items."""
    texts = Texts([data], base.tokens, base.start, base.ends[0])
    return items.of_texts("some", texts, [12], 60, 6, None)


@pytest.fixture(scope="module")
def folders(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("encoders")
    for mode in ("kv", "embedding"):
        softs.shaken(SoftEncoder.create(base, replace(SMALL, mode=mode))).save(out / mode / "checkpoint")
    return [out / mode / "checkpoint" for mode in ("kv", "embedding")]


class Raw:
    """A perfect encoder: a slot for the BOS and each token, in contexts of one length."""

    settings = Settings(slots=99)

    def __init__(self, base):
        self.base, self.made = base, base.made

    def __call__(self, rows, slots):
        assert {len(row) + 1 for row in rows} == {slots}
        return torch.stack([softs.raw_memory(self.base, self.base.text(row)).state for row in rows])


def plain(base, item, *before):
    """Nats of what an item says after tokens, in one pass of transformers."""
    ids = [*before, *item.said.ids]
    return float(softs.plain_nll(base, ids, len(item.said.ids) - item.said.after).sum())


def by_item(rows, name, part="whole"):
    return {row["id"]: row for row in rows if row["name"] == name and row["part"] == part}


# Items


def test_texts_have_the_length_and_go_on_with_what_follows_them(base, some):
    goals = [(i.length, i.said.goal) for i in some]
    assert goals == [(0, "answer")] * 2 + [(12, "again"), (12, "on")] * 3
    whole = {STORIES[k]: base.tokens(STORIES[k]) for k in range(3)}
    for again, on in zip(some[2::2], some[3::2], strict=True):
        assert again.ids == on.ids == again.gold and len(again.ids) == 12 and len(on.said.ids) == 6
        joined = ",".join(map(str, [*again.ids, *on.said.ids]))
        assert any(joined in ",".join(map(str, ids)) for ids in whole.values())
    assert base.text(some[0].prompt) == "\nQuestion: When did the ferry leave? Answer:"
    assert base.text(some[0].gold) == " at nine" and some[0].said.ids[-1] == base.ends[0]
    assert len({i.id for i in some}) == len(some) and len({i.context for i in some}) == 5


def test_pairs_are_of_four_numbers_where_they_fit(base):
    found = list(items.of_pairs(base, 40, 2))
    assert [i.length for i in found] == [11] * 8 + [23] * 8 + [35] * 8  # 16 pairs would take 47 tokens
    assert all(len(i.ids) == i.length and len(i.gold) == 1 for i in found)


def test_facts_are_about_people_that_nothing_was_trained_on(base):
    found = list(items.of_facts(base, 250, 2))
    names = {re.search(r"(?:does|of) (\w+)", base.text(i.prompt)).group(1) for i in found}
    assert all(held_out(name) for name in names) and len({i.context for i in found}) == 2
    assert all(base.text(i.gold).strip() in base.text(i.ids) for i in found)
    with pytest.raises(InputError, match="measure without facts"):
        list(items.of_facts(base, 20, 1))


def test_facts_can_be_had_in_contexts_of_given_lengths(base):
    found = list(items.of_facts_by_length(base, (150, 400), 2))
    assert {i.length for i in found} == {150, 400} and len({i.context for i in found}) == 4
    assert all(i.length / 2 < len(i.ids) <= i.length and base.text(i.gold).strip() in base.text(i.ids) for i in found)
    assert max(Counter(i.context for i in found).values()) == 16
    names = {re.search(r"(?:does|of) (\w+)", base.text(i.prompt)).group(1) for i in found}
    assert all(held_out(name) for name in names)
    with pytest.raises(InputError, match="more than 20 tokens"):
        list(items.of_facts_by_length(base, (20,), 1))


def test_another_context_is_of_the_same_task_and_length(some):
    found = items.others(some)
    own = {i.context: i for i in some}
    for context, ids in found.items():
        assert ids != own[context].ids
        assert any((i.ids, i.task, i.length) == (ids, own[context].task, own[context].length) for i in some)
    with pytest.raises(InputError, match="only one context"):
        items.others(some[:1])


# Rows


@pytest.fixture(scope="module")
def measured(base, some, tmp_path_factory):
    """Texts of 12 tokens before the reader in every way."""
    reader = Reader(base)
    kv, embedding = (softs.shaken(SoftEncoder.create(base, replace(SMALL, mode=m))) for m in ("kv", "embedding"))
    lead = laconic.load(method="lead", counter=lambda text: len(base.tokens(text)))
    ways = [Whole("none", reader), Whole("full", reader), Soft("raw", Raw(base), reader, 13)]
    ways += [Soft("kv", kv, reader, 3), Soft("embedding", embedding, reader, 3), Hard("lead", lead, reader, 5, False)]
    texts = some[2:]
    rows = Rows(tmp_path_factory.mktemp("out") / "rows.jsonl", measure._KEY)
    return measure.measure(ways, texts, rows, ablate=True), texts, (kv, embedding, lead)


def test_without_context_and_in_full_it_is_a_plain_pass(base, measured):
    rows, texts, _ = measured
    none, full = by_item(rows, "none"), by_item(rows, "full")
    for item in texts:
        head = [] if item.said.goal == "again" else [base.start]
        assert none[item.id]["nats"] == pytest.approx(plain(base, item, *head), abs=1e-3)
        assert full[item.id]["nats"] == pytest.approx(plain(base, item, base.start, *item.ids), abs=1e-3)
        assert full[item.id]["bytes"] == len(base.text(item.ids).encode()) and none[item.id]["bytes"] == 0


def test_a_memory_of_everything_retains_all_and_swapped_it_is_the_other_text(base, measured):
    rows, texts, _ = measured
    full, raw, other = by_item(rows, "full"), by_item(rows, "raw"), items.others(texts)
    for item in texts:
        assert raw[item.id]["nats"] == pytest.approx(full[item.id]["nats"], abs=1e-3)
        swapped = plain(base, item, base.start, *other[item.context])
        assert raw[item.id]["swapped"] == pytest.approx(swapped, abs=1e-3)
        assert abs(swapped - raw[item.id]["nats"]) > 0.01
    for _, cells in tables.sections([r for r in rows if r["part"] == "whole"]).items():
        there = tables.spent(cells, cells["raw", 13])
        assert tables.retention(there.none, there.own, there.full).value == pytest.approx(1, abs=1e-2)


def test_what_is_said_is_what_transformers_says(base, measured):
    rows, texts, _ = measured
    for name in ("full", "raw"):
        found = by_item(rows, name)
        for item in texts[::2]:
            ids = torch.tensor([[base.start, *item.ids, base.start]])
            options = {"max_new_tokens": 12, "do_sample": False, "attention_mask": torch.ones_like(ids)}
            with torch.no_grad():
                said = base.model.generate(ids, **options)[0, ids.shape[1] :].tolist()
            assert found[item.id]["answer"] == base.text(said)
            assert found[item.id]["accuracy"] == pytest.approx(np.mean(np.equal(said, item.ids)))
    assert not any("answer" in by_item(rows, "full")[item.id] for item in texts[1::2])


def test_a_slot_left_out_is_one_that_a_mask_hides(base, measured):
    rows, texts, (kv, embedding, _) = measured
    reader = Reader(base)
    for name, encoder in (("kv", kv), ("embedding", embedding)):
        less = by_item(rows, name, "slots")
        for item in texts[:2]:
            with torch.no_grad():
                state = reader.kv(encoder([item.ids], 3))[0]
            for slot in range(3):
                cache = DynamicCache([(layer[None, 0], layer[None, 1]) for layer in state])
                mask = torch.ones(1, 3 + len(item.said.ids), dtype=torch.int64)
                mask[0, slot] = 0
                places = torch.arange(3, 3 + len(item.said.ids))[None]
                given = {"attention_mask": mask, "position_ids": places, "past_key_values": cache}
                with torch.no_grad():
                    logits = base.model(torch.tensor([item.said.ids]), **given).logits[0, :-1]
                nats = torch.nn.functional.cross_entropy(logits, torch.tensor(item.said.ids[1:]), reduction="sum")
                assert less[item.id]["less"][slot] == pytest.approx(float(nats), abs=1e-3)


def test_a_hard_method_has_as_many_tokens_as_there_are_slots(base, measured):
    rows, texts, (*_, lead) = measured
    found = by_item(rows, "lead")
    for item in texts:
        short = lead.compress(base.text(item.ids), tokens=5).text
        ids = base.tokens(short)
        assert 0 < len(ids) <= 5 and found[item.id]["bytes"] == len(short.encode())
        assert found[item.id]["nats"] == pytest.approx(plain(base, item, base.start, *ids), abs=1e-3)
        assert "swapped" not in found[item.id]


def test_a_hard_method_that_asks_gets_the_question(base, some):
    asked = []

    class Spy:
        def compress(self, text, *, tokens, question):
            asked.append((text, tokens, question))
            return lead.compress(text, tokens=tokens)

    lead = laconic.load(method="lead", counter=lambda text: len(base.tokens(text)))
    way = Hard("spy", Spy(), Reader(base), 4, True)
    answers = [item for item in some if way.takes(item)]
    assert [item.said.goal for item in answers] == ["answer"] * 2 and way.name == "spy (question)"
    way.before(answers)
    assert asked == [(ASKED["text"], 4, ASKED["question"]), (OTHER["text"], 4, OTHER["question"])]
    assert not any(Hard("spy", Spy(), Reader(base), 4, False).takes(i) for i in items.of_pairs(base, 20, 1))


def test_what_does_not_fit_the_positions_has_no_row(base, some):
    long = some[2]._replace(ids=[5] * 130, said=some[2].said._replace(ids=[base.start, *[5] * 130, base.ends[0]]))
    reader = Reader(base)  # of 256 positions: 130 tokens fit once, not twice
    assert Whole("none", reader).takes(long) and not Whole("full", reader).takes(long)


def test_a_panel_without_a_full_context_stays_empty(tmp_path):
    rows = [row("none", "none", "a", 2.0), row("kv", "kv", "a", 1.0, 2, bytes=64)]
    assert all(path.exists() for path in tables.curves(rows, tmp_path))


# Tables


def row(name, kind, item, nats, slots=0, group=None, **more):
    head = {"part": "whole", "name": name, "kind": kind, "slots": slots, "task": "t", "length": 0, "id": item}
    return {**head, "group": group or item, "goal": "on", "tokens": 20, "said": 4, "bytes": 0, "nats": nats, **more}


def cells_of(written, first, start="| "):
    line = next(line for line in written.splitlines() if line.startswith(f"{start}{first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_table_by_hand():
    """Gains in full of 8 and 4 nats; with kv of 4 and 2, with its memories swapped of -1 and -1."""
    rows = [row("none", "none", k, n) for k, n in (("a", 10.0), ("b", 8.0))]
    rows += [row("full", "full", k, n) for k, n in (("a", 2.0), ("b", 4.0))]
    rows += [row("kv", "kv", k, 6.0, 2, bytes=64, swapped=n) for k, n in (("a", 11.0), ("b", 9.0))]
    rows += [row("icae", "embedding", k, n, 2, bytes=16) for k, n in (("a", 8.0), ("b", 7.0))]
    rows += [row("icae", "embedding", k, 5.0, 8, bytes=64) for k in "ab"]
    rows += [row("small", "hard", k, n, 2, bytes=9) for k, n in (("a", 9.0), ("b", 8.0))]
    written = tables.markdown(rows)
    kv = cells_of(written, "kv")
    assert kv[1:6] == ["2", "64", "10.0", "2", "1.500"]  # 12 nats, 8 tokens
    assert kv[6].startswith("0.500 [") and kv[7].startswith("-0.167 [")
    assert kv[8].startswith(f"{6 / log(2) / 4:.2g} [") and kv[9].startswith(f"{6 / log(2) / 128:.2g} [")
    assert cells_of(written, "small")[6].startswith("0.083 [") and cells_of(written, "none")[6] == ""
    found = [[c.strip() for c in line.strip("|").split("|")] for line in written.splitlines() if "equal" not in line]
    pairs = {tuple(cells[:5]): cells[6][:6] for cells in found if len(cells) == 7 and cells[0] != "---"}
    assert pairs == {
        ("kv", "2", "icae", "2", "slots"): "+0.250",
        ("kv", "2", "icae", "8", "bytes"): "-0.167",
        ("kv", "2", "small", "2", "slots"): "+0.417",
        ("icae", "2", "small", "2", "slots"): "+0.167",
    }


def test_a_memory_of_several_questions_counts_once():
    rows = [row("none", "none", k, 2 * log(2), group="c") for k in "abcd"]
    rows += [row("kv", "kv", k, 0.0, 2, group="c", bytes=64) for k in "abcd"]
    kv = cells_of(tables.markdown(rows), "kv")
    assert kv[8].startswith("4 [") and kv[9].startswith("0.12 [") and kv[6] == ""  # 8 bits; no full context


def test_an_unused_slot_costs_nothing():
    rows = [row("none", "none", k, 10.0) for k in "ab"] + [row("full", "full", k, 2.0) for k in "ab"]
    rows += [row("kv", "kv", k, 6.0, 2, bytes=64) for k in "ab"]
    slots = [{**row("kv", "kv", k, 0.0, 2), "part": "slots", "less": [6.0, n]} for k, n in (("a", 10.0), ("b", 8.0))]
    written = tables.markdown(rows + slots)
    assert "| kv | 2 | 1 | 0.000 [0.00, 0.00] |" in written
    assert "| kv | 2 | 2 | 0.750 [0.50, 1.00] |" in written  # 4 and 2 of gains of 4


def test_bleu_is_of_the_corpus(measured):
    from sacrebleu import corpus_bleu

    rows, _, _ = measured
    again = [r for r in by_item(rows, "kv").values() if r["goal"] == "again"]
    score = corpus_bleu([r["answer"] for r in again], [[r["gold"] for r in again]]).score / 100
    assert cells_of(tables.markdown(rows), "kv")[-1] == f"{score:.3f}"


# The run


def planned(folders, data, out, **changes):
    given = {"lengths": (12,), "lookup": 2, "follow": 6, "hard": "", "slots": (1, 3), "ablate": True, "device": "cpu"}
    return Plan(folders, out, [data], **{**given, **changes})


def test_a_run_resumes_and_fails_for_what_was_trained_on(folders, data, tmp_path, monkeypatch):
    load = laconic.load
    monkeypatch.setattr(laconic, "load", lambda model, counter: load(method="lead", counter=counter))
    plan = planned(folders, data, tmp_path / "out", hard="laconic-small")
    done = []
    written = evaluate(plan, done.append)
    lines = (tmp_path / "out" / "rows.jsonl").read_text().splitlines(keepends=True)
    rows = [json.loads(line) for line in lines]
    items_of = len({(r["task"], r["id"]) for r in rows})
    assert items_of == 9 - 1 + 4 * 2 * 4 and sum(done) == len(rows)  # 8 of the file, 32 questions on pairs
    wholes, per_way = [r for r in rows if r["part"] == "whole"], 8 + 32
    assert len(wholes) == (2 + 2 * 2) * per_way + 2 * 8 and len(rows) == len(wholes) + 2 * per_way
    assert {r["name"] for r in rows} == {"none", "full", "kv", "embedding", "laconic-small"}
    assert "| kv | 1 | embedding | 1 | slots |" in written and "without one slot" in written
    for file in ("tables.md", "retention.png", "retention.svg"):
        assert (tmp_path / "out" / file).stat().st_size > 500

    (tmp_path / "out" / "rows.jsonl").write_text("".join([*lines[:-40], lines[-40][:30]]))  # killed
    again = evaluate(plan)
    assert again == written
    assert sorted((tmp_path / "out" / "rows.jsonl").read_text().splitlines(keepends=True)) == sorted(lines)
    monkeypatch.setattr(measure, "_whole", None)  # nothing is measured again
    assert evaluate(plan) == written

    trained = tmp_path / "trained.jsonl"
    trained.write_text(json.dumps({"text": STORIES[1].upper()}) + "\n")
    with pytest.raises(InputError, match="1 of 5 texts to judge on were trained on"):
        evaluate(replace(plan, trained=[trained], encoders=["nowhere"]))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lengths": (101,)}, "lengths must be at most 100"),
        ({"lengths": (90,)}, "no text of some.jsonl has 90 tokens"),
        ({"slots": (4,)}, "slots must be at most 3"),
    ],
)
def test_what_cannot_be_measured_is_refused(folders, data, tmp_path, changes, says):
    with pytest.raises(InputError, match=says):
        evaluate(planned(folders[:1], data, tmp_path, **changes))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_the_upper_bound_has_a_row_in_every_section(base, folders, data, tmp_path, monkeypatch):
    """Its nats and answers against PEFT's own model on BOS, context and what is said; retention by hand."""
    from peft import PeftModel

    tuned = softs.shaken(Tuned.create(base, Tuning(window=100, rank=4, dropout=0.0)))
    tuned.save(tmp_path / "full" / "checkpoint")
    plan = planned([*folders, tmp_path / "full" / "checkpoint"], data, tmp_path / "out")
    written = evaluate(plan)
    sections = [part.split("\n")[0] for part in written.split("## ")[1:]]
    assert len(sections) == 7 and written.count("\n| full, tuned | ") == len(sections)
    found = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    upper, full = by_item(found, "full, tuned"), by_item(found, "full")
    assert upper.keys() == full.keys() and len(upper) == 8 + 32
    for key, row in upper.items():
        assert (row["kind"], row["made"], row["slots"]) == ("tuned", tuned.made.adapter, 0)
        assert row["bytes"] == full[key]["bytes"] and "swapped" not in row
        assert {"em", "f1", "rougeL", "accuracy"} & row.keys() == {"em", "f1", "rougeL", "accuracy"} & full[key].keys()

    texts = Texts([data], base.tokens, base.start, base.ends[0])
    model = PeftModel.from_pretrained(Base.load(base.name, "cpu").model, tmp_path / "full" / "checkpoint").eval()
    read = replace(base, model=model)
    for item in items.of_texts(data.name, texts, [12], 60, 6, None):
        assert upper[item.id]["nats"] == pytest.approx(plain(read, item, base.start, *item.ids), abs=1e-3)
        if item.said.goal == "again":
            ids = torch.tensor([[base.start, *item.ids, base.start]])
            options = {"max_new_tokens": 12, "do_sample": False, "attention_mask": torch.ones_like(ids)}
            with torch.no_grad():
                said = model.generate(input_ids=ids, **options)[0, ids.shape[1] :].tolist()
            assert upper[item.id]["answer"] == base.text(said)
    none = by_item(found, "none")
    some = [k for k in upper if upper[k]["goal"] == "on"]
    gain = [sum(none[k]["nats"] - ways[k]["nats"] for k in some) for ways in (upper, full)]
    line = cells_of(written.split("what follows")[1], "full, tuned")
    assert line[6].startswith(f"{gain[0] / gain[1]:.3f} [") and line[1] == line[3] == "" and line[7:10] == [""] * 3
    assert "full, tuned" not in written.split("Differences of retention")[1].split("## ")[0]

    monkeypatch.setattr(measure, "_whole", None)  # nothing is measured again
    assert evaluate(plan) == written
    softs.shaken(tuned, seed=2).save(tmp_path / "full" / "checkpoint")
    with pytest.raises(TypeError, match="NoneType"):  # trained on: all of its rows are measured anew
        evaluate(plan)


def test_an_upper_bound_alone_and_without_room_for_a_text_twice(base, some, data, tmp_path):
    tuned = softs.shaken(Tuned.create(base, Tuning(window=100, rank=4)))
    long = some[2]._replace(ids=[5] * 130, said=some[2].said._replace(ids=[base.start, *[5] * 130, base.ends[0]]))
    way = Upper("lora", tuned)
    assert way.name == "lora, tuned" and way.takes(some[2]) and not way.takes(long)
    tuned.save(tmp_path / "lora")
    written = evaluate(planned([tmp_path / "lora"], data, tmp_path / "out"))
    assert cells_of(written, "lora, tuned") and "without one slot" not in written


def test_plans_that_make_no_sense_are_refused(data, tmp_path):
    for changes in (
        {"data": ()},
        {"limit": 1},
        {"slots": (0,)},
        {"facts": -1},
        {"facts_lengths": (96,)},
        {"follow": -1},
        {"lengths": (0,)},
    ):
        with pytest.raises(InputError):
            Plan(**{"encoders": [], "out": tmp_path, "data": [data], **changes})


def test_an_answer_has_the_room_that_the_base_has_left(base, tmp_path):
    full = Whole("full", Reader(base))
    found = [item for k in (200, 220, 240) for item in items.of_facts_by_length(base, (k,), 2)]
    edge = [i for i in found if full.takes(i) and 1 + len(i.ids) + len(i.prompt) + measure._ANSWER > base.window]
    assert edge and len(measure.measure([full], found, Rows(tmp_path / "r", measure._KEY))) >= len(edge)


def test_two_encoders_of_one_name_are_refused(folders, data, tmp_path):
    with pytest.raises(InputError, match="two encoders are called kv"):
        evaluate(planned([folders[0], folders[0]], data, tmp_path))


def test_the_command_measures(folders, tmp_path, capsys):
    out = tmp_path / "out"
    args = [str(folders[0]), "--lookup", "2", "--slots", "2", "--hard", "none", "--device", "cpu", "-o", str(out)]
    assert main(["soft", "measure", *args]) == 0
    printed = capsys.readouterr().out
    assert "## lookup: answers, 11 tokens" in printed and printed.strip() == (out / "tables.md").read_text().strip()
    assert main(["soft", "measure", str(folders[0]), "-o", str(out)]) == 2
    assert "nothing to measure on" in capsys.readouterr().err
