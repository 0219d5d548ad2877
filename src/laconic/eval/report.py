"""Rows into tables (Markdown) and curves (PNG and SVG)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from laconic.eval.methods import BASELINES, FULL, NONE
from laconic.eval.stats import Interval, difference, mean, share

Row = dict[str, Any]
Cell = dict[str, Row]  # example id -> row
Cells = dict[tuple[str, float | None], Cell]  # by (method, rate)
Ends = dict[str, tuple[float, float]]  # by method: the last point of its curve

_TITLES = {
    "keep_f1": "keep-F1",
    "auc": "AUC",
    "survived": "answer survives",
    "evidence": "evidence recall",
    "numbers": "numbers kept",
    "numbers_whole": "numbers whole",
    "line_numbers": "numbers of kept lines",
}
_PAIRED = ("keep_f1", "survived", "evidence")  # compared method by method, besides what judges measure
_JUDGES = ("reader_", "endpoint_")
# Okabe and Ito's colours, which the colour-blind can tell apart; grey shades for the plain controls.
_GREYS = ("#a0a0a0", "#888888", "#6a6a6a", "#4d4d4d")
_BASELINE_COLOURS = dict(zip(BASELINES, (*_GREYS, "#E69F00", "#009E73"), strict=True))
_COLOURS = ("#D55E00", "#0072B2", "#CC79A7", "#56B4E9", "#B8A800", "#7A3E9D", "#000000", "#8C564B")


def markdown(rows: Sequence[Row], first: str) -> str:
    """A table a task, and the paired differences of every method to the method `first`."""
    parts = []
    for task, cells in _by_task(rows).items():
        parts += [f"## {task}\n", _table(cells), ""]
        compared = _compared(cells, first)
        if compared:
            parts += [f"Difference to {first} on the same examples:\n", compared, ""]
    return "\n".join(parts)


def _by_task(rows: Sequence[Row]) -> dict[str, Cells]:
    tasks: dict[str, Cells] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        tasks[row["task"]][row["method"], row["rate"]][row["id"]] = row
    return tasks


def measures(rows: Sequence[Row]) -> list[str]:
    """The measures that any of the rows has, in the order of the tables."""
    names = dict.fromkeys(name for row in rows for name in row)
    judged = [n for n in names if n.startswith(_JUDGES) and not n.endswith("_answer")]
    return [n for n in _TITLES if n in names] + judged


def title(measure: str) -> str:
    """A measure as the tables name it."""
    return _TITLES.get(measure, measure.replace("_", " "))


def _table(cells: Cells) -> str:
    names = measures([row for cell in cells.values() for row in cell.values()])
    full = cells.get((FULL.name, FULL.rate), {})
    head = ["method", "rate", "n", "got", "within"]
    for name in names:
        head += [title(name)] + (["of full"] if name.startswith(_JUDGES) else [])
    lines = [[*head, "tokens/s"], ["---"] + ["--:"] * len(head)]
    for (method, rate), cell in cells.items():
        line = [method, *_adherence(rate, list(cell.values()))]
        for name in names:
            line.append(_show(_mean(cell, name)))
            if name.startswith(_JUDGES):
                line.append(_show(_share(cell, full, name)))
        lines.append([*line, _speed(list(cell.values()))])
    return grid(lines)


def grid(cells: Sequence[Sequence[str]]) -> str:
    """Cells as a Markdown table; the second line is what stands under the head."""
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def _adherence(rate: float | None, rows: Sequence[Row]) -> list[str]:
    """Rate asked, examples, mean rate got, share of examples within the budget."""
    if rate is None:
        return ["", str(len(rows)), "", ""]
    got, within = (sum(row[name] for row in rows) / len(rows) for name in ("got", "within"))
    return [f"{rate:g}", str(len(rows)), f"{got:.3f}", f"{within:.2f}"]


def _speed(rows: Sequence[Row]) -> str:
    seconds = sum(row.get("seconds", 0) for row in rows)
    return f"{sum(row['tokens_before'] for row in rows) / seconds:,.0f}" if seconds else ""


def _show(interval: Interval | None) -> str:
    return "" if interval is None else str(interval)


def _mean(cell: Cell, measure: str) -> Interval | None:
    rows = [row for row in cell.values() if measure in row]
    return mean([row[measure] for row in rows], [row["group"] for row in rows]) if rows else None


def _share(cell: Cell, full: Cell, measure: str) -> Interval | None:
    pairs = _pairs(cell, full, measure)
    return share(*pairs) if pairs and any(pairs[1]) else None


def _pairs(left: Cell, right: Cell, measure: str) -> tuple[list[float], list[float], list[str]] | None:
    """A measure of the examples that both have it for: (left, right, groups)."""
    both = [k for k, row in left.items() if measure in row and measure in right.get(k, {})]
    if not both:
        return None
    return [left[k][measure] for k in both], [right[k][measure] for k in both], [left[k]["group"] for k in both]


def _compared(cells: Cells, first: str) -> str:
    names = measures([row for cell in cells.values() for row in cell.values()])
    names = [n for n in names if n in _PAIRED or n.startswith(_JUDGES)]
    lines = [["method", "rate", *map(title, names)], ["---"] + ["--:"] * (len(names) + 1)]
    for (method, rate), cell in cells.items():
        if method != first and (first, rate) in cells:
            pairs = [_pairs(cell, cells[first, rate], name) for name in names]
            shown = ["" if p is None else signed(difference(*p)) for p in pairs]
            lines.append([method, "" if rate is None else f"{rate:g}", *shown])
    return grid(lines) if len(lines) > 2 else ""


def signed(d: Interval) -> str:
    """A difference, with its sign."""
    return f"{d.value:+.3f} [{d.low:+.2f}, {d.high:+.2f}]"


def curves(rows: Sequence[Row], out: Path) -> list[Path]:
    """OUT/MEASURE.png and .svg for every measure over rates: a panel a task, a curve a method."""
    from matplotlib.figure import Figure

    paths = []
    swept = [row for row in rows if row["rate"] is not None]
    colours = colour_of(list(dict.fromkeys(row["method"] for row in swept)))
    for measure in measures(swept):
        tasks = {t: c for t, c in _by_task(swept).items() if any(_mean(cell, measure) for cell in c.values())}
        figure = Figure(figsize=(5.2 * len(tasks), 4.2), layout="constrained")
        panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
        drawn = [_panel(axes, measure, *part, colours) for axes, part in zip(panels, tasks.items(), strict=True)]
        for axes, ends in zip(panels, drawn, strict=True):  # now that the shared axis has its range
            _label(axes, ends, colours)
        for kind in ("png", "svg"):
            paths.append(out / f"{measure}.{kind}")
            figure.savefig(paths[-1], dpi=150)
    return paths


def _panel(axes: Any, measure: str, task: str, cells: Cells, colours: dict[str, str]) -> Ends:
    """One task: a curve a method, and what the full context and none give as dotted lines; returns the right ends."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for (method, rate), cell in sorted(cells.items()):
        interval = _mean(cell, measure)
        if interval is not None and rate is not None:
            points[method].append((rate, interval.value))
    for reference in (FULL, NONE):
        for _, height in points.pop(reference.name, []):
            axes.axhline(height, color="black", linewidth=0.8, linestyle=":")
            axes.annotate(reference.name, (0, height), (2, 2), ("axes fraction", "data"), "offset points", fontsize=8)
    ends = {}
    for method, line in points.items():
        xs, ys = zip(*line, strict=True)
        axes.plot(xs, ys, color=colours[method], marker="o", markersize=3, linewidth=1.6)
        ends[method] = (xs[-1], ys[-1])
    axes.margins(x=0.02)
    axes.set_xticks(sorted({x for line in points.values() for x, _ in line}))
    axes.set(title=task, xlabel="rate asked (kept / original tokens)", ylabel=title(measure))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return ends


def colour_of(methods: Sequence[str]) -> dict[str, str]:
    """A colour a method: baselines have always the same one, the others take theirs in order."""
    others = [m for m in methods if m not in _BASELINE_COLOURS]
    return _BASELINE_COLOURS | {m: _COLOURS[k % len(_COLOURS)] for k, m in enumerate(others)}


def _label(axes: Any, ends: Ends, colours: dict[str, str]) -> None:
    """Names at the right ends of the curves, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    step, last = (high - low) * 0.045, -float("inf")
    for method, (x, y) in sorted(ends.items(), key=lambda item: item[1][1]):
        last = max(y, last + step)
        axes.annotate(method, (x, last), (6, -3), textcoords="offset points", color=colours[method], fontsize=8)
