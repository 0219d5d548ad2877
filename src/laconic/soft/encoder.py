"""A text to the states of a few slots: 500xCompressor (arXiv 2408.03094) and ICAE (arXiv 2307.06945), one code path.

    states = base + LoRA ( text tokens ; m memory embeddings ) at the last m places

500xCompressor keeps their keys and values in every layer, ICAE their last hidden states. Only LoRA and the memory
embeddings are trained, in float32 whatever the base is in.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from laconic.backends import first_line
from laconic.errors import InputError, ModelError
from laconic.hub import sha256
from laconic.soft.base import Base, enough_memory, fingerprint
from laconic.soft.caches import Capture
from laconic.soft.memory import Binding, Memory, Mode
from laconic.soft.replay import recompute
from laconic.soft.rotary import rotate

FORMAT = 1
_CARD = "soft.json"
_WEIGHTS = ("adapter_model.safetensors", "memory.safetensors")
_PREFIX = "base_model.model."  # PEFT's, before the names of the base
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
            ("window must be 1 token or more", self.window, self.window >= 1),
            ("rank must be 1 or more", self.rank, self.rank >= 1),
            ("targets must name linear maps such as q_proj", self.targets, bool(self.targets)),
            ("dropout must be in [0, 1)", self.dropout, 0 <= self.dropout < 1),
            ("positions must be 'official' or 'continue'", self.positions, self.positions in ("official", "continue")),
        ):
            if not fine:
                raise InputError(f"{rule}, got {value!r}")

    @classmethod
    def of(cls, folder: str | os.PathLike[str]) -> Settings:
        """Those of the encoder that `SoftEncoder.save` wrote there."""
        return _settings(Path(folder), _card(Path(folder)))


class SoftEncoder(torch.nn.Module):
    """A frozen base with LoRA and memory embeddings. Its tensors are those of `base`; its modules are its own.

    encoder = SoftEncoder.create(Base.load("laconic-lm/checkpoint"), Settings(slots=4))
    memory = encoder.encode("A long text …", slots=2)
    """

    def __init__(self, base: Base, settings: Settings) -> None:
        super().__init__()
        most = base.window - settings.slots
        if settings.window > most:
            raise InputError(f"window must be at most {most} for {base.name} and its slots, got {settings.window}")
        self.base, self.settings = base, settings
        self.body = _adapted(base, settings)
        generator = torch.Generator().manual_seed(settings.seed)
        spread = float(base.table.float().std())  # N(0, 1), the paper's, is 50 times what a Llama reads
        first = torch.randn(settings.slots, base.table.shape[1], generator=generator) * spread
        self.memory = torch.nn.Parameter(first.to(base.device))
        self.eval()

    @classmethod
    def create(cls, base: Base | str | os.PathLike[str], settings: Settings | None = None) -> SoftEncoder:
        """A new encoder, untrained: to a reader its slots say little."""
        return cls(_loaded(base), settings or Settings())

    @classmethod
    def load(cls, folder: str | os.PathLike[str], base: Base | str | os.PathLike[str] | None = None) -> SoftEncoder:
        """The encoder that `save` wrote. `base`: default the one it was trained on, by the name it had then."""
        path = Path(folder)
        card = _card(path)
        settings = _settings(path, card)
        try:
            base = _loaded(base or card["base"])
            base.made.check(Binding(**card["made"]), f"the encoder {folder}")
        except (KeyError, TypeError) as error:
            raise _incomplete(path, error) from error
        encoder = cls(base, settings)
        encoder._take(path)
        return encoder

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write LoRA in PEFT's format, the memory embeddings and `soft.json`, which comes last and hashes the others.

        PEFT's own `PeftModel.from_pretrained(model, folder)` reads the folder too.
        """
        from safetensors.torch import save_file

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".new-") as scratch:
            new = Path(scratch)
            for name, tensors in zip(_WEIGHTS, self._weights(), strict=True):
                save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, new / name, {"format": "pt"})
            self.body.peft_config["default"].save_pretrained(new)
            files = {p.name: sha256(p) for p in sorted(new.iterdir())}
            card = {
                "format": FORMAT,
                "base": self.base.name,
                "settings": asdict(self.settings),
                "made": asdict(self.base.made),
                "files": files,
            }
            (new / _CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
            for name in (*files, _CARD):
                os.replace(new / name, target / name)

    @property
    def made(self) -> Binding:
        """Fingerprints, with that of the trained weights as they are now."""
        lora, memory = self._weights()
        return replace(self.base.made, adapter=fingerprint({**lora, **memory}.items(), asdict(self.settings)))

    def trained(self) -> list[torch.nn.Parameter]:
        """What an optimiser gets: LoRA and the memory embeddings, all float32."""
        return [p for p in self.parameters() if p.requires_grad]

    def recompute(self, on: bool = True) -> None:
        """Gradient checkpointing: less memory, the same gradients, a third more time."""
        recompute(self.body, on)

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
        cache = Capture(places)
        states: Tensor = self.body(inputs_embeds=read, past_key_values=cache, use_cache=True).last_hidden_state
        if self.settings.mode == "embedding":
            return states.gather(1, wide)
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

    def _weights(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """All that is trained, by the names it has in each file: LoRA's are PEFT's."""
        inside = _PREFIX + self.base.model.base_model_prefix + "."
        lora = {n: p for n, p in self.body.named_parameters() if p.requires_grad}
        return {inside + name.replace(".default.", "."): p for name, p in lora.items()}, {"memory": self.memory}

    def _take(self, folder: Path) -> None:
        """The weights of a folder, every one of them."""
        from safetensors.torch import load_file

        lora, memory = self._weights()
        own = {**lora, **memory}
        found = {k: t for name in _WEIGHTS for k, t in load_file(folder / name).items()}
        if wrong := sorted(own.keys() ^ found.keys()):
            raise ModelError(f"{folder} has other weights than {_CARD} says ({wrong[0]}); save the encoder again")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(found[name])


def padded(rows: Sequence[Sequence[int]], device: torch.device, room: int = 0) -> Tensor:
    """int64[B, T + room]: rows of ids with zeros on the right, where a causal model does not see them."""
    size = max(map(len, rows)) + room
    return torch.tensor([[*row, *[0] * (size - len(row))] for row in rows], device=device)


def _adapted(base: Base, settings: Settings) -> Any:
    """A body over the base's tensors, with LoRA in float32 wherever it can learn.

    In mode "kv" nothing reads what the last layer gives: all but its keys and values is left without LoRA, which would
    get no gradient, and its feed-forward part and the last norm are not run.
    """
    from peft import LoraConfig, inject_adapter_in_model

    body = base.shared_body()
    last = len(body.layers) - 1
    dead = rf"(.*\.)?layers\.{last}\.(?!self_attn\.[kv]_proj$).*" if settings.mode == "kv" else None
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        exclude_modules=dead,
        task_type="CAUSAL_LM",
        base_model_name_or_path=base.name,
    )
    try:
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            inject_adapter_in_model(config, body)
    except ValueError as error:
        raise InputError(f"targets {settings.targets} do not fit {base.name} ({first_line(error)})") from error
    for parameter in body.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if settings.mode == "kv":
        body.layers[last].mlp, body.norm = torch.nn.Identity(), torch.nn.Identity()
    return body


def _loaded(base: Base | str | os.PathLike[str]) -> Base:
    return base if isinstance(base, Base) else Base.load(base)


def _card(folder: Path) -> dict[str, Any]:
    """What soft.json says, once the files beside it are the ones it names."""
    try:
        card = json.loads((folder / _CARD).read_text(encoding="utf-8"))
        files = {name: sha256(folder / name) for name in _WEIGHTS}
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} holds no soft encoder ({first_line(error)}); pass the folder of save()") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ModelError(f"{folder / _CARD} is of another format than {FORMAT}; upgrade laconic, or save it again")
    wrong = [name for name, digest in files.items() if card.get("files", {}).get(name) != digest]
    if wrong:
        raise ModelError(f"{folder / wrong[0]} is not the file that {_CARD} names (SHA-256): fetch it again")
    return card


def _settings(folder: Path, card: dict[str, Any]) -> Settings:
    try:
        return Settings(**{**card["settings"], "targets": tuple(card["settings"]["targets"])})
    except (KeyError, TypeError) as error:
        raise _incomplete(folder, error) from error


def _incomplete(folder: Path, error: Exception) -> ModelError:
    return ModelError(f"{folder / _CARD} is incomplete ({first_line(error)}); save the encoder again")


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
