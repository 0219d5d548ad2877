# ruff: noqa: SIM905  (word lists read better as words)
"""Controls: what a method must beat. They need no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from laconic.score import Progress, Scores, Target
from laconic.scorers.tfidf import surprisal_ranks
from laconic.segment import sentences
from laconic.text import Floats, Tiling

STOP_WORDS = frozenset(
    """
    a about above after again all also am an and any are as at be because been before being below between both but by
    can could did do does doing down during each few for from further had has have having he her here hers herself him
    himself his how i if in into is it its itself just me more most my myself now of off on once only or other our ours
    ourselves out over own same she should so some such than that the their theirs them themselves then there these they
    this those through to too under until up very was we were what when where which while who whom why will with would
    you your yours yourself yourselves
    """.split()
)


@dataclass(frozen=True)
class Control:
    """A scorer without a model."""

    name: str
    values: Callable[[Tiling], Floats]
    model: str = ""
    reads_question: bool = False
    reads_budget: bool = False

    def score(
        self,
        tilings: Sequence[Tiling],
        progress: Progress | None = None,
        questions: Sequence[str | None] | None = None,
        targets: Sequence[Target] | None = None,
    ) -> list[Scores]:
        """float32[n] a tiling."""
        return [Scores(self.values(t), self.name) for t in tilings]


def lead(model: str) -> Control:
    """Keep the beginning."""
    return Control("lead", lambda t: np.linspace(1, 0, len(t), dtype=np.float32))


def random(model: str) -> Control:
    """Keep units at random, the same ones for the same number of units."""
    return Control("random", lambda t: np.random.default_rng(0).random(len(t), dtype=np.float32))


def stopwords(model: str) -> Control:
    """English function words and punctuation go first, then what is frequent in the text (`tfidf`)."""
    return Control("stopwords", _content_first)


def _content_first(tiling: Tiling) -> Floats:
    units = list(tiling)
    ranks = surprisal_ranks(units, np.diff(sentences(tiling)))
    words = [u.strip().lower() for u in units]
    content = np.array([w not in STOP_WORDS and any(c.isalnum() for c in w) for w in words], bool)
    values: Floats = (np.where(content, 1 + ranks, ranks) / 2).astype(np.float32)
    return values
