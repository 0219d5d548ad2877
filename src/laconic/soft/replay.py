"""Gradient checkpointing (arXiv 1604.06174) for passes with a cache, and a head whose scores never exist at once.

transformers' own checkpointing takes the cache from a layer. Here a layer keeps it: `Capture` and `Prefix` can be read
by a layer that runs again.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_SLICE = 512  # places whose scores over the vocabulary exist at a time


def recompute(body: Any, on: bool) -> None:
    """Keep, for the way back, only what goes into each layer (on), or all that it computed (off)."""
    for layer in body.layers:
        vars(layer).pop("forward", None)
        if on:
            layer.forward = partial(_recomputed, layer.forward)


def _recomputed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def nats(head: Any, states: Tensor, targets: Tensor) -> Tensor:
    """-ln p(target) of each state: float[N, H], int64[N] to float32[N], with gradient to the states."""

    def spent(some: Tensor, ids: Tensor) -> Tensor:
        found: Tensor = torch.nn.functional.cross_entropy(head(some).float(), ids, reduction="none")
        return found

    return _by_slices(spent, states, targets)


def divergence(head: Any, states: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher ‖ student) in nats at each place: float[N, H] twice to float32[N], with gradient to `states`."""

    def apart(some: Tensor, others: Tensor) -> Tensor:
        student, truth = head(some).float().log_softmax(-1), head(others).float().log_softmax(-1)
        found: Tensor = (truth.exp() * (truth - student)).sum(-1)
        return found

    return _by_slices(apart, states, teacher.detach())


def _by_slices(function: Any, *tensors: Tensor) -> Tensor:
    parts = zip(*(torch.split(t, _SLICE) for t in tensors), strict=True)
    return torch.cat([checkpoint(function, *part, use_reentrant=False) for part in parts])
