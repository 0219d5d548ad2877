"""Controls: what a method must beat. They need no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from laconic.score import Progress, Scores
from laconic.text import Floats, Tiling


@dataclass(frozen=True)
class Control:
    """A scorer that looks at nothing but the number of units."""

    name: str
    values: Callable[[int], Floats]
    model: str = ""

    def score(self, tilings: Sequence[Tiling], progress: Progress | None = None) -> list[Scores]:
        """float32[n] a tiling."""
        return [Scores(self.values(len(t)), self.name) for t in tilings]


def lead(model: str) -> Control:
    """Keep the beginning."""
    return Control("lead", lambda n: np.linspace(1, 0, n, dtype=np.float32))


def random(model: str) -> Control:
    """Keep units at random, the same ones for the same number of units."""
    return Control("random", lambda n: np.random.default_rng(0).random(n, dtype=np.float32))
