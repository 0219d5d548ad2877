"""What each of two processes runs, as `torchrun` starts them: several trainings, looked at from outside.

    torchrun --nproc-per-node 2 tests/sharded.py JOBS.json

JOBS.json: [[command line of laconic, how], …]. how: "stop": the run is given up after its first save; "as-saved": the
base stays in the precision of its checkpoint; "ddp": that, and gradients are averaged by PyTorch's own DDP; or "".
OUT/seen-RANK.json: the loss of every step, bytes of all tensors that are alive before the last, and the most layers of
a sharded base that a process had whole at a time on the way forward.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

import softs
from laconic.cli import main
from laconic.soft.base import Base
from laconic.train import shard, soft
from laconic.train.loop import Loop


class Stopped(BaseException):
    pass


class Watched:
    def __init__(self, how: str) -> None:
        self.how, self.patch = how, pytest.MonkeyPatch()
        self.seen = {"losses": [], "bytes": 0, "whole": 0}

    def __enter__(self) -> Watched:
        self.real = soft._Run._step, soft._Run._save, shard._Unit.forward
        self.patch.setattr(soft._Run, "_step", lambda run, batch: self.step(run, batch))
        self.patch.setattr(soft._Run, "_save", lambda run: self.save(run))
        self.patch.setattr(shard._Unit, "forward", lambda unit, *args, **kwargs: self.forward(unit, *args, **kwargs))
        if self.how in ("as-saved", "ddp"):
            load = Base.load
            self.patch.setattr(Base, "load", lambda name, device, as_saved=False: load(name, device, as_saved=True))
        if self.how == "ddp":
            self.patch.setattr(soft._Run, "_resume", with_ddp)
            self.patch.setattr(soft._Run, "_backward", Loop._backward)
        return self

    def __exit__(self, *error: object) -> bool:
        self.patch.undo()
        return isinstance(error[1], Stopped)

    def step(self, run: soft._Run, batch: list) -> float:
        self.units = getattr(run.whole, "units", ())
        if run.state.step == run.steps - 1:
            self.seen["bytes"] = softs.alive()
        self.seen["losses"].append(self.real[0](run, batch))
        return self.seen["losses"][-1]

    def save(self, run: soft._Run) -> None:
        self.real[1](run)
        if self.how == "stop":
            run.accelerator.wait_for_everyone()
            raise Stopped

    def forward(self, unit: shard._Unit, *args: object, **kwargs: object) -> object:
        count = sum(not all(split(p) for p in u.parameters() if not p.requires_grad) for u in self.units)
        self.seen["whole"] = max(self.seen["whole"], count)
        return self.real[2](unit, *args, **kwargs)


def with_ddp(run: soft._Run) -> None:
    run.whole = DistributedDataParallel(shard.Whole([run.model]))


def split(tensor: torch.Tensor) -> bool:
    return hasattr(tensor, "_local_tensor")


if __name__ == "__main__":
    for command, how in json.loads(Path(sys.argv[1]).read_text()):
        with Watched(how) as watched:
            assert main(command) == 0, command
        out = Path(command[command.index("-o") + 1])
        (out / f"seen-{torch.distributed.get_rank()}.json").write_text(json.dumps(watched.seen))
    torch.distributed.destroy_process_group()
