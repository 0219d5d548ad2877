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
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from laconic.errors import InputError, ModelError
from laconic.legacy.words import (
    MAX_LENGTH,
    Family,
    Force,
    LegacyResult,
    LegacySettings,
    Words,
    chunk_ends,
    keep,
    merge,
    percentile,
    threshold,
    without_repeats,
)
from laconic.text import Bools, Floats, Ints

if TYPE_CHECKING:
    from laconic.backends import Encoder

MAX_FORCE = 100  # force tokens, one alias each
BATCH = 16  # chunks of one forward pass: kind to the caches of a CPU, without influence on the result
_MARKERS = ("[CLS]", "[SEP]", "[PAD]")  # quirk of S8: BERT's names for every model, so `<unk>` thrice for XLM-R
_ALIAS = re.compile(r"\[NEW\d+\]")
_LABEL_WORDS = re.compile(r"""\b\w+\b|[<>=/!@#$%^&*()?":{}|\\`~;_+-]""")


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
