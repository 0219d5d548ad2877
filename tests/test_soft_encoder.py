"""The encoder: as PEFT and transformers compute it, in any batch; gradients of a plain copy; saved, refused, shared."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
from transformers import AutoModelForCausalLM, DynamicCache  # noqa: E402

import families  # noqa: E402
import softs  # noqa: E402
from laconic.errors import InputError, ModelError  # noqa: E402
from laconic.soft import Base, Memory, Reader, Settings, SoftEncoder  # noqa: E402
from laconic.soft.caches import Capture  # noqa: E402

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SMALL = Settings(slots=4, window=40, rank=4, alpha=8, dropout=0.0, targets=ALL)
MODES = ("kv", "embedding")
peft_warns = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return softs.base_of(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module", params=softs.FAMILIES)
def any_base(request, tmp_path_factory):
    return softs.base_of(tmp_path_factory.mktemp(request.param), request.param)


def encoder_of(base, mode="kv", **changes):
    return softs.shaken(SoftEncoder.create(base, replace(SMALL, mode=mode, **changes)))


class TwoCopies:
    """The same computation spelled out: a PEFT model of its own, one row at a time, no cache of ours."""

    def __init__(self, encoder, folder):
        encoder.save(folder)
        self.encoder, self.plain = encoder, copy.deepcopy(encoder.base.model)
        self.peft = peft.PeftModel.from_pretrained(copy.deepcopy(encoder.base.model), folder, is_trainable=True)
        self.memory = encoder.memory.detach().clone().requires_grad_()

    def pass_over(self, ids, slots):
        read = torch.cat([self.plain.get_input_embeddings()(torch.tensor([ids])), self.memory[None, :slots]], 1)
        return self.peft(inputs_embeds=read, use_cache=True, output_hidden_states=True)

    def states(self, ids, slots):
        out = self.pass_over(ids, slots)
        if self.encoder.settings.mode == "embedding":
            return out.hidden_states[-1][0, -slots:]
        layers = out.past_key_values.layers
        return torch.stack([torch.stack([x.keys[0, :, -slots:], x.values[0, :, -slots:]]) for x in layers])

    def loss(self, ids, slots, row, first):
        """Mean nats of row[first:] after the slots."""
        states = self.states(ids, slots)
        if self.encoder.settings.mode == "kv":
            cache = DynamicCache([(layer[None, 0], layer[None, 1]) for layer in states])
            logits = self.plain(torch.tensor([row]), past_key_values=cache).logits[0]
        else:
            read = torch.cat([states[None], self.plain.get_input_embeddings()(torch.tensor([row]))], 1)
            logits = self.plain(inputs_embeds=read).logits[0, slots:]
        return torch.nn.functional.cross_entropy(logits[first - 1 : -1], torch.tensor(row[first:]))

    def gradients(self):
        lora = {n: p.grad for n, p in self.peft.named_parameters() if p.requires_grad}
        return {n.replace(".default.", "."): g for n, g in lora.items()} | {"memory": self.memory.grad}


def gradients(encoder):
    lora, memory = encoder._weights()
    return {name: p.grad for name, p in {**lora, **memory}.items()}


@peft_warns
@pytest.mark.parametrize("mode", MODES)
def test_states_are_those_of_peft_and_a_batch_does_not_change_a_row(any_base, tmp_path, mode):
    encoder = encoder_of(any_base, mode)
    reference = TwoCopies(encoder, tmp_path)
    rows = [any_base.tokens(softs.TEXT), any_base.tokens("Nobody!"), any_base.tokens(softs.OTHER)]
    with torch.no_grad():
        together = encoder(rows, 3)
        for row, state in zip(rows, together, strict=True):
            torch.testing.assert_close(state, reference.states(row, 3), atol=1e-5, rtol=1e-5)
    assert float(together.std()) > 0.1


@peft_warns
@pytest.mark.parametrize("mode", MODES)
def test_losses_and_gradients_are_those_of_two_copies(any_base, tmp_path, mode):
    """Rows of different lengths in one batch, against one copy for the encoder, one for the reader, a row a pass."""
    encoder, reader = encoder_of(any_base, mode), Reader(any_base)
    reference = TwoCopies(encoder, tmp_path)
    texts = [any_base.tokens(softs.TEXT), any_base.tokens(softs.OTHER)[:9]]
    rows = [[any_base.start, *texts[0], any_base.ends[0]], any_base.tokens("Who paid? Nobody paid.")]
    after = [1, 4]
    ours = reader.nats(reader.kv(encoder(texts, 2)), rows, after)
    losses = [reference.loss(*x) for x in zip(texts, (2, 2), rows, after, strict=True)]
    counts = [len(row) - first for row, first in zip(rows, after, strict=True)]
    for part, loss in zip(ours.split(counts), losses, strict=True):
        torch.testing.assert_close(part.mean(), loss, atol=1e-5, rtol=1e-5)
    sum(part.mean() for part in ours.split(counts)).backward()
    sum(losses).backward()
    found, expected = gradients(encoder), reference.gradients()
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("mode", MODES)
def test_recomputing_changes_no_gradient(base, mode):
    texts = [base.tokens(softs.TEXT), base.tokens(softs.OTHER)]
    found = []
    for on in (False, True, False):
        encoder, reader = encoder_of(base, mode, dropout=0.2).train(), Reader(base)
        for part in (encoder, reader):
            part.recompute(True)  # on and off again is off
            part.recompute(on)
        torch.manual_seed(3)  # dropout comes again as it was
        reader.nats(reader.kv(encoder(texts)), [[base.start, *x] for x in texts], [1, 1]).sum().backward()
        found.append(gradients(encoder))
    for name, plain, again, third in ((n, *(f[n] for f in found)) for n in found[0]):
        assert torch.equal(plain, again) and torch.equal(plain, third), name


@pytest.mark.parametrize("mode", MODES)
def test_a_step_with_recomputing_leaves_nothing_behind(base, mode):
    """A cache whose graph holds the cache is never freed, unless the way back goes through all of it."""
    encoder, reader, sizes = encoder_of(base, mode).train(), Reader(base), []
    for part in (encoder, reader):
        part.recompute()
    for _ in range(3):
        reader.nats(reader.kv(encoder([base.tokens(softs.TEXT)])), [[base.start, 5, 6]], [1]).sum().backward()
        sizes.append(softs.alive())
    assert sizes[1] == sizes[2]


def test_recomputing_keeps_less(base):
    """Bytes that autograd keeps for the way back, counted."""

    def kept(on):
        encoder, sizes = encoder_of(base), {}
        encoder.recompute(on)

        def pack(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            encoder([base.tokens(softs.TEXT)] * 8)
        return sum(sizes.values())

    assert kept(True) < 0.6 * kept(False)


@pytest.mark.parametrize("mode", MODES)
def test_all_that_is_trained_is_float32_and_gets_a_gradient(base, mode):
    """In mode kv the last layer's other LoRA, which nothing reads, is not there at all."""
    encoder, reader = encoder_of(base, mode), Reader(base)
    texts = [base.tokens(softs.TEXT)]
    reader.nats(reader.kv(encoder(texts)), [[base.start, *texts[0]]], [1]).mean().backward()
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            assert parameter.dtype == torch.float32 and parameter.grad.abs().sum() > 0, name
    last = {n.split(".")[-4] for n, p in encoder.named_parameters() if p.requires_grad and ".layers.1." in n}
    assert last == ({"k_proj", "v_proj"} if mode == "kv" else set(ALL))


