"""How fast is laconic on this machine? What `laconic bench` prints."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from laconic.budget import counter
from laconic.compressor import Compressor
from laconic.hub import LABELS, Manifest, load_folder
from laconic.scorers.classifier import Classifier

_PASSAGE = """\
The harbour committee met on Tuesday to discuss the repair of the northern pier, which had been closed since the storm
of 14 January. Ms. Okafor reported that the engineers had found 23 damaged piles, not 11 as first thought, and that the
cost would therefore rise from $1.2 million to about $1.9 million. Several members asked whether the ferry could use the
southern berth in the meantime. The harbour master did not think so, because the water there is only 3.5 metres deep at
low tide. It was agreed that the pier would reopen in two stages, the first before the end of June.
"""
_LONG = 20_000  # tokens, about


def report(model: str, text: str | None = None) -> Iterator[str]:
    """Lines of measurements: start, a long text, what happens outside the model, a short prompt, memory."""
    began = time.perf_counter()
    loaded = load_folder(model)
    compressor = Compressor(Classifier(loaded), counter())
    compressor.compress(_PASSAGE, rate=0.5)
    yield f"load and first compression  {time.perf_counter() - began:8.3f} s"
    count = counter()
    text = text or _PASSAGE * (_LONG // count(_PASSAGE))
    long = min(_timed(compressor, text) for _ in range(3))
    tokens = count(text)
    yield f"long text, {tokens:,} tokens    {long:8.3f} s  {tokens / long:10,.0f} tokens/s"
    nothing = Compressor(Classifier(replace(loaded, encoder=_Nothing(loaded.manifest))), counter())
    around = min(_timed(nothing, text) for _ in range(3))
    yield f"  outside the model         {around:8.3f} s  {around / long:10.0%}"
    short = _PASSAGE[:200]
    best = min(_timed(compressor, short) for _ in range(20))
    yield f"short prompt, {count(short)} tokens     {best * 1000:8.1f} ms"
    yield f"peak memory of the process  {_peak_megabytes():8,.0f} MB"


class _Nothing:
    """An encoder that takes hardly any time."""

    def __init__(self, manifest: Manifest) -> None:
        self._classes = (len(LABELS) if manifest.question else 2) + manifest.embedding

    def logits(self, ids: Any, mask: Any, types: Any = None) -> Any:
        out = np.zeros((*ids.shape, self._classes), np.float32)
        out[..., :4] = np.random.default_rng(0).standard_normal((*ids.shape, min(4, self._classes)), dtype=np.float32)
        return out


def _timed(compressor: Compressor, text: str) -> float:
    began = time.perf_counter()
    compressor.compress(text, rate=0.5)
    return time.perf_counter() - began


def _peak_megabytes() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / (1 << 10)
