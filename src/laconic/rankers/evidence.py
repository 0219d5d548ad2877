"""The ranker that asks a question-reading scorer: a document is worth its best sentence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from laconic.errors import ModelError
from laconic.score import Scorer
from laconic.segment import sentences, words
from laconic.text import Floats, Ints, Tiling


class Evidence:
    """Scores the documents as paragraphs of one text, so that they are comparable, in one pass of the model."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def rank(self, documents: Sequence[str], question: str) -> Floats:
        """float32[k]; see `best_sentences`."""
        tiling, firsts = Tiling.joined([words(d) for d in documents])
        (scores,) = self._scorer.score([tiling], questions=[question])
        return best_sentences(tiling, firsts, scores.values)


def best_sentences(tiling: Tiling, firsts: Ints, values: Floats) -> Floats:
    """The best sentence of each document, by the mean of its units: float32[k]; without one, that of the worst.

    tiling, firsts: `Tiling.joined` of the documents. values: float32[n], NaN for no evidence.
    """
    bounds = sentences(tiling)
    known = ~np.isnan(values)
    count = np.add.reduceat(known, bounds[:-1], dtype=np.int64) if len(values) else np.zeros(0, np.int64)
    seen = count > 0
    total = np.add.reduceat(np.where(known, values, 0), bounds[:-1]) if len(values) else np.zeros(0)
    mean = (total[seen] / count[seen]).astype(np.float32)
    best = np.full(len(firsts) - 1, mean.min(initial=np.inf) if len(mean) else 0, np.float32)
    np.maximum.at(best, np.searchsorted(firsts, bounds[:-1][seen], side="right") - 1, mean)
    return best


def load(model: str) -> Evidence:
    """The ranker over a model that reads questions, by its name or folder; the default model if there is none."""
    from laconic import DEFAULT_MODEL
    from laconic.scorers import scorer

    made = scorer("llmlingua2", model or DEFAULT_MODEL)
    if not made.reads_question:
        raise ModelError(f"{model} does not read questions; leave it out for the default model")
    return Evidence(made)
