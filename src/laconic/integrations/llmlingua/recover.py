"""`recover`: `laconic.restore` for texts of which only the words are known.

Each paragraph of the compressed prompt is looked for in one paragraph of the original: its words must be there in that
order. A word that can be in one place only is known to be from there; one that can be in several (it occurs more often
than it was kept) is taken to be at the first of them if it says little, and else left out: nothing hangs on a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from laconic.errors import InputError
from laconic.restore import Restorer, tells
from laconic.result import KeptPart
from laconic.segment import words
from laconic.text import Tiling, mend

_EMPTY_LINE = re.compile(r"\n[^\S\n]*\n\s*")


def recover(original: str, compressed: str, response: str) -> str:
    """The response with its quotations as the original has them.

    >>> recover("The Willmar Reds of the year 1912 won.", "Willmar year 1912", "It is Willmar year 1912.")
    'It is Willmar Reds of the year 1912.'
    """
    for name, text in (("original_prompt", original), ("compressed_prompt", compressed), ("response", response)):
        if not isinstance(text, str):
            raise InputError(f"{name} must be a str, got {type(text).__name__}")
    return Restorer(list(aligned(original, compressed))).restore(response)


def aligned(original: str, compressed: str) -> Iterator[KeptPart]:
    """For each paragraph of the compressed prompt the first paragraph of the original that it can be from."""
    sources = [words(text) for text in _EMPTY_LINE.split(original)]
    stripped = [[unit.strip() for unit in tiling] for tiling in sources]
    for text in _EMPTY_LINE.split(compressed):
        kept = [unit.strip() for unit in words(text) if unit.strip()]
        found = next(((t, p) for t, units in zip(sources, stripped, strict=True) if (p := _places(units, kept))), None)
        if found:
            yield _part(*found)


def _places(units: list[str], kept: list[str]) -> list[int]:
    """Where the kept words are among the units, as far as that is known; [] if they are not there in this order."""
    first = _first(units, kept)
    if len(first) < len(kept):
        return []
    last = [len(units) - 1 - k for k in reversed(_first(units[::-1], kept[::-1]))]
    return [a for a, z, word in zip(first, last, kept, strict=True) if a == z or not tells(word)]


def _first(units: list[str], kept: list[str]) -> list[int]:
    """The first place of each word after that of the one before; fewer places if they end."""
    places, wanted = [], iter([*kept, None])
    word = next(wanted)
    for place, unit in enumerate(units):
        if unit == word:
            places.append(place)
            word = next(wanted)
    return places


def _part(tiling: Tiling, places: list[int]) -> KeptPart:
    keep = np.zeros(len(tiling), bool)
    keep[places] = True
    return KeptPart(tiling, np.full(len(tiling), np.nan, np.float32), keep, mend(tiling, keep))
