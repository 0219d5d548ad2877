"""Tiny random checkpoints, saved as real Hugging Face folders: no network, no GPU, two seconds each.

`build_xlmr` and `build_mbert` write safetensors, tokenizer.json and config, so anything that loads a folder loads them.
Weights come from an explicit generator: the same folder every time, and the caller's random state is left alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
    XLMRobertaConfig,
    XLMRobertaForTokenClassification,
)

SIZES: dict[str, int] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "num_labels": 2,
}
XLMR_SPECIALS = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
XLMR_SPECIALS |= {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
BERT_SPECIALS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
BERT_SPECIALS |= {"mask_token": "[MASK]"}


def build_xlmr(folder: Path, texts: Iterable[str], vocab_size: int = 400, seed: int = 0) -> Path:
    """An XLM-RoBERTa token classifier with a SentencePiece-like Unigram tokenizer trained on `texts`."""
    tokenizer = unigram(texts, vocab_size)
    vocab = tokenizer.get_vocab_size()
    config = XLMRobertaConfig(**SIZES, vocab_size=vocab, max_position_embeddings=514, pad_token_id=1)
    return _save(folder, XLMRobertaForTokenClassification, config, tokenizer, XLMR_SPECIALS, seed)


def build_mbert(folder: Path, texts: Iterable[str], vocab_size: int = 400, seed: int = 0) -> Path:
    """A BERT token classifier with a cased WordPiece tokenizer trained on `texts`."""
    tokenizer = wordpiece(texts, vocab_size)
    config = BertConfig(**SIZES, vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=512, pad_token_id=0)
    return _save(folder, BertForTokenClassification, config, tokenizer, BERT_SPECIALS, seed)


def unigram(texts: Iterable[str], vocab_size: int = 400) -> Tokenizer:
    """NFKC, split at white space, ▁ before every word; `<unk>` has id 3, as in XLM-R."""
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=specials, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = _markers(tokenizer, "<s>", "</s>")
    return tokenizer


def wordpiece(texts: Iterable[str], vocab_size: int = 400) -> Tokenizer:
    """Cased WordPiece with `##`, as in multilingual BERT."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=list(BERT_SPECIALS.values()), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = _markers(tokenizer, "[CLS]", "[SEP]")
    return tokenizer


def randomize(model: PreTrainedModel, seed: int, spread: float = 2.0) -> None:
    """Random weights large enough that attention mixes and probabilities reach from near 0 to near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                scale = spread if name.startswith("classifier") else 1.0
                weight.normal_(0, scale / weight.shape[-1] ** 0.5, generator=generator)


def _save(
    folder: Path,
    kind: type[PreTrainedModel],
    config: PreTrainedConfig,
    tokenizer: Tokenizer,
    specials: dict[str, str],
    seed: int,
) -> Path:
    with torch.random.fork_rng(devices=[]):  # construction draws numbers that `randomize` replaces
        model = kind(config)
    randomize(model, seed)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **specials}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def _markers(tokenizer: Tokenizer, first: str, last: str) -> processors.TemplateProcessing:
    ids = [(token, tokenizer.token_to_id(token)) for token in (first, last)]
    return processors.TemplateProcessing(single=f"{first} $A {last}", pair=None, special_tokens=ids)
