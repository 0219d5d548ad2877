"""From pieces to decisions: words, their probabilities, thresholds (S4, S10 to S13). No model runs here."""

from __future__ import annotations

import re
import string
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models

from laconic.errors import InputError, ModelError
from laconic.text import Bools, Floats, Ints

MAX_LENGTH = 512  # tokens of one forward pass, first and last marker included; fixed whatever the model can take
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True)
class LegacySettings:
    """The parameters of `compress_prompt_llmlingua2`, by their old names and with their old defaults.

    `rate` is the share to keep, aimed at and not promised; at 1 or more the model is not asked. `target_token` above 0
    overrides it. The three context limits choose whole contexts first; none given means half way to the rate.
    """

    rate: float = 0.5
    target_token: float = -1
    use_context_level_filter: bool = False
    use_token_level_filter: bool = True
    target_context: int = -1
    context_level_rate: float = 1.0
    context_level_target_token: float = -1
    force_context_ids: Collection[int] | None = ()
    token_to_word: str = "mean"
    force_tokens: Sequence[str] = ()
    force_reserve_digit: bool = False
    drop_consecutive: bool = False
    chunk_end_tokens: Collection[str] = (".", "\n")

    def __post_init__(self) -> None:
        if self.token_to_word not in ("mean", "first"):
            raise InputError(f'token_to_word must be "mean" or "first", got {self.token_to_word!r}')
        for name in ("rate", "target_token", "target_context", "context_level_rate", "context_level_target_token"):
            if not isinstance(getattr(self, name), (int, float)):
                raise InputError(f"{name} must be a number, got {getattr(self, name)!r}")
        for name in ("force_tokens", "chunk_end_tokens"):
            if isinstance(getattr(self, name), str):
                raise InputError(f"{name} must be a list of strings, got the string {getattr(self, name)!r}")


@dataclass(frozen=True)
class LegacyResult:
    """The compressed contexts, the counts before and after, and every word of the input with its label 1 or 0."""

    texts: list[str]
    tokens_before: int
    tokens_after: int
    labels: list[tuple[str, int]]

    def report(self) -> dict[str, Any]:
        """The package's return value, as it would word it. An empty result reads "100.0%" (quirk)."""
        before, after = self.tokens_before, self.tokens_after
        ratio = before / after if after else 1
        share = 1 / ratio if ratio else 0.0  # no tokens before, some after: nothing real, and the package divides by 0
        return {
            "compressed_prompt": "\n\n".join(self.texts),
            "compressed_prompt_list": self.texts,
            "origin_tokens": before,
            "compressed_tokens": after,
            "ratio": f"{ratio:.1f}x",
            "rate": f"{share * 100:.1f}%",
            "saving": f", Saving ${(before - after) * 0.06 / 1000:.1f} in GPT-4.",
        }


@dataclass(frozen=True)
class Family:
    """How pieces of a tokenizer make words: WordPiece marks what continues one, SentencePiece what opens one."""

    mark: str  # "##" or "▁"

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Family:
        """Judged by what the tokenizer is and does, never by the model's name."""
        if isinstance(tokenizer.model, models.WordPiece):
            return cls("##")
        if _opens_with_metaspace(tokenizer):
            return cls("▁")
        kind = type(tokenizer.model).__name__
        raise ModelError(f"LLMLingua-2 models have a WordPiece or a SentencePiece (▁) tokenizer, this one is {kind}")

    def pure(self, piece: str) -> str:
        """The piece without its mark. Quirk: every leading # of a WordPiece goes, so "#" itself becomes ""."""
        return piece.lstrip(self.mark)

    def opens_word(self, piece: str, forced: Collection[str]) -> bool:
        """Does a new word begin here (S10)? Quirk: "+,-" does too, a stretch of the table of ASCII punctuation."""
        if self.mark == "##":
            return self.pure(piece) in forced or not piece.startswith("##")
        return piece in string.punctuation or piece in forced or piece.startswith("▁")

    def shown(self, word: str) -> str:
        """A word as labels show it."""
        return word.lstrip("▁") if self.mark == "▁" else word


def _opens_with_metaspace(tokenizer: Tokenizer) -> bool:
    if not isinstance(tokenizer.model, (models.Unigram, models.BPE)) or tokenizer.pre_tokenizer is None:
        return False
    return bool(tokenizer.pre_tokenizer.pre_tokenize_str("a")[0][0].startswith("▁"))


@dataclass(frozen=True)
class Force:
    """The force tokens; those that are not one piece travel under an alias `[NEWi]` that is (S1)."""

    tokens: tuple[str, ...]
    alias: dict[str, str]

    @cached_property
    def all(self) -> frozenset[str]:
        """Every piece whose word gets probability 1."""
        return frozenset(self.tokens).union(self.alias.values())

    def substitute(self, text: str) -> str:
        """Aliases in. Quirk: wherever the letters stand, inside words too."""
        for token, alias in self.alias.items():
            text = text.replace(token, alias)
        return text

    def restore(self, text: str) -> str:
        """Aliases out."""
        for token, alias in self.alias.items():
            text = text.replace(alias, token)
        return text


