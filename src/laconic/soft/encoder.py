"""A text to the states of a few slots: 500xCompressor (arXiv 2408.03094) and ICAE (arXiv 2307.06945), one code path.

    states = base + LoRA ( text tokens ; m memory embeddings ) at the last m places

500xCompressor keeps their keys and values in every layer, ICAE their last hidden states. Only LoRA and the memory
embeddings are trained, in float32 whatever the base is in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from laconic.errors import InputError
from laconic.soft.adapter import Adapted, Parts, rules, settings_of
from laconic.soft.base import Base, enough_memory
from laconic.soft.caches import Capture
from laconic.soft.memory import Binding, Memory, Mode
from laconic.soft.rotary import rotate

_TOGETHER = 4096  # tokens of one forward pass, padding included (a single text may have more)


@dataclass(frozen=True)
class Settings:
    """What an encoder is; the defaults are those of 500xCompressor, but for dropout's place (docs/soft.md)."""

    slots: int = 16  # at most; fewer can be asked for at every call
    mode: Mode = "kv"  # or "embedding"
    window: int = 512  # tokens of text, the most that it is trained on
    rank: int = 64  # of LoRA
    alpha: float = 32
    targets: tuple[str, ...] = ("q_proj", "v_proj")  # the linear maps that get LoRA, by the ends of their names
    dropout: float = 0.05  # before LoRA, in training
    positions: Literal["official", "continue"] = "official"  # where the slots of n tokens stand for a reader that goes
    # on at m: at n … n + m - 1, ahead of it, as in 500xCompressor; or at 0 … m - 1, right before it
    seed: int = 0  # of the first weights

    def __post_init__(self) -> None:
        for rule, value, fine in (
            ("slots must be 1 or more", self.slots, self.slots >= 1),
            ("mode must be 'kv' or 'embedding'", self.mode, self.mode in ("kv", "embedding")),
            *rules(self),
            ("positions must be 'official' or 'continue'", self.positions, self.positions in ("official", "continue")),
        ):
            if not fine:
                raise InputError(f"{rule}, got {value!r}")

    @classmethod
    def of(cls, folder: str | os.PathLike[str]) -> Settings:
        """Those of the encoder that `SoftEncoder.save` wrote there."""
        return settings_of(folder, cls)


