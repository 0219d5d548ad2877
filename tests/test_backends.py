"""A row's logits depend on its tokens: not on the batch, the padding or the threads."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import families
from laconic.backends.ort import OrtEncoder
from laconic.errors import InputError, ModelError
from laconic.export import export


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    return export(families.build_bert(folder / "c", families.TEXTS), folder / "out") / "model.int8.onnx"


@pytest.fixture(scope="module")
def per_tensor(model, tmp_path_factory):
    """A graph that quantizes activations over the whole tensor, as `quantize_dynamic` makes them."""
    path = tmp_path_factory.mktemp("dynamic") / "model.onnx"
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "s"], ["logits"]),
    ]
    save_graph(
        path,
        nodes,
        table=random.standard_normal((64, 8)).astype(np.float32) * np.arange(1, 65, dtype=np.float32)[:, None],
        w=random.integers(-100, 100, (8, 2), dtype=np.int8),
    )
    return path


def save_graph(path, nodes, inputs=("input_ids",), **constants):
    values = [helper.make_tensor_value_info(i, TensorProto.INT64, ["b", "t"]) for i in inputs]
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", values, [out], [numpy_helper.from_array(v, k) for k, v in constants.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def batch(rows=5, length=64):
    ids = np.random.default_rng(2).integers(5, 60, (rows, length))
    mask = (np.arange(length) < length - 9 * np.arange(rows)[:, None]).astype(np.int64)
    return ids * mask, mask


@pytest.mark.parametrize("graph", ["model", "per_tensor"])
def test_a_row_alone_and_in_a_batch_gives_the_same_bytes(graph, request):
    encoder = OrtEncoder(request.getfixturevalue(graph))
    ids, mask = batch()
    together = encoder.logits(ids, mask)
    for k, n in enumerate(mask.sum(1)):
        alone = encoder.logits(ids[k : k + 1, :n], mask[k : k + 1, :n])
        assert together[k, :n].tobytes() == alone[0].tobytes()


def test_what_stands_at_padding_is_not_read(model):
    encoder = OrtEncoder(model)
    ids, mask = batch()
    other = np.where(mask == 1, ids, 33)
    assert encoder.logits(ids, mask).tobytes() == encoder.logits(other, mask).tobytes()


def test_the_number_of_threads_does_not_change_a_byte(model):
    ids, mask = batch()
    assert len({OrtEncoder(model, threads=t).logits(ids, mask).tobytes() for t in (1, 2, 5)}) == 1


def test_one_encoder_serves_many_threads(model):
    encoder = OrtEncoder(model, threads=2)
    ids, mask = batch()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: encoder.logits(ids, mask).tobytes(), range(12)))
    assert len(set(results)) == 1


def test_shapes_at_the_edges(model):
    encoder = OrtEncoder(model)
    empty = np.zeros((0, 7), np.int64)
    assert encoder.logits(empty, empty).shape[:2] == (0, 7)
    ids = np.full((2, 7), 6)
    found = encoder.logits(ids, np.zeros_like(ids))  # rows of padding only
    assert found.shape == (2, 7, 2)
    assert found.dtype == np.float32


def test_inputs_are_fed_by_name(tmp_path):
    names = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    nodes = [
        *(helper.make_node("Unsqueeze", [n, "last"], [f"{n}3"]) for n in names),
        helper.make_node("Concat", [f"{n}3" for n in names], ["all"], axis=-1),
        helper.make_node("Cast", ["all"], ["logits"], to=TensorProto.FLOAT),
    ]
    save_graph(tmp_path / "m.onnx", nodes, names, last=np.array([2]))
    found = OrtEncoder(tmp_path / "m.onnx").logits(np.array([[7, 8, 9]]), np.array([[1, 1, 0]]))
    assert found.tolist() == [[[7, 1, 0, 0], [8, 1, 0, 1], [0, 0, 0, 0]]]


@pytest.mark.parametrize("inputs", [("pixels",), ("input_ids", "past_key_values")])
def test_a_graph_with_other_inputs_is_foreign(tmp_path, inputs):
    nodes = [helper.make_node("Cast", [inputs[0]], ["logits"], to=TensorProto.FLOAT)]
    save_graph(tmp_path / "m.onnx", nodes, inputs)
    with pytest.raises(ModelError, match="token classifiers"):
        OrtEncoder(tmp_path / "m.onnx")


def test_a_graph_with_one_answer_a_text_is_foreign(tmp_path):
    nodes = [helper.make_node("Cast", ["input_ids"], ["logits"], to=TensorProto.FLOAT)]
    save_graph(tmp_path / "m.onnx", nodes)
    with pytest.raises(ModelError, match=r"gives \[B, T, C\]"):
        OrtEncoder(tmp_path / "m.onnx").logits(np.ones((1, 3), np.int64), np.ones((1, 3), np.int64))


def test_a_row_longer_than_the_model_is_one_line_of_advice(model, capfd):
    ids = np.full((1, 300), 6)
    with pytest.raises(ModelError, match="300 tokens") as caught:
        OrtEncoder(model).logits(ids, np.ones_like(ids))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_cut_file_is_named(model, tmp_path, capfd):
    cut = tmp_path / "m.onnx"
    cut.write_bytes(model.read_bytes()[:3000])
    with pytest.raises(ModelError, match="cut short"):
        OrtEncoder(cut)
    with pytest.raises(ModelError, match=r"none\.onnx"):
        OrtEncoder(tmp_path / "none.onnx")
    assert capfd.readouterr() == ("", "")


def test_threads_below_one_are_refused(model):
    with pytest.raises(InputError, match="at least 1"):
        OrtEncoder(model, threads=0)


def test_importing_loads_no_runtime():
    code = (
        "import sys, laconic, laconic.hub, laconic.export, laconic.backends.ort\n"
        "heavy = {'torch', 'transformers', 'onnx', 'onnxruntime', 'tokenizers', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
