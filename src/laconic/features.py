"""What an uncased tokenizer does not see: capitals, and how a token is set off from the one before.

A model may take one such feature a token as its token type. 0 is for special tokens and the question; a token of the
text has `1 + 3 · layout + case`:

    layout  0 glued to what is before   1 after a blank        2 on a new line     3 after an empty line, or first
    case    0 no capital letter         1 one, in front        2 any other capitals
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from laconic.text import Ints

TYPES = 13


class Features:
    """The features of one text."""

    def __init__(self, text: str) -> None:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        capital = ((codes >= 65) & (codes <= 90)) | ((codes >= 0xC0) & (codes <= 0xDE) & (codes != 0xD7))
        self._capitals = _counts(capital)
        self._layout = _layout(codes)

    def types(self, starts: Ints, ends: Ints) -> Ints:
        """The token types of the tokens at these code points: int64[T]."""
        capitals = self._capitals[ends] - self._capitals[starts]
        first = self._capitals[np.minimum(starts + 1, ends)] - self._capitals[starts]
        case = np.where(capitals == 0, 0, np.where((capitals == 1) & (first == 1), 1, 2))
        return (1 + 3 * self._layout[starts].astype(np.int64) + case).astype(np.int64)


def _layout(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    """How each code point is set off from the last visible one before it: uint8[n + 1]."""
    newline = codes == 10
    blank = newline | (codes == 32) | (codes == 9) | (codes == 13) | (codes == 0xA0)
    places = np.arange(1, len(codes) + 1, dtype=np.int32)
    visible = np.maximum.accumulate(np.concatenate([[np.int32(0)], np.where(blank, np.int32(0), places)]))
    lines = _counts(newline)
    breaks = lines - lines[visible]
    gap = np.arange(len(codes) + 1, dtype=np.int32) > visible
    layout = np.where(breaks >= 2, 3, np.where(breaks == 1, 2, gap)).astype(np.uint8)
    layout[visible == 0] = 3
    return layout


def _counts(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(mask)]).astype(np.int32)
