"""Baseline: sentences by the similarity of their embedding to the question's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from laconic.backends.sentence_encoder import SentenceEncoder
from laconic.score import Progress, Scores, Target
from laconic.segment import sentences
from laconic.text import Floats, Tiling


class Embedding:
    """Every unit has the cosine of its sentence and the question, so whole sentences are kept, the most similar first.

    The embeddings of the last contexts are kept, for other questions and rates.
    """

    name = "embedding"
    reads_question = True
    reads_budget = False

    def __init__(self, folder: str | Path) -> None:
        self.model = Path(folder).name
        encoder = SentenceEncoder(folder)
        self._remembered = lru_cache(maxsize=64)(encoder.embed)

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
