"""The upper bound: LoRA on a reader of full contexts, against PEFT's own model; saved, refused, never an encoder."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

import families  # noqa: E402
import softs  # noqa: E402
from laconic.cli import main  # noqa: E402
from laconic.errors import InputError, ModelError  # noqa: E402
from laconic.soft import Reader, Settings, SoftEncoder, Tuned, Tuning, mode_of  # noqa: E402

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SMALL = Tuning(window=40, rank=4, alpha=8, dropout=0.0, targets=ALL)
ENCODER = Settings(slots=2, window=40, rank=4)
peft_warns = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return softs.base_of(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module", params=softs.FAMILIES)
def any_base(request, tmp_path_factory):
    return softs.base_of(tmp_path_factory.mktemp(request.param), request.param)


def tuned_of(base, **changes):
    return softs.shaken(Tuned.create(base, replace(SMALL, **changes)))


def rows_of(base):
    """Two contexts of different lengths with what is said of them, and where that begins."""
    again, answer = base.tokens(softs.TEXT)[:12], base.tokens(" nobody")
    asked = [base.start, *base.tokens(softs.OTHER), *base.tokens("\nQuestion: Who paid? Answer:")]
    rows = [[base.start, *again, base.start, *again, base.ends[0]], [*asked, *answer, base.ends[0]]]
    return rows, [14, len(asked)]


def nats_of(reader, rows, after):
    with torch.no_grad():
        return reader.nats(reader.nothing(len(rows)), rows, after)


def test_untrained_it_reads_as_the_frozen_base_to_the_bit(any_base):
    rows, after = rows_of(any_base)
    fresh = Tuned.create(any_base, SMALL)
    assert all(p.abs().sum() == 0 for n, p in fresh.named_parameters() if "lora_B" in n)
    found, plain = (nats_of(reader, rows, after) for reader in (fresh.reader(), Reader(any_base)))
    assert torch.equal(found, plain) and len(found) == 13 + len(rows[1]) - after[1]
    assert not torch.allclose(nats_of(tuned_of(any_base).reader(), rows, after), plain, atol=1e-2)


@peft_warns
def test_losses_and_gradients_are_those_of_pefts_own_model(any_base, tmp_path):
    """Rows of different lengths in one batch, against one row a pass of the model that PEFT makes of the folder."""
    tuned = tuned_of(any_base)
    tuned.save(tmp_path)
    other = peft.PeftModel.from_pretrained(copy.deepcopy(any_base.model), tmp_path, is_trainable=True)
    rows, after = rows_of(any_base)
    reader = tuned.reader()
    ours, theirs = reader.nats(reader.nothing(2), rows, after), []
    for row, first in zip(rows, after, strict=True):
        logits = other(torch.tensor([row])).logits[0]
        theirs.append(
            torch.nn.functional.cross_entropy(logits[first - 1 : -1], torch.tensor(row[first:]), reduction="none")
        )
    torch.testing.assert_close(ours, torch.cat(theirs), atol=1e-5, rtol=1e-5)
    ours.mean().backward()
    torch.cat(theirs).mean().backward()
    expected = {n.replace(".default.", "."): p.grad for n, p in other.named_parameters() if p.requires_grad}
    (own,) = tuned._weights()
    assert own.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(own[name].grad, gradient, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@peft_warns
def test_what_it_says_is_what_pefts_own_model_says(base, tmp_path):
    tuned = tuned_of(base)
    tuned.save(tmp_path)
    other = peft.PeftModel.from_pretrained(copy.deepcopy(base.model), tmp_path)
    prompt = "\nQuestion: What did they discuss? Answer:"
    ids = torch.tensor([[base.start, *base.tokens(softs.TEXT), *base.tokens(prompt)]])
    with torch.no_grad():
        said = other.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    found = tuned.reader().generate(softs.TEXT, prompt, 12)
    assert found == base.text(said[0, ids.shape[1] :].tolist()) and found
    assert found != Reader(base).generate(softs.TEXT, prompt, 12)


@pytest.mark.parametrize("on", [False, True])
def test_lora_gets_a_gradient_everywhere_and_nothing_else_does(base, on):
    tuned = tuned_of(base)
    tuned.recompute(on)
    rows, after = rows_of(base)
    reader = tuned.reader()
    reader.nats(reader.nothing(2), rows, after).mean().backward()
    lora = {n for n, _ in tuned.named_parameters() if "lora_" in n}
    assert len(lora) == 2 * len(ALL) * 2  # two matrices for each map of two layers, also in the last one
    for name, parameter in tuned.named_parameters():
        if name in lora:
            assert parameter.dtype == torch.float32 and parameter.grad.abs().sum() > 0, name
        else:
            assert not parameter.requires_grad and parameter.grad is None, name
    assert {id(p) for p in tuned.trained()} == {id(p) for n, p in tuned.named_parameters() if n in lora}
    assert all(p.grad is None for p in base.model.parameters())


def test_recomputing_changes_no_gradient(base):
    rows, after = rows_of(base)
    found = []
    for on in (False, True):
        tuned = tuned_of(base, dropout=0.2).train()
        tuned.recompute(on)
        torch.manual_seed(3)  # dropout comes again as it was
        reader = tuned.reader()
        reader.nats(reader.nothing(2), rows, after).mean().backward()
        found.append([p.grad for p in tuned.trained()])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_a_base_in_bfloat16_is_trained_in_float32(tmp_path):
    made = softs.base_of(tmp_path)
    half = replace(made, model=made.model.bfloat16())
    tuned = tuned_of(half)
    rows, after = rows_of(half)
    reader = tuned.reader()
    reader.nats(reader.nothing(2), rows, after).mean().backward()
    assert {p.dtype for p in tuned.trained()} == {p.grad.dtype for p in tuned.trained()} == {torch.float32}
    assert all(p.grad.abs().sum() > 0 for p in tuned.trained())


def test_saved_and_loaded_it_reads_the_same(base, tmp_path):
    tuned = tuned_of(base)
    tuned.save(tmp_path)
    found = Tuned.load(tmp_path)  # its base by name: a second copy of the weights
    assert found.settings == tuned.settings == Tuning.of(tmp_path) and found.made == tuned.made
    assert torch.equal(nats_of(found.reader(), *rows_of(base)), nats_of(tuned.reader(), *rows_of(base)))
    names = {"adapter_config.json", "adapter_model.safetensors", "soft.json"}
    assert {p.name for p in tmp_path.iterdir()} == names
    assert found.made.adapter not in ("", Tuned.create(base, SMALL).made.adapter)


def test_folders_that_are_damaged_or_of_another_base_are_refused(base, tmp_path):
    tuned_of(base).save(tmp_path / "full")
    with pytest.raises(ModelError, match="made with another base model or revision; use that one, or train another"):
        Tuned.load(tmp_path / "full", softs.base_of(tmp_path / "revision", seed=1))
    weights = tmp_path / "full" / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ModelError, match="adapter_model.safetensors is not the file"):
        Tuned.load(tmp_path / "full", base)
    weights.unlink()
    with pytest.raises(ModelError, match=r"lacks what soft\.json names"):
        Tuned.load(tmp_path / "full", base)
    families.edit_json(tmp_path / "full" / "soft.json", settings=None)
    with pytest.raises(ModelError, match="incomplete"):
        Tuned.load(tmp_path / "full", base)
    with pytest.raises(ModelError, match="holds no soft encoder"):
        Tuned.load(tmp_path, base)


def test_it_is_no_encoder_and_an_encoder_is_not_it(base, tmp_path):
    tuned_of(base).save(tmp_path / "full")
    SoftEncoder.create(base, ENCODER).save(tmp_path / "kv")
    assert (mode_of(tmp_path / "full"), mode_of(tmp_path / "kv")) == ("full", "kv")
    for load in (SoftEncoder.load, Settings.of):
        with pytest.raises(ModelError, match=r"LoRA for full contexts \(mode 'full'\), no encoder of memories"):
            load(tmp_path / "full")
    for load in (Tuned.load, Tuning.of):
        with pytest.raises(ModelError, match=r"an encoder of memories \(mode 'kv'\); SoftEncoder.load reads it"):
            load(tmp_path / "kv")


def test_commands_for_memories_refuse_it_in_one_line(base, tmp_path, capsys):
    tuned_of(base).save(tmp_path / "full")
    text, memory = tmp_path / "a.txt", tmp_path / "m.safetensors"
    text.write_text(softs.TEXT)
    SoftEncoder.create(base, ENCODER).encode(softs.TEXT).save(memory)
    for args in (["encode", text, "--store", tmp_path / "s"], ["ask", memory, "Who?"]):
        assert main(["soft", *map(str, args), "--encoder", str(tmp_path / "full")]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1) and "no encoder of memories" in err and "laconic soft measure" in err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "kv"}, "mode must be 'full', got 'kv'"),
        ({"window": 0}, "window must be 1"),
        ({"rank": 0}, "rank must be 1"),
        ({"targets": ()}, "targets must name"),
        ({"dropout": 1.0}, "dropout must be in"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(InputError, match=message):
        Tuning(**change)


def test_settings_that_do_not_fit_the_base(base):
    with pytest.raises(InputError, match="window must be at most 254"):
        Tuned.create(base, replace(SMALL, window=255))
    with pytest.raises(InputError, match="do not fit"):
        Tuned.create(base, replace(SMALL, targets=("c_attn",)))
