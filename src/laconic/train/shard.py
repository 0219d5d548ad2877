"""A frozen base split over the processes that train on it: PyTorch's FSDP2, a unit for each of its layers.

A process keeps its share of every layer, and has a layer whole only while it runs it, there and on the way back. What
is trained stays whole in every process, as do token embeddings, the last norm and the head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from laconic.errors import InputError
from laconic.soft.adapter import Adapted
from laconic.soft.base import Base
from laconic.soft.caches import Capture

_TORCH = "2.7"  # the first whose fully_shard leaves parameters alone


class Whole(torch.nn.Module):
    """Runs functions that call sharded layers, any number of them in any order: FSDP's root."""

    def __init__(self, units: Sequence[Any] = ()) -> None:
        super().__init__()
        self.units = torch.nn.ModuleList(units)

    def forward(self, function: Callable[[], Any]) -> Any:
        return function()


class _Unit(torch.nn.Module):
    """A layer of two trees of modules over the same weights, which are there while either of them runs."""

    def __init__(self, number: int, layers: Sequence[Any]) -> None:
        super().__init__()
        self.number, self.layers = number, torch.nn.ModuleList(layers)

    def forward(self, function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> tuple[Tensor, list[Tensor]]:
        """What a layer gives, and what a cache took of it: gradients may come either way, and FSDP looks at results."""
        states = function(*args, **kwargs)
        return states, [cache.taken(self.number) for cache in (*args, *kwargs.values()) if isinstance(cache, Capture)]

    def take_over(self) -> None:
        """Calls of the layers are from now on calls of the unit."""
        for layer in self.layers:
            layer.forward = self._through(layer.forward)

    def _through(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(*args: Any, **kwargs: Any) -> Tensor:
            states: Tensor = self(function, *args, **kwargs)[0]
            return states

        return forward


def shard(base: Base, model: Adapted[Any], device: torch.device) -> Whole:
    """Split a base in main memory, and what is trained over its tensors, over the processes; all runs on `device` then.

    Every process must do the same passes in the same order, inside of functions that it gives to the result.
    `recompute` comes before.
    """
    if torch.__version__ < _TORCH:
        raise InputError(f"shard needs torch {_TORCH} or later, this is {torch.__version__}; upgrade it")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    _ = base.made  # fingerprints are of whole weights, and kept
    units = [_Unit(k, pair) for k, pair in enumerate(zip(base.body.layers, model.body.layers, strict=True))]
    trained = set(model.trained())
    _move(base, model, {p for unit in units for p in unit.parameters()} - trained, device)
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for unit in units:
        fully_shard(unit, mesh=mesh, ignored_params=trained)
        unit.take_over()
    whole = Whole(units)
    fully_shard(whole, mesh=mesh)
    return whole


def _move(base: Base, model: Adapted[Any], split: set[Any], device: torch.device) -> None:
    """To the device, in place, with all but what will be split, which goes there a layer at a time."""
    for parameter in {*base.model.parameters(), *model.parameters()} - split:
        parameter.data = parameter.data.to(device)
    for module in [*base.model.modules(), *model.modules()]:
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)
