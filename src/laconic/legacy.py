"""LLMLingua-2 inference exactly as llmlingua 0.2.2 does it, its bugs included.

For those who must reproduce old results; everybody else wants `laconic.compress`. Same weights and counter give the
same chunks, words, thresholds, labels and bytes; `tests/test_legacy_parity.py` holds it to that. The steps S1 to S15:

    S1 force tokens → S3 count → S4 chunk → S8 encode → S9 run → S10, S11 words → S5 contexts → S12, S13 keep → S14 text

What the package does oddly is marked "quirk" where it is done. Where it crashes, here is a result or an `InputError`:
a chunk without a single known word becomes "", a piece that continues no word opens one, an empty text is kept.
Only the cost differs: chunks are padded to the longest of their batch, not to 512, and each is read once, not twice.
"""

from __future__ import annotations

import copy
import re
import string
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer, models

from laconic.errors import InputError, ModelError
from laconic.text import Bools, Floats, Ints

if TYPE_CHECKING:
    from laconic.backends import Encoder

MAX_LENGTH = 512  # tokens of one forward pass, first and last marker included; fixed whatever the model can take
MAX_FORCE = 100  # force tokens, one alias each
BATCH = 16  # chunks of one forward pass: kind to the caches of a CPU, without influence on the result
_MARKERS = ("[CLS]", "[SEP]", "[PAD]")  # quirk of S8: BERT's names for every model, so `<unk>` thrice for XLM-R
_ALIAS = re.compile(r"\[NEW\d+\]")
_LABEL_WORDS = re.compile(r"""\b\w+\b|[<>=/!@#$%^&*()?":{}|\\`~;_+-]""")
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


