"""Chunks of a text that end where sentences end: a teacher handles short passages better than long ones.

LLMLingua-2 (section 3.1) found that a teacher deletes far too much of a long text, and cuts at 512 tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from laconic.budget import Counter
from laconic.segment import sentences, words
from laconic.text import Ints

TOKENS = 512
LEAST_TOKENS = 16  # any single character fits into this many
_CHARACTERS = 32  # most characters a token of the limit; bounds what is counted in one go


def chunks(text: str, tokens: int, counter: Counter) -> Iterator[str]:
    """Consecutive pieces of at most `tokens` tokens (16 or more), which joined are the text.

    A piece ends at the last sentence end that fits; where none does, at a line break, else between words, else
    anywhere.

    >>> from laconic.budget import counter
    >>> list(chunks("One two. Three four. Five.", 16, counter("words")))
    ['One two. Three four. Five.']
    """
    tiling = words(text)
    breaks = np.flatnonzero(tiling.codes == ord("\n"))
    levels = (tiling.bounds[sentences(tiling)], breaks, tiling.bounds, np.arange(1, len(text) + 1))
    start = 0
    while start < len(text):
        end = _end(text, start, tokens, counter, levels)
        yield text[start:end]
        start = end


def _end(text: str, start: int, tokens: int, counter: Counter, levels: tuple[Ints, ...]) -> int:
    """The furthest cut of the first level that has one within the limit."""
    for cuts in levels:
        first, stop = np.searchsorted(cuts, [start + 1, start + _CHARACTERS * tokens + 1])
        fits, beyond = int(first) - 1, int(stop)  # the cut `fits` is known to fit (or is the start), `beyond` not
        while beyond - fits > 1:
            middle = (fits + beyond) // 2
            if counter(text[start : cuts[middle]]) <= tokens:
                fits = middle
            else:
                beyond = middle
        if fits >= first:
            return int(cuts[fits])
    raise AssertionError("a character of more tokens than the limit")
