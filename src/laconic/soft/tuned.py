"""The upper bound of soft compression: LoRA as an encoder's, trained on full contexts instead of slots.

Slots also learn what will be asked and in which form, which the frozen base cannot. A fair bound is a reader of
`BOS context` that was fine-tuned as they were: LoRA of the same rank and targets, the same steps, contexts and losses.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar, Literal

from laconic.errors import InputError
from laconic.soft.adapter import Adapted, rules, settings_of
from laconic.soft.base import Base
from laconic.soft.reader import Reader


@dataclass(frozen=True)
class Tuning:
    """LoRA as in an encoder's `Settings`; there are no slots."""

    window: int = 512  # tokens of the context, the most that it is trained on
    rank: int = 64  # of LoRA
    alpha: float = 32
    targets: tuple[str, ...] = ("q_proj", "v_proj")  # the linear maps that get LoRA, by the ends of their names
    dropout: float = 0.05  # before LoRA, in training
    seed: int = 0  # of the first weights
    mode: Literal["full"] = "full"

    def __post_init__(self) -> None:
        for rule, value, fine in (*rules(self), ("mode must be 'full'", self.mode, self.mode == "full")):
            if not fine:
                raise InputError(f"{rule}, got {value!r}")

    @classmethod
    def of(cls, folder: str | os.PathLike[str]) -> Tuning:
        """That of what `Tuned.save` wrote there."""
        return settings_of(folder, cls)


class Tuned(Adapted[Tuning]):
    """A frozen base with LoRA in every layer, which reads texts. Its tensors are those of `base`.

    tuned = Tuned.load("run/full/checkpoint")
    tuned.reader().generate("A long text …", "\\nQuestion: Who signed it? Answer:")
    """

    kind: ClassVar[type[Tuning]] = Tuning

    def __init__(self, base: Base, settings: Tuning) -> None:
        most = base.window - 2  # a BOS, and one token that is said
        if settings.window > most:
            raise InputError(f"window must be at most {most} for {base.name}, got {settings.window}")
        super().__init__(base, settings)

    def reader(self) -> Reader:
        """A reader with LoRA as it is now, in training or not. It reads texts; memories are for the frozen one."""
        return Reader(self.base, self.body)
