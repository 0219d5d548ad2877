"""Training a soft encoder: what is drawn, what is learnt, and that a killed run goes on exactly."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("peft")
torch = pytest.importorskip("torch")

import softs  # noqa: E402
from laconic.errors import InputError  # noqa: E402
from laconic.soft import Base, Reader, SoftEncoder  # noqa: E402
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
