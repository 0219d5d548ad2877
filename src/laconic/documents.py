"""Documents for a question: ranked, ordered, and compressed together within one budget.

From coarse to fine, as in LongLLMLingua (arXiv 2310.06839, sections 4.1 to 4.3): a ranker says how relevant each
document is; where they stand in the output and how much of each one stays may follow from that. Nothing is decided per
document: the units of all documents are in one order, and the cut-off is found on the exact count of the joined output.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from laconic.compressor import Job, Options
from laconic.errors import InputError
from laconic.prompt import Layout, Part, Prompt
from laconic.rankers import Ranker, ranker
from laconic.rankers.evidence import best_sentences
from laconic.result import Compression, KeptPart
from laconic.score import Scores, Target
from laconic.segment import segment
from laconic.text import Floats, Tiling

if TYPE_CHECKING:
    from laconic.compressor import Compressor

# name -> the order of the documents when `ranked` has them best first
ORDERS: dict[str, Callable[[list[int]], list[int]]] = {
    "original": sorted,
    "best_first": list,
    "two_ended": lambda ranked: ranked[::2] + ranked[1::2][::-1],  # the worst in the middle, where readers look least
}


_BLIND = 1.0  # the spread where the scores know nothing of the question (docs/log.md)


@dataclass(frozen=True)
class Arrangement:
    """What a ranking is used for."""

    ranker: str | Ranker | None = None  # None: the method's own scores if it reads questions, else `bm25`
    order: str = "original"
    spread: float | None = None  # δτ of LongLLMLingua's section 4.3; None: one cut-off over all scores
    separator: str = "\n\n"

    def __post_init__(self) -> None:
        if not isinstance(self.order, str) or self.order not in ORDERS:
            raise InputError(f"order must be one of {', '.join(ORDERS)}, got {self.order!r}")
        if self.spread is not None and (isinstance(self.spread, bool) or not isinstance(self.spread, Real)):
            raise InputError(f"spread must be a number, got {self.spread!r}; None is one cut-off over all documents")
        if self.spread is not None and not 0 <= self.spread < math.inf:
            raise InputError(f"spread must be 0 or more, got {self.spread}; None is one cut-off over all documents")
        if not isinstance(self.separator, str):
            raise InputError(f"separator must be a str, got {type(self.separator).__name__}")


@dataclass(frozen=True, eq=False, repr=False)
class CompressedDocuments(Compression):
    """What was kept of the documents, together and each.

    >>> import laconic
    >>> k = laconic.load(method="bm25")
    >>> c = k.compress_documents(["It rains.", "Ann bakes bread.", "Bo reads."], question="Who bakes?", tokens=5)
    >>> c.text, c.order, c.dropped
    ('Ann bakes bread.', (1,), (0, 2))
    """

    documents: tuple[Compression, ...]  # each one alone, in the order they came in; its spans are of that document
    relevance: Floats | None  # float32[k], higher is more; None if nothing had to be ranked

    @property
    def text(self) -> str:
        """The output: what was kept of each document, in `order`, with the separator between."""
        return self._layout.joined([part.text for part in self.parts])

    @property
    def order(self) -> tuple[int, ...]:
        """The documents that are in the output, as indices of the input, in the order of the output."""
        return tuple(k for k in self._layout.order if self.parts[k].text)

    @property
    def dropped(self) -> tuple[int, ...]:
        """The documents that are not in the output."""
        return tuple(k for k, part in enumerate(self.parts) if not part.text)

    @property
    def _layout(self) -> Layout:
        assert self.prompt.layout is not None
        return self.prompt.layout

    def _only(self) -> KeptPart:
        raise InputError("this compression is of several documents: read .documents[k].spans, .documents[k].original")

    def to_dict(self) -> dict[str, Any]:
        """As of any compression, with `order`, `dropped`, and `spans` a list for each document."""
        spans = [[list(s) for s in part.spans] for part in self.parts]
        return {"text": self.text, "order": self.order, "dropped": self.dropped, "spans": spans, **self._numbers()}


def compress(
    compressor: Compressor, documents: Sequence[str], options: Options, arrangement: Arrangement
) -> CompressedDocuments:
    """See `Compressor.compress_documents`."""
    began = time.perf_counter()
    run = _Run(compressor, _checked(documents), options, arrangement)
    c = run.result(began)
    alone = [_alone(c, part, compressor.counter(part.original), compressor.counter(part.text)) for part in c.parts]
    return CompressedDocuments(**vars(c), documents=tuple(alone), relevance=run.relevance)


def _checked(documents: Sequence[str]) -> list[str]:
    if isinstance(documents, str) or not isinstance(documents, Sequence):
        raise InputError(f"documents is a list of str, got one {type(documents).__name__}; for one text use compress")
    for k, document in enumerate(documents):
        if not isinstance(document, str):
            raise InputError(f"document {k} must be a str, got {type(document).__name__}")
    return list(documents)


def _alone(c: Compression, part: KeptPart, before: int, after: int) -> Compression:
    prompt = Prompt((Part(part.original),))
    return Compression((part,), prompt, before, after, c.met, c.method, c.model, c.counter, c.seconds)


class _Run:
    """One list of documents on its way through. The scorer runs at most once, for the ranking and the choice."""

    def __init__(self, compressor: Compressor, texts: list[str], options: Options, how: Arrangement) -> None:
        self.compressor, self.texts, self.options, self.how = compressor, texts, options, how
        if not options.question and (how.order != "original" or how.spread is not None):
            raise InputError("order and spread follow from relevance to a question; pass question=, or leave them out")
        self.segments = [segment(text, compressor.structure) for text in texts]
        self.tiling, self.firsts = Tiling.joined([s.tiling for s in self.segments])
        self.relevance: Floats | None = None

    def result(self, began: float) -> Compression:
        """Score, rank, choose; nothing of it where all fits as it came in."""
        job = self._job(range(len(self.texts)))
        if job.done and self.how.order == "original":
            return job.result(self.compressor, [], began)
        scores, ranked = self._scores(job), []
        if self.options.question:
            self.relevance = self._relevance(scores, self.options.question)
            ranked = np.argsort(-self.relevance, kind="stable").tolist()
        if self.how.order != "original":
            job = self._job(ORDERS[self.how.order](ranked))
        return job.result(self.compressor, [] if job.done else self._of_each(scores, ranked), began)

    def _job(self, order: Sequence[int]) -> Job:
        prompt = Prompt(tuple(Part(text) for text in self.texts), layout=Layout(tuple(order), self.how.separator))
        return Job(prompt, self.options, self.compressor.counter, self.compressor.structure, self.segments)

    @property
    def _reads(self) -> bool:
        return bool(self.options.question) and self.compressor.scorer.reads_question

    def _scores(self, job: Job) -> Scores:
        """Of all units, the documents read as paragraphs of one text: only so are they comparable."""
        told: dict[str, Any] = {"questions": [self.options.question]} if self._reads else {}
        if self.compressor.scorer.reads_budget:
            targets = job.targets()
            told["targets"] = [Target(targets[0].rate, np.concatenate([t.sure for t in targets]))]
        return self.compressor.scorer.score([self.tiling], **told)[0]

    def _relevance(self, scores: Scores, question: str) -> Floats:
        if self.how.ranker is None and self._reads:
            return best_sentences(self.tiling, self.firsts, scores.values)
        made = self.how.ranker or "bm25"
        return (ranker(made) if isinstance(made, str) else made).rank(self.texts, question)

    def _of_each(self, scores: Scores, ranked: list[int]) -> list[Scores]:
        values = np.split(scores.values, self.firsts[1:-1])
        spread = self.how.spread
        if spread is None and self.options.question and not self._reads:
            spread = _BLIND
        if spread is not None:
            deltas = _deltas(ranked, spread)
            tilings = [s.tiling for s in self.segments]
            values = [_shares(v, t) + d for v, t, d in zip(values, tilings, deltas, strict=True)]
        return [Scores(v, scores.method) for v in values]


def _deltas(ranked: list[int], spread: float) -> list[float]:
    """How much more than the average rate each document keeps: from +spread for the best to -spread for the worst.

    δ_k = (1 - 2 I(k) / (K - 1)) δτ, with I(k) = 0 for the best of K documents (LongLLMLingua, eq. 5 as in its package,
    where the worst has -δτ too).
    """
    delta = np.zeros(len(ranked))
    if len(ranked) > 1:
        delta[ranked] = np.linspace(spread, -spread, len(ranked))
    return delta.tolist()  # type: ignore[no-any-return]


def _shares(values: Floats, tiling: Tiling) -> Floats:
    """The share of the document (characters) that does not score better than each unit: float32[n] in (0, 1], NaN kept.

    A cut-off at 1 - τ keeps the share τ of every document; with δ_k added, the share τ + δ_k.
    """
    order = np.argsort(-values, kind="stable")
    sizes = np.diff(tiling.bounds)[order]
    share = np.empty(len(values), np.float32)
    share[order] = 1 - (np.cumsum(sizes) - sizes) / max(1, sizes.sum())
    share[np.isnan(values)] = np.nan
    return share
