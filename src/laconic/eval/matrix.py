"""The matrix: tasks x methods x rates, one row an example; what is there already is not done again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from laconic.distill.align import kept_units, units
from laconic.errors import InputError, LaconicError
from laconic.eval import metrics
from laconic.eval.answer import Answerer
from laconic.eval.data import Example
from laconic.eval.kinds import Scores
from laconic.eval.methods import FULL, NONE, QUESTION_ONLY, Compressing, Method, Output
from laconic.text import Tiling
from laconic.train.metrics import auc, f1_at_rate

Row = dict[str, Any]
Progress = Callable[[int], object]  # called with the number of examples just done
_TOGETHER = 32  # examples answered in one go, and what a kill can lose
_KEY = ("task", "id", "method", "rate", "judges")


@dataclass(frozen=True)
class Suite:
    """Examples that are measured and reported together; the kind says what their answers are."""

    name: str
    kind: str
    examples: Sequence[Example]


@dataclass(frozen=True)
class Judge:
    """An answerer, the measures of its answers, and what their names begin with in a row."""

    prefix: str
    answerer: Answerer
    scores: Callable[[str, Example], Scores]

    @property
    def name(self) -> str:
        return f"{self.prefix}:{self.answerer.name}"


class Rows:
    """The rows of a file, and a way to add to it that a kill cannot spoil. key: the fields that tell rows apart."""

    def __init__(self, path: Path, key: Sequence[str] = _KEY) -> None:
        self.path, self.key = path, key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text(encoding="utf-8") if path.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot hold the rows ({error}); pass another folder as OUT") from None
        complete = text[: text.rfind("\n") + 1]  # a kill may have left half a line
        if complete != text:
            path.write_text(complete, encoding="utf-8")
        self.rows: list[Row] = []
        for number, line in enumerate(complete.splitlines(), 1):
            try:
                self.rows.append(json.loads(line))
            except ValueError as error:
                raise InputError(f"{path}:{number} is not JSON: {error}; remove it to measure it again") from None
        self._keys = {self._key(row) for row in self.rows}

    def __contains__(self, row: Row) -> bool:
        return self._key(row) in self._keys

    def of(self, task: str, judges: Sequence[Judge]) -> list[Row]:
        """The rows of a task that these judges have judged."""
        return [row for row in self.rows if row["task"] == task and row["judges"] == _names(judges)]

    def get(self, some: Iterable[Row]) -> list[Row]:
        """The rows that have the keys of these, in their order."""
        by_key = {self._key(row): row for row in self.rows}
        return [by_key[self._key(row)] for row in some]

    def add(self, rows: Iterable[Row]) -> None:
        """Append; on the disk when this returns."""
        new = list(rows)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in new)
        self.rows += new
        self._keys |= {self._key(row) for row in new}

    def _key(self, row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.key)


def _names(judges: Sequence[Judge]) -> str:
    return "+".join(judge.name for judge in judges)


def measure(
    suite: Suite,
    methods: Sequence[Method],
    rates: Sequence[float],
    judges: Sequence[Judge],
    rows: Rows,
    progress: Progress = lambda done: None,
) -> list[str]:
    """Measure every example with every method at every rate, and with judges also the full context and none.

    Adds to `rows` what is not there yet. Returns a line for every answer that could not be had; those examples have no
    row and are tried again next time.
    """
    failures: list[str] = []
    plan = [(m, r) for m in methods for r in rates] + [(m, m.rate) for m in (FULL, NONE) if judges]
    for method, rate in plan:
        head = {"task": suite.name, "method": method.name, "rate": rate, "judges": _names(judges)}
        missing = [e for e in suite.examples if {**head, "id": e.id} not in rows]
        progress(len(suite.examples) - len(missing))
        compress = _remembering(method, rate)
        for start in range(0, len(missing), _TOGETHER):
            part = missing[start : start + _TOGETHER]
            outputs = [compress(e) for e in part]
            made = [{**head, **_row(e, o, rate, suite.kind == "qa")} for e, o in zip(part, outputs, strict=True)]
            rows.add(_judged(made, part, [o.text for o in outputs], judges, failures))
            progress(len(part))
    return failures


def _remembering(method: Method, rate: float) -> Callable[[Example], Output]:
    """Compress, but a context (and question, if it counts) only once."""
    known: dict[tuple[str, str | None], Output] = {}

    def compress(example: Example) -> Output:
        key = (example.context, example.question if method.reads_question else None)
        if key not in known:
            known[key] = method.compress(example.context, rate, example.question)
        return known[key]

    return compress


def _row(example: Example, output: Output, rate: float, extractive: bool) -> Row:
    """What is measured without a reader; measures without meaning here are left out."""
    original, text, spans = example.context, output.text, output.spans
    before, after = output.tokens_before, output.tokens_after
    row: Row = {"id": example.id, "group": example.group or example.id}
    row |= {"tokens_before": before, "tokens_after": after, "got": after / before if before else 1.0}
    row |= {"within": metrics.within(rate, before, after) if rate else 1.0, "seconds": round(output.seconds, 5)}
    there = extractive and metrics.survives(original, example.answers)  # what was not there cannot be lost
    found = {
        "survived": metrics.survives(text, example.answers) if there else None,
        "evidence": metrics.evidence_recall(original, spans, example.evidence) if spans is not None else None,
        "numbers": metrics.number_recall(original, text),
        "numbers_whole": metrics.numbers_whole(original, text),
        "line_numbers": metrics.line_numbers(original, spans) if spans is not None else None,
    }
    return row | {name: value for name, value in found.items() if value is not None}


def _judged(
    rows: Sequence[Row], part: Sequence[Example], texts: Sequence[str], judges: Sequence[Judge], failures: list[str]
) -> Iterator[Row]:
    """The rows with the judges' measures, without those that a judge failed on."""
    answers = [judge.answerer.answers(texts, part) for judge in judges]
    for k, (row, example) in enumerate(zip(rows, part, strict=True)):
        errors = [a[k] for a in answers if isinstance(a[k], LaconicError)]
        if errors:
            failures.append(f"{row['task']}, {example.id}, {row['method']} at {row['rate']}: {errors[0]}")
            continue
        for judge, given in zip(judges, answers, strict=True):
            answer = str(given[k])
            row[f"{judge.prefix}_answer"] = answer
            row |= {f"{judge.prefix}_{name}": value for name, value in judge.scores(answer, example).items()}
        yield row


