"""Hugging Face token-classification checkpoints as model folders: ONNX (fp32 or int8), tokenizer, manifest.

The int8 form quantizes the weights per output column and the activations per token, while it runs:

    y = (round(x / a) · round(W / b)) · a · b        a: float32[B, T, 1] = max |x| / 127;  b: float32[N]

One scale for each token rather than one for the tensor (ONNX Runtime's `quantize_dynamic`) halves the error, and a
token does not depend on the padding or the rows beside it; there is nothing to calibrate. Numbers: bench/int8.py.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from laconic.backends import Ids, Logits, first_line
from laconic.backends.ort import session
from laconic.errors import MissingExtraError, ModelError
from laconic.hub import Manifest, sha256

if TYPE_CHECKING:
    import onnx

_ONE_AT_A_TIME = threading.Lock()  # torch's exporter keeps global state, and `quiet` changes some
_OPSET = 17
_TOLERANCE = 1e-4
# Products of unsigned 8-bit and signed 8-bit numbers are added in pairs in 16 bits on x86 without VNNI: 255 · 64 · 2 is
# the most that fits, so weights have 7 bits and every CPU finds the same sums.
_WEIGHT_MAX = 64
_SMALL = 16  # matrices with fewer rows or columns (the classifier) stay float
_TABLE = 128  # embedding tables with at least so many rows become int8
_LARGEST_FILE = 2**31 - 2**20  # protobuf's limit, and room for the graph


def export(folder: str | os.PathLike[str], out: str | os.PathLike[str], *, int8: bool = True) -> Path:
    """Write a checkpoint (config.json, *.safetensors, tokenizer) to the folder `out` as a model; returns `out`.

    `out` gets model.int8.onnx (`int8=False`: model.onnx), tokenizer.json, config.json and laconic.json. Pickled weights
    are refused and no code from the folder is run. The graph is compared with PyTorch on a padded batch before anything
    is written.
    """
    source, target = Path(folder), Path(out)
    manifest = Manifest.of_config(source)
    check_weights(source)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".export-") as scratch:
        graph, done = Path(scratch, "graph", "model.onnx"), Path(scratch, "done")
        graph.parent.mkdir()
        done.mkdir()
        _write_graph(source, graph)
        name = "model.int8.onnx" if int8 else "model.onnx"
        _save(quantize(_load(graph)) if int8 else _load(graph), done / name)
        write_tokenizer(source, done / "tokenizer.json")
        shutil.copyfile(source / "config.json", done / "config.json")
        files = {p.name: sha256(p) for p in sorted(done.iterdir())}
        for file in files:
            os.replace(done / file, target / file)
        manifest.replace(model=name, files=files, row_threads=1 if int8 else 2).write(target)
    return target


def check_weights(folder: Path) -> None:
    """Refuse a checkpoint without *.safetensors, pickled ones by name."""
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(p.name for end in ("bin", "pt", "pth", "pkl", "ckpt") for p in folder.glob(f"*.{end}"))
    if pickles:
        raise ModelError(
            f"{folder} holds its weights as {pickles[0]}, a pickle, which can run code when it is read; convert it to "
            "safetensors (model.save_pretrained(folder) in transformers, where you trust the file)"
        )
    raise ModelError(f"{folder} has no weights: neither *.onnx nor *.safetensors; was the download cut short?")


def _write_graph(folder: Path, path: Path) -> None:
    """The checkpoint as an fp32 graph, traced, then compared with PyTorch on a longer padded batch."""
    torch = _torch()
    manifest = Manifest.of_config(folder)
    with _ONE_AT_A_TIME, quiet():
        model = _read_checkpoint(folder)
        names, axes = ["input_ids", "attention_mask"], {0: "batch", 1: "sequence"}
        names += ["token_type_ids"] if manifest.features else []
        torch.onnx.export(
            model,
            _probe(model, rows=2, length=8)[: len(names)],
            str(path),
            input_names=names,
            output_names=["logits"],
            dynamic_axes=dict.fromkeys([*names, "logits"], axes),
            opset_version=_OPSET,
            dynamo=False,  # the newer exporter needs onnxscript
        )
        # longer than the local attention of ModernBERT
        given = _probe(model, rows=3, length=min(160, manifest.window))[: len(names)]
        with torch.no_grad():
            expected = model(*given).logits.numpy()
    _compare(path, dict(zip(names, (g.numpy() for g in given), strict=True)), expected)


def _torch() -> Any:
    try:
        import onnx  # noqa: F401
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Converting a Hugging Face checkpoint", "torch") from error
    return torch


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no warnings: the tracer's are about branches that the comparison covers, the exporter's and
    transformers' about their own future."""
    import transformers.utils.logging

    logging: Any = transformers.utils.logging  # untyped
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _read_checkpoint(folder: Path) -> Any:
    """The torch module in float32; every weight must come from the checkpoint."""
    import torch
    from transformers import AutoModelForTokenClassification

    try:
        model, info = AutoModelForTokenClassification.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="eager",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,  # unset, transformers asks on the terminal
            output_loading_info=True,
        )
        own = _read_head(model, folder)
    except Exception as error:  # a bad folder provokes errors of five libraries
        raise ModelError(f"{folder} cannot be read as a checkpoint ({first_line(error)}); fetch it again") from error
    lost = sorted(set(info["missing_keys"]) - own)
    if lost:
        raise ModelError(f"{folder} lacks weights ({', '.join(lost[:3])}): it is not a trained token classifier")
    return model.eval()


