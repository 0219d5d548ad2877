"""What a reader spends on what is to be said after a memory, a text or nothing: to train by, and to measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from laconic.soft.reader import Reader
from laconic.soft.rotary import rotate
from laconic.text import Floats

if TYPE_CHECKING:
    from laconic.train.contexts import Said


def after(head: Sequence[int], said: Said) -> Said:
    """The same said after some tokens; one BOS is enough."""
    head = [] if list(head) == said.ids[:1] else list(head)
    return said._replace(ids=[*head, *said.ids], after=said.after + len(head))


def nats(reader: Reader, kv: Tensor, said: Sequence[Said]) -> list[Floats]:
    """-ln p of every token to be said, after keys and values float[B, L, 2, n_kv, P, d_h]: float32[n] for each of B."""
    with torch.no_grad():
        found = reader.nats(kv, [s.ids for s in said], [s.after for s in said]).cpu().numpy()
    return np.split(found, np.cumsum([len(s.ids) - s.after for s in said])[:-1])


def without(kv: Tensor, slot: int, frequencies: Tensor) -> Tensor:
    """Keys and values, float[B, L, 2, n_kv, P, d_h], less those of one slot, as if nobody looked at it.

    A reader goes on one position earlier; the keys that stay are turned back by one, so that each is as far from it as
    it was (RoPE knows only distances).
    """
    keys, values = torch.cat([kv[..., :slot, :], kv[..., slot + 1 :, :]], -2).unbind(2)
    return torch.stack([rotate(keys, -1, frequencies), values], 2)
