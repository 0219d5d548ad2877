"""The result of a compression: spans of the original, and everything computed from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from laconic.errors import InputError
from laconic.prompt import Prompt
from laconic.text import Bools, Floats, Ints, Span, Tiling, cut

if TYPE_CHECKING:
    from laconic.restore import Restorer


@dataclass(frozen=True, eq=False, repr=False)
class KeptPart:
    """One text of the prompt and what was kept of it."""

    tiling: Tiling
    scores: Floats  # float32[n], NaN for units without evidence
    keep: Bools  # bool[n]
    spans_array: Ints  # int64[m, 2]

    @property
    def original(self) -> str:
        return self.tiling.text

    @cached_property
    def text(self) -> str:
        """The kept spans of the original, joined."""
        return cut(self.tiling, self.spans_array)

    @property
    def spans(self) -> list[Span]:
        """Half-open code point ranges of the original: sorted, disjoint, not touching."""
        return [(s, e) for s, e in self.spans_array.tolist()]

    def units(self) -> Iterator[tuple[str, float, bool]]:
        """(text, score, kept) of every unit in order: what a heat map draws."""
        return zip(self.tiling, self.scores.tolist(), self.keep.tolist(), strict=True)


@dataclass(frozen=True, eq=False, repr=False)
class Compression:
    """What was kept, and how that compares with the budget.

    >>> import laconic
    >>> c = laconic.compress("The cat sat on the mat because the mat was warm.", tokens=6)
    >>> c.tokens_after <= 6, c.met, c.text == "".join(c.original[s:e] for s, e in c.spans)
    (True, True, True)
    """

    parts: tuple[KeptPart, ...]
    prompt: Prompt
    tokens_before: int
    tokens_after: int
    met: bool  # the budget was kept; False when protected text alone exceeds it
    method: str  # what scored the units, for example "llmlingua2", or "llmlingua2+tfidf"
    model: str
    counter: str
    seconds: float

    def __repr__(self) -> str:
        return f"<Compression {self.stats()}>"

    def _only(self) -> KeptPart:
        if self.prompt.messages is not None:
            raise InputError("this compression came from messages: read .messages, or the texts in .parts")
        return self.parts[0]

    @property
    def original(self) -> str:
        """The text that came in."""
        return self._only().original

    @property
    def text(self) -> str:
        """The compressed text: the kept spans of the original, joined."""
        return self._only().text

    @property
    def spans(self) -> list[Span]:
        """Half-open code point ranges of the original: sorted, disjoint, not touching."""
        return self._only().spans

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages with the compressed texts in place; all else as it came in."""
        if self.prompt.messages is None:
            raise InputError("this compression came from a text: read .text")
        return self.prompt.with_texts([part.text for part in self.parts])

    @property
    def rate(self) -> float:
        """Kept tokens / original tokens (1.0 for an empty prompt)."""
        return self.tokens_after / self.tokens_before if self.tokens_before else 1.0

    @property
    def ratio(self) -> float:
        """1 / rate, for display; infinite when nothing was kept."""
        return 1 / self.rate if self.tokens_after or not self.tokens_before else float("inf")

    @property
    def saved(self) -> int:
        """Tokens removed."""
        return self.tokens_before - self.tokens_after

    def restore(self, answer: str) -> str:
        """An answer to the compressed text, with what it quotes as the original has it (`laconic.restore`).

        >>> import laconic
        >>> c = laconic.load(method="tfidf").compress("The Willmar Reds of the year 1912 won.", tokens=6)
        >>> c.text, c.restore("Willmar, year 1912?"), c.restore("Willmar year 1912?")
        ('Willmar year 1912', 'Willmar, year 1912?', 'Willmar Reds of the year 1912?')
        """
        if not isinstance(answer, str):
            raise InputError(f"answer must be a str, got {type(answer).__name__}")
        return self._restorer.restore(answer)

    @cached_property
    def _restorer(self) -> Restorer:
        from laconic.restore import Restorer  # here: compressing needs none of it

        return Restorer(self.parts)

    def stats(self) -> str:
        """One line: `1,204 → 481 tokens (kept 40 %), laconic-small, 0.09 s`."""
        line = f"{self.tokens_before:,} → {self.tokens_after:,} tokens (kept {100 * self.rate:.0f} %)"
        name = self.model or self.method
        if self.model and self.method != "llmlingua2":  # a part of the text was scored another way
            name += f" ({self.method})"
        unmet = "" if self.met else ", budget not met: what must stay exceeds it"
        return f"{line}, {name}, {self.seconds:.2f} s{unmet}"

    def to_dict(self) -> dict[str, Any]:
        """The object `laconic compress --format json` prints; of messages those, and what was kept of each text."""
        if self.prompt.messages is None:
            return {"text": self.text, "spans": [list(s) for s in self.spans], **self._numbers()}
        parts = [
            {"path": list(part.path), "fixed": part.fixed, "spans": [list(s) for s in kept.spans]}
            for part, kept in zip(self.prompt.parts, self.parts, strict=True)
        ]
        return {"messages": self.messages, "parts": parts, **self._numbers()}

    def _numbers(self) -> dict[str, Any]:
        keys = ("tokens_before", "tokens_after", "rate", "met", "method", "model", "counter", "seconds")
        return {k: getattr(self, k) for k in keys}

    def show(self, color: bool = True) -> str:
        """A heat map for the terminal: kept words bright, dropped words dim and struck through."""
        from laconic.render import ansi

        return ansi(self, color)

    def html(self) -> str:
        """The heat map as a self-contained HTML page."""
        from laconic.render import html

        return html(self)


def whole(tilings: Sequence[Tiling]) -> tuple[KeptPart, ...]:
    """Parts of which everything was kept."""
    parts = []
    for tiling in tilings:
        n = len(tiling)
        spans = np.array([[0, len(tiling.text)]] if n else np.zeros((0, 2)), np.int64)
        parts.append(KeptPart(tiling, np.full(n, np.nan, np.float32), np.ones(n, bool), spans))
    return tuple(parts)
