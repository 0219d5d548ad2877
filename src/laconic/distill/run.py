"""Texts → chunks → teacher → labels → filter → a data set with a report.

Nothing is kept between runs but the endpoint's cache of answers: a run that was killed is run again, and asks only for
what has no answer yet.
"""

from __future__ import annotations

import json
import os
from collections import Counter as Tally
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np

from laconic.budget import Counter, counter
from laconic.distill.align import kept_spans, kept_units, units
from laconic.distill.plan import Plan, Prices
from laconic.distill.quality import Drop, choose, measure
from laconic.distill.report import MEASURES, Values, picture, summary
from laconic.distill.teach import Unusable, asked, compression, requests
from laconic.distill.texts import Document
from laconic.endpoint import Completion, Endpoint
from laconic.errors import EndpointError, InputError, MissingExtraError
from laconic.text import Tiling, cut, mend

_QUOTED = 20  # error messages that a report quotes

Answer = Completion | EndpointError


def distill(
    plan: Plan, endpoint: Endpoint, out: Path, drop: Drop | None = None, prices: Prices | None = None
) -> dict[str, Any]:
    """Ask the teacher, label, filter; writes `out` (JSON lines) and beside it `.report.json` and `.report.png`.

    Returns the report. Raises EndpointError when the teacher cannot be asked any more, or when none of its answers can
    be used.
    """
    part, books = _checked(plan.job.source, out), _Books()
    try:
        measures = _collected(_examples(plan, endpoint, books), part)
        report = {"source": str(plan.job.source), "teacher": endpoint.model, "url": endpoint.url}
        report |= books.report(plan, prices)
        if measures["vr"].size:
            report |= _filtered(part, out, measures, drop or Drop())
    finally:
        part.unlink(missing_ok=True)
    out.with_suffix(".report.json").write_bytes(_encoded(report, indent=2))
    if not measures["vr"].size:
        raise EndpointError(f"no answer of {endpoint.model} can be used: {books.reasons()}; try another model")
    return report


@dataclass
class _Books:
    """What became of the requests."""

    left_out: Tally[str] = field(default_factory=Tally)
    no_question: Tally[str] = field(default_factory=Tally)
    errors: list[str] = field(default_factory=list)
    questions: int = 0
    paid: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def book(self, answer: Answer) -> None:
        """Count what an answer cost, or note its error."""
        if isinstance(answer, EndpointError):
            if len(self.errors) < _QUOTED:
                self.errors.append(str(answer))
        elif not answer.cached:
            self.paid += 1
            self.tokens_in += answer.prompt_tokens
            self.tokens_out += answer.completion_tokens

    def reasons(self) -> str:
        """Why chunks were left out, most frequent first."""
        first = f" ({self.errors[0]})" if self.errors else ""
        return ", ".join(f"{n:,} {name}" for name, n in self.left_out.most_common()) + first

    def report(self, plan: Plan, prices: Prices | None) -> dict[str, Any]:
        paid: dict[str, Any] = {"requests": self.paid, "tokens_in": self.tokens_in, "tokens_out": self.tokens_out}
        if prices:
            paid["cost"] = prices.cost(self.tokens_in, self.tokens_out)
        return {
            "chunks": plan.chunks,
            "broken_records": len(plan.broken),
            "broken_first": list(plan.broken[:_QUOTED]),
            "left_out": dict(self.left_out.most_common()),
            "questions": self.questions,
            "questions_left_out": dict(self.no_question.most_common()),
            "errors_first": self.errors,
            "paid_now": paid,
        }


def _examples(plan: Plan, endpoint: Endpoint, books: _Books) -> Iterator[dict[str, Any]]:
    """The labelled chunks, in order."""
    from tqdm import tqdm

    job, count = plan.job, counter(plan.job.counter)
    ahead, passages = tee(job.passages([]))
    wanted = (messages for passage in ahead for messages in requests(passage, job.questions))
    try:
        with closing(endpoint.complete_many(wanted)) as answers:
            for passage in tqdm(passages, total=plan.chunks, unit="chunk", desc="teaching", disable=None):
                given = [next(answers) for _ in range(1 + job.questions)]
                example = _example(passage, given, count, books)
                if example:
                    yield example | {"source": passage.source, "teacher": endpoint.model}
    except EndpointError as error:
        again = "; run it again to go on: answers in the cache are not paid twice" if books.paid else ""
        raise EndpointError(f"{error}{again}", error.fatal) from None