class SoftEncoder(Adapted[Settings]):
    """A frozen base with LoRA and memory embeddings. Its tensors are those of `base`; its modules are its own.

    encoder = SoftEncoder.create(Base.load("laconic-lm/checkpoint"), Settings(slots=4))
    memory = encoder.encode("A long text …", slots=2)
    """

    kind: ClassVar[type[Settings]] = Settings
    files: ClassVar[tuple[str, ...]] = (*Adapted.files, "memory.safetensors")

    def __init__(self, base: Base, settings: Settings) -> None:
        most = base.window - settings.slots
        if settings.window > most:
            raise InputError(f"window must be at most {most} for {base.name} and its slots, got {settings.window}")
        super().__init__(base, settings, _unread(base) if settings.mode == "kv" else None)
        if settings.mode == "kv":
            self.body.layers[-1].mlp, self.body.norm = torch.nn.Identity(), torch.nn.Identity()
        generator = torch.Generator().manual_seed(settings.seed)
        spread = float(base.table.float().std())  # N(0, 1), the paper's, is 50 times what a Llama reads
        first = torch.randn(settings.slots, base.table.shape[1], generator=generator) * spread
        self.memory = torch.nn.Parameter(first.to(base.device))

    def forward(self, rows: Sequence[Sequence[int]], slots: int | None = None) -> Tensor:
        """States of the slots of each row of token ids, with gradient.

        kv: float[B, L, 2, n_kv, m, d_h]; embedding: float[B, m, H]. The slots follow each row at once and padding
        follows the slots, so that a causal model never reads it: no mask, and no row changes another.
        """
        count = self._slots(slots)
        lengths = torch.tensor([len(row) for row in rows], device=self.base.device)
        ids = padded(rows, self.base.device, room=count)
        places = lengths[:, None] + torch.arange(count, device=self.base.device)
        read = self.body.get_input_embeddings()(ids)
        wide = places[..., None].expand(-1, -1, read.shape[-1])
        read = read.scatter(1, wide, self.memory[:count].to(read.dtype).expand(len(rows), -1, -1))
        if self.settings.mode == "embedding":
            states: Tensor = self.body(inputs_embeds=read, use_cache=False).last_hidden_state
            return states.gather(1, wide)
        cache = Capture(places)
        self.body(inputs_embeds=read, past_key_values=cache, use_cache=True)
        if self.settings.positions == "official":
            return cache.kv
        keys, values = cache.kv.unbind(2)
        return torch.stack([rotate(keys, -lengths[:, None, None, None], self.base.frequencies), values], 2)

    def encode(self, text: str, slots: int | None = None, *, chunks: bool = True) -> Memory:
        """The memory of a text in `slots` slots (default: all that were trained).

        chunks: a text longer than `settings.window` is read in equal chunks, each into `slots` slots of its own, and
        their memories are joined, which takes an encoder that was trained to be joined; False: InputError.
        """
        return self.encode_many([text], slots, chunks=chunks)[0]

    def encode_many(self, texts: Sequence[str], slots: int | None = None, *, chunks: bool = True) -> list[Memory]:
        """`encode` for many texts, batched inside; in order."""
        count, made = self._slots(slots), self.made
        pieces = [self.pieces(text, chunks=chunks, name=f"text {k + 1}") for k, text in enumerate(texts)]
        rows = [row for some in pieces for row in some]
        order = sorted(range(len(rows)), key=lambda k: len(rows[k]))
        memories = dict[int, Memory]()
        with torch.no_grad(), enough_memory("encode fewer texts at once, or a shorter one; chunks count as texts"):
            for batch in _batches(order, [len(row) + count for row in rows]):
                states = self([rows[k] for k in batch], count)
                for k, state in zip(batch, states, strict=True):
                    memories[k] = self._memory(state.clone(), len(rows[k]), made)
        found = iter(memories[k] for k in range(len(rows)))
        return [Memory.join([next(found) for _ in some]) for some in pieces]

    def pieces(self, text: str, *, chunks: bool = True, name: str = "the text") -> list[list[int]]:
        """The tokens of a text, in as few equal chunks as there must be; InputError for what `encode` would refuse.

        name: what the error calls the text.
        """
        ids, window = self.base.tokens(text), self.settings.window
        if not ids:
            raise InputError(f"{name} has no tokens; there is nothing to encode")
        if len(ids) > window and not chunks:
            raise InputError(
                f"{name} has {len(ids):,} tokens, the encoder was trained on up to {window:,}; allow chunks, or pass "
                "a shorter text"
            )
        count = -(-len(ids) // window)
        edges = [len(ids) * k // count for k in range(count + 1)]
        return [ids[a:b] for a, b in pairwise(edges)]

    def _memory(self, state: Tensor, tokens: int, made: Binding) -> Memory:
        start = tokens if self.settings.mode == "kv" and self.settings.positions == "official" else 0
        return Memory(state, self.settings.mode, tokens, start, self.base.frequencies.clone(), made)

    def _slots(self, slots: int | None) -> int:
        most = self.settings.slots
        if slots is not None and not (isinstance(slots, int) and 1 <= slots <= most):
            raise InputError(f"slots must be from 1 to {most}, which this encoder was made for, got {slots!r}")
        return most if slots is None else slots

    def _weights(self) -> Parts:
        return (*super()._weights(), {"memory": self.memory})


def padded(rows: Sequence[Sequence[int]], device: torch.device, room: int = 0) -> Tensor:
    """int64[B, T + room]: rows of ids with zeros on the right, where a causal model does not see them."""
    size = max(map(len, rows)) + room
    return torch.tensor([[*row, *[0] * (size - len(row))] for row in rows], device=device)


def _unread(base: Base) -> str:
    """Names of maps whose LoRA would get no gradient in mode "kv": nothing reads what the last layer gives.

    All of it but keys and values is left without LoRA; its feed-forward part and the last norm are not run.
    """
    return rf"(.*\.)?layers\.{len(base.body.layers) - 1}\.(?!self_attn\.[kv]_proj$).*"


def _batches(order: Sequence[int], sizes: Sequence[int]) -> Iterator[list[int]]:
    """Rows, the shortest first, in batches of at most `_TOGETHER` tokens."""
    batch = list[int]()
    for k in order:
        if batch and (len(batch) + 1) * sizes[k] > _TOGETHER:
            yield batch
            batch = []
        batch.append(k)
    if batch:
        yield batch
