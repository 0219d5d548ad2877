"""Rows of `laconic soft measure` into tables (Markdown) and a curve of retention over the ratio (PNG and SVG)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

from laconic.eval.kinds import corpus_bleu
from laconic.eval.matrix import Row
from laconic.eval.report import colour_of, grid, signed
from laconic.eval.retention import bits_per, retention, retention_gap
from laconic.eval.stats import Interval, mean, share
from laconic.soft.ways import FULL, HARD, NONE, TUNED

Cell = dict[str, Row]  # item -> row
Cells = dict[tuple[str, int], Cell]  # by (name, slots)
Section = tuple[str, str, int]  # task, goal, length

_GOALS = {"again": "the text again", "on": "what follows", "answer": "answers"}
_MEASURES = {
    "exact": "exact",
    "em": "EM",
    "f1": "F1",
    "accuracy": "token accuracy",
    "prefix": "exact prefix",
    "rougeL": "ROUGE-L",
}
_ORDER = ("kv", "embedding", HARD)  # of two kinds, the difference is the first's minus the second's


class Nats(NamedTuple):
    """What is spent on each item that has all of the rows asked for, and the context that it is of."""

    none: list[float]
    full: list[float]
    own: list[float]
    items: list[str]
    groups: list[str]


def markdown(rows: Sequence[Row]) -> str:
    """For each task, goal and length: a table, paired differences between kinds, and the use of each slot."""
    parts = []
    less = sections([row for row in rows if row["part"] == "slots"])
    for section, cells in sections([row for row in rows if row["part"] == "whole"]).items():
        parts += [f"## {title(section)}\n", _table(cells), ""]
        if compared := _compared(cells):
            parts += ["Differences of retention on the same items:\n", compared, ""]
        if section in less:
            parts += ["Share of the gain that is lost without one slot:\n", _use(cells, less[section]), ""]
    return "\n".join(parts)


def sections(rows: Sequence[Row]) -> dict[Section, Cells]:
    """Rows by task, goal and length; by name and slots; by item."""
    found: dict[Section, Cells] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        found[row["task"], row["goal"], row["length"]][row["name"], row["slots"]][row["id"]] = row
    return found


def title(section: Section) -> str:
    """A section as its headline has it."""
    task, goal, length = section
    return f"{task}: {_GOALS[goal]}" + (f", {length} tokens" if length else "")


def spent(cells: Cells, cell: Cell, full: bool = True) -> Nats:
    """Of the items that have rows without context, in this cell and, if asked for, with the full context."""
    ends = [cells.get((NONE, 0), {}), cells.get((FULL, 0), {}) if full else cell]
    items = [k for k in cell if all(k in end for end in ends)]
    none, whole, own = ([some[k]["nats"] for k in items] for some in (*ends, cell))
    return Nats(none, whole, own, items, [cell[k]["group"] for k in items])


def _table(cells: Cells) -> str:
    names = [m for m in _MEASURES if any(m in row for cell in cells.values() for row in cell.values())]
    bleu = ["BLEU"] if "accuracy" in names else []
    head = ["before the reader", "slots", "bytes", "ratio", "n", "nats/token", "retention", "swapped"]
    head += ["bits/slot", "bits/byte", *(_MEASURES[m] for m in names), *bleu]
    table = [head, ["---"] + ["--:"] * (len(head) - 1)]
    for (name, slots), cell in cells.items():
        rows = list(cell.values())
        line = [name, *_sizes(slots, rows), *_gains(cells, cell)]
        line += [str(mean([r[m] for r in rows], [r["group"] for r in rows])) for m in names]
        texts = ([r[name] for r in rows] for name in ("answer", "gold"))
        table.append(line + [f"{corpus_bleu(*texts):.3f}" for _ in bleu])
    return grid(table)


def _sizes(slots: int, rows: Sequence[Row]) -> list[str]:
    """Slots, mean bytes, tokens a slot, items, mean nats a token."""
    size = f"{sum(r['bytes'] for r in rows) / len(rows):,.0f}"
    ratio = f"{_ratio(slots, rows):.1f}" if slots else ""
    nats = sum(r["nats"] for r in rows) / sum(r["said"] for r in rows)
    return [str(slots) if slots else "", size, ratio, str(len(rows)), f"{nats:.3f}"]


def _ratio(slots: int, rows: Sequence[Row]) -> float:
    """Tokens of text a slot, over contexts."""
    tokens: dict[str, int] = {row["group"]: row["tokens"] for row in rows}
    return sum(tokens.values()) / len(tokens) / slots


def _gains(cells: Cells, cell: Cell) -> list[str]:
    """Retention, that of swapped memories, bits by slot and by byte; nothing for the ends of the scale.

    Where the full context stands before the reader there is no memory to swap, and none whose bits to count.
    """
    first = next(iter(cell.values()))
    if first["kind"] in (NONE, FULL):
        return [""] * 4
    there = spent(cells, cell)
    kept = [_retention(there, there.own), ""]
    if "swapped" in first:
        kept[1] = _retention(there, [cell[k]["swapped"] for k in there.items])
    if first["kind"] == TUNED:
        return [*kept, "", ""]
    mine = spent(cells, cell, full=False)
    sizes = [[cell[k][name] / of for k, of in zip(mine.items, _of_context(mine), strict=True)] for name in _BITS]
    return kept + [_short(bits_per(mine.none, mine.own, size, mine.groups)) if mine.items else "" for size in sizes]


_BITS = ("slots", "bytes")


def _of_context(there: Nats) -> list[int]:
    """How many items share the context of each: a memory of several questions is there once."""
    count = Counter(there.groups)
    return [count[group] for group in there.groups]


def _retention(there: Nats, own: Sequence[float]) -> str:
    return str(retention(there.none, own, there.full, there.groups)) if there.items else ""


def _short(interval: Interval) -> str:
    return f"{interval.value:.2g} [{interval.low:.2g}, {interval.high:.2g}]"


def _compared(cells: Cells) -> str:
    """Ways of different kinds with equally many slots, and encoders whose memories have equally many bytes."""
    table = [["first", "slots", "second", "slots", "equal", "n", "difference"], ["---", "--:", "---", "--:", "---"]]
    table[1] += ["--:", "--:"]
    for left, right in permutations(cells, 2):
        equal = _equal(cells[left], cells[right], left[1] == right[1])
        both = {k: cells[left][k] for k in cells[left] if k in cells[right]}
        there = spent(cells, both)
        if equal and there.items:
            other = [cells[right][k]["nats"] for k in there.items]
            gap = retention_gap(there.none, there.own, other, there.full, there.groups)
            table.append([left[0], str(left[1]), right[0], str(right[1]), equal, str(len(there.items)), signed(gap)])
    return grid(table) if len(table) > 2 else ""


def _equal(left: Cell, right: Cell, slots: bool) -> str:
    """What two cells have the same number of: "slots", "bytes" or neither."""
    kinds = [next(iter(cell.values()))["kind"] for cell in (left, right)]
    if not set(kinds) <= set(_ORDER) or _ORDER.index(kinds[0]) >= _ORDER.index(kinds[1]):
        return ""
    sizes = {row["bytes"] for cell in (left, right) for row in cell.values()}
    bytes = HARD not in kinds and len(sizes) == 1
    return " and ".join(["slots"] * slots + ["bytes"] * bytes)


def _use(cells: Cells, less: Cells) -> str:
    """The gain of a memory is what it saves over no context; a line for each slot of each encoder."""
    table = [["encoder", "slots", "without slot", "share lost"], ["---", "--:", "--:", "--:"]]
    for (name, slots), cell in less.items():
        there = spent(cells, cells[name, slots], full=False)
        gain = [none - own for none, own in zip(there.none, there.own, strict=True)]
        for slot in range(slots):
            lost = [cell[k]["less"][slot] - own for k, own in zip(there.items, there.own, strict=True)]
            table.append([name, str(slots), str(slot + 1), str(share(lost, gain, there.groups))])
    return grid(table)


def curves(rows: Sequence[Row], out: Path) -> list[Path]:
    """OUT/retention.png and .svg over tokens a slot: a panel a task and goal, a curve a way and number of slots.

    With texts of one length only, a curve a way.
    """
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str], list[tuple[Cells, int]]] = defaultdict(list)
    for (task, goal, length), cells in sections([row for row in rows if row["part"] == "whole"]).items():
        panels[task, goal].append((cells, length))
    colours = colour_of(list(dict.fromkeys(row["name"] for row in rows)))
    figure = Figure(figsize=(5.2 * len(panels), 4.2), layout="constrained")
    for axes, ((task, goal), parts) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for (name, slots), points in _points(parts).items():
            xs, ys = zip(*sorted(points), strict=True)
            label = f"{name}, {slots}" if slots else name
            axes.plot(xs, ys, color=colours[name], marker="o", markersize=3, linewidth=1.2, label=label)
        axes.set(title=f"{task}: {_GOALS[goal]}", xlabel="tokens of text a slot", ylabel="retention", xscale="log")
        axes.grid(alpha=0.25)
        if axes.lines:  # none where the base has no room for the full context
            axes.legend(fontsize=7)
    paths = [out / f"retention.{kind}" for kind in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=150)
    return paths


def _points(parts: Sequence[tuple[Cells, int]]) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """(ratio, retention) by name and, where there are several lengths, slots."""
    found: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for cells, _ in parts:
        for (name, slots), cell in cells.items():
            there = spent(cells, cell)
            if slots and there.items:
                kept = retention(there.none, there.own, there.full, there.groups).value
                found[name, slots * (len(parts) > 1)].append((_ratio(slots, list(cell.values())), kept))
    return found
