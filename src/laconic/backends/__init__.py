"""What runs a model: token ids in, NumPy out. No type of a framework crosses this seam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from laconic.text import Bools

Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
Nats = npt.NDArray[np.float32]


class Encoder(Protocol):
    """A token classifier. The other rows of a batch do not change a row beyond float error."""

    def logits(self, ids: Ids, mask: Ids, types: Ids | None = None) -> Logits:
        """One score per class: ids, mask int64[B, T] (mask 1 = token, 0 = padding) to float32[B, T, C].

        `types`: token types, int64[B, T], for models that read them (default: zeros). What stands at padding is
        unspecified.
        """


class Decoder(Protocol):
    """A causal language model: the surprisal of tokens, -ln p(token | the tokens before it), in nats.

    Tokens beyond the window are read in windows that overlap: when one is full, the next begins with its head (the
    first token, or the session's heads) and the second half of the rest. So every token is predicted from the head and
    at least the nearest half window, and where windows begin depends on positions alone.
    """

    start: int  # the token a text begins with (BOS); without one before it a first token has no evidence
    window: int  # tokens read at once, the head included

    def nll(self, ids: Ids, mask: Ids, last: int | None = None) -> Nats:
        """ids, mask int64[B, T] (mask 1 = token, 0 = padding, which is on the right) to float32[B, T].

        NaN for the first token of a row, at padding, and before the `last` tokens of a row (default: all). The other
        rows do not change a row beyond float error.
        """

    def greedy(self, rows: Sequence[Ids], most: int) -> list[Ids]:
        """The most probable next tokens after each row, until the end of the text or `most` of them: int64[n] each."""

    def session(self, heads: Sequence[Ids]) -> Session:
        """One text, read part by part after each of B heads of 1 to `window - 2` tokens, int64[h] each."""


class Session(Protocol):
    """A text that is read part by part, and of which tokens are forgotten again; a session serves one thread.

    Read in parts it has the `nll` of all of it, up to the end of the window. Tokens that stay may remember those that
    were forgotten later, as their keys and values do; where keys cannot be moved they are read again.
    """

    @property
    def length(self) -> int:
        """Tokens after the heads."""
        ...

    def read(self, ids: Ids) -> Nats:
        """Read on, int64[n] to float32[B, n]: the surprisal of these given the head and all that stayed."""

    def keep(self, which: Bools) -> None:
        """Of the last n tokens, bool[n], only these stay. Other than `length`, n counts those that left the window."""


def first_line(error: Exception) -> str:
    """What a library's error says, short enough to be part of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
