"""What every training run shares: devices, random state, progress, and going on exactly where it was killed."""

from __future__ import annotations

import contextlib
import ctypes
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from laconic.backends import first_line
from laconic.errors import InputError, MissingExtraError

Say = Callable[[str], None]


def nothing(line: str) -> None:
    """Says nothing."""


def first_process() -> bool:
    """Is this the one process that writes, of those that train together?"""
    from accelerate import PartialState

    return bool(PartialState().is_main_process)


@dataclass
class State:
    """Where a run stands; a subclass may add fields with defaults."""

    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


class Loop:
    """A training run.

    A subclass makes `model`, `optimizer`, `schedule`, `state`, `steps` (how many) and `ends` (after which steps it
    judges), then calls `_start`. It says what a batch is, what a step does with it, how to judge, and what besides the
    settings decides the result (`_data`).
    """

    model: Any
    optimizer: Any
    schedule: Any
    state: Any
    steps: int
    ends: list[int]

    def __init__(self, out: Path, settings: Any, save_every: int, say: Say) -> None:
        if save_every < 1:
            raise InputError(f"save_every must be 1 step or more, got {save_every}")
        try:
            import accelerate
            import torch
            import transformers  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("Training", "train") from error
        _keep_freed_memory()
        self.torch, self.out, self.settings, self.save_every, self.say = torch, out, settings, save_every, say
        cpu = not torch.cuda.is_available()
        self.accelerator = accelerate.Accelerator(mixed_precision="bf16", cpu=cpu)
        if (kind := self.accelerator.distributed_type.value) in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
            raise InputError(
                f"accelerate is set up for {kind}; leave that out (a soft encoder's base is split by --shard)"
            )
        torch.manual_seed(settings.seed)

    def train(self) -> Path:
        """Run to the end; returns the folder of the checkpoint."""
        state, began, first, losses = self.state, time.time(), self.state.step, []
        while not self._over():
            losses.append(self._step(self._batch(state.step)))
            state.step += 1
            if state.step % 50 == 0:
                pace = self._pace((time.time() - began) / (state.step - first))
                self._say(f"step {state.step}/{self.steps}  loss {np.mean(losses[-50:]):.4f}  {pace}")
            if state.step in self.ends:
                self._judge()
            if state.step % self.save_every == 0 or state.step in self.ends:
                self._save()
        self.accelerator.wait_for_everyone()
        return self.out / "checkpoint"

    def _batch(self, step: int) -> Any:
        raise NotImplementedError

    def _step(self, batch: Any) -> float:
        """Learn from a batch; returns its loss."""
        raise NotImplementedError

    def _judge(self) -> None:
        """Score the model on dev, in every process, and keep what is worth keeping."""
        raise NotImplementedError

    def _data(self) -> str:
        """What decides the result besides the settings."""
        raise NotImplementedError

    def _over(self) -> bool:
        return bool(self.state.step >= self.steps)

    def _pace(self, seconds: float) -> str:
        """The speed, in words, at so many seconds a step."""
        return f"{seconds:.2f} s/step"

    def _weights(self) -> dict[str, Any]:
        """What is trained, of the model as it is now."""
        weights: dict[str, Any] = self.accelerator.unwrap_model(self.model).state_dict()
        return weights

    def _take(self, weights: dict[str, Any]) -> None:
        """Take back what `_weights` gave."""
        self.model.load_state_dict(weights)

    def _extra(self) -> dict[str, Any]:
        """What else a killed run needs to go on."""
        return {}

    def _restore(self, whole: dict[str, Any]) -> None:
        """Take back what `_extra` gave."""

    def _make_folder(self) -> None:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write {self.out}: {error.strerror}; pass another folder") from None

    def _start(self) -> None:
        """Go on where a run was killed, if one was, on the devices there are."""
        self._resume()
        self.model, self.optimizer = self.accelerator.prepare(self.model, self.optimizer)

    def _learn(self, loss: Any) -> None:
        """One step of the optimizer, with gradients clipped to a norm of 1."""
        self.optimizer.zero_grad()
        self._backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()

    def _backward(self, loss: Any) -> None:
        """Gradients of the mean loss of all processes."""
        self.accelerator.backward(loss)

    def _of_all(self, value: Any) -> list[Any]:
        """The values of all processes, in order."""
        from accelerate.utils import gather_object

        found: list[Any] = gather_object([value])
        return found

    def _save(self) -> None:
        cuda = self.torch.cuda
        rng = self._of_all([self.torch.get_rng_state(), *([cuda.get_rng_state()] if cuda.is_available() else [])])
        if not self.accelerator.is_main_process:
            return
        whole = {
            "model": self._weights(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "rng": rng,
            "state": asdict(self.state),
            "settings": json.dumps(asdict(self.settings)),
            "data": self._data(),
            **self._extra(),
        }
        path = self.out / "resume.pt"
        self.torch.save(whole, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def _resume(self) -> None:
        path = self.out / "resume.pt"
        if not path.exists():
            return
        try:
            whole = self.torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch has no one error for what is not a file of its own
            raise InputError(f"{path} cannot be read ({first_line(error)}); remove it to start again") from None
        if whole["settings"] != json.dumps(asdict(self.settings)):
            raise InputError(
                f"{path} is of a run with other settings ({whole['settings']}); remove it, or change --output"
            )
        if whole.get("data", self._data()) != self._data():
            raise InputError(f"{path} is of a run on other data or devices; remove it, or change --output")
        self._take(whole["model"])
        self._restore(whole)
        self.optimizer.load_state_dict(whole["optimizer"])
        self.schedule.load_state_dict(whole["schedule"])
        rng = whole["rng"][self.accelerator.process_index]
        self.torch.set_rng_state(rng[0])
        if len(rng) > 1:
            self.torch.cuda.set_rng_state(rng[1])
        self.state = type(self.state)(**whole["state"])
        self._say(f"going on after step {self.state.step}")

    def _say(self, line: str) -> None:
        if self.accelerator.is_main_process:
            self.say(line)


def _keep_freed_memory() -> None:
    """glibc gives large blocks back to the system at once; on a CPU that costs training a third of its time."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, size in {-3: 1 << 30, -1: (1 << 31) - 1, -2: 1 << 29}.items():  # mmap, trim thresholds, top pad
            mallopt(parameter, size)
