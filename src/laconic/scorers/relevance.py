"""What answers the question: sentences by BM25, and the worth of units from the heads of a question-aware model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import regex

from laconic.score import Progress, Scores
from laconic.segment import sentences
from laconic.text import Floats, Ints, Tiling

_K1, _B = 1.2, 0.75  # Robertson and Zaragoza, "The Probabilistic Relevance Framework" (2009), section 3
_WORD = regex.compile(r"\p{Han}|\p{Hiragana}+|\p{Katakana}+|[\p{L}\p{N}]+")
_ENDINGS = ("ies", "ing", "ed", "es", "s", "e", "y")


class Bm25:
    """Sentences by BM25 against the question; all units of a sentence share its value."""

    name = "bm25"
    model = ""
    reads_question = True

    def score(
        self,
        tilings: Sequence[Tiling],
        progress: Progress | None = None,
        questions: Sequence[str | None] | None = None,
    ) -> list[Scores]:
        """float32[n] a tiling, at least 0; without a question all are 0."""
        asked = questions or [None] * len(tilings)
        return [Scores(self._values(t, q or ""), self.name) for t, q in zip(tilings, asked, strict=True)]

    def _values(self, tiling: Tiling, question: str) -> Floats:
        bounds = sentences(tiling)
        return np.repeat(bm25(tiling, bounds, question), np.diff(bounds)).astype(np.float32)


def load(model: str) -> Bm25:
    """The scorer; there is no model to load."""
    return Bm25()


def bm25(tiling: Tiling, bounds: Ints, question: str) -> Floats:
    """BM25 of each sentence: float32[k], `bounds`: int64[k + 1], of the sentences, in units."""
    edges = tiling.bounds[bounds].tolist()
    texts = [terms(tiling.text[s:e]) for s, e in pairwise(edges)]
    score = np.zeros(len(texts))
    if not texts:
        return score.astype(np.float32)
    length = np.array([len(t) for t in texts])
    norm = _K1 * (1 - _B + _B * length / max(1e-9, length.mean()))
    for term in sorted(set(terms(question))):  # sorted: sums of floats depend on the order
        count = np.array([t.count(term) for t in texts])
        holding = (count > 0).sum()
        weight = np.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        score += weight * count * (_K1 + 1) / (count + norm)
    found: Floats = score.astype(np.float32)
    return found


def terms(text: str) -> list[str]:
    """Lower-case words without the commonest English endings; single characters in Chinese.

    >>> terms("Studies of moving stars")
    ['stud', 'of', 'mov', 'star']
    """
    return [_stem(w) for w in _WORD.findall(text.lower())]


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def worth(tiling: Tiling, bounds: Ints, heads: Floats, question: str) -> Floats:
    """What each unit is worth for answering the question: float32[n], from P(keep), P(evidence), P(answer)."""
    keep, evidence, answer, near = heads.T
    value: Floats = evidence + 0.3 * keep + 0.3 * answer + near
    return value