class LegacyCompressor:
    """llmlingua 0.2.2's LLMLingua-2 over a tokenizer, an encoder whose class 1 is "keep", and a token counter.

    `special_tokens`: pieces that are no text; by default the tokenizer's own, aliases `[NEWi]` excepted. `batch`:
    chunks of one forward pass. `max_force_tokens`: the most force tokens a call may name.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        encoder: Encoder,
        count: Callable[[str], int],
        *,
        special_tokens: Collection[str] | None = None,
        batch: int = BATCH,
        max_force_tokens: int = MAX_FORCE,
    ) -> None:
        self.tokenizer = _unbounded(tokenizer)
        self.family = Family.of(tokenizer)
        self.encoder = encoder
        self.count = count
        self.special = frozenset(_specials(tokenizer) if special_tokens is None else special_tokens)
        self.batch = batch
        self.max_force_tokens = max_force_tokens
        self._unknown = _unknown_id(tokenizer, self.family)

    def compress(self, context: str | Sequence[str], settings: LegacySettings | None = None) -> LegacyResult:
        """The contexts compressed as the package would."""
        settings = settings or LegacySettings()
        contexts = contexts_of(context)
        _refuse_surrogates(contexts)
        force = self.force(settings.force_tokens)
        before = sum(self.count(text) for text in contexts)
        ends = {*settings.chunk_end_tokens, *(force.alias.get(t, t) for t in settings.chunk_end_tokens)}
        chunked = [self.chunks(force.substitute(text), ends) for text in contexts]
        if settings.use_context_level_filter and len(contexts) != 1:
            return self._coarse_to_fine(chunked, before, force, settings)
        rate = settings.rate
        if settings.target_token > 0:  # S6; quirk: 0 counts as not given here
            rate = _share(settings.target_token, before)
        texts, labels = self._fine(chunked, None, rate, force, settings)
        return self._result(texts, before, labels)

    def force(self, tokens: Sequence[str]) -> Force:
        """S1: which force tokens need an alias."""
        if len(tokens) > self.max_force_tokens:
            raise InputError(f"at most {self.max_force_tokens} force tokens, got {len(tokens)}; pass fewer")
        alias = {t: f"[NEW{i}]" for i, t in enumerate(tokens) if len(self._pieces(t)) != 1}
        for token, name in alias.items():
            if self.tokenizer.token_to_id(name) is None:
                raise InputError(
                    f"force token {token!r} is more than one piece and travels as {name}, which this tokenizer lacks; "
                    "use a checkpoint that has [NEW0]...[NEW99] with their embedding rows, or force single pieces"
                )
        return Force(tuple(tokens), alias)

    def chunks(self, text: str, ends: Collection[str]) -> list[str]:
        """S4: the text in chunks of at most 511 pieces, each decoded. Quirk: and tokenized again later."""
        pieces = self._pieces(text)
        stops = chunk_ends(pieces, ends)
        return [self._text(pieces[s:e]) for s, e in zip([0, *stops], stops, strict=False)]

    def encode(self, chunk: str) -> tuple[Ints, Ints]:
        """S8: ids and mask of a chunk, int64[T] each, T ≤ 512, without the package's padding to 512."""
        first, last, padding = _MARKERS
        pieces = [first, *self._pieces(chunk), last][:MAX_LENGTH]
        mask = np.array([piece != padding for piece in pieces], np.int64)
        return np.array([self._id(piece) for piece in pieces], np.int64), mask

    def probabilities(self, encoded: Sequence[tuple[Ints, Ints]]) -> list[Floats]:
        """S9: P(keep) of every position, float32[T] for each chunk; chunks of like length share a pass."""
        found: list[Floats] = [np.zeros(0, np.float32)] * len(encoded)
        order = sorted(range(len(encoded)), key=lambda k: len(encoded[k][0]))
        for start in range(0, len(order), self.batch):
            group = order[start : start + self.batch]
            rows = _keep_probability(self.encoder.logits(*self._padded([encoded[k] for k in group])))
            for k, row in zip(group, rows, strict=True):
                found[k] = row[: len(encoded[k][0])]
        return found

    def words(self, chunks: Sequence[str], force: Force, settings: LegacySettings) -> list[Words]:
        """S8 to S11: the words of each chunk with their probabilities."""
        encoded = [self.encode(chunk) for chunk in chunks]
        return [
            self._merged(ids, mask, p, force, settings)
            for (ids, mask), p in zip(encoded, self.probabilities(encoded), strict=True)
        ]

    def labels(self, words: Words, reduce: float, force: Force, settings: LegacySettings) -> Bools:
        """S12, S13: which words of a chunk stay."""
        if not words.texts:
            return np.zeros(0, bool)
        if settings.drop_consecutive:
            words = without_repeats(words, reduce, force)
        counts = np.array([self.count(text) for text in words.texts], np.int64)
        return keep(words, threshold(words, counts, reduce), force, settings.drop_consecutive)

    def _coarse_to_fine(
        self, chunked: list[list[str]], before: int, force: Force, settings: LegacySettings
    ) -> LegacyResult:
        """S5: choose contexts by their mean word probability, then words in those chosen."""
        words = list(_regroup(self.words(list(chain(*chunked)), force, settings), chunked))
        kept = _kept_contexts(words, context_share(len(chunked), before, settings), settings)
        chosen = [k for k, stays in enumerate(kept) if stays]
        rate = settings.rate
        if settings.target_token >= 0:
            reserved = sum(self.count(chunk) for k in chosen for chunk in chunked[k])
            rate = _share(settings.target_token, reserved)
        texts, fine = self._fine([chunked[k] for k in chosen], [words[k] for k in chosen], rate, force, settings)
        labels = [[(self.family.shown(w), 0) for chunk in context for w in chunk.texts] for context in words]
        for k, found in zip(chosen, fine, strict=True):
            labels[k] = found
        return self._result(texts, before, labels)

    def _fine(
        self,
        chunked: list[list[str]],
        words: list[list[Words]] | None,
        rate: float,
        force: Force,
        settings: LegacySettings,
    ) -> tuple[list[str], list[list[tuple[str, int]]]]:
        """S7: the text of each context, and its labelled words. Chunks are read here if they were not before."""
        reduce = max(0, 1 - rate) if settings.use_token_level_filter else 0
        if reduce <= 0:
            restored = [[force.restore(chunk) for chunk in chunks] for chunks in chunked]
            return ["".join(chunks) for chunks in restored], [_all_kept(chunks) for chunks in restored]
        if words is None:
            words = list(_regroup(self.words(list(chain(*chunked)), force, settings), chunked))
        texts, labels = [], []
        for context in words:
            keeps = [self.labels(chunk, reduce, force, settings).tolist() for chunk in context]
            pairs = [list(zip(chunk.texts, kept, strict=True)) for chunk, kept in zip(context, keeps, strict=True)]
            texts.append("".join(self._text([word for word, kept in chunk if kept]) for chunk in pairs))
            labels.append([(self.family.shown(word), int(kept)) for chunk in pairs for word, kept in chunk])
        return texts, labels

    def _result(self, texts: list[str], before: int, labels: list[list[tuple[str, int]]]) -> LegacyResult:
        return LegacyResult(texts, before, sum(self.count(text) for text in texts), list(chain(*labels)))

    def _merged(self, ids: Ints, mask: Ints, p: Floats, force: Force, settings: LegacySettings) -> Words:
        pieces = [str(self.tokenizer.id_to_token(k)) for k in ids.tolist()]
        real = np.array([m == 1 and piece not in self.special for piece, m in zip(pieces, mask, strict=True)])
        return merge([pieces[k] for k in np.flatnonzero(real)], p[real], self.family, force, settings)

    def _padded(self, rows: Sequence[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
        """One rectangle of ids and one of masks, int64[B, T]."""
        ids = np.full((len(rows), max(len(row) for row, _ in rows)), self._id(_MARKERS[2]), np.int64)
        mask = np.zeros_like(ids)
        for k, (row, real) in enumerate(rows):
            ids[k, : len(row)], mask[k, : len(row)] = row, real
        return ids, mask

    def _pieces(self, text: str) -> list[str]:
        tokens: list[str] = self.tokenizer.encode(text, add_special_tokens=False).tokens
        return tokens

    def _text(self, pieces: list[str]) -> str:
        decoder = self.tokenizer.decoder
        return " ".join(pieces) if decoder is None else str(decoder.decode(pieces))

    def _id(self, piece: str) -> int:
        found = self.tokenizer.token_to_id(piece)
        return self._unknown if found is None else int(found)


def context_share(contexts: int, before: int, settings: LegacySettings) -> float:
    """The share of contexts to keep (S5); later limits override earlier ones."""
    s = settings
    share, tokens = s.context_level_rate, s.context_level_target_token
    if s.target_context <= 0 and share >= 1 and tokens <= 0:  # nothing said about contexts: go half way
        if s.target_token < 0 and s.rate < 1:
            share = (s.rate + 1) / 2 if s.use_token_level_filter else s.rate
        if s.target_token >= 0:
            tokens = s.target_token * (2 if s.use_token_level_filter else 1)
    if s.target_context >= 0:
        share = _share(s.target_context, contexts)
    return _share(tokens, before) if tokens >= 0 else share


def _kept_contexts(words: list[list[Words]], share: float, settings: LegacySettings) -> list[bool]:
    """S5: at or above the percentile of the contexts' mean probabilities, or forced."""
    means = np.array([_context_mean(k, chunks) for k, chunks in enumerate(words)], np.float32)
    if not len(means):
        raise InputError("context is an empty list; pass a text, or leave the context filter off")
    limit = percentile(means, np.zeros(1, bool), int(100 * (1 - share)), "the context filter")
    return [p >= limit or k in (settings.force_context_ids or ()) for k, p in enumerate(means.tolist())]


def _context_mean(k: int, chunks: list[Words]) -> float:
    values = [chunk.free for chunk in chunks if len(chunk.free)]
    if not values:
        raise InputError(f"context {k} has no word the model knows; remove it, or leave the context filter off")
    flat = np.concatenate(values)
    return float(np.cumsum(flat, dtype=np.float32)[-1] / np.float32(len(flat)))  # summed from the left, as above


def _share(part: float, whole: int) -> float:
    return min(part / whole, 1.0) if whole else 1.0


def _all_kept(chunks: list[str]) -> list[tuple[str, int]]:
    """S15: the labels when nothing is removed. Quirk: the words of a regex that knows neither . nor ,"""
    return [(word, 1) for chunk in chunks for word in _LABEL_WORDS.findall(chunk)]


def _regroup(words: list[Words], chunked: list[list[str]]) -> Iterator[list[Words]]:
    """The flat list of all chunks' words, by context again."""
    start = 0
    for chunks in chunked:
        yield words[start : start + len(chunks)]
        start += len(chunks)


def _keep_probability(logits: Floats) -> Floats:
    """Softmax, class 1: float32[B, T, 2] → float32[B, T]."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted[..., 1] / shifted.sum(axis=-1), dtype=np.float32)


def contexts_of(context: str | Sequence[str]) -> list[str]:
    """One text or several as a list of texts."""
    if not isinstance(context, Sequence):
        raise InputError(f"context must be a str or a list of str, got {type(context).__name__}")
    contexts = [context] if isinstance(context, str) else list(context)
    for k, text in enumerate(contexts):
        if not isinstance(text, str):
            raise InputError(f"context {k} must be a str, got {type(text).__name__}")
    return contexts


def _refuse_surrogates(contexts: list[str]) -> None:
    for k, text in enumerate(contexts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"context {k} has a lone surrogate at {error.start}, which is no text; put U+FFFD in its place"
            ) from None


def _unbounded(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer that neither truncates nor pads: the one given, or a copy if it does."""
    if tokenizer.truncation is None and tokenizer.padding is None:
        return tokenizer
    free = copy.deepcopy(tokenizer)
    free.no_truncation()
    free.no_padding()
    return free


def with_aliases(tokenizer: Tokenizer, rows: int) -> Tokenizer:
    """The tokenizer, with `[NEW0]…[NEW99]` added to a copy if the model has embedding rows for them and it lacks them.

    The published checkpoints are like that: trained with the aliases, saved with a tokenizer without.
    """
    if tokenizer.token_to_id("[NEW0]") is not None or rows < tokenizer.get_vocab_size() + MAX_FORCE:
        return tokenizer
    wider = copy.deepcopy(tokenizer)
    wider.add_special_tokens([f"[NEW{i}]" for i in range(MAX_FORCE)])
    return wider


def _specials(tokenizer: Tokenizer) -> list[str]:
    added = tokenizer.get_added_tokens_decoder().values()
    return [token.content for token in added if token.special and not _ALIAS.fullmatch(token.content)]


def _unknown_id(tokenizer: Tokenizer, family: Family) -> int:
    names = ("[UNK]", "<unk>") if family.mark == "##" else ("<unk>", "[UNK]")
    found = next((k for k in map(tokenizer.token_to_id, names) if k is not None), None)
    if found is None:
        raise ModelError("the tokenizer has neither <unk> nor [UNK]; it is not one of an LLMLingua-2 model")
    return int(found)
