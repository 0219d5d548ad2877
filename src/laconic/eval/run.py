"""What `laconic eval` does: load tasks and methods, measure, write tables and curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from laconic.budget import Budget
from laconic.errors import MissingExtraError
from laconic.eval import kinds, report, tasks
from laconic.eval.answer import EndpointAnswerer, Reader
from laconic.eval.data import Example, sample
from laconic.eval.matrix import Judge, Row, Rows, Suite, measure, measure_keep
from laconic.eval.methods import baselines, method

if TYPE_CHECKING:
    from laconic.endpoint import Endpoint


@dataclass(frozen=True)
class Plan:
    """What to measure. tasks: (name, path). methods: specs of `laconic.eval.methods.method`; baselines come on top."""

    tasks: Sequence[tuple[str, str]]
    methods: Sequence[str]
    rates: Sequence[float]
    out: Path
    limit: int | None = None  # examples of a task, drawn at random
    reader: str | None = None  # folder
    endpoint: Endpoint | None = None


def evaluate(plan: Plan) -> tuple[str, list[str]]:
    """Measure all of the plan into OUT/rows.jsonl, OUT/tables.md and OUT/MEASURE.png and .svg.

    Returns the tables (Markdown) and a line for each example that an endpoint gave no answer for.
    """
    if not all(map(find_spec, ("matplotlib", "rouge_score", "sacrebleu"))):
        raise MissingExtraError("laconic eval", "eval")
    for rate in plan.rates:
        Budget(rate=rate)  # refuses what is no rate before anything is loaded
    suites = _suites(plan)
    specs = list(dict.fromkeys([*plan.methods, *baselines()]))
    methods = [method(spec) for spec in specs]
    reader = Reader(plan.reader) if plan.reader else None
    rows = Rows(plan.out / "rows.jsonl")
    failures: list[str] = []
    shown: list[Row] = []
    for suite in suites:
        keep, judges = suite.kind == "keep", _judges(suite.kind, reader, plan.endpoint)
        cells = len(methods) if keep else len(methods) * len(plan.rates) + 2 * bool(judges)
        total = cells * len(suite.examples)
        with tqdm(total=total, desc=suite.name, unit="row", disable=None) as bar:  # silent where nobody watches
            if keep:
                measure_keep(suite, methods, rows, bar.update)
            else:
                failures += measure(suite, methods, plan.rates, judges, rows, bar.update)
        shown += rows.of(suite.name, judges)
    tables = report.markdown(shown, specs[0])
    (plan.out / "tables.md").write_text(tables, encoding="utf-8")
    report.curves(shown, plan.out)
    return tables, failures


def _suites(plan: Plan) -> list[Suite]:
    """A suite a task; one a data set in the formats that hold several."""
    parts: dict[tuple[str, str], list[Example]] = {}
    for name, path in plan.tasks:
        kind = tasks.task(name).kind
        for example in tasks.load(name, path):
            label = f"{name}/{example.meta['dataset']}" if kind in ("longbench", "zeroscrolls") else name
            parts.setdefault((label, kind), []).append(example)
    return [Suite(label, kind, sample(examples, plan.limit)) for (label, kind), examples in parts.items()]


def _judges(kind: str, reader: Reader | None, endpoint: Endpoint | None) -> list[Judge]:
    judges = []
    if reader and kind == "qa":
        judges.append(Judge("reader", reader, kinds.span_scores))
    if endpoint and kind != "keep":
        asked = kinds.kind(kind)
        judges.append(Judge("endpoint", EndpointAnswerer(endpoint, asked), asked.scores))
    return judges
