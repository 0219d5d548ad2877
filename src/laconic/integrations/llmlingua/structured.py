"""Texts in segments with rates of their own: `<llmlingua, rate=0.3>…</llmlingua>`, lists of segments, JSON."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np

from laconic.budget import Budget
from laconic.compressor import Compressor, Job, Options
from laconic.errors import InputError
from laconic.prompt import Layout, Part, Prompt
from laconic.result import KeptPart
from laconic.score import Scores, Target
from laconic.segment import segment
from laconic.text import Span, Tiling, cut, mend

_OPEN = re.compile(r"<llmlingua\s*((?:,[^<>]*)?)>")
_CLOSE = "</llmlingua>"
_OPTION = re.compile(r"\s*(rate|compress)\s*=\s*(\S+)\s*")
_READERS: dict[str, Callable[[str], Any]] = {"rate": float, "compress": {"True": True, "False": False}.__getitem__}


@dataclass(frozen=True)
class Segment:
    """A stretch of a context and how much of it stays."""

    text: str
    rate: float | None = None  # kept / original tokens, in (0, 1]; None: a share of the budget of all contexts
    compress: bool = True  # False: it stays as it is

    def __post_init__(self) -> None:
        if self.rate is not None and self.compress:
            Budget(rate=self.rate)  # refuses what is no rate

    @property
    def share(self) -> float:
        """The share of it that stays, for a segment with a rate."""
        assert self.rate is not None
        return self.rate if self.compress else 1.0


Context = list[Segment]


def joined(context: Context) -> str:
    """The text of a context."""
    return "".join(s.text for s in context)


def parsed(context: str, rate: float) -> Context:
    """A context with tags in segments; `rate` is that of tags without one. Text outside of tags is a segment too.

    `compress=False` keeps a segment whatever its rate. A tag that is not closed ends with the context.

    >>> [(s.text, s.share) for s in parsed("<llmlingua, compress=False>Ann:</llmlingua><llmlingua, rate=0.3> a < b", 1)]
    [('Ann:', 1.0), (' a < b', 0.3)]
    """
    found, place = [], 0
    for tag in _OPEN.finditer(context):
        if tag.start() < place:
            raise InputError(f"tags cannot be nested: {tag.group()!r} at {tag.start()} is inside another one")
        end = context.find(_CLOSE, tag.end())
        stop = end if end >= 0 else len(context)
        found += [Segment(context[place : tag.start()], rate), _tagged(context[tag.end() : stop], tag.group(1), rate)]
        place = stop + len(_CLOSE)
    found.append(Segment(context[place:], rate))
    return [s for s in found if s.text]


def _tagged(text: str, options: str, rate: float) -> Segment:
    given = dict(_option(option) for option in options.split(",")[1:])
    return Segment(text, **{"rate": rate, **given})


def _option(text: str) -> tuple[str, Any]:
    match = _OPTION.fullmatch(text)
    name, value = match.groups() if match else ("", "")
    try:
        return name, _READERS[name](value)
    except (KeyError, ValueError):
        raise InputError(f"a tag takes rate=0.3 and compress=True or False, got {text.strip()!r}") from None


def given_segments(
    contexts: Sequence[str],
    texts: Sequence[Sequence[str]] | None,
    rates: Sequence[Sequence[float]] | None,
    compress: Sequence[Sequence[bool]] | None,
) -> list[Context]:
    """`context_segs` and its companions: the segments of each context, whose texts joined are the context."""
    if texts is None or rates is None or compress is None:
        raise InputError("context_segs goes with context_segs_rate and context_segs_compress; pass all three")
    shapes = [[len(row) for row in rows] for rows in (texts, rates, compress)]
    if shapes[1:] != shapes[:1] * 2 or ["".join(row) for row in texts] != list(contexts):
        raise InputError("context_segs has, for each context, the texts it is made of, each with a rate and a compress")
    rows = zip(texts, rates, compress, strict=True)
    return [[Segment(*parts) for parts in zip(*row, strict=True)] for row in rows]


def within(context: Context, spans: Sequence[Span]) -> Context:
    """What of the segments is in these spans of the context, in order."""
    ends = list(accumulate(len(s.text) for s in context))
    starts = [end - len(s.text) for s, end in zip(context, ends, strict=True)]
    return [
        Segment(s.text[max(a, start) - start : z - start], s.rate, s.compress)
        for a, z in spans
        for s, start, end in zip(context, starts, ends, strict=True)
        if max(a, start) < min(z, end)
    ]


class Segmented:
    """Contexts in segments with rates. They are scored as one text; segments of one rate share one budget.

    So each rate is an upper bound of what stays of its segments, and dense ones keep more. What stays by its rate is
    read by a scorer that reads what was kept.
    """

    def __init__(self, compressor: Compressor, contexts: Sequence[Context]) -> None:
        self._compressor = compressor
        self._contexts = contexts
        self._segments = [s for context in contexts for s in context]
        self._rules = [segment(s.text, compressor.structure and s.share < 1) for s in self._segments]

    def texts(self, question: str | None) -> list[str]:
        """What is left of each context."""
        keeps = iter(self.kept(question))
        found = []
        for tiling, context in zip(self._tilings, self._contexts, strict=True):
            keep = np.concatenate([np.zeros(0, bool), *(next(keeps).keep for _ in context)])
            found.append(cut(tiling, mend(tiling, keep)))
        return found

    def kept(self, question: str | None) -> list[KeptPart]:
        """What is left of each segment of all contexts, in order."""
        reads = any(s.share < 1 for s in self._segments)
        scores = self._scores(question) if reads else []
        found: dict[int, KeptPart] = {}
        for share in {s.share for s in self._segments}:
            members = [k for k, s in enumerate(self._segments) if s.share == share]
            parts = self._job(members, share).result(
                self._compressor, [scores[k] for k in members if share < 1], time.perf_counter()
            )
            found.update(zip(members, parts.parts, strict=True))
        return [found[k] for k in range(len(self._segments))]

    @cached_property
    def _tilings(self) -> list[Tiling]:
        """Of each context, from the units of its segments."""
        rules = iter(self._rules)
        return [_glued([next(rules).tiling for _ in context]) for context in self._contexts]

    def _scores(self, question: str | None) -> list[Scores]:
        tiling, _ = Tiling.joined(self._tilings)
        told: dict[str, Any] = {"questions": [question]} if question else {}
        if self._compressor.scorer.reads_budget:
            told["targets"] = [self._target()]
        (scores,) = self._compressor.scorer.score([tiling], **told)
        values = np.split(scores.values, np.cumsum([len(r.tiling) for r in self._rules])[:-1])
        return [Scores(v, scores.method) for v in values]

    def _target(self) -> Target:
        """The share of all segments together that stays, and what does so anyway."""
        sizes = np.array([len(s.text) for s in self._segments], float)
        shares = np.array([s.share for s in self._segments])
        sure = [np.full(len(r.tiling), s.share == 1) for r, s in zip(self._rules, self._segments, strict=True)]
        return Target(float(shares @ sizes / max(1.0, sizes.sum())), np.concatenate([np.zeros(0, bool), *sure]))

    def _job(self, members: list[int], share: float) -> Job:
        parts = tuple(Part(self._segments[k].text) for k in members)
        prompt = Prompt(parts, layout=Layout(tuple(range(len(parts))), ""))
        options = Options(Budget(rate=share), protect=(), strict=False, question=None)
        rules = [self._rules[k] for k in members]
        return Job(prompt, options, self._compressor.counter, self._compressor.structure, rules)


def _glued(tilings: Sequence[Tiling]) -> Tiling:
    """The texts as one, without anything between."""
    starts = np.cumsum([0, *(len(t.text) for t in tilings)])
    bounds = [t.bounds[:-1] + start for t, start in zip(tilings, starts.tolist(), strict=False)]
    return Tiling("".join(t.text for t in tilings), np.append(np.concatenate([starts[:0], *bounds]), starts[-1]))
