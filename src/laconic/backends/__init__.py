"""What runs a model: token ids in, NumPy out. No type of a framework crosses this seam."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]


class Encoder(Protocol):
    """A token classifier. The other rows of a batch do not change a row beyond float error."""

    def logits(self, ids: Ids, mask: Ids, types: Ids | None = None) -> Logits:
        """One score per class: ids, mask int64[B, T] (mask 1 = token, 0 = padding) to float32[B, T, C].

        `types`: token types, int64[B, T], for models that read them (default: zeros). What stands at padding is
        unspecified.
        """


def first_line(error: Exception) -> str:
    """What a library's error says, short enough to be part of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