@dataclass(frozen=True)
class Words:
    """The words of one chunk (arrays over words)."""

    texts: list[str]  # a SentencePiece word keeps its ▁
    p: Floats  # probability to keep, what is forced included
    plain: Bools  # the package holds this probability as a Python float, which makes a percentile float64 (S11)
    free: Floats  # what the context filter averages: nothing forced; quirk: the first piece's value for all pieces


def merge(pieces: Sequence[str], p: Floats, family: Family, force: Force, settings: LegacySettings) -> Words:
    """Words and their probabilities from pieces and theirs, float32[T] (S10, S11). No special pieces, please."""
    if not len(pieces):
        return Words([], np.zeros(0, np.float32), np.zeros(0, bool), np.zeros(0, np.float32))
    opens = np.array([k == 0 or family.opens_word(piece, force.all) for k, piece in enumerate(pieces)])
    shown = [force.restore(t) if o else t for t, o in zip(pieces, opens.tolist(), strict=True)]
    certain = np.array([family.pure(piece) in force.all for piece in pieces])  # each of these opens a word
    if settings.force_reserve_digit:
        certain |= np.array([_DIGIT.search(piece) is not None for piece in shown])
    word = np.cumsum(opens) - 1
    first = np.flatnonzero(opens)
    values = np.where(certain, np.float32(1), p)
    texts = [shown[k] for k in first]
    for k in np.flatnonzero(~opens).tolist():
        texts[word[k]] += family.pure(pieces[k])
    stale = p[first][word]
    if settings.token_to_word == "first":
        return Words(texts, values[first], certain[first], p[first])
    return Words(texts, _means(values, word), np.logical_and.reduceat(certain, first), _means(stale, word))


def _means(values: Floats, word: Ints) -> Floats:
    """Mean per word, summed from the left in float32 as Python's sum would (`reduceat` would sum in pairs)."""
    total = np.zeros(word[-1] + 1, np.float32)
    np.add.at(total, word, values)
    return np.divide(total, np.bincount(word).astype(np.float32))


def percentile(values: Floats, plain: Bools, q: int, cause: str) -> float:
    """`np.percentile` in the precision the package has: float32, or float64 if one value is a Python float."""
    if not 0 <= q <= 100:
        raise InputError(f"{cause} asks for percentile {q} of 0 to 100; rates must be in (0, 1], targets above 0")
    return float(np.percentile(values.astype(np.float64 if plain.any() else np.float32), q))


def without_repeats(words: Words, reduce: float, force: Force) -> Words:
    """Probability 0 for a force token that follows itself with nothing likely kept in between (S12)."""
    limit = percentile(words.p, words.plain, int(100 * reduce), "the rate")
    p, plain = words.p.copy(), words.plain.copy()
    previous, between = None, False
    for k, (text, value) in enumerate(zip(words.texts, words.p.tolist(), strict=True)):
        if text not in force.tokens:
            between |= value > limit
            continue
        if not between and text == previous:
            p[k], plain[k] = 0, True
        previous, between = text, False
    return Words(words.texts, p, plain, words.free)


def threshold(words: Words, counts: Ints, reduce: float) -> float:
    """The chunk's own threshold, each word weighted by its tokens, int64[n] (S13).

    Quirk: `int` cuts the percentile, to 20 for rate 0.8 but 51 for rate 0.5.
    """
    values, plain = np.repeat(words.p, counts), np.repeat(words.plain, counts)
    return percentile(values, plain, int(100 * reduce + 1), "the rate") if len(values) else 1.0


def keep(words: Words, limit: float, force: Force, drop_consecutive: bool) -> Bools:
    """The words to keep: above the limit, or certain where the limit is certainty (S13)."""
    p = words.p.astype(np.float64)  # a float64 limit must not be rounded to the precision of p
    kept: Bools = (p > limit) | ((p == 1) & (limit == 1))
    if drop_consecutive:
        last = None
        for k in np.flatnonzero(kept).tolist():
            if words.texts[k] in force.tokens and words.texts[k] == last:
                kept[k] = False
            last = words.texts[k]
    return kept


def chunk_ends(pieces: Sequence[str], ends: Collection[str]) -> list[int]:
    """Where chunks end (exclusive): 511 pieces, fewer if one of the last 510 is an end token (S4).

    Quirk: 511 pieces and two markers make 513, one more than is read.
    """
    reach = MAX_LENGTH - 2
    marks = np.flatnonzero([piece in ends for piece in pieces])
    found: list[int] = []
    start = 0
    while start + reach < len(pieces):
        last = int(np.searchsorted(marks, start + reach, side="right")) - 1
        end = int(marks[last]) if last >= 0 and marks[last] > start else start + reach
        found.append(end + 1)
        start = end + 1
    return found + [len(pieces)] * (start < len(pieces))
