"""LLMLingua-2 as `PromptCompressor` offers it, laconic's own way: the best contexts, then one budget over all words."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from laconic.budget import Budget
from laconic.compressor import Compressor
from laconic.errors import InputError
from laconic.integrations.llmlingua.frame import Frame
from laconic.integrations.llmlingua.structured import Context, Segmented, joined
from laconic.legacy import context_share
from laconic.legacy.words import LegacyResult, LegacySettings
from laconic.rankers.evidence import Evidence
from laconic.result import KeptPart
from laconic.segment import words
from laconic.text import PARAGRAPH, Bools, Floats, Tiling, cut, mend

Labels = list[tuple[str, int]]
Pieces = list[tuple[KeptPart, Bools]]  # a context and its keep mask


@dataclass(frozen=True)
class LLMLingua2:
    """The contexts of one prompt on their way through."""

    compressor: Compressor
    settings: LegacySettings
    frame: Frame
    contexts: Sequence[str]

    @property
    def told(self) -> str | None:
        """The question, if there is one."""
        return self.frame.question or None

    def result(self) -> tuple[str, LegacyResult]:
        """The prompt, and the contexts in it."""
        return self._in_frame() if self.frame != Frame() else self._alone()

    def _alone(self) -> tuple[str, LegacyResult]:
        """Without a question or an instruction: contexts, each counted by itself."""
        before = sum(map(self.compressor.counter, self.contexts))
        chosen = self._chosen(before)
        pieces = self._plainly([self.contexts[k] for k in chosen], _limit(self.settings, before))
        texts = _texts(pieces)
        after = sum(map(self.compressor.counter, texts))
        return PARAGRAPH.join(texts), LegacyResult(texts, before, after, self._labels(chosen, pieces))

    def _in_frame(self) -> tuple[str, LegacyResult]:
        counter, s = self.compressor.counter, self.settings
        limit = None
        if s.use_token_level_filter and (s.target_token >= 0 or s.rate < 1):
            limit = self.frame.limit(self._before, counter, s.rate, s.target_token)
        chosen = self.order() if _limits_contexts(s) else list(range(len(self.contexts)))
        pieces = self._for_question([self.contexts[k] for k in chosen], limit)
        texts = _texts(pieces)
        prompt = self.frame.around(PARAGRAPH.join(text for text in texts if text))
        return prompt, LegacyResult(texts, self._before, counter(prompt), self._labels(chosen, pieces))

    def structured(self, contexts: Sequence[Context]) -> tuple[str, LegacyResult]:
        """The same for contexts in segments with rates of their own."""
        chosen = [contexts[k] for k in self.order()]
        texts = (
            self.segmented(chosen).texts(self.told)
            if self.settings.use_token_level_filter
            else list(map(joined, chosen))
        )
        prompt = self.frame.around(PARAGRAPH.join(text for text in texts if text.strip()))
        return prompt, LegacyResult(texts, self._before, self.compressor.counter(prompt), [])

    def segmented(self, contexts: Sequence[Context]) -> Segmented:
        """The token stage for segments with rates of their own."""
        return Segmented(self.compressor, contexts)

    def order(self) -> list[int]:
        """The contexts that stay, in order: the best ones, and those forced."""
        return self._chosen(self._before)

    @property
    def _before(self) -> int:
        return self.frame.before(self.contexts, self.compressor.counter)

    def _chosen(self, before: int) -> list[int]:
        s, count = self.settings, len(self.contexts)
        if not s.use_context_level_filter or count < 2:
            return list(range(count))
        share = context_share(count, before, s)
        if share < 0:
            raise InputError(f"context_level_rate must be in (0, 1], got {share}")
        values = self._relevance()
        best = sorted(range(count), key=lambda k: -values[k])[: max(round(share * count), 1)]
        return sorted({*best, *(k for k in s.force_context_ids or () if 0 <= k < count)})

    def _relevance(self) -> Sequence[float]:
        """Of each context: its best sentence for the question, or the mean of its scores."""
        scorer = self.compressor.scorer
        if self.frame.question:
            found: list[float] = Evidence(scorer).rank(self.contexts, self.frame.question).tolist()
            return found
        return [_mean(s.values) for s in scorer.score([words(text) for text in self.contexts])]

    def _plainly(self, texts: list[str], limit: int | None) -> Pieces:
        """Within `limit` tokens over all of them (None: everything), of each context at least its best word."""
        if not texts:
            return []
        budget: dict[str, Any] = {"rate": 1} if limit is None else {"tokens": max(limit, 1)}
        messages = [{"role": "user", "content": text} for text in texts]
        result = self.compressor.compress(messages, **budget, protect=list(_protected(self.settings)), newest=True)
        return self._masks(result.parts)

    def _for_question(self, texts: list[str], limit: int | None) -> Pieces:
        """Adding at most `limit` tokens to the prompt (None: everything); contexts without an answer may go."""
        compressor = replace(self.compressor, counter=self.frame.added(self.compressor.counter))
        budget: dict[str, Any] = {"rate": 1} if limit is None else {"tokens": max(limit, 1)}
        protect = list(_protected(self.settings))
        return self._masks(compressor.compress_documents(texts, question=self.told, **budget, protect=protect).parts)

    def _masks(self, parts: Sequence[KeptPart]) -> Pieces:
        s = self.settings
        return [(p, _without_repeats(p, s.force_tokens) if s.drop_consecutive else p.keep) for p in parts]

    def _labels(self, chosen: list[int], pieces: Pieces) -> Labels:
        """Every word of all contexts with 1 or 0."""
        labels = {k: _labelled(part.tiling, keep) for k, (part, keep) in zip(chosen, pieces, strict=True)}
        for k in set(range(len(self.contexts))) - set(chosen):
            tiling = words(self.contexts[k])
            labels[k] = _labelled(tiling, np.zeros(len(tiling), bool))
        return list(chain.from_iterable(labels[k] for k in range(len(self.contexts))))


def check(settings: LegacySettings, most: int) -> None:
    """What laconic's own way has no use for is refused."""
    defaults = LegacySettings()
    for name in ("token_to_word", "chunk_end_tokens"):
        value, default = getattr(settings, name), getattr(defaults, name)
        if list(value) != list(default):
            raise InputError(
                f"{name}={value!r} needs legacy=True: laconic always takes the mean and cuts at sentence ends"
            )
    if len(settings.force_tokens) > most:
        raise InputError(f"at most {most} force tokens, got {len(settings.force_tokens)}; pass fewer")


