"""LLMLingua and LongLLMLingua: a budget for paragraphs, then token by token, given what was kept so far.

From coarse to fine, for a text of which a share is to stay:

1. Paragraphs (the papers' demonstrations, or documents) are ranked: by their perplexity, or with a question by how well
   they foretell it. The best are taken until they hold k times the budget (LLMLingua, algorithm 1).
2. These share the budget: equally, or with a question the better ones get more (LongLLMLingua, section 4.3).
3. Segments of about `_SEGMENT` tokens are read given what was kept of those before (LLMLingua, algorithm 2). A unit has
   its surprisal, that of all its tokens; with a question, how much less surprising the question makes it
   (LongLLMLingua, eq. 5). The best units stay, as many as the segment's share says.

LLMLingua: Jiang et al. 2023, arXiv 2310.05736. LongLLMLingua: Jiang et al. 2023, arXiv 2310.06839. What differs from
the papers and their package: docs/methods.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from laconic.backends import Decoder
from laconic.budget import DEFAULT_RATE
from laconic.hub import LanguageModel, load_decoder
from laconic.score import Progress, Scores, Target
from laconic.scorers.perplexity import QuestionPerplexity, question_ids, surprisals
from laconic.text import Bools, Floats, Ints, Tiling, total

_SEGMENT = 200  # tokens, as in the package
_COARSE = 2.0  # k of LLMLingua
_COARSE_ASKED, _SPREAD = 1.25, 0.6  # k and δτ of LongLLMLingua, where 2 and 0.3 leave too much of what does not answer
_DROPPED = -1.0  # the share of a paragraph that goes as a whole

Shares = npt.NDArray[np.float64]


class LLMLingua:
    """How far a unit is above the line between kept and dropped in its segment, in shares of the segment.

    So a cut-off at 0 keeps what the method keeps, and a cut-off nearby a little more or less of every segment. Units of
    a paragraph that goes as a whole are at -1 and below, the next best paragraph first.
    """

    reads_budget = True

    def __init__(
        self, model: LanguageModel, reads_question: bool, segment: int = _SEGMENT, coarse: bool = True
    ) -> None:
        """`segment`: tokens read at once. `coarse=False` leaves steps 1 and 2 out: what comes in was chosen before."""
        self.name = "longllmlingua" if reads_question else "llmlingua"
        self.model = model.name
        self.reads_question = reads_question
        self._model = model
        self._segment = segment
        self._chooses = coarse

    def score(
        self,
        tilings: Sequence[Tiling],
        progress: Progress | None = None,
        questions: Sequence[str | None] | None = None,
        targets: Sequence[Target] | None = None,
    ) -> list[Scores]:
        """float32[n] a tiling, in [-2, 1]; NaN for units without a token. Without a target half is to stay.

        Without a question LongLLMLingua is LLMLingua, and its scores say so.
        """
        asked = questions or [None] * len(tilings)
        wanted = targets or [Target(DEFAULT_RATE, np.zeros(len(t), bool)) for t in tilings]
        return [
            Scores(self._values(t, w, q, progress), "longllmlingua" if q else "llmlingua")
            for t, w, q in zip(tilings, wanted, asked, strict=True)
        ]

    def _values(self, tiling: Tiling, target: Target, question: str | None, progress: Progress | None) -> Floats:
        text = _Read.of(tiling, self._model)
        share, values = self._coarse(text, target, question)
        prefix = _Prefix(self._model.decoder, question_ids(self._model, f"{question}\n\n") if question else None)
        for segment in text.segments(share, self._segment):
            found = segment.compress(prefix, target.sure[segment.units])
            values[segment.units] = np.where(np.isnan(found), values[segment.units], found)
            if progress:
                progress(len(segment.tiling.text))
        return values

    def _coarse(self, text: _Read, target: Target, question: str | None) -> tuple[Shares, Floats]:
        """The share of each unit's paragraph that stays; the scores of those that go as a whole, NaN for the others.

        A paragraph with units that stay anyway never goes as a whole: the model must read these.
        """
        bounds = paragraphs(text.tiling)
        lengths = _sums(np.where(target.sure, 0, text.weight), bounds)
        whole, sure = target.rate * text.weight.sum(), text.weight[target.sure].sum()
        budget = max(0.0, whole - sure)
        if self._chooses:
            coarse, spread = (_COARSE_ASKED, _SPREAD) if question else (_COARSE, 0.0)
            room = coarse * whole - sure if budget else 0.0  # what stays anyway is held already
            order = self._order(text, bounds, lengths, room, question)
            shares = allocate(order, lengths, budget, room, spread)
        else:
            order = np.arange(len(lengths))
            shares = np.full(len(lengths), min(1.0, budget / max(1, lengths.sum())))
        shares[(shares == _DROPPED) & (_sums(target.sure, bounds) > 0)] = 0
        share = np.repeat(shares, np.diff(bounds))
        place = np.repeat(np.argsort(order), np.diff(bounds))
        gone = (share == _DROPPED) & (text.weight > 0)
        return share, np.where(gone, -1 - place / max(1, len(order)), np.nan).astype(np.float32)

    def _order(self, text: _Read, bounds: Ints, lengths: Ints, room: float, question: str | None) -> Ints:
        """The paragraphs, the most important first."""
        edges = text.tiling.bounds[bounds].tolist()
        all_but_one = lengths.sum() - min(lengths[lengths > 0], default=0)  # even the last of all would be taken
        if len(edges) < 3 or (not question and all_but_one < room):
            return np.arange(len(bounds) - 1)  # all of them stay, with equal shares
        if question:
            found = QuestionPerplexity(self._model).rank([text.tiling.text[s:e] for s, e in pairwise(edges)], question)
        else:
            splits = np.searchsorted(text.owner, bounds[1:-1])
            rows = surprisals(self._model, np.split(text.ids, splits))
            found = np.array([row.mean() if len(row) else -np.inf for row in rows], np.float32)
        return np.argsort(-found, kind="stable")


def llmlingua(model: str) -> LLMLingua:
    """Surprisal given what was kept."""
    return LLMLingua(load_decoder(model), reads_question=False)


def longllmlingua(model: str) -> LLMLingua:
    """The same for a question."""
    return LLMLingua(load_decoder(model), reads_question=True)


def paragraphs(tiling: Tiling) -> Ints:
    """Unit indices where paragraphs start and end, from 0 to n: int64[k + 1]. An empty line starts another one.

    >>> from laconic.segment import words
    >>> paragraphs(words("One, two.\\n\\nThree.\\n")).tolist()
    [0, 4, 7]
    """
    n, starts = len(tiling), tiling.edges.paragraph.units
    last = n - 1 if n and tiling.edges.core[-1] == tiling.bounds[-1] else n  # white space at the end is no paragraph
    return np.unique(np.concatenate([[0], starts[starts < last], [n]])).astype(np.int64)


def allocate(order: Ints, lengths: Ints, budget: float, room: float, spread: float = 0.0) -> Shares:
    """The share of each paragraph that stays: float64[k] in [0, 1], or -1 where it goes as a whole.

    order: the paragraphs, the best first. lengths: tokens that may be dropped. budget: how many of them stay in all.
    Paragraphs are taken in order until they hold `room` tokens. Of K' taken, the one at place i gets
    τ + (1 - 2 i / K') · spread, within [0, 1] (LongLLMLingua, section 4.3, with I(r_k) = i), where τ is such that the
    budget is met.

    >>> allocate(np.array([1, 0, 2]), np.array([100, 100, 100]), 90, 180).tolist()
    [0.45, 0.45, -1.0]
    >>> allocate(np.array([0, 1]), np.array([100, 100]), 100, 200, spread=0.3).round(3).tolist()
    [0.65, 0.35]
    """
    shares = np.full(len(lengths), _DROPPED)
    before = np.cumsum(lengths[order]) - lengths[order]
    taken = order[(before < room) & (lengths[order] > 0)]
    change = (1 - 2 * np.arange(len(taken)) / max(1, len(taken))) * spread
    low, high = -1 - spread, 1 + spread
    for _ in range(60):  # bisection: what stays grows with the shift
        middle = (low + high) / 2
        short = np.clip(middle + change, 0, 1) @ lengths[taken] < budget
        low, high = (middle, high) if short else (low, middle)
    shares[taken] = np.clip(high + change, 0, 1)
    return shares


def quantiles(values: Floats, weight: Ints) -> Floats:
    """Where each unit stands in its segment, the best first: the share of tokens before the unit's middle.

    float32[n] in [0, 1]; ties go to the earlier unit; NaN stays NaN.
    """
    rank = np.argsort(-values, kind="stable")
    size = np.where(np.isnan(values), 0, weight)[rank]
    found: Floats = np.empty(len(values), np.float32)
    found[rank] = (np.cumsum(size) - size / 2) / max(1, size.sum())
    found[np.isnan(values)] = np.nan
    return found


@dataclass(frozen=True)
class _Read:
    """A text in model tokens. A token belongs to the unit in which it starts."""

    tiling: Tiling
    ids: Ints  # int64[T], and so the next three
    starts: Ints
    ends: Ints
    owner: Ints
    weight: Ints  # int64[n], tokens of each unit

    @classmethod
    def of(cls, tiling: Tiling, model: LanguageModel) -> _Read:
        ids, starts, ends = model.tokens(tiling.text)
        owner = np.maximum.accumulate(tiling.unit_at(np.minimum(starts, len(tiling.text) - 1)))
        return cls(tiling, ids, starts, ends, owner, np.bincount(owner, minlength=len(tiling)))

    def segments(self, share: Shares, length: int) -> Iterator[_Segment]:
        """Stretches of about `length` tokens: paragraphs that stay, short ones together, long ones in equal parts."""
        edges = np.flatnonzero(np.diff(share)) + 1
        start = end = size = 0  # of short ones that wait for more
        for a, z in pairwise([0, *edges.tolist(), len(share)]):
            if z == a or share[a] == _DROPPED:
                continue
            own = int(self.weight[a:z].sum())
            if size and size + own > length:
                yield self._segment(start, end, share)
                size = 0
            if own <= length:
                start, end, size = (start if size else a), z, size + own
                continue
            before, count = np.cumsum(self.weight[a:z]) - self.weight[a:z], -(-own // length)
            inner = np.flatnonzero(np.diff(np.minimum(before * count // own, count - 1))) + a + 1
            yield from (self._segment(s, e, share) for s, e in pairwise([a, *inner.tolist(), z]))
        if size:
            yield self._segment(start, end, share)

    def _segment(self, first: int, end: int, share: Shares) -> _Segment:
        start, stop = self.tiling.bounds[[first, end]].tolist()
        tokens = np.arange(*np.searchsorted(self.owner, [first, end]))
        tokens = tokens[share[self.owner[tokens]] != _DROPPED]
        return _Segment(
            slice(first, end),
            Tiling(self.tiling.text[start:stop], self.tiling.bounds[first : end + 1] - start),
            self.ids[tokens],
            np.clip(self.starts[tokens] - start, 0, stop - start),
            np.clip(self.ends[tokens] - start, 0, stop - start),
            self.owner[tokens] - first,
            self.weight[first:end],
            share[first:end],
        )


@dataclass(frozen=True)
class _Segment:
    """Some units and their tokens, without those of dropped paragraphs between them; positions are within it."""

    units: slice
    tiling: Tiling
    ids: Ints
    starts: Ints
    ends: Ints
    owner: Ints
    weight: Ints
    share: Shares  # how much of the paragraph of each unit stays

    def compress(self, prefix: _Prefix, sure: Bools) -> Floats:
        """The scores of its units, NaN in dropped paragraphs; what is kept joins the prefix."""
        worth = total(prefix.surprisal(self.ids), self.starts, self.ends, self.tiling)
        values = np.where(np.isnan(worth), np.nan, self.share)
        for share in np.unique(self.share):
            some = ~sure & (self.share == share)
            values[some] -= quantiles(worth[some], self.weight[some])
        keep = sure | (values >= 0)
        prefix.keep(keep[self.owner])
        values[self.share == _DROPPED] = np.nan
        found: Floats = values.astype(np.float32)
        return found


class _Prefix:
    """What was kept so far as the model read it; with a question, once after the question and once without it."""

    def __init__(self, decoder: Decoder, question: Ints | None) -> None:
        head = np.array([decoder.start])
        self._session = decoder.session([head] if question is None else [head, np.append(head, question)])

    def surprisal(self, ids: Ints) -> Floats:
        """float32[T], nats: of these tokens given the prefix (with a question eq. 5), which they join for now."""
        found = self._session.read(ids)
        worth: Floats = found[0] - found[1] if len(found) > 1 else found[0]
        return worth

    def keep(self, which: Bools) -> None:
        """Of these tokens, bool[T], the prefix keeps some."""
        self._session.keep(which)


def _sums(values: npt.NDArray[np.integer | np.bool_], bounds: Ints) -> Ints:
    """Of each stretch between bounds: int64[k]."""
    return np.diff(np.concatenate([[0], np.cumsum(values)])[bounds]).astype(np.int64)