def measure_keep(suite: Suite, methods: Sequence[Method], rows: Rows, progress: Progress = lambda done: None) -> None:
    """Keep-F1 and AUC of the scores against a teacher's compression (`meta["compressed"]`); no rate, no question.

    Units are words and single punctuation marks. Methods without scores or without use for no question have no rows.
    """
    for method in methods:
        head = {"task": suite.name, "method": method.name, "rate": None, "judges": ""}
        missing = [e for e in suite.examples if {**head, "id": e.id} not in rows]
        if isinstance(method, Compressing) and method.scorer.name not in QUESTION_ONLY:
            rows.add({**head, **_keep_row(e, method)} for e in missing)
        progress(len(suite.examples))


def _keep_row(example: Example, method: Compressing) -> Row:
    text, compressed = example.context, example.meta["compressed"]
    spans = units(text)
    truth = kept_units([text[s:e] for s, e in spans], [compressed[s:e] for s, e in units(compressed)])
    tiling = Tiling.of(text, [end for _, end in spans][:-1])  # white space goes with the unit after it
    scores = np.nan_to_num(method.scorer.score([tiling])[0].values, nan=-1.0)
    row: Row = {"id": example.id, "group": example.group or example.id}
    if truth.any() and not truth.all():
        row |= {"keep_f1": f1_at_rate(scores, truth), "auc": auc(scores, truth)}
    return row