def deep_head(width: int, hidden: int) -> Any:
    """The head of a PCRL policy, over states of this width: one hidden layer, two classes."""
    import torch

    layers = torch.nn.Linear(width, hidden, bias=False), torch.nn.GELU(), torch.nn.Linear(hidden, 2)
    return torch.nn.Sequential(*layers)


def _read_head(model: Any, folder: Path) -> set[str]:
    """Give the model the head with a hidden layer that its configuration names; the names of the weights it replaces.

    transformers knows no such head: it leaves its weights in the file.
    """
    from safetensors import safe_open

    hidden = (getattr(model.config, "laconic", None) or {}).get("hidden")
    if not hidden:
        return set()
    replaced = {f"classifier.{name}" for name, _ in model.classifier.named_parameters()}
    model.classifier = deep_head(model.classifier.in_features, hidden)
    weights: dict[str, Any] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            names = [n for n in sorted(file.keys()) if n.startswith("classifier.")]
            weights |= {n.removeprefix("classifier."): file.get_tensor(n).float() for n in names}
    model.classifier.load_state_dict(weights)
    return replaced


def _probe(model: Any, rows: int, length: int) -> tuple[Any, Any, Any]:
    """Ids, mask and token types, int64[rows, length]; the rows differ in padding."""
    import torch

    random = np.random.default_rng(0)
    ids = random.integers(5, model.config.vocab_size, (rows, length))
    mask = np.arange(length) < length - np.arange(rows)[:, None] * length // (2 * rows)
    pad = model.config.pad_token_id or 0
    types = random.integers(0, getattr(model.config, "type_vocab_size", 1) or 1, (rows, length))
    return torch.from_numpy(np.where(mask, ids, pad)), torch.from_numpy(mask.astype(np.int64)), torch.from_numpy(types)


def _compare(path: Path, given: dict[str, Ids], expected: Logits) -> None:
    found = session(path).run(["logits"], given)[0]
    worst = float(np.abs(found - expected)[given["attention_mask"] == 1].max())
    if not worst <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ModelError(
            f"the exported graph differs from PyTorch by {worst:.2g} (at most {_TOLERANCE} is allowed); this "
            "architecture cannot be traced: please report it with its config.json"
        )


def write_tokenizer(folder: Path, path: Path) -> None:
    """The checkpoint's tokenizer as one tokenizer.json, made with transformers where the folder has none."""
    if (folder / "tokenizer.json").exists():
        shutil.copyfile(folder / "tokenizer.json", path)
        return
    _torch()
    from transformers import AutoTokenizer

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer.backend_tokenizer.save(str(path))
    except Exception as error:  # also AttributeError: a slow tokenizer has no backend
        raise ModelError(
            f"{folder} has a tokenizer without offsets: no tokenizer.json, and none can be made from its files "
            f"({first_line(error)}); add the tokenizer.json of the model it was trained from"
        ) from error


def _load(path: Path) -> onnx.ModelProto:
    import onnx

    return onnx.load(str(path))


def _save(model: onnx.ModelProto, path: Path) -> None:
    """One file; where that would be more than protobuf can hold, the weights stand beside it in NAME.data."""
    import onnx

    large = sum(len(t.raw_data) for t in model.graph.initializer) > _LARGEST_FILE
    onnx.save(model, str(path), save_as_external_data=large, location=f"{path.name}.data")


