"""Tiny bases for soft compression, and memories that hold every key and value of a text: they must equal the text."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch
import transformers as hf

import families
import tiny
from laconic.soft.base import Base
from laconic.soft.memory import Memory

TEXT = "The harbour committee met on Tuesday to discuss the repair."
OTHER = "It cost $3.75, or 1,000 yen; nobody paid."
KINDS: dict[str, tuple[Any, Any]] = {
    "llama": (hf.LlamaConfig, hf.LlamaForCausalLM),
    "mistral": (hf.MistralConfig, hf.MistralForCausalLM),
    "qwen2": (hf.Qwen2Config, hf.Qwen2ForCausalLM),
    "qwen3": (hf.Qwen3Config, hf.Qwen3ForCausalLM),
    "gpt2": (hf.GPT2Config, hf.GPT2LMHeadModel),
}
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


def build(folder: Path, kind: str = "llama", seed: int = 0, **changes: Any) -> Path:
    """A checkpoint with two heads of keys and values for four, biases that are not zero, and 256 positions."""
    tokenizer = families.bytelevel(families.TEXTS)
    sizes: dict[str, Any] = {**tiny.SIZES, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256}
    sizes |= {"vocab_size": tokenizer.get_vocab_size(), "bos_token_id": 2, "eos_token_id": 3, **changes}
    if kind == "gpt2":
        sizes = {k: v for k, v in sizes.items() if k not in ("num_key_value_heads", "head_dim", "intermediate_size")}
    sizes.pop("num_labels")
    config, model = KINDS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    tiny._save(folder, _with_biases(model), config(**sizes), tokenizer, tiny.BERT_SPECIALS, seed)
    families.edit_json(folder / "config.json", architectures=[model.__name__])
    return folder


def _with_biases(model: Any) -> Any:
    class Biased(model):
        def save_pretrained(self, folder: Path) -> None:
            with torch.no_grad():
                generator = torch.Generator().manual_seed(7)
                for name, weight in self.named_parameters():
                    if name.endswith("bias"):
                        weight.normal_(0, 0.3, generator=generator)
            super().save_pretrained(folder)

    return Biased


def base_of(folder: Path, kind: str = "llama", **changes: Any) -> Base:
    return Base.load(build(folder, kind, **changes), "cpu")


def raw_memory(base: Base, text: str, first: bool = True) -> Memory:
    """Keys and values of all tokens, as transformers makes them in one plain pass; with the BOS unless told."""
    ids = [*([base.start] if first else []), *base.tokens(text)]
    with torch.no_grad():
        cache = base.model(torch.tensor([ids]), use_cache=True).past_key_values
    state = torch.stack([torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers])
    return Memory(state, "kv", len(ids), 0, base.frequencies, base.made)


def plain_nll(base: Base, ids: list[int], count: int) -> torch.Tensor:
    """float32[count]: surprisal of the last tokens, from all logits of one plain pass."""
    with torch.no_grad():
        logits = base.model(torch.tensor([ids]), use_cache=False).logits[0].float()
    return torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none")[-count:]


def shaken(encoder: Any, seed: int = 1) -> Any:
    """LoRA's second matrices are zero at first; with noise in them the adapter does something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in encoder.trained():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return encoder


def alive() -> int:
    """Bytes of the storages of all tensors that there are; of one that is split over processes, of the part here."""
    gc.collect()
    tensors = [t for t in gc.get_objects() if issubclass(type(t), torch.Tensor)]
    storages = [getattr(t, "_local_tensor", t).untyped_storage() for t in tensors]
    return sum({s.data_ptr(): s.nbytes() for s in storages}.values())
