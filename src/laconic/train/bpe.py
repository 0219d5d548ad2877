"""A byte-level BPE tokenizer made from texts: every string has tokens, and they give exactly that string back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIALS = ("<s>", "</s>", "<pad>")  # their ids are
BOS, EOS, PAD = range(3)
LEAST, MOST = 256 + len(SPECIALS), 1 << 16  # every byte has a token, and a token fits in 16 bits


def train(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A tokenizer of at most `vocabulary` tokens; fewer if the texts have not so many pairs that repeat.

    Words keep the blank before them, digits stand alone, <s> opens every text. What looks like <s> in a text is text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(map(encodable, texts), trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[(SPECIALS[BOS], BOS)]
    )
    made.encode_special_tokens = True
    return made


def save(tokenizer: Tokenizer, folder: Path, window: int) -> None:
    """As a Hugging Face folder, for a model that reads `window` tokens."""
    tokenizer.save(str(folder / "tokenizer.json"))
    names = dict(zip(("bos_token", "eos_token", "pad_token"), SPECIALS, strict=True))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": window,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,  # <s> in a text is text
        **names,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def load(folder: Path) -> Tokenizer:
    """The tokenizer that `save` wrote."""
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    made.encode_special_tokens = True  # the file does not hold it
    return made


def encodable(text: str) -> str:
    """The text with U+FFFD for lone surrogates, which no tokenizer takes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
