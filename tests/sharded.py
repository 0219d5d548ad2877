"""Runs in each of two processes, as `torchrun` starts them: several trainings, and what came of them.

    torchrun --nproc-per-node 2 tests/sharded.py JOBS.json

JOBS.json: [[command line of laconic, how], …]; in how may be: stop: the run is given up after its first save. as-saved: the
base stays in the precision of its checkpoint. ddp: gradients are averaged by PyTorch's DDP. OUT/seen-RANK.json of each: the
loss of every step, and bytes of all tensors that are alive before the last.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from laconic.cli import main
from laconic.soft.base import Base
from laconic.train import soft
from laconic.train.loop import Loop
from laconic.train.shard import Whole


class Stopped(Exception):
    pass


class Watched:
    """`laconic.train.soft`'s runs, looked at from outside."""

    def __init__(self, how: str) -> None:
        self.how, self.losses, self.bytes = how, [], 0
        self.patch = pytest.MonkeyPatch()

    def __enter__(self) -> Watched:
        self.step, self.save, load = soft._Run._step, soft._Run._save, Base.load
        self.patch.setattr(soft._Run, "_step", lambda run, batch: self._step(run, batch))
        self.patch.setattr(soft._Run, "_save", lambda run: self._save(run))
        if "as-saved" in self.how:
            self.patch.setattr(Base, "load", lambda name, device, as_saved=False: load(name, device, as_saved=True))
        if "ddp" in self.how:
            self.patch.setattr(soft._Run, "_resume", with_ddp)
            self.patch.setattr(soft._Run, "_backward", Loop._backward)
        return self

    def __exit__(self, *error: object) -> bool:
        self.patch.undo()
        return isinstance(error[1], Stopped)

    def _step(self, run: soft._Run, batch: list) -> float:
        if run.state.step == run.steps - 1:
            self.bytes = alive()
        self.losses.append(self.step(run, batch))
        return self.losses[-1]

    def _save(self, run: soft._Run) -> None:
        self.save(run)
        if "stop" in self.how:
            run.accelerator.wait_for_everyone()
            raise Stopped


def with_ddp(run: soft._Run) -> None:
    run.whole = DistributedDataParallel(Whole([run.model]))


def alive() -> int:
    """Bytes of the storages of all tensors."""
    gc.collect()
    tensors = [t for t in gc.get_objects() if issubclass(type(t), torch.Tensor)]
    local = [getattr(t, "_local_tensor", t) for t in tensors]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in local}
    return sum(storages.values())


if __name__ == "__main__":
    for command, how in json.loads(Path(sys.argv[1]).read_text()):
        with Watched(how) as seen:
            assert main(command) == 0, command
        rank = torch.distributed.get_rank()
        out = Path(command[command.index("-o") + 1])
        (out / f"seen-{rank}.json").write_text(json.dumps({"losses": seen.losses, "bytes": seen.bytes}))
    torch.distributed.destroy_process_group()
