"""Is this a text the model was made for? Sentences that are not are scored without it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from laconic.text import Bools, Ints, Tiling

_RUN = 64  # characters without a blank: no word of any language (base64, hashes, minified code)
_SURE = 200  # characters of one sentence from which that tells something: a URL alone is fine
_BLANKS = 0.06  # share of white space below which it is minified code; English prose has 0.17, dense code 0.10


def foreign_sentences(tiling: Tiling, bounds: Ints, languages: Collection[str]) -> Bools:
    """Which sentences a model of these languages cannot judge: bool[k], `bounds`: of the sentences, in units.

    Foreign are, for a model of English, sentences mostly in letters that are not Latin; for any model, sentences mostly
    of unbroken runs, and long ones with hardly a blank. A model without stated languages is taken to read any script.
    """
    if len(bounds) < 2:
        return np.zeros(len(bounds) - 1, bool)
    codes = np.frombuffer(tiling.text.encode("utf-32-le", "surrogatepass"), np.uint32)
    blank = (codes <= 0x20) | (codes == 0xA0) | (codes == 0x3000)
    edges = tiling.bounds[bounds]
    size = np.maximum(np.diff(edges) - _inside(blank, edges), 1)
    unspaced = ((codes >= 0x2E80) & (codes < 0xAC00)) | ((codes >= 0x0E00) & (codes < 0x1100))
    broken = blank | unspaced  # scripts without blanks are no unbroken runs
    runs = _inside(_long_runs(broken), edges) > 0.5 * size
    dense = _inside(broken, edges) < _BLANKS * np.diff(edges)
    foreign: Bools = (np.diff(edges) >= _SURE) & (runs | dense)
    if set(languages) == {"en"}:
        foreign |= _inside(_other_letters(codes), edges) > 0.5 * size
    return foreign


# Beyond Latin (0 to 0x24F) these are no letters of another script: Latin again, punctuation and symbols, surrogates and
# private use, variation selectors, emoji.
_NOT_OTHER = ((0, 0x250), (0x1E00, 0x1F00), (0x2000, 0x2E00), (0xD800, 0xF900), (0xFE00, 0xFE10), (0x1F000, 0x1FB00))


def _other_letters(codes: npt.NDArray[np.uint32]) -> Bools:
    """Characters of other scripts than Latin."""
    other = np.ones(len(codes), bool)
    for low, high in _NOT_OTHER:
        other &= (codes < low) | (codes >= high)
    return other


def _long_runs(broken: Bools) -> Bools:
    """Characters in runs of at least `_RUN` without a break."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], broken, [True]]).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    long = ends - starts >= _RUN
    depth = np.zeros(len(broken) + 1, np.int32)
    depth[starts[long]] += 1
    depth[ends[long]] -= 1
    return np.cumsum(depth[:-1]) > 0


def _inside(mask: Bools, edges: Ints) -> Ints:
    """How many characters of each stretch are in the mask."""
    return np.diff(np.concatenate([[0], np.cumsum(mask)])[edges])
