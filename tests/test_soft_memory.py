"""Memories: moved and joined exactly, kept bit by bit, and refused when anything about them is wrong."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
from safetensors.torch import save_file  # noqa: E402

import laconic.soft  # noqa: E402
from laconic.errors import InputError, MissingExtraError, ModelError  # noqa: E402
from laconic.soft.memory import Binding, Memory  # noqa: E402
from laconic.soft.rotary import rotate  # noqa: E402

MADE = Binding("b", "r", "t", "a")
NAMES = {"base": "base model or revision", "rope": "RoPE setting", "tokenizer": "tokenizer", "adapter": "adapter"}


def memory(mode="kv", dtype=torch.float32, slots=3, seed=0, **changes):
    shape = (2, 2, 2, slots, 8) if mode == "kv" else (slots, 16)
    state = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    frequencies = torch.tensor([1.0, 0.1, 0.01, 0.001])
    return replace(Memory(state, mode, 100, 40, frequencies, MADE), **changes)


def test_a_quarter_turn_by_hand():
    keys = torch.tensor([[1.0, 2.0, 9.0]])  # one pair, and a number that is not rotated
    turned = rotate(keys, 1, torch.tensor([math.pi / 2]))
    torch.testing.assert_close(turned, torch.tensor([[-2.0, 1.0, 9.0]]))


@settings(max_examples=50, deadline=None)
@given(st.integers(-5000, 5000), st.integers(-5000, 5000))
def test_moves_add_up_and_keep_lengths(a, b):
    start = memory()
    there = start.moved(a).moved(b)
    torch.testing.assert_close(there.state, start.moved(a + b).state, atol=1e-5, rtol=0)
    torch.testing.assert_close(there.state.norm(dim=-1), start.state.norm(dim=-1), atol=1e-5, rtol=0)
    assert there.start == 40 + a + b
    assert torch.equal(there.state[:, 1], start.state[:, 1])  # values have no position


def test_each_row_of_a_batch_moves_on_its_own():
    keys = torch.randn(3, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    frequencies = torch.tensor([1.0, 0.3, 0.1, 0.01])
    together = rotate(keys, torch.tensor([0, 7, -9])[:, None, None], frequencies)
    for row, by in enumerate((0, 7, -9)):
        torch.testing.assert_close(together[row], rotate(keys[row], by, frequencies))


@pytest.mark.parametrize("mode", ["kv", "embedding"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_file_gives_the_same_bits(tmp_path, mode, dtype):
    kept = memory(mode, dtype)
    kept.save(tmp_path / "m.safetensors")
    found = Memory.load(tmp_path / "m.safetensors")
    assert found.state.dtype == dtype and torch.equal(found.state, kept.state)
    assert (found.mode, found.tokens, found.start, found.made) == (mode, 100, 40, MADE)
    assert torch.equal(found.frequencies, kept.frequencies)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_bytes_and_files_are_the_same_thing_and_errors_name_them(tmp_path):
    kept = memory()
    (tmp_path / "m").write_bytes(kept.to_bytes())
    assert torch.equal(Memory.load(tmp_path / "m").state, kept.state)
    kept.save(tmp_path / "m")
    assert torch.equal(Memory.from_bytes((tmp_path / "m").read_bytes()).state, kept.state)
    for data in (b"", kept.to_bytes()[:-1], b"\x02" + bytes(7) + b"[]"):
        with pytest.raises(ModelError, match="mine cannot be read as a memory"):
            Memory.from_bytes(data, "mine")


def test_int8_is_half_a_step_off_at_most_and_a_quarter_of_the_size(tmp_path):
    kept = memory("embedding", slots=400)
    kept = replace(kept, state=torch.cat([kept.state * 1000, torch.zeros(1, 16), kept.state * 1e-6]).repeat(1, 8))
    kept.save(tmp_path / "small", int8=True)
    kept.save(tmp_path / "large")
    found = Memory.load(tmp_path / "small").state
    step = kept.state.abs().amax(-1, keepdim=True) / 127
    assert ((found - kept.state).abs() <= 0.501 * step + 1e-30).all()
    assert (tmp_path / "small").stat().st_size < 0.28 * (tmp_path / "large").stat().st_size


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("memory") / "m.safetensors"
    memory().save(path)
    return path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_an_edited_file_is_refused(data, tmp_path_factory, draw):
    place = draw.draw(st.integers(0, len(data) - 1))
    bit = draw.draw(st.sampled_from([1, 4, 32, 128]))
    path = tmp_path_factory.getbasetemp() / "edited"
    path.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
    with contextlib.suppress(ModelError):  # unless it is a blank of the header: then the file says what it said
        found = Memory.load(path)
        assert torch.equal(found.state, memory().state) and found.made == MADE


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_a_truncated_file_is_refused(data, tmp_path_factory, draw):
    path = tmp_path_factory.getbasetemp() / "cut"
    path.write_bytes(data[: draw.draw(st.integers(0, len(data) - 1))])
    with pytest.raises(ModelError, match="encode the text again"):
        Memory.load(path)


def test_foreign_and_missing_files_are_refused(tmp_path):
    save_file({"state": torch.zeros(2)}, tmp_path / "other.safetensors")
    for name in ("other.safetensors", "none.safetensors"):
        with pytest.raises(ModelError, match="encode the text again"):
            Memory.load(tmp_path / name)


def test_a_path_that_cannot_be_written_says_so(tmp_path):
    with pytest.raises(InputError, match="pass another path"):
        memory().save(tmp_path / "missing" / "m")


def test_joined_memories_stand_one_after_another():
    one, two = memory(slots=3), memory(slots=2, seed=1)
    both = one + two
    assert (both.slots, both.tokens, both.start) == (5, 200, 40)
    assert torch.equal(both.state[..., :3, :], one.state)
    assert torch.equal(both.state[..., 3:, :], two.moved(3).state)
    three = memory(slots=1, seed=2)
    torch.testing.assert_close(((one + two) + three).state, (one + (two + three)).state)


def test_joined_embeddings_are_put_side_by_side():
    one, two = memory("embedding"), memory("embedding", slots=1, seed=1)
    assert torch.equal((one + two).state, torch.cat([one.state, two.state]))


@pytest.mark.parametrize("name", NAMES)
def test_memories_of_different_makers_are_not_joined_and_the_error_names_the_difference(name):
    other = memory(made=replace(MADE, **{name: "x"}))
    with pytest.raises(ModelError, match=f"memory 2 was made with another {NAMES[name]};"):
        Memory.join([memory(), other])


def test_bad_joins():
    with pytest.raises(InputError, match="no memories"):
        Memory.join([])
    with pytest.raises(ModelError, match="of mode 'embedding'"):
        memory() + memory("embedding")


def test_the_size_is_what_the_field_says():
    """Llama-3-8B in bfloat16: 128 KiB a slot (32 layers, 8 heads of 128)."""
    kept = memory(state=torch.zeros(32, 2, 8, 1, 128, dtype=torch.bfloat16), tokens=500)
    assert (kept.bytes, kept.slots, kept.ratio) == (128 * 1024, 1, 500)
    assert repr(kept) == "<Memory 1 slots (kv) for 500 tokens, 128.0 KiB>"


def test_importing_loads_no_framework_and_says_what_is_missing(monkeypatch):
    code = "import sys, laconic.soft; assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
    monkeypatch.setattr(laconic.soft, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"laconic\[soft\]"):
        laconic.soft.Reader  # noqa: B018
