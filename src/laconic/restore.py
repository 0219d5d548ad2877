"""Subsequence recovery: an answer quotes the compressed text; give the quotations back as the original has them.

After LongLLMLingua (arXiv 2310.06839, section 4.4), which searches model tokens for the likeliest source. Here the
source is known, because a compressed text is spans of its original:

* The answer is read from left to right. A *run* is the longest stretch of words that also stands in the compressed
  text; if a longer one starts a word later, that one counts (lazy matching, as in deflate).
* Where words were dropped inside a run, the original from the run's first to its last *telling* word takes its place. A
  word tells something if it has a digit, a capital letter or four letters and is no English function word, or if it is
  of a script without blanks: "of the" stands in a text by chance, "Willmar 1912" does not.
* A gap is closed only within a sentence, and only if no more than `_GAP` characters were dropped there. A line break in
  the answer ends a run.
* A run that the compressed text also has without a gap, or that the original has as it is, stays. So does one that
  stands for different stretches of the original in different places.

All else of the answer stays as it is. Time is about linear in both texts: a suffix array over the words.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import regex

from laconic.scorers.controls import STOP_WORDS
from laconic.segment import sentences, words
from laconic.text import Bools, Ints

if TYPE_CHECKING:
    from laconic.result import KeptPart

_GAP = 60  # characters dropped in one place, about ten words
_LEAST = 4  # characters of a run without its blanks
_TELLING = regex.compile(
    r"(?V1)\p{N}|\p{Lu}|\p{L}{4}|[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
)
_NONE = -1  # the number of a word that the compressed text does not have


@dataclass(frozen=True)
class _Words:
    """The words of a text, white space aside: arrays over words."""

    texts: list[str]
    starts: Ints
    ends: Ints
    new_line: Bools  # a line break is before it

    @classmethod
    def of(cls, text: str) -> _Words:
        tiling = words(text)
        edges = tiling.edges
        real = edges.core < tiling.bounds[1:]
        starts, ends = edges.core[real], tiling.bounds[1:][real]
        texts = [text[s:e] for s, e in zip(starts.tolist(), ends.tolist(), strict=True)]
        return cls(texts, starts, ends, edges.has_break[real])


class Restorer:
    """A compression read for restoring answers: its words, where each is from, and a suffix array over them."""

    def __init__(self, parts: Sequence[KeptPart]) -> None:
        self._originals = [part.original for part in parts]
        texts, places = [""], [np.zeros((1, 5), np.int64)]
        for k, part in enumerate(parts):
            found, where = _read(k, part)
            texts += found
            places.append(where)
        self._places = np.concatenate(places)
        self._numbers = {text: k for k, text in enumerate(dict.fromkeys(texts))}  # 0: what no answer has
        self._ids = [self._numbers[text] for text in texts]
        self._suffixes = _suffix_array(np.array(self._ids, np.int64))
        self._memory: dict[tuple[int, int, int, int], str | None] = {}

    def restore(self, answer: str) -> str:
        """The answer with its quotations as the original has them."""
        read = _Words.of(answer)
        ids = [self._numbers.get(text, _NONE) for text in read.texts]
        breaks = [*np.flatnonzero(read.new_line).tolist(), len(ids)]
        out, done, k = [], 0, 0
        run = self._longest(ids, 0, breaks)
        while k < len(ids):
            following = self._longest(ids, k + 1, breaks)
            if following.length > run.length or not run.length:
                k, run = k + 1, following
                continue
            for start, end, text in self._change(read, k, run, answer):
                out += [answer[done:start], text]
                done = end
            k += run.length
            run = following if run.length == 1 else self._longest(ids, k, breaks)
        return "".join([*out, answer[done:]])

    def _longest(self, ids: list[int], first: int, breaks: list[int]) -> _Run:
        """The longest run of the answer from its word `first` on."""
        low, high, length = 0, len(self._ids), 0
        last = breaks[bisect_right(breaks, first)] if first < len(ids) else first
        while first + length < last:
            word = ids[first + length]
            at = partial(self._word, depth=length)
            start = bisect_left(self._suffixes, word, low, high, key=at)
            end = bisect_right(self._suffixes, word, start, high, key=at)
            if start == end:
                break
            low, high, length = start, end, length + 1
        return _Run(low, high, length)

    def _word(self, suffix: int, depth: int) -> int:
        return self._ids[suffix + depth]

    def _change(self, read: _Words, first: int, run: _Run, answer: str) -> Iterator[tuple[int, int, str]]:
        """What to put in place of the run's telling stretch: (start, end, text), or nothing."""
        telling = [k for k in range(first, first + run.length) if tells(read.texts[k])]
        if not telling or sum(len(text) for text in read.texts[telling[0] : telling[-1] + 1]) < _LEAST:
            return
        start, end = int(read.starts[telling[0]]), int(read.ends[telling[-1]])
        key = (run.low, run.high, telling[0] - first, telling[-1] - first)
        if key not in self._memory:
            self._memory[key] = self._source(*key)
        text = self._memory[key]
        if text is not None and not any(answer[start:end] in original for original in self._originals):
            yield start, end, text

    def _source(self, low: int, high: int, first: int, last: int) -> str | None:
        """The one stretch of the original that the words first..last of these suffixes are from, if it has gaps."""
        where = np.array(self._suffixes[low:high], np.int64)
        part, start, _, begins, _ = self._places[where + first].T
        _, _, end, _, ends = self._places[where + last].T
        if (end - start == ends - begins).any():  # nothing was dropped
            return None
        stretches = zip(part.tolist(), start.tolist(), end.tolist(), strict=True)
        found = {self._originals[k][s:e] for k, s, e in stretches}
        return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class _Run:
    """Words that stand at the beginning of the suffixes low..high."""

    low: int
    high: int
    length: int


