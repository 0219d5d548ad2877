"""Baseline: sentences by the similarity of their embedding to the question's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from laconic.errors import MissingExtraError, ModelError
from laconic.export import quiet
from laconic.score import Progress, Scores, Target
from laconic.segment import sentences
from laconic.text import Floats, Tiling

_BATCH = 32  # sentences
_TOKENS = 256  # of a sentence; what all-MiniLM-L6-v2 was trained on


class Embedding:
    """Every unit has the cosine of its sentence and the question, so whole sentences are kept, the most similar first.

    The embedding is the mean of the token vectors (Reimers and Gurevych, 2019). Those of the last contexts are kept,
    for other questions and rates.
    """

    name = "embedding"
    reads_question = True
    reads_budget = False

    def __init__(self, folder: str | Path) -> None:
        try:
            import torch
            from transformers import AutoModel, AutoTokenizer
        except ImportError:
            raise MissingExtraError("the baseline embedding", "torch") from None
        if not Path(folder, "config.json").exists():
            raise ModelError(f"{folder} holds no encoder; pass the folder of a sentence-transformers checkpoint")
        self.model = Path(folder).name
        self._torch = torch
        with quiet():
            self._tokenizer = AutoTokenizer.from_pretrained(folder)
            self._encoder = AutoModel.from_pretrained(folder, use_safetensors=True).eval()
        self._remembered = lru_cache(maxsize=64)(self._embed)

    def score(
        self,
        tilings: Sequence[Tiling],
        progress: Progress | None = None,
        questions: Sequence[str | None] | None = None,
        targets: Sequence[Target] | None = None,
    ) -> list[Scores]:
        """float32[n] a tiling, cosines in [-1, 1]; without a question all are 0."""
        asked = questions or [None] * len(tilings)
        return [Scores(self._cosines(t, q), self.name) for t, q in zip(tilings, asked, strict=True)]

    def _cosines(self, tiling: Tiling, question: str | None) -> Floats:
        if not question:
            return np.zeros(len(tiling), np.float32)
        bounds = sentences(tiling)
        edges = tiling.bounds[bounds].tolist()
        vectors = self._remembered(tuple(tiling.text[s:e] for s, e in pairwise(edges)))
        (asked,) = self._remembered((question,))
        return np.repeat(vectors @ asked, np.diff(bounds)).astype(np.float32)

    def _embed(self, texts: tuple[str, ...]) -> Floats:
        """Unit vectors: float32[len(texts), width]; encoded by length, for less padding."""
        order = sorted(range(len(texts)), key=lambda k: len(texts[k]))
        vectors: Floats = np.zeros((len(texts), self._encoder.config.hidden_size), np.float32)
        for start in range(0, len(order), _BATCH):
            part = order[start : start + _BATCH]
            batch = self._tokenizer(
                [texts[k] for k in part], padding=True, truncation=True, max_length=_TOKENS, return_tensors="pt"
            )
            with self._torch.inference_mode():
                states = self._encoder(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            mean = (states * mask).sum(1) / mask.sum(1)
            vectors[part] = self._torch.nn.functional.normalize(mean, dim=-1).numpy()
        return vectors
