"""Which int8 form of a small BERT is fastest in ONNX Runtime on this CPU, and what does it cost in accuracy?

    pip install "laconic[torch]"
    python bench/int8.py CHECKPOINT TEXT.jsonl [--only rows] [--repeat 7] [--threads]

CHECKPOINT is a Hugging Face BERT token classifier, TEXT.jsonl has real text under "text". Prints Markdown tables.
Speed is tokens per second of CPU time on one core (the best of --repeat interleaved rounds), so other programs disturb
it little; --threads adds wall-clock rows for ways to use all cores, which want a quiet machine.

`fp32` is the plain export, `fused` has onnxruntime.transformers' fusions (Attention, SkipLayerNormalization, BiasGelu),
`dynamic` is quantize_dynamic per channel, `static` has activation scales calibrated over the text, `nbits` is
MatMulNBits with int8 arithmetic (accuracy_level 4), `rows` is what `laconic export` writes: laconic.export.quantize.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers import optimizer
from tokenizers import Tokenizer

from laconic import export
from laconic.backends import ort as backend

MICROSOFT = "com.microsoft"
WIDTHS = (128, 192, 256)
BATCHES = (1, 8)


def variants(checkpoint: Path, folder: Path, calibration: np.ndarray) -> dict[str, tuple[Path, bool]]:
    """Name to graph file, and whether to load it with the fusions that laconic switches off."""
    config = json.loads((checkpoint / "config.json").read_text())
    plain = export.export(checkpoint, folder / "fp32", int8=False) / "model.onnx"
    fused = folder / "fused.onnx"
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    optimizer.optimize_model(str(plain), "bert", heads, hidden, opt_level=0).save_model_to_file(str(fused))
    found = {"fp32": (plain, True), "fp32, two fusions off": (plain, False), "fused": (fused, True)}
    for name, source, kind, channels, fusions in [
        ("dynamic s8", plain, QuantType.QInt8, True, True),
        ("dynamic s8, two fusions off", plain, QuantType.QInt8, True, False),
        ("dynamic s8, per tensor", plain, QuantType.QInt8, False, True),
        ("dynamic s8 of fused", fused, QuantType.QInt8, True, True),
        ("dynamic u8 of fused", fused, QuantType.QUInt8, True, True),
    ]:
        path = folder / f"{name}.onnx"
        options = {"DefaultTensorType": onnx.TensorProto.FLOAT}
        quantize_dynamic(
            source, path, per_channel=channels, reduce_range=False, weight_type=kind, extra_options=options
        )
        found[name] = (path, fusions)
    made: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
        "static u8": lambda m: products(m, static(m, calibration)),
        **{f"nbits {b} block {k}": lambda m, b=b, k=k: products(m, nbits(b, k)) for b, k in NBITS},
        "rows, 8-bit weights": lambda m: rows(m, 127),
        "rows, 7-bit weights": lambda m: rows(m, 64),
    }
    for name, make in made.items():
        path = folder / f"{name}.onnx"
        onnx.save(make(onnx.load(str(plain))), str(path))
        found[name] = (path, False)
    return found


NBITS = [(8, 32), (8, 64), (8, 128), (4, 32), (4, 128)]


def rows(model: onnx.ModelProto, largest: int) -> onnx.ModelProto:
    """Activations per token, weights in -largest..largest."""
    before, export._WEIGHT_MAX = export._WEIGHT_MAX, largest
    try:
        return export.quantize(model)
    finally:
        export._WEIGHT_MAX = before


Product = Callable[[onnx.NodeProto, np.ndarray], tuple[list[onnx.NodeProto], dict[str, np.ndarray]]]


def products(model: onnx.ModelProto, make: Product) -> onnx.ModelProto:
    """The graph with int8 embedding tables and another form of each product with a constant matrix."""
    given = {t.name: t for t in model.graph.initializer}
    held = {n.output[0]: n for n in large_products(model)}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.output[0] not in held:
            nodes.append(node)
            continue
        new, constants = make(node, numpy_helper.to_array(given[node.input[1]]))
        known = {o for n in nodes for o in n.output}
        nodes += [n for n in new if n.output[0] not in known]
        model.graph.initializer.remove(given[node.input[1]])
        model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    kept = {t.name: t for t in model.graph.initializer}
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept.values())
    return export.quantize(model)  # what is left for it are the tables


def large_products(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    given = {t.name: tuple(t.dims) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMul" and min(given.get(node.input[1], (0,))) >= export._SMALL:
            yield node


def static(model: onnx.ModelProto, calibration: np.ndarray) -> Product:
    """Activations with one calibrated scale a tensor."""
    names = sorted({n.input[0] for n in large_products(model)})
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    session = ort.InferenceSession(probe.SerializeToString())
    values = [session.run(names, feed(row[None])) for row in calibration]
    low = {n: min(float(v[k].min()) for v in values) for k, n in enumerate(names)}
    high = {n: max(float(v[k].max()) for v in values) for k, n in enumerate(names)}

    def make(node: onnx.NodeProto, weight: np.ndarray) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
        x, w = node.input
        step = np.float32((high[x] - low[x]) / 255)
        scale = np.abs(weight).max(0) / np.float32(127)
        constants = {f"{x}.step": step, f"{x}.zero": np.uint8(round(-low[x] / step))}
        constants |= {f"{w}.int8": np.rint(weight / scale).astype(np.int8), f"{w}.scale": scale}
        inputs = [f"{x}.uint8", f"{w}.int8", f"{x}.step", f"{w}.scale", f"{x}.zero"]
        return [
            helper.make_node("QuantizeLinear", [x, f"{x}.step", f"{x}.zero"], [f"{x}.uint8"]),
            helper.make_node("MatMulIntegerToFloat", inputs, node.output, domain=MICROSOFT),
        ], {k: np.asarray(v) for k, v in constants.items()}

    return make


def nbits(bits: int, block: int) -> Product:
    """Weights in blocks of `block` rows of a column, one scale each; ONNX Runtime quantizes activations by block."""

    def make(node: onnx.NodeProto, weight: np.ndarray) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
        x, w = node.input
        depth, columns = weight.shape
        blocks = np.pad(weight.T, [(0, 0), (0, -depth % block)]).reshape(columns, -1, block)
        half = 1 << (bits - 1)
        scale = np.abs(blocks).max(2, keepdims=True) / np.float32(half - 1)
        scale[scale == 0] = 1
        codes = (np.rint(blocks / scale) + half).astype(np.uint8)
        packed = codes if bits == 8 else codes[..., 0::2] | (codes[..., 1::2] << 4)
        sizes = {"K": depth, "N": columns, "bits": bits, "block_size": block, "accuracy_level": 4}
        inputs = [x, f"{w}.packed", f"{w}.scale"]
        new = helper.make_node("MatMulNBits", inputs, node.output, domain=MICROSOFT, **sizes)
        return [new], {f"{w}.packed": packed, f"{w}.scale": scale.reshape(-1)}

    return make


def load(path: Path, fusions: bool, threads: int = 1, spin: bool = False) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    return ort.InferenceSession(str(path), options, disabled_optimizers=[] if fusions else backend._SLOW_FUSIONS)


def feed(ids: np.ndarray) -> dict[str, np.ndarray]:
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def windows(checkpoint: Path, text: Path, width: int) -> np.ndarray:
    """The text in windows of `width` tokens, [CLS] and [SEP] included: int64[n, width]."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = [json.loads(line)["text"] for line in text.open(encoding="utf-8")]
    first, last = tokenizer.encode("").ids
    ids = np.concatenate([e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)])
    inner = ids[: len(ids) // (width - 2) * (width - 2)].reshape(-1, width - 2)
    return np.pad(inner, [(0, 0), (1, 1)], constant_values=((0, 0), (first, last))).astype(np.int64)


def keep(session: ort.InferenceSession, ids: np.ndarray) -> np.ndarray:
    """P(class 1) of every token, rows run alone: float32[n, T]."""
    logits = np.concatenate([session.run(None, feed(row[None]))[0] for row in ids])
    return 1 / (1 + np.exp(logits[..., 0] - logits[..., 1]))


def accuracy(session: ort.InferenceSession, ids: np.ndarray, truth: np.ndarray) -> list[str]:
    """Error of P(keep) against fp32, decisions that change at 0.5, and how much a batch changes its first row."""
    p = keep(session, ids)
    alone, together = (session.run(None, feed(ids[:n]))[0][0] for n in (1, 8))
    error, flips, batch = np.abs(p - truth), ((p > 0.5) != (truth > 0.5)).mean(), np.abs(alone - together).max()
    return [f"{error.max():.3f}", f"{error.mean():.4f}", f"{flips:.1%}", f"{batch:.2g}"]


def speed(sessions: dict[str, ort.InferenceSession], ids: dict[int, np.ndarray], repeat: int) -> dict[Any, float]:
    """Tokens per second of CPU time, by name, batch and width; rounds are interleaved, the best counts."""
    best: dict[Any, float] = defaultdict(float)
    for _ in range(repeat):
        for name, session in sessions.items():
            for width, rows in ids.items():
                for batch in BATCHES:
                    began = time.process_time()
                    for start in range(0, 8, batch):
                        session.run(None, feed(rows[start : start + batch]))
                    key = name, batch, width
                    best[key] = max(best[key], 8 * width / (time.process_time() - began))
    return best


def threading(path: Path, ids: dict[int, np.ndarray], repeat: int) -> Iterator[list[str]]:
    """Wall-clock tokens per second of ways to use all cores."""
    cores = os.cpu_count() or 1
    pool = ThreadPoolExecutor(cores)
    one = load(path, fusions=False)
    ways: dict[str, tuple[ort.InferenceSession, Callable[..., Any]]] = {
        f"1 session, {cores} threads in it, spinning": (load(path, False, cores, spin=True), map),
        f"1 session, {cores} threads in it": (load(path, False, cores), map),
        f"{cores} Python threads, 1 in the session": (one, pool.map),
    }
    best: dict[Any, float] = defaultdict(float)
    for _ in range(repeat):
        for name, (session, spread) in ways.items():
            for width, rows in ids.items():
                for batch in BATCHES:
                    parts = [feed(rows[s : s + batch]) for s in range(0, len(rows), batch)]
                    began = time.perf_counter()
                    list(spread(lambda part, session=session: session.run(None, part), parts))
                    key = name, batch, width
                    best[key] = max(best[key], rows.size / (time.perf_counter() - began))
    for name in ways:
        yield [name, *(f"{best[name, b, w]:,.0f}" for b in BATCHES for w in ids)]


def table(head: list[str], lines: list[list[str]]) -> None:
    for line in [head, ["---"] * len(head), *lines]:
        print("| " + " | ".join(line) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--only", default="", help="variants whose name contains this (fp32 is always there)")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--threads", action="store_true", help="compare ways to use all cores, with the form we ship")
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # the quantizer's advice about pre-processing
    ids = {w: windows(args.checkpoint, args.text, w) for w in WIDTHS}
    test = ids[192][:24]
    columns = [f"{b}×{w}" for b in BATCHES for w in WIDTHS]
    with tempfile.TemporaryDirectory() as folder:
        found = variants(args.checkpoint, Path(folder), ids[192][-16:])
        found = {n: v for n, v in found.items() if n == "fp32" or args.only in n}
        sessions = {n: load(*v) for n, v in found.items()}
        truth = keep(sessions["fp32"], test)
        fast = speed(sessions, {w: r[:8] for w, r in ids.items()}, args.repeat)
        lines = []
        for name, session in sessions.items():
            size = f"{found[name][0].stat().st_size / 1e6:.1f}"
            speeds = [f"{fast[name, b, w]:,.0f}" for b in BATCHES for w in WIDTHS]
            lines.append([name, size, *speeds, *accuracy(session, test, truth)])
        table(["form", "MB", *columns, "max Δp", "mean Δp", "flips", "batch Δ"], lines)
        if args.threads:
            print()
            many = {w: r[:32] for w, r in ids.items()}
            table(["all cores", *columns], list(threading(found["rows, 7-bit weights"][0], many, args.repeat)))


if __name__ == "__main__":
    main()