def _read(number: int, part: KeptPart) -> tuple[list[str], Ints]:
    """The words of a compressed part, "" where no run goes on and at the end; and int64[n, 5]:

    the part's number, start and end in the original, start and end in the compressed text.
    """
    read = _Words.of(part.text)
    lengths = part.spans_array[:, 1] - part.spans_array[:, 0]
    offsets = np.cumsum(lengths) - lengths

    def original(places: Ints) -> Ints:
        span = np.searchsorted(offsets, places, side="right") - 1
        found: Ints = part.spans_array[span, 0] + places - offsets[span]
        return found

    starts, ends = original(read.starts), original(read.ends - 1) + 1
    dropped = (starts[1:] - ends[:-1]) - (read.starts[1:] - read.ends[:-1])
    sentence = np.searchsorted(part.tiling.bounds[sentences(part.tiling)], starts, side="right")
    stops = np.flatnonzero((dropped > _GAP) | ((dropped > 0) & (np.diff(sentence) > 0))) + 1
    places = np.stack([np.full(len(starts), number), starts, ends, read.starts, read.ends], 1)
    where = np.append(stops, len(starts))
    texts = np.insert(np.array(read.texts, object), where, "")
    return texts.tolist(), np.insert(places, where, 0, axis=0)


def _suffix_array(ids: Ints) -> list[int]:
    """The places in `ids`, sorted by what follows: prefix doubling (Manber and Myers, 1993)."""
    rank, step = ids, 1
    while True:
        following = np.zeros_like(rank)
        following[:-step] = rank[step:] + 1
        _, rank = np.unique(rank * (following.max() + 1) + following, return_inverse=True)
        if step >= len(ids) or rank.max() == len(ids) - 1:
            return np.argsort(rank).tolist()  # type: ignore[no-any-return]
        step *= 2


def tells(word: str) -> bool:
    return bool(_TELLING.search(word)) and word.lower() not in STOP_WORDS
