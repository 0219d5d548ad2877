"""Training a soft encoder: what is drawn, what is learnt, and that a killed run goes on exactly."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("peft")
torch = pytest.importorskip("torch")

import softs  # noqa: E402
from laconic.cli import main  # noqa: E402
from laconic.errors import InputError  # noqa: E402
from laconic.soft import Base, Reader, SoftEncoder, Tuned, Tuning  # noqa: E402
from laconic.soft import Settings as Encoder  # noqa: E402
from laconic.train.contexts import Draw, Texts  # noqa: E402
from laconic.train.soft import Settings, train  # noqa: E402

WORDS = ("harbour", "committee", "met", "Tuesday", "discuss", "repair", "pier", "cost", "paid", "nobody", "storm")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(softs.build(tmp_path_factory.mktemp("base"), max_position_embeddings=256))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    random = np.random.default_rng(0)

    def write(name, rows):
        path = folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def sentence():
        return " ".join(random.choice(WORDS, 12))

    plain = write("plain.jsonl", [{"text": sentence()} for _ in range(30)])
    asked = [{"text": sentence(), "question": "Who met?", "answer": "committee"} for _ in range(8)]
    return {"plain": plain, "asked": write("asked.jsonl", asked), "dev": write("dev.jsonl", [{"text": sentence()}] * 3)}


def settings(base, **changes):
    encoder = Encoder(slots=4, window=48, rank=4, dropout=0.0, targets=("q_proj", "v_proj", "k_proj"))
    given = {"slots": (1, 4), "steps": 6, "batch": 3, "lr": 1e-2, "warmup": 2}
    return Settings(base, encoder, **(given | changes))


def texts(base, *paths):
    loaded = Base.load(base, "cpu")
    return Texts(paths, loaded.tokens, loaded.start, loaded.ends[0])


def test_a_text_is_said_again_from_a_random_place_and_gone_on_with(base, files):
    found = texts(base, files["plain"])
    whole = found.encode(found.records[0].text)
    starts = set()
    for seed in range(20):
        c = found.context(0, 10, 5, np.random.default_rng(seed))
        again, on = c.said
        assert len(c.ids) == 10 and again.ids == [found.start, *c.ids, found.end] and again.after == 1
        place = next(k for k in range(len(whole)) if whole[k : k + 10] == c.ids)
        assert on.ids == whole[place + 10 : place + 15] and len(on.ids) == 5
        starts.add(place)
    assert len(starts) > 3


def test_a_question_is_answered_and_a_text_that_is_too_long_for_it_left_out(base, files):
    found = texts(base, files["asked"])
    c = found.context(0, 256, 5, np.random.default_rng(0))
    (said,) = c.said
    assert c.ids == found.encode(found.records[0].text)
    assert said.ids[said.after :] == [*found.encode(" committee"), found.end]
    assert said.ids[: said.after] == found.encode("\nQuestion: Who met? Answer:")
    assert found.context(0, len(c.ids) - 1, 5, np.random.default_rng(0)) is None


def test_every_text_has_its_turn_in_an_epoch_and_places_can_be_asked_for_in_any_order(base, files):
    found = texts(base, files["plain"])
    draw = Draw(found, facts=0.0, lookup=0.0, rows=3, seed=1)
    places = [(step, row) for step in range(10) for row in range(3)]
    first = {place: draw(*place, 256, 0).ids for place in places}
    assert sorted(first.values()) == sorted(found.encode(r.text) for r in found.records)
    again = Draw(found, facts=0.0, lookup=0.0, rows=3, seed=1)
    assert all(again(*place, 256, 0).ids == first[place] for place in reversed(places))


def test_shares_of_made_up_contexts(base, files):
    found = texts(base, files["plain"])
    draw = Draw(found, facts=0.3, lookup=0.5, rows=1, seed=0)
    kinds = {"again": 0, "lookup": 0, "facts": 0}
    for step in range(200):
        c = draw(step, 0, 64, 0)
        kinds["again" if c.said[0].goal == "again" else "lookup" if len(c.said[0].ids) == 5 else "facts"] += 1
    assert 25 < kinds["again"] < 60 and 75 < kinds["lookup"] < 125 and 40 < kinds["facts"] < 85


def test_without_texts_all_must_be_made_up(base):
    none = texts(base)
    with pytest.raises(InputError, match="no text to learn from"):
        Draw(none, facts=0.5, lookup=0.4, rows=1, seed=0)
    assert Draw(none, facts=0.0, lookup=1.0, rows=1, seed=0)(0, 0, 48, 0).said[0].goal == "answer"


def test_texts_grow(base):
    s = settings(base, steps=100, shortest=8, grow=0.5)
    assert [s.longest(k) for k in (0, 25, 49, 50, 99)] == [8, 28, 47, 48, 48]
    assert settings(base, steps=100).longest(0) == 48


@pytest.mark.parametrize("mode", ["kv", "embedding"])
def test_what_is_trained_is_read_better_and_the_base_stays(base, files, tmp_path, mode):
    s = settings(base, steps=60, slots=(4,))
    s = Settings(**{**vars(s), "encoder": Encoder(**{**vars(s.encoder), "mode": mode})})
    lines = []
    out = train([files["plain"]], [files["dev"]], tmp_path, s, say=lines.append)
    record = json.loads((tmp_path / "run.json").read_text())
    assert [h["step"] for h in record["history"]] == [50, 60]
    encoder = SoftEncoder.load(out)
    assert encoder.settings == s.encoder
    reader, fresh = Reader(encoder.base), SoftEncoder.create(base, s.encoder)
    text = json.loads(files["dev"].read_text().splitlines()[0])["text"]
    trained, untrained = (float(reader.nll(e.encode(text), text).mean()) for e in (encoder, fresh))
    assert trained < untrained - 0.3
    assert record["best"]["nats dev.jsonl 4"] < record["full context"]["dev.jsonl"]["none"]


def test_the_loss_is_that_of_a_reader_of_slots_and_what_the_full_context_would_have_said(base, files, tmp_path):
    from laconic.train import soft

    s = settings(base, distil=0.5, follow=4, facts=0.5, slots=(3,))
    run = soft._Run([files["plain"]], [], tmp_path, s, None, "text", 200, lambda line: None)
    softs.shaken(run.model)
    batch = run._batch(0)
    owner = [k for k, c in enumerate(batch) for _ in c.said]
    rows, after = ([getattr(said, name) for c in batch for said in c.said] for name in ("ids", "after"))
    with torch.no_grad():
        found, kv = float(run._loss(batch)), run.model([c.ids for c in batch], 3)[owner]
        apart = Reader(run.base).divergence(kv, rows, after, [batch[k].ids for k in owner]).mean()
        expected = Reader(run.base).nats(kv, rows, after).mean() + 0.5 * apart
    assert float(apart) > 0.01 and found == pytest.approx(float(expected), rel=1e-6)


def test_a_killed_run_goes_on_to_the_same_weights(base, files, tmp_path):
    s = settings(base, distil=0.5, follow=4, facts=0.2, lookup=0.2, shortest=8, checkpointing=True)
    whole = train([files["plain"], files["asked"]], [files["dev"]], tmp_path / "a", s)

    class Killed(Exception):
        pass

    def kill(line):
        if "step" in line or json.loads(line):
            raise Killed

    with pytest.raises(Killed):
        train([files["plain"], files["asked"]], [files["dev"]], tmp_path / "b", s, save_every=4, say=kill)
    lines = []
    parts = train([files["plain"], files["asked"]], [files["dev"]], tmp_path / "b", s, save_every=4, say=lines.append)
    assert lines[0] == "going on after step 4"
    for name in ("adapter_model.safetensors", "memory.safetensors"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()


def test_it_goes_on_from_an_encoder(base, files, tmp_path):
    s = settings(base, lr=0.0)
    first = train([files["plain"]], [files["dev"]], tmp_path / "a", settings(base))
    second = train([files["asked"]], [files["dev"]], tmp_path / "b", s, start=first)
    assert SoftEncoder.load(first).made.adapter == SoftEncoder.load(second).made.adapter


def test_the_encoder_to_go_on_from_says_what_it_is(base, files, tmp_path, capsys):
    first = train([files["plain"]], [files["dev"]], tmp_path / "a", settings(base))
    args = ["train", "soft", str(files["plain"]), "--base", base, "--start", str(first), "--slots", "4", "--steps", "1"]
    args += ["-o", str(tmp_path / "b")]
    for option, value in (("--rank", "8"), ("--mode", "embedding"), ("--targets", "all"), ("--positions", "continue")):
        assert main([*args, option, value]) == 2
        assert f"leave out {option}" in capsys.readouterr().err
    assert main([*args, "--rank", "4", "--window", "48", "--targets", "q_proj,v_proj,k_proj"]) == 0
    assert Encoder.of(tmp_path / "b" / "checkpoint") == Encoder.of(first)
    assert main([*args[:-1], str(tmp_path / "c"), "--window", "60"]) == 0
    assert Encoder.of(tmp_path / "c" / "checkpoint") == replace(Encoder.of(first), window=60)


# Full contexts


def full(base, **changes):
    tuning = Tuning(window=48, rank=4, dropout=0.0, targets=("q_proj", "v_proj", "k_proj"))
    given = {"slots": (), "steps": 6, "batch": 3, "lr": 1e-2, "warmup": 2}
    return Settings(base, tuning, **(given | changes))


def by_hand(base, context, model):
    """Nats of what is to be said after the BOS and the context, a row a pass, by transformers alone."""
    found = []
    for said in context.said:
        ids = torch.tensor([[base.start, *context.ids, *said.ids]])
        first = 1 + len(context.ids) + said.after
        with torch.no_grad():
            logits = model(ids).logits[0, first - 1 : -1]
        found += torch.nn.functional.cross_entropy(logits, ids[0, first:], reduction="none").tolist()
    return found


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_a_reader_of_full_contexts_learns_and_is_judged_by_task(base, files, tmp_path):
    from peft import PeftModel

    losses = []
    out = train([files["plain"]], [files["dev"]], tmp_path, full(base, steps=60, lookup=0.3), say=losses.append)
    record = json.loads((tmp_path / "run.json").read_text())
    first, last = record["history"]
    assert set(last) == {"step", "nats dev.jsonl", "retention dev.jsonl", "nats lookup", "retention lookup"}
    whole = record["full context"]["dev.jsonl"]["full"]
    assert (first["step"], last["step"]) == (50, 60) and last["nats dev.jsonl"] < whole - 0.3
    assert last["retention dev.jsonl"] != 0 and record["settings"]["encoder"]["mode"] == "full"
    loaded = Base.load(base, "cpu")
    model = PeftModel.from_pretrained(Base.load(base, "cpu").model, out)
    found = texts(base, files["dev"])
    contexts = [found.context(k, 48, 0, np.random.default_rng([k, 3])) for k in range(3)]
    for judged, read in ((last["nats dev.jsonl"], model), (whole, loaded.model)):
        expected = np.mean([nats for c in contexts for nats in by_hand(loaded, c, read)])
        assert judged == pytest.approx(expected, abs=2e-4)


def test_contexts_of_a_step_are_those_that_an_encoder_gets(base, files, tmp_path, monkeypatch):
    from laconic.train import soft

    drawn = {"full": [], "kv": []}
    for name, run in (("full", soft._Full), ("kv", soft._Run)):
        s = (full if name == "full" else settings)(base, steps=3, facts=0.3, lookup=0.3, shortest=8, follow=4, seed=5)
        made = run([files["plain"]], [files["dev"]], tmp_path / name, s, None, "text", 200, lambda line: None)
        drawn[name] = [made._batch(step) for step in range(3)]
    assert drawn["full"] == drawn["kv"]


def test_the_loss_is_over_what_is_said_and_distilling_adds_what_the_frozen_base_says(base, files, tmp_path):
    """Against two models of transformers: nats by hand, and KL(frozen ‖ tuned) by hand."""
    from laconic.train import soft

    loaded = Base.load(base, "cpu")
    tuned = softs.shaken(Tuned.create(loaded, full(base).encoder))
    batch, losses = [], {}
    for distil in (0.0, 0.5):
        s, folder = full(base, distil=distil, facts=0.5, seed=1), tmp_path / str(distil)
        run = soft._Full([files["plain"]], [], folder, s, None, "text", 200, lambda line: None)
        run.model, batch = tuned, run._batch(0)  # without the autocast to bfloat16 of training
        with torch.no_grad():
            losses[distil] = float(run._loss(batch))
    spent, apart = [], []
    for c in batch:
        for said in c.said:
            ids, first = torch.tensor([[loaded.start, *c.ids, *said.ids]]), 1 + len(c.ids) + said.after
            with torch.no_grad():
                mine = loaded.model.get_output_embeddings()(tuned.body(ids).last_hidden_state)[0].log_softmax(-1)
                theirs = loaded.model(ids).logits[0].log_softmax(-1)
            for place in range(first, ids.shape[1]):
                spent.append(-float(mine[place - 1, ids[0, place]]))
                p, q = theirs[place - 1], mine[place - 1]
                apart.append(float((p.exp() * (p - q)).sum()))
    assert np.mean(apart) > 0.01
    assert losses[0.0] == pytest.approx(np.mean(spent), abs=1e-4)
    assert losses[0.5] - losses[0.0] == pytest.approx(0.5 * np.mean(apart), abs=1e-4)


def test_a_killed_reader_goes_on_to_the_same_weights(base, files, tmp_path):
    s = full(base, distil=0.5, follow=4, facts=0.2, lookup=0.2, shortest=8, checkpointing=True)
    s = Settings(**{**vars(s), "encoder": Tuning(**{**vars(s.encoder), "dropout": 0.1})})
    data = [files["plain"], files["asked"]], [files["dev"]]
    whole = train(*data, tmp_path / "a", s)

    class Killed(Exception):
        pass

    def kill(line):
        raise Killed

    with pytest.raises(Killed):
        train(*data, tmp_path / "b", s, save_every=4, say=kill)
    lines = []
    parts = train(*data, tmp_path / "b", s, save_every=4, say=lines.append)
    assert lines[0] == "going on after step 4"
    name = "adapter_model.safetensors"
    assert (whole / name).read_bytes() == (parts / name).read_bytes()
    start = train(*data, tmp_path / "c", Settings(**{**vars(s), "lr": 0.0}), start=whole)
    assert Tuned.load(start).made.adapter == Tuned.load(whole).made.adapter


def test_what_has_no_room_is_found_out_before_the_first_step(base, files, tmp_path):
    wide = full(base)
    wide = Settings(**{**vars(wide), "encoder": Tuning(window=127, rank=4)})
    with pytest.raises(InputError, match="take 257 positions, .* has 256; use a shorter window"):
        train([files["plain"]], [], tmp_path / "a", wide)
    assert not (tmp_path / "a").exists()
    train([files["asked"]], [files["asked"]], tmp_path / "b", Settings(**{**vars(wide), "steps": 1}))  # nothing twice


def test_the_command_trains_a_reader_of_full_contexts(base, files, tmp_path, capsys):
    out = tmp_path / "out"
    args = ["train", "soft", str(files["plain"]), "--dev", str(files["dev"]), "--base", base, "-o", str(out)]
    args += ["--mode", "full", "--window", "40", "--rank", "2", "--steps", "2"]
    assert main([*args, "--slots", "4"]) == 2 and "leave out --slots" in capsys.readouterr().err
    assert main([*args, "--positions", "official"]) == 2 and "leave out --slots" in capsys.readouterr().err
    assert main(args) == 0
    assert capsys.readouterr().out.strip() == str(out / "checkpoint")
    assert Tuning.of(out / "checkpoint") == Tuning(window=40, rank=2)
    more = ["train", "soft", str(files["plain"]), "--base", base, "--start", str(out / "checkpoint"), "--steps", "1"]
    assert main([*more, "-o", str(tmp_path / "more")]) == 0  # its mode is that of the folder
    assert Tuning.of(tmp_path / "more" / "checkpoint") == Tuning(window=40, rank=2)


def test_full_contexts_have_no_slots(base):
    with pytest.raises(InputError, match=r"slots must be \(\) for full contexts, got \(1,\)"):
        full(base, slots=(1,))


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"slots": (5,)}, r"slots must be from 1 to 4, got \(5,\)"),
        ({"slots": ()}, "slots must be from 1 to 4"),
        ({"facts": 0.6, "lookup": 0.6}, "facts and lookup must be 1 or less together"),
        ({"shortest": 49}, "shortest must be from 0 to the window"),
        ({"lr": 2}, r"lr must be in \[0, 1\)"),
    ],
)
def test_wrong_settings(base, changes, advice):
    with pytest.raises(InputError, match=advice):
        settings(base, **changes)
