"""The seam every method plugs into: a scorer gives each unit of a text a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from laconic.text import Bools, Floats, Tiling

Progress = Callable[[int], None]  # called with the number of characters just finished


@dataclass(frozen=True)
class Scores:
    """Scores of one text: finite, or NaN for "no evidence"; higher means keep."""

    values: Floats  # float32[n], one a unit
    method: str  # what made them; "a+b" where two methods shared the text


@dataclass(frozen=True)
class Target:
    """How much of a text is to stay."""

    rate: float  # share of its tokens, in [0, 1]
    sure: Bools  # bool[n]: units that stay whatever they score: protected ones, the question at the end


class Scorer(Protocol):
    """Scores units. Holds no state between calls; what is scored together does not change a score."""

    name: str  # the method, for example "llmlingua2"
    model: str  # the model's name, "" where there is none
    reads_question: bool  # do its scores depend on the question?
    reads_budget: bool  # do its scores depend on how much is to stay? Then it needs a rate or a number of tokens

    def score(
        self,
        tilings: Sequence[Tiling],
        progress: Progress | None = None,
        questions: Sequence[str | None] | None = None,
        targets: Sequence[Target] | None = None,
    ) -> list[Scores]:
        """One `Scores` a tiling, in order. `questions`, `targets`: one a tiling, only for a scorer that reads them."""
        ...
