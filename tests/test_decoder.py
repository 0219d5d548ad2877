"""Surprisal: the same from the whole, in pieces, in batches and beyond the window, for every family of decoders."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from transformers import AutoModelForCausalLM  # noqa: E402

import decoders  # noqa: E402
import families  # noqa: E402
import tiny  # noqa: E402
from laconic.backends.decoder import TorchDecoder, best_device  # noqa: E402
from laconic.errors import MissingExtraError, ModelError  # noqa: E402
from laconic.hub import load_decoder  # noqa: E402

TOKENS = np.random.default_rng(1).integers(5, 250, 400)


@pytest.fixture(scope="module", params=decoders.PLAIN)
def pair(request, tmp_path_factory):
    """A decoder, and the same checkpoint as transformers runs it."""
    folder = decoders.build(tmp_path_factory.mktemp(request.param), request.param)
    return TorchDecoder(folder, "cpu"), AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return TorchDecoder(decoders.build(tmp_path_factory.mktemp("llama"), "llama"), "cpu")


def nll(decoder, tokens):
    return decoder.nll(tokens[None], np.ones_like(tokens[None]))[0]


def by_windows(model, ids, window):
    """What `Decoder` promises, spelled out: the first token, then windows that overlap by half."""
    found = decoders.plain_nll(model, ids[:window])
    room = window - 1
    first = 1
    while len(found) < len(ids):
        first += room - room // 2
        end = min(first + room, len(ids))
        row = np.append(ids[:1], ids[first:end])
        found = np.append(found, decoders.plain_nll(model, row)[len(found) - first + 1 :])
    return found


def test_greedy_takes_the_most_probable_token_in_batches_of_any_lengths(pair, monkeypatch):
    decoder, model = pair
    monkeypatch.setattr("laconic.backends.decoder._TOGETHER", 120)
    rows = [np.append(decoder.start, TOKENS[k : k + n]) for k, n in ((0, 30), (40, 3), (50, 12), (70, 0), (80, 54))]
    for row, found in zip(rows, decoder.greedy(rows, 9), strict=True):
        expected = row.tolist()
        while len(expected) < len(row) + 9:
            with torch.no_grad():
                best = int(model(torch.tensor([expected])).logits[0, -1].argmax())
            if best == model.config.eos_token_id:
                break
            expected.append(best)
        assert found.tolist() == expected[len(row) :]
    assert decoder.greedy([], 9) == []


def test_nll_is_that_of_all_logits(pair):
    decoder, model = pair
    ids = TOKENS[:60]
    found = nll(decoder, ids)
    assert found.dtype == np.float32 and np.isnan(found[0])
    np.testing.assert_allclose(found, decoders.plain_nll(model, ids), atol=1e-5)
    assert np.std(found[1:]) > 0.2  # the models tell tokens apart


def test_a_batch_gives_what_each_row_alone_gives(pair):
    decoder, _ = pair
    lengths = [1, 37, 0, 200, 2, 64, 65]
    ids, mask = np.zeros((7, 200), np.int64), np.zeros((7, 200), np.int64)
    for k, n in enumerate(lengths):
        ids[k, :n], mask[k, :n] = TOKENS[k : k + n], 1
    together = decoder.nll(ids, mask)
    for row, n in zip(together, lengths, strict=True):
        assert np.isnan(row[n:]).all() and np.isnan(row[:1]).all() and np.isfinite(row[1:n]).all()
    for k, n in enumerate(lengths):
        if n > 1:
            np.testing.assert_allclose(together[k, 1:n], nll(decoder, ids[k, :n])[1:], atol=1e-5)
    np.testing.assert_array_equal(together, decoder.nll(np.where(mask, ids, 33), mask))


def test_a_text_beyond_the_window_is_read_in_windows_that_overlap_by_half(pair):
    decoder, model = pair
    assert decoder.window == decoders.WINDOW
    found = nll(decoder, TOKENS)
    np.testing.assert_allclose(found, by_windows(model, TOKENS, decoders.WINDOW), atol=1e-5)


def test_a_session_in_pieces_is_one_call(pair):
    """Up to the end of the window; where keys are not moved, also beyond it."""
    decoder, _ = pair
    ids = TOKENS[: decoders.WINDOW] if decoder._moves else TOKENS
    session = decoder.session([ids[:1]])
    pieces = [session.read(part) for part in np.split(ids[1:], [1, 1, 30, 62, 63, 64, 180, 300])]
    np.testing.assert_allclose(np.concatenate(pieces, 1)[0], nll(decoder, ids)[1:], atol=1e-4)
    assert 31 <= session.length <= 63


def test_keys_are_moved_where_they_are_rotated(pair):
    decoder, model = pair
    assert decoder._moves is (model.config.model_type != "gpt2")


STEPS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2**20 - 1)), max_size=6)


def some(bits, n):
    return np.array([bits >> k & 1 for k in range(n)], bool)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 60)), max_size=6), st.integers(1, 20))
def test_a_session_cut_back_is_a_fresh_one(decoder, steps, head):
    """After any history within the window."""
    session, body = decoder.session([TOKENS[:head]]), np.zeros(0, np.int64)
    for k, (more, stay) in enumerate(steps):
        part = TOKENS[50 * k : 50 * k + min(more, decoder.window - head - len(body))]
        session.read(part)
        body = np.append(body, part)
        session.keep(np.arange(len(body)) < stay)
        body = body[:stay]
        assert session.length == len(body)
    fresh = decoder.session([TOKENS[:head]])
    fresh.read(body)
    more = TOKENS[300 : 300 + decoder.window - head - len(body)]
    np.testing.assert_allclose(session.read(more), fresh.read(more), atol=1e-4)


@pytest.fixture(scope="module", params=decoders.PLAIN)
def shallow(request, tmp_path_factory):
    """With one layer keys and values know no other tokens."""
    folder = tmp_path_factory.mktemp(request.param)
    return TorchDecoder(decoders.build(folder, request.param, num_hidden_layers=1, max_position_embeddings=200), "cpu")


@settings(max_examples=20, deadline=None)
@given(STEPS, st.integers(1, 20), st.integers(1, 20))
def test_moved_keys_are_those_read_again(shallow, steps, one, other):
    """A session of one layer that forgot any tokens is a fresh one which never read them, after either head."""
    heads = [TOKENS[:one], TOKENS[7 : 7 + other]]
    session, body = shallow.session(heads), np.zeros(0, np.int64)
    for k, (more, bits) in enumerate(steps):
        part = TOKENS[50 * k : 50 * k + more]
        session.read(part)
        session.keep(some(bits, more))
        body = np.append(body, part[some(bits, more)])
    fresh = shallow.session(heads)
    fresh.read(body)
    assert session.length == len(body)
    np.testing.assert_allclose(session.read(TOKENS[300:320]), fresh.read(TOKENS[300:320]), atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(STEPS)
def test_keys_that_cannot_be_moved_are_read_again(still, steps):
    session, body = still.session([TOKENS[:3]]), np.zeros(0, np.int64)
    for k, (more, bits) in enumerate(steps):
        part = TOKENS[50 * k : 50 * k + min(more, 40 - len(body))]
        session.read(part)
        session.keep(some(bits, len(part)))
        body = np.append(body, part[some(bits, len(part))])
    expected = nll(still, np.concatenate([TOKENS[:3], body, TOKENS[300:320]]))[-20:]
    np.testing.assert_allclose(session.read(TOKENS[300:320])[0], expected, atol=1e-4)


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    decoder = TorchDecoder(decoders.build(tmp_path_factory.mktemp("gpt2"), "gpt2"), "cpu")
    assert not decoder._moves
    return decoder


def test_what_stays_is_not_read_again(decoder, monkeypatch):
    read = []
    states = decoder._states
    monkeypatch.setattr(decoder, "_states", lambda ids, *rest: read.append(ids.shape[1]) or states(ids, *rest))
    session = decoder.session([TOKENS[:1]])
    for k in range(5):
        session.read(TOKENS[20 * k : 20 * k + 20])
        session.keep(np.arange(20) % 2 == 1)
    assert read == [20] * 5
    session.read(TOKENS[200:300])  # to the end of the window, and on in the next
    assert sum(read) == 200 and session.length <= 63


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.lists(st.integers(1, 100), max_size=5))
def test_a_session_with_two_heads_is_two_sessions(decoder, one, other, parts):
    """As long as both have room in one window; then both begin the next one where the longer one must."""
    heads = [TOKENS[:one], TOKENS[7 : 7 + other]]
    body = TOKENS[100 : 100 + decoder.window - max(one, other)]
    both, alone = decoder.session(heads), [decoder.session([head]) for head in heads]
    for part in np.split(body, np.minimum(np.cumsum(parts), len(body))):
        expected = [session.read(part)[0] for session in alone]
        np.testing.assert_allclose(both.read(part), expected, atol=1e-4)


def test_of_the_last_tokens_alone_nll_is_the_same(decoder):
    ids = np.tile(TOKENS, (2, 1))
    mask = (np.arange(400) < [[400], [30]]).astype(np.int64)
    found, expected = decoder.nll(ids, mask, last=40), decoder.nll(ids, mask)
    assert np.isnan(found[0, :360]).all() and np.isnan(found[1, 30:]).all()
    np.testing.assert_allclose(found[0, 360:], expected[0, 360:], atol=1e-5)
    np.testing.assert_allclose(found[1, 1:30], expected[1, 1:30], atol=1e-5)


def test_our_attention_is_that_of_transformers(tmp_path, pair):
    """Which is only used in bfloat16; with softcaps, sliding windows, shared keys, and padding on the left."""
    from laconic.backends.decoder import _plain_attention

    _, model = pair
    model.save_pretrained(tmp_path)
    decoder = TorchDecoder(tmp_path, "cpu")
    heads = [TOKENS[:3], TOKENS[:9]]
    expected = nll(decoder, TOKENS)[1:], decoder.session(heads).read(TOKENS[20:60])
    _plain_attention(decoder._model)
    assert decoder._model.config._attn_implementation == "laconic"
    np.testing.assert_allclose(nll(decoder, TOKENS)[1:], expected[0], atol=1e-5)
    np.testing.assert_allclose(decoder.session(heads).read(TOKENS[20:60]), expected[1], atol=1e-5)


def test_the_head_of_a_session_stays_when_the_window_slides(decoder):
    """Tokens far beyond the window still depend on a head of several tokens."""
    values = []
    for head in (TOKENS[:9], TOKENS[20:29]):
        values.append(decoder.session([head]).read(TOKENS[100:300])[0, -50:])
    assert (np.abs(values[0] - values[1]) > 1e-4).all()


def test_logits_of_a_long_text_never_exist_at_once(decoder, monkeypatch):
    sizes = []
    decoder._head.register_forward_hook(lambda module, given, out: sizes.append(out.shape[0]))
    decoder.nll(np.tile(TOKENS, (5, 1)), np.ones((5, 400), np.int64))
    assert max(sizes) <= 256 < sum(sizes)


@pytest.mark.parametrize("kind", ["granite", "bert"])
def test_a_model_that_is_no_plain_decoder_is_refused(tmp_path, kind):
    with pytest.raises(ModelError, match="use a plain decoder such as"):
        TorchDecoder(decoders.build(tmp_path / "m", kind), "cpu")


def test_the_text_begins_with_bos_or_else_with_eos(tmp_path):
    folder = decoders.build(tmp_path / "m", "llama")
    assert TorchDecoder(folder, "cpu").start == 2
    config = folder / "config.json"
    known = json.loads(config.read_text())
    config.write_text(json.dumps(known | {"bos_token_id": None, "eos_token_id": [4, 3]}))
    assert TorchDecoder(folder, "cpu").start == 4
    config.write_text(json.dumps(known | {"bos_token_id": 300_000}))
    with pytest.raises(ModelError, match="neither a bos_token_id nor an eos_token_id below"):
        TorchDecoder(folder, "cpu")


def test_weights_that_are_missing_or_pickled_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = decoders.build(tmp_path / "m", "llama")
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "mlp" not in k}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="lacks weights"):
        TorchDecoder(folder, "cpu")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="a pickle"):
        TorchDecoder(folder, "cpu")


def test_half_precision_on_disk_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    folder = decoders.build(tmp_path / "m", "llama")
    AutoModelForCausalLM.from_pretrained(folder).bfloat16().save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = nll(TorchDecoder(folder, "cpu"), TOKENS[:50])
    np.testing.assert_allclose(found, decoders.plain_nll(model, TOKENS[:50]), atol=1e-5)


def test_sixteen_bits_stay_sixteen_on_a_processor_that_computes_in_them(tmp_path, monkeypatch):
    folder = decoders.build(tmp_path / "m", "llama")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected = decoders.plain_nll(model, TOKENS[:50])
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    for dtype, atol in ((torch.float32, 1e-5), (torch.float16, 0.2), (torch.bfloat16, 0.2)):
        model.to(dtype).save_pretrained(folder)
        found = nll(TorchDecoder(folder, "cpu"), TOKENS[:50])
        np.testing.assert_allclose(found, expected, atol=atol)
        assert (np.abs(found - expected)[1:].max() > 1e-4) is np.bool_(dtype != torch.float32)


def test_tokens_have_offsets_into_the_text_and_no_markers(tmp_path):
    folder = decoders.build(tmp_path / "m", "gpt2")
    model = load_decoder(folder)
    text = "It cost \ud800 [CLS] 3.75 €."
    ids, starts, ends = model.tokens(text)
    assert model.name == "m" and model.decoder.start not in ids  # "[CLS]" in a text is text
    assert starts[0] == 0 and ends[-1] == len(text) and (ends[:-1] >= starts[1:] - 1).all()
    assert [len(a) for a in model.tokens("")] == [0, 0, 0]


@pytest.mark.parametrize("name", ["laconic-small", "xlmr"])
def test_a_classifier_is_no_decoder(tmp_path, name):
    folder = tiny.build_xlmr(tmp_path / "m", families.TEXTS) if name == "xlmr" else name
    with pytest.raises(ModelError, match="needs a causal language model"):
        load_decoder(folder)


def test_a_folder_without_a_fast_tokenizer_is_refused(tmp_path):
    folder = decoders.build(tmp_path / "m", "llama")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="without offsets"):
        load_decoder(folder)


def test_without_torch_the_extra_is_named(monkeypatch, tmp_path):
    folder = decoders.build(tmp_path / "m", "llama")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"laconic\[torch\]"):
        load_decoder(folder)


def test_importing_loads_no_framework():
    code = (
        "import sys, laconic.backends.decoder, laconic.scorers.llmlingua, laconic.scorers.selective\n"
        "heavy = {'torch', 'transformers', 'onnxruntime', 'tokenizers', 'spacy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("cuda", "mps", "device"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_a_gpu_is_taken_where_there_is_one(cuda, mps, device):
    there = SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: cuda),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
    )
    assert best_device(there) == device


@pytest.mark.gpu
def test_the_gpu_gives_what_the_cpu_gives(tmp_path):
    folder = decoders.build(tmp_path / "m", "llama")
    np.testing.assert_allclose(
        nll(TorchDecoder(folder), TOKENS)[1:], nll(TorchDecoder(folder, "cpu"), TOKENS)[1:], atol=1e-3
    )
