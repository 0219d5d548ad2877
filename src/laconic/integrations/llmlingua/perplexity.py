"""LLMLingua and LongLLMLingua as `PromptCompressor` offers them: contexts, then sentences, then words.

1. Contexts are ranked and taken, the best first, until they hold the budget and `context_budget` more.
2. With `use_sentence_level_filter` so are their sentences, until they hold `token_budget_ratio` times the budget.
3. Words of these go until the budget is met (`laconic.scorers.llmlingua`, step 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np

from laconic.budget import Counter
from laconic.compressor import Compressor
from laconic.errors import InputError
from laconic.hub import LanguageModel
from laconic.integrations.llmlingua.frame import Frame
from laconic.integrations.llmlingua.settings import REORDER, PerplexitySettings
from laconic.integrations.llmlingua.structured import Context, Segment, Segmented, joined, within
from laconic.rankers import Ranker, ranker
from laconic.scorers.llmlingua import LLMLingua
from laconic.scorers.perplexity import DocumentPerplexity, QuestionPerplexity, Surprise
from laconic.segment import sentences, words
from laconic.text import PARAGRAPH, Floats, Span

_NAMES = {"sentbert": "embedding", "bge": "embedding", "bge_reranker": "reranker"}  # the package's -> ours
_MODELS = {  # what the package would load for a name
    "sentbert": "sentence-transformers/multi-qa-mpnet-base-dot-v1",
    "bge": "BAAI/bge-large-en-v1.5",
    "bge_reranker": "BAAI/bge-reranker-large",
}
_FOREIGN = {  # names that are not offered, and why
    "openai": "it is a paid service",
    "voyageai": "it is a paid service",
    "cohere": "it is a paid service",
    "jinza": "its model brings code of its own",
    "bge_llmembedder": "its model wants an instruction before every text",
}


class Perplexity:
    """The contexts of one prompt on their way through."""

    def __init__(
        self, model: LanguageModel, counter: Counter, contexts: Sequence[Context], settings: PerplexitySettings
    ) -> None:
        self._model, self._counter, self._settings = model, counter, settings
        self._contexts = contexts
        self._relevance = np.zeros(len(contexts), np.float32)  # of each context; equal unless something asks for more
        self.frame = Frame(settings.instruction, settings.question, settings.concate_question)
        texts = [joined(c) for c in contexts]
        self.before = self.frame.before(texts, counter)
        self._own = self.frame.added(counter)
        self._limit = self.frame.limit(self.before, counter, settings.rate, settings.target_token)

    @property
    def told(self) -> str | None:
        """What the token stage reads before the contexts."""
        return self._settings.told

    def text(self) -> str:
        """What is left of the contexts, joined."""
        order = self.order()
        contexts = [self._contexts[k] for k in order]
        if self._settings.use_sentence_level_filter:
            contexts = self._with_best_sentences(contexts)
        if not self._settings.use_token_level_filter:
            return PARAGRAPH.join(text for c in contexts if (text := joined(c)))
        if any(s.rate is not None for c in contexts for s in c):
            kept = self.segmented(contexts).texts(self.told)
            return PARAGRAPH.join(text for text in kept if text.strip())
        return self._compressed([joined(c) for c in contexts], self._relevance[order])

    def order(self) -> list[int]:
        """The contexts that stay, in the order of the output."""
        s, texts = self._settings, [joined(c) for c in self._contexts]
        sizes = [self._counter(text) for text in texts]
        room = s.room(self._limit)
        filters = s.use_context_level_filter and sum(sizes) > room and len(texts) > 1
        if not filters and s.reorder_context == "original" and not s.dynamic_context_compression_ratio:
            return list(range(len(texts)))
        self._relevance = self._ranker().rank(texts, s.question)
        ranked = np.argsort(-self._relevance, kind="stable").tolist()
        if filters:
            forced = {*(s.force_context_ids or ()), *ranked[: s.force_context_number or 0], *self._untouchable()}
            taken = forced | _until(ranked, sizes, room)
            ranked = [k for k in ranked if k in taken]
        return REORDER[s.reorder_context](ranked)

    def segmented(self, contexts: Sequence[Context]) -> Segmented:
        """The token stage for segments with rates of their own."""
        if self._settings.dynamic_context_compression_ratio:
            raise InputError(
                "dynamic_context_compression_ratio has no meaning beside rates of segments; leave one of them out"
            )
        return Segmented(Compressor(self._scorer(), self._counter), contexts)

    def _untouchable(self) -> list[int]:
        """Contexts with a segment that stays as it is, if such contexts always stay."""
        strict = self._settings.strict_preserve_uncompressed
        return [k for k, c in enumerate(self._contexts) if strict and not all(s.compress for s in c)]

    def _with_best_sentences(self, contexts: list[Context]) -> list[Context]:
        """The contexts without the sentences that go as a whole."""
        s, spans = self._settings, [_sentences(joined(c)) for c in contexts]
        flat = [(k, span) for k, row in enumerate(spans) for span in row]
        texts = [joined(contexts[k])[a:z] for k, (a, z) in flat]
        ranked = np.argsort(-self._ranker().rank(texts, s.question), kind="stable").tolist()
        taken = _until(ranked, [self._counter(t) for t in texts], s.token_budget_ratio * self._limit)
        taken |= {*range(s.keep_first_sentence), *range(len(flat) - s.keep_last_sentence, len(flat))}
        for number in range(len(contexts)):
            taken |= set([k for k in ranked if flat[k][0] == number][: s.keep_sentence_number])
        taken |= {k for k, (c, span) in enumerate(flat) if not all(p.compress for p in within(contexts[c], [span]))}
        kept = [[span for k, (c, span) in enumerate(flat) if c == n and k in taken] for n in range(len(contexts))]
        return [within(context, row) for context, row in zip(contexts, kept, strict=True)]

    def _compressed(self, texts: list[str], relevance: Floats) -> str:
        """The token stage: words go until what is left adds no more than the budget to the prompt."""
        s, spread = self._settings, self._settings.dynamic_context_compression_ratio
        compression = Compressor(self._scorer(), self._own).compress_documents(
            texts,
            question=self.told or (s.question if spread else None),
            tokens=max(self._limit, 1),
            ranker=_Known(relevance),
            spread=spread or None,
        )
        return compression.text

    def _scorer(self) -> LLMLingua:
        s = self._settings
        return LLMLingua(self._model, s.condition_compare, segment=s.iterative_size, coarse=False)

    def _ranker(self) -> Ranker:
        method = self._settings.rank_method
        if not isinstance(method, str):
            return method  # type: ignore[no-any-return]
        if method == "llmlingua":
            return Surprise(self._model)
        if method == "longllmlingua":
            after = self._settings.position == "after"
            return QuestionPerplexity(self._model) if after else DocumentPerplexity(self._model)
        return named_ranker(method)


class _Known:
    """A ranking that was made before."""

    def __init__(self, relevance: Floats) -> None:
        self._relevance = relevance

    def rank(self, documents: Sequence[str], question: str) -> Floats:
        """As it was."""
        return self._relevance


def plain(contexts: Sequence[str]) -> list[Context]:
    """Texts as contexts of one segment without a rate."""
    return [[Segment(text)] for text in contexts]


@cache
def named_ranker(method: str) -> Ranker:
    """The ranker of a `rank_method`: the package's names, those of its models with a folder, or one of ours."""
    name, _, folder = method.partition("=")
    if name in _FOREIGN:
        raise InputError(
            f"rank_method={method!r} is not offered: {_FOREIGN[name]}; pass an object with rank(documents, question)"
        )
    if name in _NAMES and not folder:
        raise InputError(
            f'rank_method="{name}" needs its model: write rank_method="{name}=DIR", the folder of {_MODELS[name]}'
        )
    return ranker(f"{_NAMES.get(name, name)}={folder}" if folder else name)


def _until(ranked: Sequence[int], sizes: Sequence[int], room: float) -> set[int]:
    """The first ones, up to and with the one that exceeds the room."""
    taken: set[int] = set()
    for k in ranked:
        taken.add(k)
        room -= sizes[k]
        if room < 0:
            break
    return taken


def _sentences(text: str) -> list[Span]:
    tiling = words(text)
    edges = tiling.bounds[sentences(tiling)].tolist()
    return list(pairwise(edges))
