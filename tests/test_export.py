"""A checkpoint becomes a folder that says the same, whatever the family; what cannot is refused with advice."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoModelForTokenClassification

import families
from laconic.backends.ort import OrtEncoder
from laconic.errors import MissingExtraError, ModelError
from laconic.export import export, quantize
from laconic.hub import Manifest, sha256

KEEP = {"xlmr": 1, "mbert": 1, "bert": 1, "mobilebert": 1, "modernbert": 0}
WINDOW = {"xlmr": 512, "mbert": 512, "bert": 192, "mobilebert": 512, "modernbert": 512}


@pytest.fixture(scope="module", params=families.BUILDERS)
def family(request, tmp_path_factory):
    """Name, checkpoint, its fp32 and int8 exports."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = families.BUILDERS[request.param](folder / "checkpoint", families.TEXTS)
    return request.param, checkpoint, export(checkpoint, folder / "fp32", int8=False), export(checkpoint, folder / "q")


def batch(rows: int = 3, length: int = 100):
    """Ids and mask whose rows end at different places."""
    ids = np.random.default_rng(1).integers(5, 60, (rows, length))
    mask = (np.arange(length) < length - 17 * np.arange(rows)[:, None]).astype(np.int64)
    return ids * mask, mask


def from_torch(folder: Path, ids, mask):
    """Each row alone, without its padding."""
    model = AutoModelForTokenClassification.from_pretrained(folder, attn_implementation="eager").eval()
    out = np.zeros((*ids.shape, 2), np.float32)
    with torch.no_grad():
        for k, n in enumerate(mask.sum(1)):
            out[k, :n] = model(torch.from_numpy(ids[k : k + 1, :n])).logits.numpy()
    return out


def keep(logits):
    return 1 / (1 + np.exp(logits[..., 0] - logits[..., 1]))


def test_fp32_says_what_torch_says(family):
    _, checkpoint, fp32, _ = family
    ids, mask = batch()
    found, expected = OrtEncoder(fp32 / "model.onnx").logits(ids, mask), from_torch(checkpoint, ids, mask)
    assert np.abs(found - expected)[mask == 1].max() < 1e-4


def test_int8_says_nearly_what_torch_says(family):
    _, checkpoint, _, int8 = family
    ids, mask = batch()
    found, expected = OrtEncoder(int8 / "model.int8.onnx").logits(ids, mask), from_torch(checkpoint, ids, mask)
    assert np.abs(keep(found) - keep(expected))[mask == 1].mean() < 0.03  # random weights are the worst case


def test_int8_graph_itself_does_not_mix_rows(family):
    """Not only the encoder, which runs rows alone: any runtime may batch this graph."""
    import onnxruntime

    if family[0] == "mobilebert":
        pytest.skip(
            "its embeddings look at the next token, also where that is padding: why the encoder runs rows alone"
        )
    session = onnxruntime.InferenceSession(str(family[3] / "model.int8.onnx"))
    ids, mask = batch()
    together = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    for k in range(len(ids)):
        n = int(mask[k].sum())
        alone = session.run(None, {"input_ids": ids[k : k + 1, :n], "attention_mask": mask[k : k + 1, :n]})[0]
        assert np.abs(together[k, :n] - alone[0]).max() < 0.1  # a rounding may fall the other way, no more
        assert np.median(np.abs(together[k, :n] - alone[0])) < 1e-4


def test_manifest_says_what_the_config_said(family):
    name, _, _, int8 = family
    manifest = Manifest.read(int8)
    assert (manifest.keep_label, manifest.window) == (KEEP[name], WINDOW[name])
    assert manifest.files == {n: sha256(int8 / n) for n in ("config.json", "model.int8.onnx", "tokenizer.json")}
    assert sorted(p.name for p in int8.iterdir()) == [
        "config.json",
        "laconic.json",
        "model.int8.onnx",
        "tokenizer.json",
    ]


def test_int8_is_smaller(family):
    _, _, fp32, int8 = family
    assert (int8 / "model.int8.onnx").stat().st_size < (fp32 / "model.onnx").stat().st_size


