"""Is this a text the model was made for? Sentences that are not are scored without it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from laconic.text import Bools, Ints, Tiling

_RUN = 64  # characters without a blank: no word of any language (base64, hashes, minified code)
_DENSE = 200  # characters of one sentence from which a lack of blanks tells minified code
_BLANKS = 0.06  # share of white space below which it does; English prose has 0.17, dense code 0.10


def foreign_sentences(tiling: Tiling, bounds: Ints, languages: Collection[str]) -> Bools:
    """Which sentences a model of these languages cannot judge: bool[k], `bounds`: of the sentences, in units.

    Foreign are, for a model of English, sentences mostly in letters that are not Latin; for any model, sentences mostly
    of unbroken runs, and long ones with hardly a blank. A model without stated languages is taken to read any script.
    """
    if len(bounds) < 2:
        return np.zeros(len(bounds) - 1, bool)
    codes = np.frombuffer(tiling.text.encode("utf-32-le", "surrogatepass"), np.uint32)
    blank = (codes <= 0x20) | (codes == 0xA0) | (codes == 0x3000)
    latin = codes < 0x250
    edges = tiling.bounds[bounds]
    size = np.maximum(np.diff(edges) - _inside(blank, edges), 1)
    unspaced = ((codes >= 0x2E80) & (codes < 0xAC00)) | ((codes >= 0x0E00) & (codes < 0x1100))
    broken = blank | unspaced  # scripts without blanks are no unbroken runs
    foreign = _inside(_long_runs(broken), edges) > 0.5 * size
    foreign |= (np.diff(edges) >= _DENSE) & (_inside(broken, edges) < _BLANKS * np.diff(edges))
    if set(languages) == {"en"}:
        foreign |= _inside(_letters(codes, latin), edges) > 0.5 * size
    return foreign


def _letters(codes: np.ndarray, latin: Bools) -> Bools:  # type: ignore[type-arg]
    """Characters of other scripts: beyond Latin, general punctuation, symbols and emoji."""
    symbols = ((codes >= 0x2000) & (codes < 0x2E00)) | (codes >= 0x1F000) & (codes < 0x1FB00) | (codes >= 0xFE00) & (codes < 0xFE10)
    return ~latin & ~symbols & ~((codes >= 0x1E00) & (codes < 0x1F00)) & ~((codes >= 0xD800) & (codes < 0xF900))


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