def _example(passage: Document, answers: list[Answer], count: Counter, books: _Books) -> dict[str, Any] | None:
    """The labelled passage, with its question where there is a usable one; None where the labels are not usable."""
    for answer in answers:
        books.book(answer)
    try:
        example = _labelled(passage, compression(passage.text, _given(answers[0])), count)
    except Unusable as reason:
        books.left_out[str(reason)] += 1
        return None
    for answer in answers[1:]:
        try:
            example |= _questioned(passage, _given(answer))
            books.questions += 1
        except Unusable as reason:
            books.no_question[str(reason)] += 1
    return example


def _given(answer: Answer) -> Completion:
    if isinstance(answer, EndpointError):
        raise Unusable("failed request")
    return answer


def _labelled(passage: Document, compressed: str, count: Counter) -> dict[str, Any]:
    """Spans and measures. The rate is that of the spans as laconic would render them, not of the teacher's words."""
    text, places = passage.text, units(passage.text)
    original = [text[s:e] for s, e in places]
    said = [compressed[s:e] for s, e in units(compressed)]
    keep = kept_units(original, said)
    if not keep.any():
        raise Unusable("nothing verbatim")
    tiling = Tiling.of(text, [end for _, end in places][:-1])
    quality = measure(original, said, keep)
    return {
        "id": passage.id,
        "text": text,
        "compressed": compressed,
        "spans": kept_spans(places, keep),
        "rate": round(count(cut(tiling, mend(tiling, keep))) / count(text), 4),
        **{name: round(value, 4) for name, value in vars(quality).items()},
    }


def _questioned(passage: Document, answer: Completion) -> dict[str, Any]:
    found = asked(passage, answer)
    return {
        "question": found.question,
        "answer": found.answer,
        "evidence": [passage.text[s:e] for s, e in found.evidence],
        "evidence_spans": found.evidence,
    }


def _collected(examples: Iterator[dict[str, Any]], part: Path) -> dict[str, Values]:
    """Write examples as they come: only their measures stay in memory."""
    measures = {name: list[float]() for name in MEASURES}
    with part.open("wb") as file:
        for example in examples:
            file.write(_encoded(example))
            for name, values in measures.items():
                values.append(example[name])
    return {name: np.array(values) for name, values in measures.items()}


def _filtered(part: Path, out: Path, measures: Mapping[str, Values], drop: Drop) -> dict[str, Any]:
    """Write what passes the filters, and the picture; returns their part of the report."""
    chosen = choose(measures["vr"], measures["ag"], drop)
    fresh = out.with_name(out.name + ".new")
    with part.open("rb") as lines, fresh.open("wb") as file:
        file.writelines(line for line, passed in zip(lines, chosen.passed, strict=True) if passed)
    os.replace(fresh, out)
    thresholds = {"vr": chosen.vr, "ag": chosen.ag}
    picture(out.with_suffix(".report.png"), measures, thresholds)
    return {
        "labelled": len(chosen.passed),
        "thresholds": thresholds,
        "dropped": {"vr": chosen.dropped_vr, "ag": chosen.dropped_ag},
        "written": int(chosen.passed.sum()),
        "measures": {name: summary(values) for name, values in measures.items()},
    }


def _checked(source: Path, out: Path) -> Path:
    """Where to collect examples; everything that could fail after the money is spent fails here."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError("the report's picture", "distill") from None
    part = out.with_name(out.name + ".part")
    if out.resolve() == source.resolve() or out.is_dir():
        raise InputError(f"{out} is {'a folder' if out.is_dir() else 'the input'}; pass a file for the data set")
    try:
        part.touch()
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; pass a file in a folder that exists") from None
    return part


def _encoded(data: Mapping[str, Any], indent: int | None = None) -> bytes:
    """JSON and a line break; a lone surrogate becomes its JSON escape."""
    return (json.dumps(data, ensure_ascii=False, indent=indent) + "\n").encode("utf-8", "backslashreplace")
