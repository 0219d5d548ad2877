"""Two caches for passes with gradients. A layer may run again on the way back (checkpointing): neither one grows.

Both stay empty, or as they were made, so that masks and positions, which transformers computes from the length of a
cache, are right in every pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache


class Capture(DynamicCache):
    """Takes the keys and values at some positions of each row; attention sees all of its own pass, and no past.

    `places`: int64[B, m].
    """

    def __init__(self, places: Tensor) -> None:
        super().__init__()
        self._places = places
        self._taken: dict[int, Tensor] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """float[B, h, T, d] each, as they came."""
        index = self._places[:, None, :, None].expand(-1, key_states.shape[1], -1, key_states.shape[3])
        taken = torch.stack([key_states.gather(2, index), value_states.gather(2, index)], 1)
        self._taken.setdefault(layer_idx, taken)  # run again, a layer must do the same operations
        return key_states, value_states

    def taken(self, layer: int) -> Tensor:
        """float[B, 2, h, m, d]: of a layer that has run, keys (after RoPE) and values."""
        return self._taken[layer]

    @property
    def kv(self) -> Tensor:
        """float[B, L, 2, h, m, d]: of every layer."""
        return torch.stack([self._taken[layer] for layer in sorted(self._taken)], 1)


class Prefix(DynamicCache):
    """Gives attention keys and values of a past before those of the pass, and keeps only the past.

    `kv`: float[B, L, 2, h, P, d].
    """

    def __init__(self, kv: Tensor) -> None:
        super().__init__([(layer[:, 0], layer[:, 1]) for layer in kv.unbind(1)])
        self._kv = kv

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """float[B, h, T, d] each to float[B, h, P + T, d] each."""
        past = self._kv[:, layer_idx]
        return torch.cat([past[:, 0], key_states], 2), torch.cat([past[:, 1], value_states], 2)


def growing(kv: Tensor) -> DynamicCache:
    """A cache for passes without gradients: it begins with `kv`, float[B, L, 2, h, P, d], and keeps what follows."""
    return DynamicCache([(layer[:, 0], layer[:, 1]) for layer in kv.unbind(1)])


def contents(cache: DynamicCache) -> Tensor:
    """All that a growing cache holds: float[B, L, 2, h, T, d]."""
    layers: Any = cache.layers
    return torch.stack([torch.stack([layer.keys, layer.values], 1) for layer in layers], 1)