def quantize(model: onnx.ModelProto) -> onnx.ModelProto:
    """The int8 form of an fp32 graph of any architecture: its embedding tables and its products with constants."""
    from onnx import ModelProto, helper

    rewrite = _Rewrite({t.name: t for t in model.graph.initializer})
    for node in model.graph.node:
        rewrite.node(node)
    graph = helper.make_graph(rewrite.nodes, model.graph.name, model.graph.input, model.graph.output)
    graph.initializer.extend(rewrite.constants())
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
    result: ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)
    return result


class _Rewrite:
    """Copies nodes, replacing those with large constants; a tensor or matrix that is used twice is quantized once."""

    def __init__(self, given: dict[str, onnx.TensorProto]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._given = given
        self._new: dict[str, onnx.TensorProto] = {}
        self._quantized: set[str] = set()
        least = 1e-9  # a token of zeros must not divide by zero
        for name, value in {"one": 1, "step": 1 / 127, "least": least}.items():
            self._constant(f"laconic.{name}", np.asarray(value, np.float32))
        self._constant("laconic.zero", np.asarray(128, np.uint8))

    def constants(self) -> list[onnx.TensorProto]:
        """What the nodes refer to: new ones, and the given ones but for those that only their int8 form is left of."""
        used = {name for node in self.nodes for name in node.input}
        return [t for name, t in self._given.items() if name in used or name not in self._quantized] + [
            *self._new.values()
        ]

    def node(self, node: onnx.NodeProto) -> None:
        shape = {name: tuple(self._given[name].dims) for name in node.input if name in self._given}
        table = shape.get(node.input[0], ()) if node.op_type == "Gather" else ()
        matrix = shape.get(node.input[1], ()) if node.op_type == "MatMul" else ()
        if len(table) == 2 and table[0] >= _TABLE:
            self._lookup(node)
        elif len(matrix) == 2 and min(matrix) >= _SMALL:
            self._product(node)
        else:
            self.nodes.append(node)

    def _lookup(self, node: onnx.NodeProto) -> None:
        """Rows of an int8 table times the scales of the rows."""
        table, scale = self._integers(node.input[0], axis=1, largest=127)
        out = node.output[0]
        self._add("Gather", [table, node.input[1]], f"{out}.int8")
        self._add("Gather", [scale, node.input[1]], f"{out}.scale")
        self._add("Cast", [f"{out}.int8"], f"{out}.float", to=1)
        self._add("Mul", [f"{out}.float", f"{out}.scale"], out)

    def _product(self, node: onnx.NodeProto) -> None:
        x, out = node.input[0], node.output[0]
        weight, scale = self._integers(node.input[1], axis=0, largest=_WEIGHT_MAX)
        self._activations(x)
        inputs = [f"{x}.uint8", weight, "laconic.one", scale, "laconic.zero"]
        self._add("MatMulIntegerToFloat", inputs, f"{out}.unscaled", domain="com.microsoft")
        self._add("Mul", [f"{out}.unscaled", f"{x}.scale"], out)

    def _activations(self, x: str) -> None:
        """x float[B, T, K] to uint8[B, T, K] around 128, and its scale float[B, T, 1]."""
        if any(f"{x}.uint8" in node.output for node in self.nodes):
            return
        self._add("Abs", [x], f"{x}.abs")
        self._add("ReduceMax", [f"{x}.abs"], f"{x}.max", axes=[-1], keepdims=1)
        self._add("Mul", [f"{x}.max", "laconic.step"], f"{x}.maxstep")
        self._add("Max", [f"{x}.maxstep", "laconic.least"], f"{x}.scale")
        self._add("Reciprocal", [f"{x}.scale"], f"{x}.inverse")
        self._add("Mul", [x, f"{x}.inverse"], f"{x}.scaled")
        self._add("QuantizeLinear", [f"{x}.scaled", "laconic.one", "laconic.zero"], f"{x}.uint8")

    def _integers(self, name: str, axis: int, largest: int) -> tuple[str, str]:
        """The names of a constant's int8 form and of its scales, found along `axis` (a table's scales keep it)."""
        from onnx import numpy_helper

        integers, scales = f"{name}.int8.{axis}", f"{name}.scale.{axis}"
        if integers not in self._new:
            self._quantized.add(name)
            values = numpy_helper.to_array(self._given[name])
            scale = np.abs(values).max(axis, keepdims=True) / np.float32(largest)
            scale[scale == 0] = 1
            self._constant(integers, np.rint(values / scale).astype(np.int8))
            self._constant(scales, scale if axis else scale[0])
        return integers, scales

    def _constant(self, name: str, value: npt.NDArray[Any]) -> None:
        from onnx import numpy_helper

        self._new[name] = numpy_helper.from_array(value, name)

    def _add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
