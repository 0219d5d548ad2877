"""Rotary positions (RoPE, arXiv 2104.09864): a stored key can be moved to another position."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(keys: Tensor, by: int | Tensor, frequencies: Tensor) -> Tensor:
    """Keys as they would be `by` positions further on: float[..., m, d] to the same.

    `by`: positions, a number or int64 broadcastable to [..., m]. `frequencies`: float32[d'/2], radians a position, the
    first d' numbers of a key being rotated. Rotations add up (eq. 16), so this is exact for every static kind of RoPE
    (scaled frequencies included), not for one whose frequencies depend on the length.
    """
    half = len(frequencies)
    steps = torch.as_tensor(by, device=keys.device, dtype=torch.float64)
    angles = steps[..., None] * frequencies.to(keys.device, torch.float64)
    cos, sin = angles.cos().float(), angles.sin().float()
    first, second = keys[..., :half].float(), keys[..., half : 2 * half].float()
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
    return torch.cat([turned.to(keys.dtype), keys[..., 2 * half :]], -1)
