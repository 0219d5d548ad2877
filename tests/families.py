"""Tiny random checkpoints of the families beside XLM-R and mBERT (`tiny`): BERT, MobileBERT, ModernBERT.

Each builder takes a folder and texts, and writes a real Hugging Face folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForTokenClassification,
    MobileBertConfig,
    MobileBertForTokenClassification,
    ModernBertConfig,
    ModernBertForTokenClassification,
)

import tiny

torch.set_num_threads(1)  # for tensors so small, threads only wait for each other

TEXTS = [
    "The harbour committee met on Tuesday to discuss the repair of the northern pier.",
    "It cost $3.75, or 1,000 yen; nobody paid. Nobody!",
    "Ms. Okafor reported that the engineers had found 23 damaged piles, not 11 as first thought.",
    "Der Fährverkehr ruht bis Mai. Ça va? Данные пока не готовы.",
]


def build_bert(folder: Path, texts: Iterable[str], seed: int = 0) -> Path:
    """A TinyBERT-like classifier: lower-case WordPiece, fewer positions than 512, no labels named."""
    tokenizer = tiny.wordpiece(texts)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    config = BertConfig(**tiny.SIZES, vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=192)
    return tiny._save(folder, BertForTokenClassification, config, tokenizer, tiny.BERT_SPECIALS, seed)


def build_mobilebert(folder: Path, texts: Iterable[str], seed: int = 0) -> Path:
    """A MobileBERT classifier: bottlenecks, trigram embeddings."""
    tokenizer = tiny.wordpiece(texts)
    config = MobileBertConfig(
        **tiny.SIZES,
        vocab_size=tokenizer.get_vocab_size(),
        embedding_size=16,
        intra_bottleneck_size=16,
        max_position_embeddings=512,
        id2label={0: "drop", 1: "keep"},
        label2id={"drop": 0, "keep": 1},
    )
    return tiny._save(folder, MobileBertForTokenClassification, config, tokenizer, tiny.BERT_SPECIALS, seed)


def build_modernbert(folder: Path, texts: Iterable[str], seed: int = 0) -> Path:
    """A ModernBERT classifier: byte-level BPE, rotary positions, local attention; "preserve" is its class 0."""
    tokenizer = bytelevel(texts)
    special = {f"{name}_token_id": tokenizer.token_to_id(f"[{name.upper()}]") for name in ("pad", "cls", "sep")}
    config = ModernBertConfig(
        **tiny.SIZES,
        **special,
        bos_token_id=special["cls_token_id"],
        eos_token_id=special["sep_token_id"],
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=1024,
        local_attention=16,
        global_attn_every_n_layers=2,
        id2label={0: "preserve", 1: "drop"},
        label2id={"preserve": 0, "drop": 1},
    )
    return tiny._save(folder, ModernBertForTokenClassification, config, tokenizer, tiny.BERT_SPECIALS, seed)


def bytelevel(texts: Iterable[str], vocab_size: int = 400) -> Tokenizer:
    """Byte-level BPE: no text is unknown to it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(tiny.BERT_SPECIALS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return tokenizer


BUILDERS: dict[str, Callable[[Path, Iterable[str]], Path]] = {
    "xlmr": tiny.build_xlmr,
    "mbert": tiny.build_mbert,
    "bert": build_bert,
    "mobilebert": build_mobilebert,
    "modernbert": build_modernbert,
}


def edit_json(path: Path, **changes: object) -> None:
    """Set keys of a JSON file; None removes one."""
    known = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({k: v for k, v in known.items() if v is not None}), encoding="utf-8")
