"""Token classifiers in ONNX Runtime, on the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from laconic.backends import Ids, Logits, first_line
from laconic.errors import InputError, ModelError

# What a graph may ask for; each is made from ids, mask and token types, int64[1, T].
_FEEDS: dict[str, Callable[[Ids, Ids, Ids], Ids]] = {
    "input_ids": lambda ids, mask, types: ids,
    "attention_mask": lambda ids, mask, types: mask,
    "token_type_ids": lambda ids, mask, types: types,
    "position_ids": lambda ids, mask, types: np.arange(ids.shape[1], dtype=np.int64)[None],
}

# On CPU both fused kernels are slower than what they replace: bench/int8.py.
_SLOW_FUSIONS = ["SkipLayerNormFusion", "BiasGeluFusion"]


class OrtEncoder:
    """An ONNX graph as an `Encoder`; `logits` may be called from many threads.

    Every row runs alone, without its padding, and `threads` rows run at a time. So a row's logits depend on nothing
    else by construction, also where a graph quantizes activations over a whole tensor or looks at neighbours
    in the padding (MobileBERT); memory does not grow with the batch; and it is faster than sharing each multiplication
    between the cores (bench/int8.py).
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None, row_threads: int = 1) -> None:
        """`threads`: rows at a time (default: the CPUs this process may use); `row_threads`: threads inside a row."""
        if threads is not None and threads < 1:
            raise InputError(f"threads must be at least 1, got {threads}")
        self.path = Path(path)
        self._session = session(self.path, min(row_threads, _cpus()))
        self._inputs = [i.name for i in self._session.get_inputs()]
        outputs = [o.name for o in self._session.get_outputs()]
        self._output = "logits" if "logits" in outputs else outputs[0]
        if "input_ids" not in self._inputs or not set(self._inputs) <= set(_FEEDS):
            raise ModelError(
                f"{self.path} asks for the inputs {self._inputs}; laconic runs token classifiers, whose inputs are "
                f"input_ids and at most {sorted(set(_FEEDS) - {'input_ids'})}"
            )
        self._pool = ThreadPoolExecutor(threads or _cpus(), thread_name_prefix="laconic")

    def logits(self, ids: Ids, mask: Ids, types: Ids | None = None) -> Logits:
        """float32[B, T, C], zero at trailing padding."""
        given = (ids, mask, np.zeros_like(ids) if types is None else types)
        rows = self._pool.map(self._row, *given) if len(ids) > 1 else map(self._row, *given)
        out: Logits | None = None
        for k, row in enumerate(rows):
            if out is None:
                out = np.zeros((*ids.shape, row.shape[-1]), np.float32)
            out[k, : len(row)] = row
        return out if out is not None else np.zeros((*ids.shape, 0), np.float32)

    def _row(self, ids: Ids, mask: Ids, types: Ids) -> Logits:
        real = np.flatnonzero(mask)
        length = int(real[-1]) + 1 if len(real) else 1
        given = ids, mask, types = ids[None, :length], mask[None, :length], types[None, :length]
        try:
            (found,) = self._session.run([self._output], {name: _FEEDS[name](*given) for name in self._inputs})
        except Exception as error:  # ONNX Runtime has no public base class for its errors
            raise ModelError(
                f"{self.path} failed on a row of {length} tokens ({first_line(error)}); is the window in laconic.json "
                "right, and does the tokenizer belong to this model?"
            ) from error
        if found.ndim != 3 or found.shape[:2] != ids.shape:
            raise ModelError(f"{self.path} gives {found.shape} for ids {ids.shape}; a token classifier gives [B, T, C]")
        return np.asarray(found[0], np.float32)


def session(path: Path, threads: int = 1) -> Any:
    """An onnxruntime.InferenceSession on so many CPU threads, which sleep when they wait."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # it writes to standard error; what fails is raised as well
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOW_FUSIONS
        )
    except Exception as error:
        raise ModelError(
            f"{path} is not a model that ONNX Runtime can run ({first_line(error)}); it may be cut short: fetch or "
            "export it again"
        ) from error


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
