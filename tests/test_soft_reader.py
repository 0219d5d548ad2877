"""The reader: a memory that holds every key and value must equal the text itself, however it is read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
from transformers import DynamicCache, StaticCache  # noqa: E402

import softs  # noqa: E402
from laconic.errors import InputError, ModelError  # noqa: E402
from laconic.soft import Memory, Reader, Settings, SoftEncoder  # noqa: E402
from softs import OTHER, TEXT  # noqa: E402

ASKED = " Question: who paid? Answer:"
SMALL = Settings(slots=4, window=100, rank=4, dropout=0.0)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return softs.base_of(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module", params=softs.FAMILIES)
def any_base(request, tmp_path_factory):
    return softs.base_of(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """One layer: keys and values of a token do not depend on the text before it, only its position."""
    return softs.base_of(tmp_path_factory.mktemp("flat"), "qwen2", num_hidden_layers=1)


@pytest.fixture(scope="module")
def encoders(base):
    return {m: softs.shaken(SoftEncoder.create(base, replace(SMALL, mode=m))) for m in ("kv", "embedding")}


def greedy(base, text, count):
    """Tokens that transformers itself generates after the BOS and a text."""
    ids = torch.tensor([[base.start, *base.tokens(text)]])
    with torch.no_grad():
        out = base.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False)
    return out[0, ids.shape[1] :].tolist()


def ids_of(base, *texts):
    return [base.start, *(token for text in texts for token in base.tokens(text))]


def test_keys_and_values_of_all_text_equal_the_text(any_base):
    """The control: to 1e-5."""
    base, reader = any_base, Reader(any_base)
    memory = softs.raw_memory(base, TEXT)
    expected = softs.plain_nll(base, ids_of(base, TEXT, ASKED, OTHER), len(base.tokens(OTHER)))
    found = reader.nll(memory, OTHER, given=ASKED)
    assert found.dtype == np.float32 and np.std(found) > 0.3
    np.testing.assert_allclose(found, expected, atol=1e-5)
    answer = base.text(greedy(base, TEXT + ASKED, 20))
    assert reader.generate(memory, ASKED, 20) == answer


def test_a_memory_then_a_text_is_all_of_it(any_base):
    base, reader = any_base, Reader(any_base)
    expected = softs.plain_nll(base, ids_of(base, TEXT, OTHER, ASKED), 4)
    parts = [softs.raw_memory(base, TEXT), OTHER]
    given, last = base.tokens(ASKED)[:-4], base.tokens(ASKED)[-4:]
    found = reader.nats(reader._past(parts)[None], [given + last], [len(given)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert reader.generate(parts, ASKED, 8) == base.text(greedy(base, TEXT + OTHER + ASKED, 8))


def test_without_a_memory_it_is_the_base(base):
    reader = Reader(base)
    expected = softs.plain_nll(base, ids_of(base, TEXT), len(base.tokens(TEXT)))
    np.testing.assert_allclose(reader.nll([], TEXT), expected, atol=1e-5)
    expected = softs.plain_nll(base, ids_of(base, TEXT, OTHER), len(base.tokens(OTHER)))
    np.testing.assert_allclose(reader.nll([], OTHER, given=TEXT), expected, atol=1e-5)
    assert reader.generate([], TEXT, 12) == base.text(greedy(base, TEXT, 12))


def test_memories_moved_behind_each_other_are_the_texts_in_order(flat):
    """With one layer, separately made keys and values, moved, are those of the whole text."""
    reader = Reader(flat)
    first, second = softs.raw_memory(flat, TEXT), softs.raw_memory(flat, OTHER, first=False)
    third = softs.raw_memory(flat, TEXT, first=False)
    expected = softs.plain_nll(flat, ids_of(flat, TEXT, OTHER, TEXT, ASKED, OTHER), len(flat.tokens(OTHER)))
    for before in ([first, second, third], first + second + third, [first + second, TEXT], [first, OTHER, third]):
        np.testing.assert_allclose(reader.nll(before, OTHER, given=ASKED), expected, atol=1e-4)
    wrong = reader.nll([second, first, third], OTHER, given=ASKED)
    assert np.abs(wrong - expected.numpy()).max() > 1e-3


def test_embeddings_are_read_as_if_they_were_tokens(base, encoders):
    reader, memory = Reader(base), encoders["embedding"].encode(TEXT)
    ids = [base.start, *base.tokens(OTHER)]
    read = torch.cat([memory.state, base.table[ids]])[None]
    with torch.no_grad():
        logits = base.model(inputs_embeds=read).logits[0, memory.slots : -1]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
    np.testing.assert_allclose(reader.nll(memory, OTHER), expected, atol=1e-5)
    again = torch.cat([memory.state, memory.state])
    joined = replace(memory, state=again)
    np.testing.assert_allclose(reader.nll([memory, memory], OTHER), reader.nll(joined, OTHER), atol=1e-5)


def test_the_slots_of_500xcompressor_are_ahead_of_the_reader(base, encoders):
    """Keys made at n … n + m - 1, read from position m on, as transformers does by itself."""
    memory = encoders["kv"].encode(TEXT)
    ids = [base.start, *base.tokens(OTHER)]
    cache = DynamicCache([(layer[None, 0], layer[None, 1]) for layer in memory.state])
    with torch.no_grad():
        logits = base.model(torch.tensor([ids]), past_key_values=cache).logits[0, :-1]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
    np.testing.assert_allclose(Reader(base).nll(memory, OTHER), expected, atol=1e-5)


def test_a_batch_of_requests_is_what_each_alone_is(base, encoders):
    """Pasts and prompts of different lengths: padding on both sides changes nothing."""
    reader = Reader(base)
    memories = [encoders["kv"].encode(TEXT, 1), encoders["embedding"].encode(OTHER, 3), softs.raw_memory(base, TEXT)]
    requests = [
        (memories[0], ASKED),
        ([], "It cost"),
        ([memories[2], "Ms. Okafor", memories[1]], "What?"),
        (memories[1], TEXT + ASKED),
        ("Nobody!", ASKED),
    ]
    together = reader.generate_many(requests, 15)
    assert together == [reader.generate(*request, 15) for request in requests]
    assert len(set(together)) > 2
    assert reader.generate_many([]) == []


def test_streamed_pieces_are_the_answer(base, encoders):
    reader = Reader(base)
    for memory in (encoders["kv"].encode(TEXT), encoders["embedding"].encode(OTHER)):
        pieces = list(reader.stream(memory, ASKED, 25))
        assert "".join(pieces) == reader.generate(memory, ASKED, 25) and len(pieces) > 3
        assert not any(p.endswith("\ufffd") for p in pieces[:-1])


def test_an_answer_ends_where_the_model_ends_it_or_at_the_limit(base):
    memory = softs.raw_memory(base, TEXT)
    tokens = greedy(base, TEXT + ASKED, 12)
    assert len(set(tokens)) > 4
    stop = next(t for k, t in enumerate(tokens) if k >= 3 and t not in tokens[:k])
    reader = Reader(replace(base, ends=(1, stop)))
    assert reader.generate(memory, ASKED, 12) == base.text(tokens[: tokens.index(stop)])
    asked = [(memory, ASKED), ("Nobody", "It cost")]
    assert reader.generate_many(asked, 12)[0] == base.text(tokens[: tokens.index(stop)])
    assert Reader(base).generate(memory, ASKED, 3) == base.text(tokens[:3])
    assert Reader(base).generate(memory, ASKED, 0) == ""


def test_regeneration_follows_the_bos_and_is_no_longer_than_the_text(base, encoders):
    reader, memory = Reader(base), encoders["kv"].encode(OTHER)
    with torch.no_grad():
        given = reader.inputs(memory, "x")
        given["input_ids"] = torch.tensor([[base.start]])
        given["attention_mask"] = given["attention_mask"][:, : memory.slots + 1]
        out = base.model.generate(**given, max_new_tokens=memory.tokens, do_sample=False)[0, 1:].tolist()
    assert reader.regenerate(memory) == base.text(out)
    assert reader.regenerate(memory, 2) == base.text(out[:2])


# transformers' own generate


@pytest.mark.parametrize("mode", ["kv", "embedding"])
@pytest.mark.parametrize("slots", [2, 4])
def test_generate_of_transformers_agrees(base, encoders, mode, slots):
    reader, memory = Reader(base), encoders[mode].encode(TEXT, slots)
    for prompt in (ASKED, "x"):  # longer and shorter than the memory
        expected = reader.generate(memory, prompt, 10)
        inputs = reader.inputs(memory, prompt)
        out = base.model.generate(**inputs, max_new_tokens=10, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert base.text(out.tolist()) == expected


def test_generate_of_transformers_in_its_other_forms(base, encoders):
    reader, memory = Reader(base), encoders["kv"].encode(TEXT)
    expected = reader.generate(memory, ASKED, 10)
    options = {"max_new_tokens": 10, "do_sample": False}

    def said(inputs, skip, row=0, **more):
        return base.text(base.model.generate(**inputs, **options, **more)[row, skip:].tolist())

    ids = reader.inputs(memory, ASKED)["input_ids"]
    dummies = torch.full((1, memory.slots), 9)
    whole = reader.inputs(memory, ASKED) | {"input_ids": torch.cat([dummies, ids], 1)}
    assert said(whole, whole["input_ids"].shape[1]) == expected

    pad = torch.full((1, 3), 9)
    left = reader.inputs(memory, ASKED) | {"input_ids": torch.cat([pad, ids], 1)}
    mask = [torch.ones(1, memory.slots), torch.zeros(1, 3), torch.ones(ids.shape)]
    left["attention_mask"] = torch.cat(mask, 1).long()
    assert said(left, 3 + ids.shape[1]) == expected

    static = StaticCache(config=base.model.config, max_cache_len=100)
    for number, layer in enumerate(memory.state):
        static.update(layer[None, 0], layer[None, 1], number)
    assert said(reader.inputs(memory, ASKED) | {"past_key_values": static}, ids.shape[1]) == expected


def test_beams_of_transformers_over_a_memory_equal_those_over_the_text(base):
    reader, memory = Reader(base), softs.raw_memory(base, TEXT)
    options = {"max_new_tokens": 8, "do_sample": False, "num_beams": 3}
    inputs = reader.inputs(memory, ASKED)
    inputs["past_key_values"].batch_repeat_interleave(3)
    found = base.model.generate(**inputs, **options)[0, inputs["input_ids"].shape[1] :]
    ids = torch.tensor([ids_of(base, TEXT, ASKED)])
    whole = base.model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, ids.shape[1] :]
    assert found.tolist() == whole.tolist()


def test_reading_changes_no_memory(base, encoders):
    reader, memory = Reader(base), encoders["kv"].encode(TEXT)
    before = memory.state.clone()
    reader.generate([memory, memory], ASKED)
    base.model.generate(**reader.inputs(memory, ASKED), max_new_tokens=4, do_sample=False)
    assert torch.equal(memory.state, before)


@pytest.mark.parametrize("mode", ["kv", "embedding"])
def test_saved_and_loaded_it_is_read_the_same(base, encoders, tmp_path, mode):
    reader, memory = Reader(base), encoders[mode].encode(TEXT)
    memory.save(tmp_path / "m")
    found = Memory.load(tmp_path / "m")
    assert reader.generate(found, ASKED) == reader.generate(memory, ASKED)
    np.testing.assert_array_equal(reader.nll(found, OTHER), reader.nll(memory, OTHER))


# Losses


def test_the_divergence_is_that_of_all_logits(base, encoders):
    """And none from a memory that is the text."""
    reader, contexts = Reader(base), [base.tokens(TEXT), base.tokens(OTHER)]
    rows, after = [base.tokens(ASKED), base.tokens("It cost nobody.")], [2, 3]
    kv = encoders["kv"](contexts, 2).detach().requires_grad_()
    found = reader.divergence(kv, rows, after, contexts)
    expected = []
    for k, (context, row) in enumerate(zip(contexts, rows, strict=True)):
        with torch.no_grad():
            full = base.model(torch.tensor([[base.start, *context, *row]])).logits[0, -len(row) :].softmax(-1)
            states = reader._states(kv[k : k + 1], [row])
            ours = base.model.get_output_embeddings()(states)[0].softmax(-1)
        expected.append((full * (full / ours).log()).sum(-1)[after[k] - 1 : -1])
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-5, rtol=1e-4)
    found.sum().backward()
    assert kv.grad.abs().sum() > 0
    whole = softs.raw_memory(base, TEXT).state[None]
    assert reader.divergence(whole, rows[:1], after[:1], contexts[:1]).abs().max() < 1e-5


def test_slices_of_scores_change_nothing(base, encoders, monkeypatch):
    reader, texts = Reader(base), [base.tokens(TEXT), base.tokens(OTHER)]
    values = []
    for size in (512, 3):
        monkeypatch.setattr("laconic.soft.replay._SLICE", size)
        kv = encoders["kv"](texts).detach().requires_grad_()
        loss = reader.nats(kv, texts, [1, 5]).sum() + reader.divergence(kv, texts, [1, 5], texts).sum()
        loss.backward()
        values.append((loss.detach(), kv.grad))
    torch.testing.assert_close(values[0], values[1], atol=1e-4, rtol=1e-4)


# What is refused


@pytest.mark.parametrize("after", [0, 3])
def test_a_loss_needs_a_token_before_and_one_to_learn(base, after):
    with pytest.raises(InputError, match=r"after must be in \[1, 2\] for row 2"):
        Reader(base).nats(Reader(base).nothing(2), [[5, 6, 7], [5, 6, 7]], [1, after])


def test_memories_of_another_base_are_refused_by_what_differs(base, encoders, tmp_path):
    memory = encoders["kv"].encode(TEXT)
    other = softs.base_of(tmp_path / "a", seed=1)
    turned = softs.base_of(tmp_path / "b", rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    for reader, what in ((Reader(other), "base model or revision"), (Reader(turned), "RoPE setting")):
        for call in (reader.generate, reader.nll):
            with pytest.raises(ModelError, match=f"memory 2 was made with another {what};"):
                call(["Read: ", memory], ASKED)


def test_what_does_not_fit_is_refused(base):
    reader, memory = Reader(base), softs.raw_memory(base, TEXT)
    with pytest.raises(InputError, match=r"has 256; use fewer slots, a shorter text or a smaller max_tokens"):
        reader.generate(memory, ASKED, 300)
    with pytest.raises(InputError, match="has 256"):
        reader.nll(memory, TEXT * 20)
    with pytest.raises(InputError, match="has 256"):
        reader.generate([memory] * 20, ASKED)


def test_bad_requests(base):
    reader, memory = Reader(base), softs.raw_memory(base, TEXT)
    with pytest.raises(InputError, match="the prompt has no tokens"):
        reader.generate(memory, "")
    with pytest.raises(InputError, match="part 2 must be a Memory or a str, got int"):
        reader.generate([memory, 3], ASKED)
    assert reader.nll(memory, "").shape == (0,)


def test_out_of_memory_says_what_to_lower(base, monkeypatch):
    reader = Reader(base)

    def full(*args, **kwargs):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(reader._body, "forward", full)
    with pytest.raises(InputError, match="use fewer requests at once"):
        reader.generate([], ASKED)