def test_a_constant_used_twice_is_quantized_once_and_kept_where_it_is_still_needed():
    values = np.random.default_rng(0).standard_normal((256, 32)).astype(np.float32)
    make = onnx.helper.make_node
    nodes = [
        make("Gather", ["w", "input_ids"], ["x"]),
        make("Gather", ["w", "input_ids"], ["y"]),
        make("Transpose", ["w"], ["t"], perm=[1, 0]),
        make("Add", ["x", "y"], ["z"]),
        make("MatMul", ["z", "t"], ["logits"]),
    ]
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(nodes, "g", [info("input_ids", 7, ["b", "t"])], [info("logits", 1, ["b", "t", 256])])
    graph.initializer.append(onnx.numpy_helper.from_array(values, "w"))
    result = quantize(onnx.helper.make_model(graph))
    onnx.checker.check_model(result)
    names = [t.name for t in result.graph.initializer]
    assert len(names) == len(set(names))
    assert "w" in names


def test_sharded_weights_are_read(tmp_path):
    checkpoint = families.build_bert(tmp_path / "c", families.TEXTS)
    model = AutoModelForTokenClassification.from_pretrained(checkpoint)
    (checkpoint / "model.safetensors").unlink()
    model.save_pretrained(checkpoint, max_shard_size="30KB")
    assert len(list(checkpoint.glob("*.safetensors"))) > 1
    assert Manifest.read(export(checkpoint, tmp_path / "out")).model == "model.int8.onnx"


@pytest.fixture
def checkpoint(tmp_path):
    return families.build_bert(tmp_path / "checkpoint", families.TEXTS)


def test_export_is_reproducible_and_prints_nothing(checkpoint, tmp_path, capfd):
    capfd.readouterr()  # what building printed
    first, second = (Manifest.read(export(checkpoint, tmp_path / name)) for name in ("a", "b"))
    assert first == second
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_pickles_are_refused(checkpoint, tmp_path, name):
    (checkpoint / "model.safetensors").rename(checkpoint / name)
    with pytest.raises(ModelError, match="convert it to safetensors"):
        export(checkpoint, tmp_path / "out")


def test_missing_weights_are_named(checkpoint, tmp_path):
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no weights"):
        export(checkpoint, tmp_path / "out")


def test_cut_weights_are_named(checkpoint, tmp_path):
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ModelError, match="cannot be read as a checkpoint"):
        export(checkpoint, tmp_path / "out")


def test_an_untrained_head_is_refused(checkpoint, tmp_path):
    from transformers import BertModel

    BertModel.from_pretrained(checkpoint).save_pretrained(checkpoint)
    families.edit_json(checkpoint / "config.json", architectures=["BertForTokenClassification"])
    with pytest.raises(ModelError, match="not a trained token classifier"):
        export(checkpoint, tmp_path / "out")


def test_a_tokenizer_that_cannot_be_fast_is_refused(checkpoint, tmp_path):
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="tokenizer without offsets"):
        export(checkpoint, tmp_path / "out")


def test_a_vocabulary_becomes_a_fast_tokenizer(checkpoint, tmp_path):
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "pier", "##s"]
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    families.edit_json(checkpoint / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    from tokenizers import Tokenizer

    out = export(checkpoint, tmp_path / "out")
    assert Tokenizer.from_file(str(out / "tokenizer.json")).encode("the piers").ids == [2, 5, 6, 7, 3]


def test_code_in_the_folder_is_not_run(checkpoint, tmp_path):
    (checkpoint / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8")
    families.edit_json(
        checkpoint / "config.json",
        model_type="evil",
        auto_map={"AutoConfig": "evil.C", "AutoModelForTokenClassification": "evil.M"},
    )
    with pytest.raises(ModelError):
        export(checkpoint, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("module", ["torch", "transformers", "onnx"])
def test_without_torch_the_extra_is_named(checkpoint, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"laconic\[torch\]"):
        export(checkpoint, tmp_path / "out")


def test_a_failed_export_leaves_an_earlier_one_alone(checkpoint, tmp_path):
    out = export(checkpoint, tmp_path / "out")
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    shutil.copy(checkpoint / "config.json", checkpoint / "tokenizer.json")
    (checkpoint / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError):
        export(checkpoint, out)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
