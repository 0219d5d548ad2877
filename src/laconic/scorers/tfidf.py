"""Surprisal within the text: for any language, and for text no model was made for.

A unit is worth the self-information of its string in this very text, `-log2(count / units)`: what keeps coming back
(function words of any language, boilerplate) goes first. Longer strings count a little more: in every language frequent
words are short (Zipf's law of abbreviation), which is the only evidence in a short text. In scripts without blanks a
unit is one character and says little, so there whole sentences are ranked by the pairs of characters in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from laconic.score import Progress, Scores, Target
from laconic.segment import sentences
from laconic.text import Bools, Floats, Ints, Tiling

_SENTENCE_SHARE = 0.3  # weight of the sentence's mean in a unit's score
_SENTENCE_SHARE_UNSPACED = 0.9
_NUMBER = 12  # a number counts as much as a word of so many characters
_REPEATED = 0.5  # factor for a sentence that stood before, word for word


class TfIdf:
    """Self-information of units and sentences within the text, as ranks from 0 to 1."""

    name = "tfidf"
    model = ""
    reads_question = False
    reads_budget = False

    def score(
        self,
        tilings: Sequence[Tiling],
        progress: Progress | None = None,
        questions: Sequence[str | None] | None = None,
        targets: Sequence[Target] | None = None,
    ) -> list[Scores]:
        """float32[n] a tiling: the rank of each unit among all of them, NaN for white space."""
        return [Scores(surprisal_ranks(list(t), np.diff(sentences(t))), self.name) for t in tilings]


def load(model: str) -> TfIdf:
    """The scorer; there is no model to load."""
    return TfIdf()


def surprisal_ranks(units: Sequence[str], length: Ints) -> Floats:
    """Ranks in (0, 1] of the units' surprisal, float32[n], NaN for white space; `length`: of sentences, in units."""
    if not units:
        return np.zeros(0, np.float32)
    strings = np.array([u.strip().casefold() for u in units], dtype=object)
    size = np.array([len(s) for s in strings])
    single = _information(strings)
    following = np.append(strings[1:], "")
    pair = _information(strings + "\x00" + following)
    word = np.array([any(c.isalnum() for c in s) for s in strings])
    unspaced = (size == 1) & np.array([s > "\u0dff" for s in strings])  # one character a unit: Han, Kana, Thai …
    number = np.array([any(c.isdecimal() for c in s) for s in strings])  # a fact, however short
    weight = np.log2(1 + np.where(number, _NUMBER, size)) / 2
    own = np.where(unspaced, (pair + np.append(pair[:1], pair[:-1])) / 2, single + weight)
    own = np.where(word, own, own / 4)  # a mark of punctuation alone says little
    bounds = np.append(0, np.cumsum(length))
    mean = np.add.reduceat(own, bounds[:-1]) / length
    texts = ["".join(units[a:z]).strip() for a, z in pairwise(bounds.tolist())]
    mean = np.where(_stood_before(texts), mean * _REPEATED, mean)
    share = np.where(unspaced, _SENTENCE_SHARE_UNSPACED, _SENTENCE_SHARE)
    value = share * np.repeat(mean, length) + (1 - share) * own
    ranks = np.empty(len(value), np.float32)
    ranks[np.argsort(value, kind="stable")] = (np.arange(len(value)) + 1) / len(value)
    ranks[size == 0] = np.nan
    return ranks


def _information(strings: npt.NDArray[np.object_]) -> npt.NDArray[np.float64]:
    """Bits of each string under the counts in `strings`: float64[n]."""
    counts: dict[str, int] = {}
    for s in strings:
        counts[s] = counts.get(s, 0) + 1
    return -np.log2(np.array([counts[s] for s in strings]) / len(strings))


def _stood_before(texts: list[str]) -> Bools:
    first: dict[str, int] = {}
    return np.array([first.setdefault(text, k) < k for k, text in enumerate(texts)])
