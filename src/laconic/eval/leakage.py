"""Was what a model is judged on among what it learnt from? By runs of words that both have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

import numpy as np
import numpy.typing as npt
import regex

from laconic.errors import InputError
from laconic.eval.stats import Array
from laconic.text import Ints

_RUN = 13  # words (GPT-3, arXiv 2005.14165, appendix C)
_MOST = 0.2  # share of runs
_WORD = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]|\w+")  # no blanks there
_MANY = 1024  # texts that are hashed at a time
_SHOWN = 60  # letters of a text that an error shows

_FACTORS = np.random.default_rng(0).integers(0, 1 << 64, _RUN, np.uint64)  # by which a hash tells places apart

Hashes = npt.NDArray[np.uint64]


def check(trained: Iterable[str], judged: Sequence[str], most: float = _MOST) -> None:
    """InputError if any judged text was trained on: if more than the share `most` of its runs of 13 words were.

    Boilerplate of a corpus is shared by innocent texts, a copy with some words changed shares most of its runs.
    """
    if not 0 <= most < 1:
        raise InputError(f"most must be in [0, 1), got {most}")
    shares = seen(trained, judged)
    if leaked := np.flatnonzero(shares > most).tolist():
        worst = max(leaked, key=lambda k: float(shares[k]))
        raise InputError(
            f"{len(leaked)} of {len(judged)} texts to judge on were trained on (number {worst} to "
            f"{shares[worst]:.0%}: {judged[worst][:_SHOWN]!r}); judge on others, or train again without them"
        )


def seen(trained: Iterable[str], judged: Sequence[str]) -> Array:
    """Share of the runs of 13 words of each judged text that stand in any text trained on: float64[len(judged)].

    Words are compared without case, marks and blanks. A text of fewer words is one run: it is seen (1) if one trained
    on has these words and no others. What was trained on is read once, and not held in memory.
    """
    batches = list(_runs(judged))
    runs = np.concatenate([np.zeros(0, np.uint64), *(some for some, _ in batches)])
    owner = np.concatenate([np.zeros(0, np.int64), *(texts for _, texts in batches)])
    wanted, place = np.unique(runs, return_inverse=True)
    found = np.zeros(len(wanted), bool)
    for some, _ in _runs(trained if len(wanted) else ()):
        near = np.minimum(np.searchsorted(wanted, some), len(wanted) - 1)
        found[near[wanted[near] == some]] = True
    count, hits = (np.bincount(owner, w, len(judged)) for w in (None, found[place]))
    return hits / np.maximum(count, 1)


def _runs(texts: Iterable[str]) -> Iterator[tuple[Hashes, Ints]]:
    """Some texts at a time: a hash of each of their runs, and the number of the text that it is of."""
    rest, first = iter(texts), 0
    while some := list(islice(rest, _MANY)):
        words = [[hash(word) for word in _WORD.findall(text.lower())] for text in some]
        words = [row + [0] * (_RUN - len(row)) if row else row for row in words]  # a short text is one run
        sizes = np.array([len(row) for row in words])
        hashes = np.array(list(chain.from_iterable(words)), np.int64).view(np.uint64)
        starts = np.arange(max(0, len(hashes) - _RUN + 1))
        runs = sum(hashes[k : k + len(starts)] * factor for k, factor in enumerate(_FACTORS))
        owner = np.repeat(np.arange(len(some)), sizes)[: len(starts)]
        inside = starts + _RUN <= np.cumsum(sizes)[owner]
        yield np.asarray(runs)[inside], first + owner[inside]
        first += len(some)