def test_a_base_in_bfloat16_is_trained_in_float32(tmp_path):
    made = softs.base_of(tmp_path)
    base = replace(made, model=made.model.bfloat16())
    encoder, reader = SoftEncoder.create(base, SMALL), Reader(base)
    assert {p.dtype for p in encoder.trained()} == {torch.float32}
    reader.nats(encoder([[5, 6, 7]]), [[2, 5, 6, 7]], [1]).mean().backward()
    assert encoder.encode(softs.TEXT[:20]).state.dtype == torch.bfloat16
    assert encoder.memory.grad.dtype == torch.float32 and encoder.memory.grad.abs().sum() > 0


def test_weights_are_shared_and_the_base_is_left_alone(base):
    before = softs.plain_nll(base, base.tokens(softs.TEXT), 5)
    encoder, reader = encoder_of(base), Reader(base)
    own = {id(p) for p in base.model.parameters()}
    extra = [p for p in encoder.parameters() if id(p) not in own]
    assert {id(p) for p in extra} == {id(p) for p in encoder.trained()}
    assert all(id(p) in own for p in reader._body.parameters())
    assert torch.equal(before, softs.plain_nll(base, base.tokens(softs.TEXT), 5))
    assert not any(p.requires_grad for p in base.model.parameters())


def test_memory_embeddings_begin_at_the_scale_of_token_embeddings_and_nothing_is_seeded(base):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two = (SoftEncoder.create(base, replace(SMALL, slots=64)) for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert one.made == two.made
    assert 0.9 < float(one.memory.detach().std() / base.table.std()) < 1.1
    assert SoftEncoder.create(base, replace(SMALL, seed=1)).made != SoftEncoder.create(base, SMALL).made


def test_slots_before_the_reader_are_the_official_ones_moved(base):
    official, near = (encoder_of(base, positions=p).encode(softs.TEXT, 3) for p in ("official", "continue"))
    assert (official.start, near.start) == (official.tokens, 0)
    torch.testing.assert_close(official.moved(-official.tokens).state, near.state, atol=1e-5, rtol=1e-5)


def test_fewer_slots_are_the_first_ones(base):
    """A causal model: what a slot holds does not depend on the slots after it."""
    encoder = encoder_of(base)
    torch.testing.assert_close(
        encoder.encode(softs.TEXT, 2).state, encoder.encode(softs.TEXT).state[..., :2, :], atol=1e-5, rtol=1e-5
    )


def test_many_texts_are_what_each_alone_is_in_order(base, monkeypatch):
    monkeypatch.setattr("laconic.soft.encoder._TOGETHER", 60)
    encoder = encoder_of(base)
    texts = [softs.TEXT, "Nobody!", softs.OTHER, "It cost", softs.TEXT[:30]]
    for text, memory in zip(texts, encoder.encode_many(texts, 2), strict=True):
        alone = encoder.encode(text, 2)
        torch.testing.assert_close(memory.state, alone.state, atol=1e-5, rtol=1e-5)
        assert memory.tokens == alone.tokens == len(base.tokens(text))
    assert encoder.encode_many([]) == []


def test_a_text_beyond_the_window_is_read_in_equal_chunks(base):
    encoder = encoder_of(base, window=12)
    text = softs.TEXT + " " + softs.OTHER
    ids = base.tokens(text)
    count = -(-len(ids) // 12)
    assert count > 2 and len(ids) % count
    sizes = [len(ids) * (k + 1) // count - len(ids) * k // count for k in range(count)]
    assert max(sizes) - min(sizes) <= 1
    rows = [list(part) for part in torch.tensor(ids).split(sizes)]
    with torch.no_grad():
        alone = [encoder([[int(x) for x in row]], 2)[0] for row in rows]
    made = [Memory(s, "kv", n, n, base.frequencies, encoder.made) for s, n in zip(alone, sizes, strict=True)]
    found = encoder.encode(text, 2)
    torch.testing.assert_close(found.state, Memory.join(made).state, atol=1e-5, rtol=1e-5)
    assert (found.slots, found.tokens) == (2 * count, len(ids))
    with pytest.raises(InputError, match=r"trained on up to 12; allow chunks"):
        encoder.encode(text, chunks=False)


@pytest.mark.parametrize("slots", [0, 5, -1, 1.5])
def test_slots_beyond_what_was_trained(base, slots):
    with pytest.raises(InputError, match="slots must be from 1 to 4"):
        encoder_of(base).encode(softs.TEXT, slots)


def test_an_empty_text_has_nothing_to_encode(base):
    with pytest.raises(InputError, match="text 2 has no tokens"):
        encoder_of(base).encode_many(["a", ""])


def test_out_of_memory_says_what_to_lower(base, monkeypatch):
    encoder = encoder_of(base)

    def full(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(encoder.body, "forward", full)
    with pytest.raises(InputError, match="encode fewer texts at once"):
        encoder.encode(softs.TEXT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slots": 0}, "slots must be 1 or more"),
        ({"mode": "text"}, "mode must be"),
        ({"window": 0}, "window must be 1"),
        ({"rank": 0}, "rank must be 1"),
        ({"targets": ()}, "targets must name"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"positions": "far"}, "positions must be"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(InputError, match=message):
        Settings(**change)


def test_settings_that_do_not_fit_the_base(base):
    with pytest.raises(InputError, match="window must be at most 252"):
        SoftEncoder.create(base, replace(SMALL, window=253))
    with pytest.raises(InputError, match="do not fit"):
        SoftEncoder.create(base, replace(SMALL, targets=("c_attn",)))


# Folders


@pytest.mark.parametrize("mode", MODES)
def test_saved_and_loaded_it_encodes_the_same(base, tmp_path, mode):
    encoder = encoder_of(base, mode)
    encoder.save(tmp_path)
    found = SoftEncoder.load(tmp_path)  # its base by name: a second copy of the weights
    assert found.settings == encoder.settings and found.made == encoder.made
    assert torch.equal(found.encode(softs.TEXT).state, encoder.encode(softs.TEXT).state)
    names = {"adapter_config.json", "adapter_model.safetensors", "memory.safetensors", "soft.json"}
    assert {p.name for p in tmp_path.iterdir()} == names


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "memory.safetensors"])
def test_changed_weights_are_refused(base, tmp_path, name):
    encoder_of(base).save(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[-1] ^= 1
    (tmp_path / name).write_bytes(bytes(data))
    with pytest.raises(ModelError, match=rf"{name} is not the file"):
        SoftEncoder.load(tmp_path, base)


def test_an_encoder_of_another_base_is_refused_by_what_differs(base, tmp_path):
    encoder_of(base).save(tmp_path / "encoder")
    revision = softs.base_of(tmp_path / "revision", seed=1)
    with pytest.raises(ModelError, match="made with another base model or revision;"):
        SoftEncoder.load(tmp_path / "encoder", revision)
    turned = softs.base_of(tmp_path / "turned", rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    with pytest.raises(ModelError, match="made with another RoPE setting;"):
        SoftEncoder.load(tmp_path / "encoder", turned)
    other = replace(base, tokenizer=families.bytelevel([softs.OTHER]))
    with pytest.raises(ModelError, match="made with another tokenizer;"):
        SoftEncoder.load(tmp_path / "encoder", other)


def test_folders_that_hold_no_encoder(base, tmp_path):
    with pytest.raises(ModelError, match="holds no soft encoder"):
        SoftEncoder.load(tmp_path, base)
    encoder_of(base).save(tmp_path)
    families.edit_json(tmp_path / "soft.json", format=2)
    with pytest.raises(ModelError, match="another format"):
        SoftEncoder.load(tmp_path, base)
    families.edit_json(tmp_path / "soft.json", format=1, made=None)
    with pytest.raises(ModelError, match="incomplete"):
        SoftEncoder.load(tmp_path, base)


# Bases


def test_a_base_is_the_same_in_another_precision(base):
    half = AutoModelForCausalLM.from_pretrained(base.name, dtype=torch.bfloat16)
    assert replace(base, model=half).made == base.made


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("mistral", {"sliding_window": 32}, "sliding.window.*set sliding_window to null"),
        ("gpt2", {}, "RoPE of kind 'none'"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "kind 'dynamic'"),
    ],
)
def test_bases_that_would_be_wrong_are_refused(tmp_path, kind, changes, message):
    with pytest.raises(ModelError, match=message):
        softs.base_of(tmp_path, kind, **changes)


def test_a_base_that_forgets_what_it_read_is_found_out(tmp_path, monkeypatch):
    """As would any model unknown here whose keys are not used as they were made."""
    softs.build(tmp_path)
    kept = Capture.kv.fget
    monkeypatch.setattr(Capture, "kv", property(lambda self: kept(self) * 1.5))
    with pytest.raises(ModelError, match="does not read keys and values as it made them"):
        Base.load(tmp_path, "cpu")


@pytest.mark.parametrize("kind", ["llama3", "linear", "yarn"])
def test_scaled_rope_can_be_moved(tmp_path, kind):
    """The trial on loading moves keys by rotation and compares."""
    scaled = {"rope_type": kind, "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 64}
    scaled |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0} if kind == "llama3" else {}
    base = softs.base_of(tmp_path, rope_parameters=scaled)
    plain = 1e4 ** (-torch.arange(4) / 4)
    assert (base.frequencies <= plain + 1e-6).all() and (base.frequencies < plain - 1e-6).any()


@pytest.mark.parametrize("mode", MODES)
def test_it_learns_to_give_a_text_back(base, mode):
    encoder, reader = SoftEncoder.create(base, replace(SMALL, mode=mode, rank=8)), Reader(base)
    texts = [base.tokens(softs.TEXT)[:12], base.tokens(softs.OTHER)[:9]]
    rows = [[base.start, *x, base.ends[0]] for x in texts]
    optimizer = torch.optim.AdamW(encoder.trained(), lr=0.02)
    losses = []
    for _ in range(40):
        loss = reader.nats(reader.kv(encoder(texts)), rows, [1, 1]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0], losses[::8]


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
def test_the_gpu_encodes_and_reads_what_the_cpu_does(tmp_path, mode):
    folder, found = softs.build(tmp_path / "base"), {}
    encoder_of(Base.load(folder, "cpu"), mode).save(tmp_path / "encoder")
    for device in ("cpu", "cuda"):
        encoder = SoftEncoder.load(tmp_path / "encoder", Base.load(folder, device))
        memory = encoder.encode(softs.TEXT)
        nats = Reader(encoder.base).nll(memory, softs.OTHER)
        found[device] = memory.state.cpu(), torch.as_tensor(nats), gradients_on(encoder)
    torch.testing.assert_close(found["cuda"], found["cpu"], atol=1e-3, rtol=1e-3)


def gradients_on(encoder):
    """Those of saying a text again, on the CPU."""
    base, ids = encoder.base, encoder.base.tokens(softs.TEXT)
    kv = Reader(base).kv(encoder([ids], 4))
    Reader(base).nats(kv, [[base.start, *ids, base.ends[0]]], [1]).mean().backward()
    return {name: p.cpu() for name, p in gradients(encoder).items()}