def _limits_contexts(settings: LegacySettings) -> bool:
    s = settings
    return s.target_context >= 0 or s.context_level_rate < 1 or s.context_level_target_token >= 0


def _limit(settings: LegacySettings, before: int) -> int | None:
    """The budget in tokens: of the original, whatever the context filter removed. None: keep all."""
    if not settings.use_token_level_filter:
        return None
    if settings.target_token >= 0:
        return Budget(tokens=int(settings.target_token)).limit(before)
    return None if settings.rate >= 1 else Budget(rate=settings.rate).limit(before)


def _protected(settings: LegacySettings) -> Iterator[str]:
    """Patterns for what must stay. Line breaks need none: between kept lines laconic keeps the break."""
    for token in settings.force_tokens:
        if token.strip():
            yield _on_word_boundaries(token.strip())
    if settings.force_reserve_digit:
        yield r"\d"


def _on_word_boundaries(token: str) -> str:
    before = r"(?<!\w)" if re.match(r"\w", token) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", token) else ""
    return before + re.escape(token) + after


def _without_repeats(part: KeptPart, tokens: Collection[str]) -> Bools:
    """The keep mask without force tokens that would directly follow themselves."""
    keep: Bools = part.keep.copy()
    last = None
    for k, (unit, _, kept) in enumerate(part.units()):
        if kept:
            keep[k] = unit.strip() not in tokens or unit.strip() != last
            last = unit.strip()
    return keep


def _texts(pieces: Pieces) -> list[str]:
    return [cut(part.tiling, mend(part.tiling, keep)) for part, keep in pieces]


def _labelled(tiling: Tiling, keep: Bools) -> Labels:
    return [(unit.strip(), int(kept)) for unit, kept in zip(tiling, keep.tolist(), strict=True) if unit.strip()]


def _mean(values: Floats) -> float:
    """Mean of the units with evidence; below everything where there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else -1.0
