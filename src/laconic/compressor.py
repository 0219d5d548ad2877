"""The compressor: segment, score, choose, mend. One concrete class; methods plug in as scorers."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from laconic.budget import Budget, Counter
from laconic.choose import by_score, entries, in_front, large_ones_wait, largest_cutoff
from laconic.errors import BudgetError, InputError
from laconic.prompt import ROLES, Messages, Prompt, read
from laconic.result import Compression, KeptPart, whole
from laconic.score import Progress, Scorer, Scores, Target
from laconic.segment import Rules, Segmentation, segment
from laconic.text import Bools, Floats, Ints, cut, mend

if TYPE_CHECKING:
    from laconic.documents import CompressedDocuments
    from laconic.rankers import Ranker

Pattern = str | re.Pattern[str]
_TOGETHER = 64  # prompts scored in one go by compress_many
_CLOSING = 2400  # characters: a question at the end of a text is shorter
_ASKS = re.compile(r"\?(?=[\"'\u2019\u201d\u00bb)\]*_]*(?:\s|$))|[\uff1f\u061f]")  # no address with ?, no `a?.b`
_LABELLED = re.compile(r"(?:question|query|problem|q)(?:\s*\d+)?\s*[:\uff1a]", re.IGNORECASE)  # "Question: Name the …"


@dataclass(frozen=True)
class Compressor:
    """Compresses texts and chat messages with one scorer, counting in one target tokenizer.

    >>> import laconic
    >>> k = laconic.load("laconic-small")
    >>> k.compress("Please note that the meeting was moved to 14:30.", rate=0.6, protect=[r"\\\\d\\\\d:\\\\d\\\\d"]).met
    True
    """

    scorer: Scorer
    counter: Counter
    structure: bool = True  # recognise JSON, code, Markdown, logs … (laconic.segment lists what it does with them)

    def compress(
        self,
        prompt: str | Messages,
        *,
        rate: float | None = None,
        tokens: int | None = None,
        threshold: float | None = None,
        question: str | None = None,
        protect: Collection[Pattern] = (),
        strict: bool = False,
        roles: Collection[str] = ROLES,
        newest: bool = False,
        progress: Progress | None = None,
    ) -> Compression:
        """Compress a text or chat messages within one budget (default `rate=0.5`).

        rate: kept / original tokens, in (0, 1]. tokens: upper bound, counted on the output. threshold: keep what scores
        at least this. question: keep what answers it, if the model reads questions; an empty one asks nothing.
        protect: regular expressions; units that a match touches are kept whatever the budget.
        strict: raise BudgetError when protected text alone exceeds the budget, instead of `met=False`.
        roles, newest: for messages, whose texts may be shortened, and whether the newest user turn may.
        progress: called with the number of characters just scored.
        """
        budget = self._budget(Budget(rate, tokens, threshold))
        options = Options(budget, _compiled(protect), strict, self._question(question))
        return self._all([read(prompt, roles, newest)], options, progress)[0]

    def compress_many(
        self,
        prompts: Iterable[str | Messages],
        *,
        rate: float | None = None,
        tokens: int | None = None,
        threshold: float | None = None,
        question: str | None = None,
        protect: Collection[Pattern] = (),
        strict: bool = False,
        roles: Collection[str] = ROLES,
        newest: bool = False,
    ) -> Iterator[Compression]:
        """`compress` for many prompts, in order, batched inside; each has its own budget. Lazy: memory stays flat."""
        if isinstance(prompts, (str, Mapping)) or not isinstance(prompts, Iterable):
            raise InputError(f"compress_many takes several prompts, got one {type(prompts).__name__}; use compress")
        budget = self._budget(Budget(rate, tokens, threshold))
        options = Options(budget, _compiled(protect), strict, self._question(question))
        return self._lazily(iter(prompts), options, roles, newest)

    def _lazily(
        self, prompts: Iterator[str | Messages], options: Options, roles: Collection[str], newest: bool
    ) -> Iterator[Compression]:
        batch: list[Prompt] = []
        try:
            for prompt in prompts:
                batch.append(read(prompt, roles, newest))
                if len(batch) == _TOGETHER:
                    yield from self._all(batch, options)
                    batch = []
        except InputError:  # what came before the bad prompt is still delivered
            yield from self._all(batch, options)
            raise
        yield from self._all(batch, options)

    def _budget(self, budget: Budget) -> Budget:
        if budget.threshold is not None and self.scorer.reads_budget:
            raise InputError(
                f"{self.scorer.name} must know how much is to stay, which threshold={budget.threshold} does not say; "
                "pass rate= or tokens= instead"
            )
        return budget

    def compress_documents(
        self,
        documents: Sequence[str],
        *,
        question: str | None = None,
        rate: float | None = None,
        tokens: int | None = None,
        ranker: str | Ranker | None = None,
        order: str = "original",
        spread: float | None = None,
        separator: str = "\n\n",
        protect: Collection[Pattern] = (),
        strict: bool = False,
    ) -> CompressedDocuments:
        """Compress documents together within one budget, counted on the output with its separators.

        question: what the documents are for; also of use to a method that reads none, whose documents are ranked then.
        ranker: a name of `laconic.rankers` (`bm25`, `reranker=DIR` …) or your own; by default the method's own scores
        where it reads questions, else `bm25`. order: `original`, `best_first`, or `two_ended` (the best at both ends).
        spread: δτ of LongLLMLingua: the best document keeps so much more than the average rate, the worst so much less;
        by default one cut-off over all scores (1 with a question that the method cannot read).
        rate, tokens, protect, strict: as for `compress`.
        """
        from laconic.documents import Arrangement, compress

        options = Options(Budget(rate, tokens), _compiled(protect), strict, _asked(question))
        return compress(self, documents, options, Arrangement(ranker, order, spread, separator))

    def _question(self, question: str | None) -> str | None:
        """The question if there is one, and the scorer reads it."""
        question = _asked(question)
        if question and not self.scorer.reads_question:
            raise InputError(f"{self.scorer.model or self.scorer.name} does not read questions; leave question out")
        return question

    def _all(self, prompts: Sequence[Prompt], options: Options, progress: Progress | None = None) -> list[Compression]:
        began = time.perf_counter()
        jobs = [Job(p, options, self.counter, self.structure) for p in prompts]
        waiting = [job for job in jobs if not job.done]
        tilings = [part.tiling for job in waiting for part in job.open]
        told: dict[str, Any] = {"questions": [options.question] * len(tilings)} if options.question else {}
        if self.scorer.reads_budget:
            told["targets"] = [target for job in waiting for target in job.targets()]
        scores = iter(self.scorer.score(tilings, progress, **told))
        results = []
        for job in jobs:
            results.append(job.result(self, [next(scores) for _ in job.open] if not job.done else [], began))
            began = time.perf_counter()
        return results


@dataclass(frozen=True)
class Options:
    budget: Budget
    protect: tuple[re.Pattern[str], ...]
    strict: bool
    question: str | None


def _asked(question: str | None) -> str | None:
    """The question if there is one: an empty one asks nothing."""
    if question is not None and not isinstance(question, str):
        raise InputError(f"question must be a str, got {type(question).__name__}")
    return question if question and question.strip() else None


def _compiled(protect: Collection[Pattern]) -> tuple[re.Pattern[str], ...]:
    if isinstance(protect, (str, re.Pattern)):
        raise InputError(f"protect takes a list of regular expressions; write protect=[{protect!r}]")
    try:
        # what is compiled already may be of another engine, such as one with a time limit
        patterns: tuple[Any, ...] = tuple(p if hasattr(p, "finditer") else re.compile(p) for p in protect)
    except (re.error, TypeError) as error:
        raise InputError(f"protect takes regular expressions, got {protect!r}: {error}") from None
    if any(isinstance(p.pattern, bytes) for p in patterns):
        raise InputError(f"protect takes regular expressions over str, got bytes: {protect!r}")
    return patterns


class Job:
    """One prompt on its way through: what it costs before, what may be touched, and in the end the result."""

    def __init__(
        self, prompt: Prompt, options: Options, counter: Counter, structure: bool, segments: Sequence[Segmentation] = ()
    ) -> None:
        self.prompt, self.options, self.counter = prompt, options, counter
        self.fixed = sum(counter(part.text) for part in prompt.parts if part.fixed)
        self.before = self._size([part.text for part in prompt.parts if not part.fixed])
        self.limit = options.budget.limit(self.before)
        self.done = self.limit is not None and self.limit >= self.before
        plain = [self.done or part.fixed for part in prompt.parts]
        self.segments = segments or [
            segment(p.text, structure and not q) for p, q in zip(prompt.parts, plain, strict=True)
        ]
        self.open = [s for s, p in zip(self.segments, prompt.parts, strict=True) if not p.fixed]

    @cached_property
    def protected(self) -> list[Bools]:
        """Units that stay whatever the budget, of every open part."""
        return [_touched(s, self.options.protect) | s.pinned for s in self.open]

    def targets(self) -> list[Target]:
        """How much of every open part is to stay, for a scorer that must know: of each the same share."""
        size = self.before - self.fixed
        rate = min(1.0, max(0.0, (self.limit - self.fixed) / size)) if self.limit is not None and size else 1.0
        sure = [mask.copy() for mask in self.protected]
        if len(self.asked):
            sure[0][self.asked] = True
        return [Target(rate, mask) for mask in sure]

    def _size(self, texts: Sequence[str]) -> int:
        """Tokens of the prompt with these texts of the open parts."""
        return self.fixed + sum(map(self.counter, self.prompt.counted(texts)))

    def result(self, owner: Compressor, scores: Sequence[Scores], began: float) -> Compression:
        """Choose and mend; the original where that is not shorter."""
        parts, met, after = whole([s.tiling for s in self.segments]), True, self.before
        if not self.done:
            chosen, fits, size = self._choose(scores)
            met = fits
            if size < after:
                parts, after = chosen, size
        if not met and self.options.strict:
            raise BudgetError(
                f"what must stay (protected text, the brackets of JSON) is {after:,} tokens, more than the budget of "
                f"{self.limit:,}; raise the budget or protect less"
            )
        return Compression(
            parts=parts,
            prompt=self.prompt,
            tokens_before=self.before,
            tokens_after=after,
            met=met,
            method="+".join(sorted({m for s in scores for m in s.method.split("+")})) or owner.scorer.name,
            model=owner.scorer.model,
            counter=owner.counter.name,
            seconds=time.perf_counter() - began,
        )

    def _choose(self, scores: Sequence[Scores]) -> tuple[tuple[KeptPart, ...], bool, int]:
        """(parts, is the budget kept, tokens after)."""
        rules = Rules.joined(self.open)
        values = np.concatenate([np.zeros(0, np.float32), *(s.values for s in scores)])
        protected = np.concatenate([np.zeros(0, bool), *self.protected])
        rank = in_front(by_score(values, rules), self.asked)
        if self.limit is not None:
            sizes = np.concatenate([np.zeros(0, np.int64), *(np.diff(s.tiling.bounds) for s in self.open)])
            rank = large_ones_wait(rank, rules, sizes)
        if self.prompt.messages is not None and len(self.open) > 1:
            rank = _best_first(rank, np.repeat(np.arange(len(self.open)), [len(s.tiling) for s in self.open]))
        entry = entries(rank, rules, protected)
        splits = np.cumsum([len(s.tiling) for s in self.open])[:-1]

        def keeps(cutoff: int) -> list[Bools]:
            return np.split(entry <= cutoff, splits) if self.open else []

        def count(cutoff: int) -> int:
            rendered = zip(self.open, keeps(cutoff), strict=True)
            return self._size([cut(s.tiling, mend(s.tiling, keep)) for s, keep in rendered])

        if self.limit is None:
            threshold = self.options.budget.threshold
            wanted = values >= threshold
            wanted[self.asked] = True
            cutoff = int(wanted[rank].sum())
        else:
            cutoff = largest_cutoff(len(rank), self.limit, count)
        after = count(cutoff)
        masks = iter(keeps(cutoff))
        kept = iter([(s, v.values, next(masks)) for s, v in zip(self.open, scores, strict=True)])
        parts = [
            whole([s.tiling])[0] if p.fixed else _kept(*next(kept))
            for s, p in zip(self.segments, self.prompt.parts, strict=True)
        ]
        return tuple(parts), self.limit is None or after <= self.limit, after

    @cached_property
    def asked(self) -> Ints:
        """The units of the last paragraph of a plain text if it asks something: it goes last, whatever it scores."""
        none = np.zeros(0, np.int64)
        if self.prompt.messages is not None or self.prompt.layout is not None:
            return none
        tiling = self.open[0].tiling
        text = tiling.text.rstrip()
        paragraphs = re.split(r"\n[^\S\n]*\n", text[-_CLOSING:])
        closing = paragraphs[-1].lstrip()
        if len(paragraphs) == 1 or not asks(closing) or 2 * len(closing) > len(text):
            return none
        first, last = tiling.unit_at([len(text) - len(closing), len(text) - 1]).tolist()
        return np.arange(first, last + 1)


def asks(paragraph: str) -> bool:
    """Does a paragraph ask something?

    >>> asks("Who signed (and when?)"), asks("Question: name the harbour"), asks("See https://example.org/?a=b")
    (True, True, False)
    """
    return bool(_ASKS.search(paragraph) or _LABELLED.match(paragraph))


def _kept(segmentation: Segmentation, scores: Floats, keep: Bools) -> KeptPart:
    return KeptPart(segmentation.tiling, scores, keep, mend(segmentation.tiling, keep))


def _best_first(rank: Ints, part: Ints) -> Ints:
    """The order with the best unit of every part in front: a message should not become empty."""
    _, best = np.unique(part[rank], return_index=True)
    best = np.sort(best)
    return np.concatenate([rank[best], np.delete(rank, best)])


def _touched(segmentation: Segmentation, patterns: Sequence[re.Pattern[str]]) -> Bools:
    """Units that a match of any pattern touches; white space at its ends touches nothing."""
    tiling = segmentation.tiling
    mask = np.zeros(len(tiling), bool)
    for pattern in patterns:
        for match in pattern.finditer(tiling.text):
            core = match.group().strip()
            if core:
                start = match.start() + match.group().index(core)
                first, last = tiling.unit_at([start, start + len(core) - 1]).tolist()
                mask[first : last + 1] = True
    return mask
