"""Selective-Context: what a causal language model foresaw can go (Li et al. 2023, arXiv 2310.06201).

The self-information of a token is I(x_t) = -log p(x_t | x_0 … x_{t-1}) (eq. 1). It adds up over the tokens of a word;
noun phrases and sentences, which would win by their length, have the mean of their tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from laconic.hub import LanguageModel, load_decoder
from laconic.score import Progress, Scores, Target
from laconic.scorers.perplexity import surprisals
from laconic.scorers.phrases import noun_phrases
from laconic.segment import sentences
from laconic.text import Floats, Ints, Tiling, pool, total

Level = Callable[[Tiling], Ints]  # the bounds of lexical units, in units: int64[k + 1]
Pool = Callable[[Floats, Ints, Ints, Tiling], Floats]  # values of tokens to one of each lexical unit


class SelectiveContext:
    """I / (1 + I) of the lexical unit each unit is in, I in nats.

    The order is that of I, and all texts share one scale from 0 to 1. The context is the whole text (theirs: the
    sentence).
    """

    reads_question = False
    reads_budget = False

    def __init__(self, model: LanguageModel, name: str, level: Level, pool: Pool = pool) -> None:
        self.name = name
        self.model = model.name
        self._model = model
        self._level, self._pool = level, pool

    def score(
        self,
        tilings: Sequence[Tiling],
        progress: Progress | None = None,
        questions: Sequence[str | None] | None = None,
        targets: Sequence[Target] | None = None,
    ) -> list[Scores]:
        """float32[n] a tiling, in [0, 1); NaN for units without a token."""
        read = [self._model.tokens(t.text) for t in tilings]
        found = surprisals(self._model, [ids for ids, _, _ in read])
        scores = []
        for tiling, (_, starts, ends), nats in zip(tilings, read, found, strict=True):
            scores.append(Scores(self._values(tiling, nats, starts, ends), self.name))
            if progress:
                progress(len(tiling.text))
        return scores

    def _values(self, tiling: Tiling, nats: Floats, starts: Ints, ends: Ints) -> Floats:
        bounds = self._level(tiling)
        lexical = Tiling(tiling.text, tiling.bounds[bounds])
        found: Floats = np.repeat(self._pool(nats, starts, ends, lexical), np.diff(bounds))
        return found / (1 + found)


def _each(tiling: Tiling) -> Ints:
    return np.arange(len(tiling) + 1)


def words(model: str) -> SelectiveContext:
    """Units alone."""
    return SelectiveContext(load_decoder(model), "selective-context", _each, total)


def in_phrases(model: str) -> SelectiveContext:
    """Noun phrases together (their default)."""
    level = noun_phrases()  # first: without spaCy there is no need to load a model
    return SelectiveContext(load_decoder(model), "selective-context-phrase", level)


def in_sentences(model: str) -> SelectiveContext:
    """Sentences together."""
    return SelectiveContext(load_decoder(model), "selective-context-sentence", sentences)
