"""Tiny random causal language models, saved as real Hugging Face folders, and one whose probabilities are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import transformers as hf
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

import families
import tiny
from laconic import hub

WINDOW = 64  # positions


def build(folder: Path, kind: str, texts: Iterable[str] = families.TEXTS, seed: int = 0, **changes: Any) -> Path:
    """A checkpoint of a family named in `FAMILIES`; byte-level BPE with [CLS] as its BOS."""
    tokenizer = families.bytelevel(texts)
    config, model = FAMILIES[kind]
    given = {
        "vocab_size": tokenizer.get_vocab_size(),
        "bos_token_id": tokenizer.token_to_id("[CLS]"),
        "eos_token_id": tokenizer.token_to_id("[SEP]"),
        "max_position_embeddings": WINDOW,
        **tiny.SIZES,
        **changes,
    }
    given.pop("num_labels")
    return tiny._save(folder, model, config(**given), tokenizer, tiny.BERT_SPECIALS, seed)


def _gpt2(**sizes: Any) -> hf.GPT2Config:
    sizes.pop("intermediate_size")
    return hf.GPT2Config(**sizes)


FAMILIES: dict[str, tuple[Callable[..., Any], Any]] = {
    "llama": (hf.LlamaConfig, hf.LlamaForCausalLM),
    "mistral": (lambda **k: hf.MistralConfig(num_key_value_heads=2, sliding_window=7, **k), hf.MistralForCausalLM),
    "qwen2": (lambda **k: hf.Qwen2Config(num_key_value_heads=2, **k), hf.Qwen2ForCausalLM),
    "gpt2": (_gpt2, hf.GPT2LMHeadModel),
    "phi": (hf.PhiConfig, hf.PhiForCausalLM),
    "gemma2": (
        lambda **k: hf.Gemma2Config(num_key_value_heads=2, head_dim=8, final_logit_softcapping=0.7, **k),
        hf.Gemma2ForCausalLM,
    ),
    "granite": (lambda **k: hf.GraniteConfig(logits_scaling=3.0, **k), hf.GraniteForCausalLM),  # scales its logits
    "bert": (hf.BertConfig, hf.BertLMHeadModel),  # reads ahead
}
PLAIN = ("llama", "mistral", "qwen2", "gpt2", "phi", "gemma2")


def plain_nll(model: Any, ids: np.ndarray) -> np.ndarray:
    """float32[T], NaN first: all logits of one row at once, no cache."""
    import torch

    with torch.no_grad():
        chances = model(input_ids=torch.tensor(ids[None])).logits[0].float().log_softmax(-1)
    return np.append(np.float32(np.nan), -chances[np.arange(len(ids) - 1), ids[1:]].numpy())


class Fake:
    """A decoder of known probabilities: `chance(token, before)` of an id given the ids before it, head included."""

    start, window = 0, 10_000

    def __init__(self, chance: Callable[[int, list[int]], float]) -> None:
        self.chance = chance
        self.read: list[tuple[list[int], list[int]]] = []  # (ids before, ids) of every reading of a session

    def nll(self, ids: np.ndarray, mask: np.ndarray, last: int | None = None) -> np.ndarray:
        found = np.full(ids.shape, np.nan, np.float32)
        for row, tokens, n in zip(found, ids.tolist(), mask.sum(1), strict=True):
            row[1:n] = [-np.log(self.chance(tokens[k], tokens[:k])) for k in range(1, n)]
        return found

    def session(self, heads: Sequence[np.ndarray]) -> FakeSession:
        return FakeSession(self, [head.tolist() for head in heads])


class FakeSession:
    def __init__(self, owner: Fake, heads: list[list[int]]) -> None:
        self.owner, self.heads, self.body = owner, heads, []

    @property
    def length(self) -> int:
        return len(self.body)

    def read(self, ids: np.ndarray) -> np.ndarray:
        found = [self._after(head + self.body, ids.tolist()) for head in self.heads]
        self.body += ids.tolist()
        return np.array(found, "f4")

    def _after(self, before: list[int], ids: list[int]) -> list[float]:
        self.owner.read.append((before, ids))
        return [-np.log(self.owner.chance(token, before + ids[:k])) for k, token in enumerate(ids)]

    def keep(self, which: np.ndarray) -> None:
        before = len(self.body) - len(which)
        self.body[before:] = [token for token, stays in zip(self.body[before:], which, strict=True) if stays]


def word_model(chance: Callable[[str, list[str]], float], words: Iterable[str]) -> hub.LanguageModel:
    """A language model over whole words (with the blank before them), one id each, "" being the BOS."""
    names = ["", *dict.fromkeys(words)]
    tokenizer = Tokenizer(models.WordLevel({w: k for k, w in enumerate(names)}, unk_token=""))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s*\w+|\s*[^\w\s]|\s+"), "isolated")
    fake = Fake(lambda token, before: chance(names[token], [names[k] for k in before]))
    return hub.LanguageModel("fake", tokenizer, fake)
