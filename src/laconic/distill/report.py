"""What a run of distillation found, in numbers and as one picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MEASURES = {
    "rate": "kept tokens / tokens",
    "vr": "Variation Rate",
    "hr": "Hitting Rate",
    "mr": "Matching Rate",
    "ag": "Alignment Gap",
}
_BINS = 40
_PERCENTILES = (5, 25, 50, 75, 95)

Values = npt.NDArray[np.float64]


def summary(values: Values) -> dict[str, Any]:
    """Mean, percentiles and a histogram of one measure; `values`: float64[n], n >= 1."""
    counts, edges = np.histogram(values, _BINS)
    return {
        "mean": float(values.mean()),
        **{f"p{p}": float(np.percentile(values, p)) for p in _PERCENTILES},
        "histogram": {"from": float(edges[0]), "to": float(edges[-1]), "counts": counts.tolist()},
    }


def line(report: Mapping[str, Any]) -> str:
    """A report for a person in a hurry."""
    rate, paid = report["measures"]["rate"]["mean"], report["paid_now"]
    left = {**report["left_out"], **{f"dropped by {k.upper()}": n for k, n in report["dropped"].items()}}
    parts = [f"{report['written']:,} examples of {report['chunks']:,} chunks, kept rate {rate:.0%}{_listed(left)}"]
    if report["questions"] or report["questions_left_out"]:
        parts.append(f"{report['questions']:,} with questions{_listed(report['questions_left_out'])}")
    parts.append(f"paid {paid['requests']:,} requests, {paid['tokens_in']:,} tokens in, {paid['tokens_out']:,} out")
    return "; ".join(parts) + (f", cost {paid['cost']:,.2f}" if "cost" in paid else "")


def _listed(lost: Mapping[str, int]) -> str:
    found = ", ".join(f"{n:,} {reason}" for reason, n in lost.items() if n)
    return f" (left out: {found})" if found else ""


def picture(path: Path, measures: Mapping[str, Values], thresholds: Mapping[str, float]) -> None:
    """One histogram a measure, with a line at the threshold above which examples were dropped."""
    from matplotlib.figure import Figure  # not pyplot: no display, no global state

    figure = Figure(figsize=(3 * len(MEASURES), 2.8), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(MEASURES)), MEASURES.items(), strict=True):
        axes.hist(measures[name], _BINS, color="#4878a8")
        axes.set_title(f"{title}, mean {measures[name].mean():.3f}", fontsize=9)
        axes.set_xlabel(name)
        if name in thresholds:
            axes.axvline(
                thresholds[name], color="#c03030", linestyle="--", label=f"dropped above {thresholds[name]:.3f}"
            )
            axes.legend(fontsize=7)
    figure.axes[0].set_ylabel("examples")
    figure.savefig(path, dpi=120)
