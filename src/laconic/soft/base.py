"""The frozen language model that an encoder and its reader share, and what identifies it."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from laconic.backends import first_line
from laconic.backends.decoder import best_device, read_checkpoint, start_token
from laconic.errors import InputError, ModelError
from laconic.hub import decoder_folder, decoder_tokenizer
from laconic.soft.caches import Capture, Prefix
from laconic.soft.memory import Binding, raw
from laconic.soft.rotary import rotate
from laconic.text import readable

if TYPE_CHECKING:
    import tokenizers

_LLAMA = "use a plain decoder with rotary positions, such as those of Llama, Mistral or Qwen"
_SAMPLE = 1024  # values of each tensor that its fingerprint reads
_SETTINGS = ("model_type", "hidden_act", "rms_norm_eps", "num_attention_heads", "num_key_value_heads", "head_dim")
_PROBE = "Ünïcode — 12.5 % of tokens?\n\tdef f(x): return x[0]  # 你好 🙂 </s> <s>"
_CHANGING = ("dynamic", "longrope")  # kinds of RoPE whose frequencies depend on the length of the input
_TOLERANCE = {2: 0.2, 4: 1e-3}  # by bytes of a weight


@dataclass(frozen=True, eq=False, repr=False)
class Base:
    """A causal language model that nothing here changes, and its tokenizer."""

    name: str
    model: Any  # transformers' …ForCausalLM: frozen, eval
    tokenizer: tokenizers.Tokenizer
    start: int  # the token that a text begins with (BOS)
    ends: tuple[int, ...]  # the tokens that end an answer; the first one (EOS) is learned

    @classmethod
    def load(cls, name: str | os.PathLike[str], device: str | None = None, *, as_saved: bool = False) -> Base:
        """The model of a folder or a Hugging Face name: float32 on the CPU, as it was saved on a GPU.

        device: "cpu", "cuda" or "mps"; by default a GPU if there is one. as_saved: in that precision on the CPU, too.
        Refused with a ModelError: sliding-window layers, RoPE that depends on the length, and a model that does not
        read keys and values as it made them.
        """
        folder = decoder_folder(name)
        device = device or best_device(torch)
        model = read_checkpoint(folder)
        model = (model.float() if device == "cpu" and not as_saved else model).to(device).requires_grad_(False)
        config = model.config.get_text_config()
        start = start_token(folder, config, model.get_input_embeddings().num_embeddings)
        ends = _numbers(config.eos_token_id) + _numbers(model.generation_config.eos_token_id)
        base = cls(str(name), model, decoder_tokenizer(folder), start, tuple(dict.fromkeys(ends or [start])))
        _check_layers(folder, config, base.body)
        base._try_out(folder)
        return base

    @property
    def body(self) -> Any:
        """The model without its head."""
        return self.model.base_model

    @property
    def device(self) -> torch.device:
        return self.table.device

    @property
    def table(self) -> Tensor:
        """The token embeddings: float[V, H]."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight

    @property
    def window(self) -> int:
        """Positions that the model has: memory, text and answer together."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    @property
    def frequencies(self) -> Tensor:
        """Of the rotary positions: float32[d'/2], radians a position."""
        found: Tensor = self.body.rotary_emb.inv_freq
        return found.float()

    @cached_property
    def made(self) -> Binding:
        """Fingerprints; of the weights, up to 1,024 values of each tensor in bfloat16, so that precision is free."""
        config = self.model.config.get_text_config().to_dict()
        rotary = self.body.rotary_emb
        vocabulary = sorted(self.tokenizer.get_vocab().items())
        return Binding(
            base=fingerprint(self.model.named_parameters(), {k: config.get(k) for k in _SETTINGS}),
            rope=_hash(raw(self.frequencies.cpu()), str(float(rotary.attention_scaling)).encode()),
            tokenizer=_hash(json.dumps([vocabulary, self.tokens(_PROBE)]).encode()),
            adapter="",
        )

    def tokens(self, text: str) -> list[int]:
        """Ids of a text without special tokens."""
        ids: list[int] = self.tokenizer.encode(readable(text), add_special_tokens=False).ids
        return ids

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids; special tokens have none."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def shared_body(self) -> Any:
        """A second tree of modules over the very same tensors: adapters and checkpoints put in it stay in it."""
        tensors = [*self.body.parameters(), *self.body.buffers()]
        return copy.deepcopy(self.body, {id(t): t for t in tensors})

    def _try_out(self, folder: Path) -> None:
        """Three tokens read as keys and values before three others, and keys moved by rotation, against the model."""
        ids = torch.randint(self.table.shape[0], (1, 6), generator=torch.Generator().manual_seed(0)).to(self.device)
        places = torch.arange(3, device=self.device)[None]
        plain, ahead = Capture(places), Capture(places)
        positions = torch.arange(6, device=self.device)[None]
        try:
            with torch.inference_mode():
                whole = self.model(input_ids=ids, use_cache=False).logits[0, 3:].float()
                self.body(input_ids=ids, past_key_values=plain, use_cache=True)
                self.body(input_ids=ids, position_ids=positions + 50, past_key_values=ahead, use_cache=True)
                states = self.body(input_ids=ids[:, 3:], past_key_values=Prefix(plain.kv), use_cache=True)
                parts = self.model.get_output_embeddings()(states.last_hidden_state)[0].float()
                moved = rotate(plain.kv[:, :, 0], 50, self.frequencies).float() - ahead.kv[:, :, 0].float()
        except Exception as error:  # a foreign model fails in its own way
            raise ModelError(f"{folder} does not run as a base ({first_line(error)}); {_LLAMA}") from error
        gap, turn = float((whole - parts).abs().max()), float(moved.abs().max())
        tolerance = _TOLERANCE[self.table.element_size()]
        if not (gap < tolerance * max(1.0, float(whole.abs().max())) and turn < tolerance * 10):
            raise ModelError(
                f"{folder} does not read keys and values as it made them (logits differ by {gap:.2g}, moved keys by "
                f"{turn:.2g}); {_LLAMA}"
            )


def fingerprint(tensors: Iterable[tuple[str, Tensor]], settings: object = None) -> str:
    """Of named tensors: a hash of their names, shapes and up to 1,024 values each, spread evenly."""
    parts = [json.dumps(settings).encode()]
    for name, tensor in sorted(tensors):
        parts.append(json.dumps([name, list(tensor.shape)]).encode())
        values = tensor.detach().reshape(-1)
        parts.append(raw(values[:: max(1, -(-len(values) // _SAMPLE))].bfloat16().cpu()))
    return _hash(*parts)


@contextmanager
def enough_memory(advice: str) -> Iterator[None]:
    """Out of memory, of a device or the CPU, as an error that says what to lower."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.cuda.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise InputError(f"out of memory ({first_line(error)}); {advice}") from error


def _check_layers(folder: Path, config: Any, body: Any) -> None:
    """Refuse what is known not to work, by name."""
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if kinds or (window and window < config.max_position_embeddings):
        what = f"layers of {', '.join(sorted(kinds))}" if kinds else f"a sliding window of {window} tokens"
        raise ModelError(
            f"{folder} has {what}, which would forget the slots; set sliding_window to null in config.json if you "
            f"stay below it, or {_LLAMA}"
        )
    rotary = getattr(body, "rotary_emb", None)
    if getattr(rotary, "inv_freq", None) is None or getattr(rotary, "rope_type", "default") in _CHANGING:
        kind = getattr(rotary, "rope_type", "none")
        raise ModelError(f"{folder} has RoPE of kind {kind!r}, whose keys cannot be moved; {_LLAMA}")


def _numbers(found: int | list[int] | None) -> list[int]:
    return [] if found is None else [found] if isinstance(found, int) else list(found)


def _hash(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:32]
