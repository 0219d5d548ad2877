"""What a text became: slots for one reader, kept as safetensors."""

from __future__ import annotations

import builtins
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from laconic.backends import first_line
from laconic.errors import InputError, ModelError
from laconic.soft.rotary import rotate

FORMAT = "laconic-memory 1"
Mode = Literal["kv", "embedding"]
_AGAIN = "encode the text again"
_DTYPES = {str(t).removeprefix("torch."): t for t in (torch.float32, torch.bfloat16, torch.float16)}


@dataclass(frozen=True)
class Binding:
    """Fingerprints (hex) of what made a memory: only the same four can read it."""

    base: str  # weights and settings of the language model
    rope: str  # its rotary positions
    tokenizer: str
    adapter: str  # LoRA and memory embeddings; "" for a reader, which has none

    def check(self, other: Binding, what: str, remedy: str = _AGAIN) -> None:
        """Refuse another base, RoPE, tokenizer or, where both have one, adapter; the error names what differs."""
        mine, theirs = asdict(self), asdict(other)
        names = {"base": "base model or revision", "rope": "RoPE setting"}
        wrong = [names.get(k, k) for k, v in mine.items() if v and theirs[k] and v != theirs[k]]
        if wrong:
            raise ModelError(f"{what} was made with another {' and another '.join(wrong)}; use that one, or {remedy}")


@dataclass(frozen=True, eq=False, repr=False)
class Memory:
    """Slots in place of a text. Immutable; `+` joins two.

    In mode "kv" a slot is a key and a value in every layer, in mode "embedding" one vector that takes a token's place.
    A reader's own positions begin at 0 with the first slot: after m slots the next token is at m.
    """

    state: Tensor  # kv: float[L, 2, n_kv, m, d_h], keys after RoPE, then values; embedding: float[m, H]
    mode: Mode
    tokens: int  # that it stands for
    start: int  # kv: the position that the first key was rotated to
    frequencies: Tensor  # float32[d'/2], radians a position
    made: Binding

    @property
    def slots(self) -> int:
        return self.state.shape[-2]

    @property
    def ratio(self) -> float:
        """Tokens of text a slot."""
        return self.tokens / self.slots

    @property
    def bytes(self) -> int:
        """Size of the state as it is in memory."""
        return self.state.nbytes

    def __repr__(self) -> str:
        return f"<Memory {self.slots} slots ({self.mode}) for {self.tokens} tokens, {self.bytes / 1024:,.1f} KiB>"

    def __add__(self, other: Memory) -> Memory:
        return Memory.join([self, other])

    def moved(self, by: int) -> Memory:
        """The same slots `by` positions further on, as if they had been encoded there; embeddings have no position."""
        if self.mode == "embedding" or not by:
            return self
        keys, values = self.state.unbind(1)
        turned = torch.stack([rotate(keys, by, self.frequencies), values], 1)
        return replace(self, state=turned, start=self.start + by)

    @classmethod
    def join(cls, memories: Sequence[Memory]) -> Memory:
        """Several memories as one: each is moved by the number of slots before it, as a reader's positions are."""
        if not memories:
            raise InputError("there are no memories to join; pass one or more")
        first, parts, slots = memories[0], list[Tensor](), 0
        for k, memory in enumerate(memories):
            first.made.check(memory.made, f"memory {k + 1}")
            if memory.mode != first.mode:
                raise ModelError(f"memory {k + 1} is of mode {memory.mode!r}, the first of {first.mode!r}: {_AGAIN}")
            parts.append(memory.moved(slots).state.to(first.state))
            slots += memory.slots
        return replace(first, state=torch.cat(parts, -2), tokens=sum(m.tokens for m in memories))

    def to(self, device: str | torch.device) -> Memory:
        """On another device."""
        return replace(self, state=self.state.to(device), frequencies=self.frequencies.to(device))

    def to_bytes(self, *, int8: bool = False) -> builtins.bytes:
        """One safetensors file, whose header is in no fixed order. `from_bytes` gives the same bits.

        int8: a byte a number and a float32 scale (largest / 127) a vector instead: a quarter of float32, at some 0.5 %
        relative error.
        """
        from safetensors.torch import save

        tensors = {"frequencies": self.frequencies, **(_quantized(self.state) if int8 else {"state": self.state})}
        tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        facts = {
            "format": FORMAT,
            "mode": self.mode,
            "tokens": str(self.tokens),
            "start": str(self.start),
            "dtype": str(self.state.dtype).removeprefix("torch."),
            **asdict(self.made),
        }
        return save(tensors, {**facts, "sha256": _digest(facts, tensors)})

    @classmethod
    def from_bytes(cls, data: builtins.bytes, name: str = "the memory") -> Memory:
        """What `to_bytes` gave, on the CPU. Bytes that are truncated, edited or of another format are refused.

        name: what a ModelError calls it.
        """
        facts, tensors = _parsed(data, name)
        try:
            found = tensors["state"] if "state" in tensors else _restored(tensors)
            return cls(
                state=found.to(_DTYPES[facts["dtype"]]),
                mode="kv" if facts["mode"] == "kv" else "embedding",
                tokens=int(facts["tokens"]),
                start=int(facts["start"]),
                frequencies=tensors["frequencies"],
                made=Binding(**{f.name: facts[f.name] for f in fields(Binding)}),
            )
        except (KeyError, ValueError) as error:
            raise ModelError(f"{name} lacks what a memory has ({first_line(error)}); {_AGAIN}") from error

    def save(self, path: str | os.PathLike[str], *, int8: bool = False) -> None:
        """Write `to_bytes` to a file, whole or not at all."""
        _write(Path(path), self.to_bytes(int8=int8))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Memory:
        """The memory of a file: `from_bytes`."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise ModelError(f"{path} cannot be read as a memory ({error.strerror}); {_AGAIN}") from error
        return cls.from_bytes(data, str(path))


def _quantized(state: Tensor) -> dict[str, Tensor]:
    """int8[..., d] and float32[..., 1]."""
    values = state.float()
    scales = values.abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127
    return {"codes": (values / scales).round().to(torch.int8), "scales": scales}


def _restored(tensors: Mapping[str, Tensor]) -> Tensor:
    return tensors["codes"].float() * tensors["scales"]


def _write(path: Path, data: bytes) -> None:
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
            file.write(data)
        os.replace(file.name, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); pass another path") from error


def _parsed(data: bytes, name: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file whose hash is right."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")  # of the header, JSON, whose metadata `load` does not give
        facts = dict(json.loads(data[8 : 8 + size]).get("__metadata__") or {})
    except (ValueError, SafetensorError) as error:
        raise ModelError(f"{name} cannot be read as a memory ({first_line(error)}); {_AGAIN}") from error
    if facts.get("format") != FORMAT:
        raise ModelError(f"{name} is of format {facts.get('format')!r}; this laconic reads {FORMAT!r}: {_AGAIN}")
    if facts.pop("sha256", None) != _digest(facts, tensors):
        raise ModelError(f"{name} was changed after it was written (SHA-256); {_AGAIN}")
    return facts, tensors


def _digest(facts: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all that a file says."""
    digest = hashlib.sha256(json.dumps(sorted(facts.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(raw(tensor))
    return digest.hexdigest()


def raw(tensor: Tensor) -> Any:
    """The bytes of a tensor on the CPU, also of one whose type NumPy does not know."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
