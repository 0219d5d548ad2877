"""Labels from a teacher's compressions: exact alignment against the paper's search in a window.

    python bench/annotation.py ../shared/data/teacher/train.jsonl [--window 150]

Units are words and single punctuation marks. The window compares lower-cased word forms where the paper compares
lemmas (no spaCy here); the exact alignment compares forms as they are. "Wrong for sure": a windowed match that lies
before the match of an earlier word, which deleting words cannot give. The second table deletes from the same texts by
chance, in runs as long as the teacher's, so that the true labels are known.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from common import table
from laconic.budget import counter
from laconic.distill.align import WINDOW, Comparison, compare, kept_units, units, windowed_pairs
from laconic.distill.quality import Drop, Quality, choose, measure

Pair = tuple[list[str], list[str]]  # the units of a text and of its compression
Method = Callable[[Sequence[str], Sequence[str]], np.ndarray]  # to a keep mask: bool[n]


def words(text: str) -> list[str]:
    """The units of a text."""
    return [text[s:e] for s, e in units(text)]


def methods(window: int) -> dict[str, Method]:
    def windowed(original: Sequence[str], compressed: Sequence[str]) -> np.ndarray:
        keep = np.zeros(len(original), bool)
        pairs = windowed_pairs(original, compressed, window)
        keep[pairs[pairs >= 0]] = True
        return keep

    return {"exact": kept_units, f"window of ±{window}": windowed}


def timed(method: Method, pairs: list[Pair]) -> tuple[list[np.ndarray], float]:
    """The labels of all pairs, and CPU seconds."""
    began = time.process_time()
    return [method(*pair) for pair in pairs], time.process_time() - began


def deleted(originals: list[list[str]], labels: list[np.ndarray]) -> list[np.ndarray]:
    """Random keep masks whose runs of kept and of dropped units are as long, on average, as those of `labels`."""
    rng = np.random.default_rng(0)
    after = [np.concatenate([k[1:][k[:-1] == state] for k in labels]) for state in (False, True)]
    stay = [1 - after[0].mean(), after[1].mean()]
    masks = []
    for original in originals:
        mask, state = np.zeros(len(original), bool), True
        for k, chance in enumerate(rng.random(len(original))):
            state = state if chance < stay[state] else not state
            mask[k] = state
        masks.append(mask)
    return masks


def spread(values: np.ndarray) -> list[str]:
    """Mean, median, percentiles 90 and 95, maximum."""
    return [f"{values.mean():.4f}", *(f"{np.percentile(values, p):.4f}" for p in (50, 90, 95)), f"{values.max():.3f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="JSON lines with text, compressed, question, answer, evidence")
    parser.add_argument("--window", type=int, default=WINDOW)
    args = parser.parse_args()
    records = [json.loads(line) for line in args.data.open(encoding="utf-8")]
    pairs = [(words(r["text"]), words(r["compressed"])) for r in records]
    report_pairs(pairs, args.window)
    exact, _ = timed(kept_units, pairs)
    report_quality([measure(a, b, keep) for (a, b), keep in zip(pairs, exact, strict=True)])
    originals = [a for a, _ in pairs]
    report_truth(originals, deleted(originals, exact), args.window)
    report_costs(records)


def report_pairs(pairs: list[Pair], window: int) -> None:
    found = [compare(a, b, window) for a, b in pairs]
    total = {name: sum(vars(c)[name] for c in found) for name in Comparison.__dataclass_fields__}
    print(f"{len(pairs):,} pairs, {total['units']:,} units, {total['teacher']:,} of the teacher's\n")
    rows = []
    for name, method in methods(window).items():
        labels, seconds = timed(method, pairs)
        measured = [measure(a, b, keep) for (a, b), keep in zip(pairs, labels, strict=True)]
        kept, gap = sum(keep.sum() for keep in labels), np.array([m.ag for m in measured])
        row = [name, f"{kept / total['teacher']:.2%}", f"{kept / total['units']:.2%}", *spread(gap)]
        rows.append([*row, f"{(gap > 1e-9).mean():.1%}", f"{seconds:.1f}"])
    head = ["labels", "teacher's units matched", "MR", "AG mean", "median", "p90", "p95", "max", "AG > 0", "CPU s"]
    print(table(head, rows))
    print(f"\nsame label: {total['same'] / total['units']:.2%} of the units; ", end="")
    print(f"pairs without a difference: {np.mean([c.same == c.units for c in found]):.1%}")
    print(f"same word at another place: {total['moved']:,} units, in {sum(c.moved > 0 for c in found):,} pairs")
    print(f"wrong for sure: {total['backward']:,} windowed matches, in {sum(c.backward > 0 for c in found):,} pairs\n")


def report_quality(measured: list[Quality]) -> None:
    vr, ag = np.array([m.vr for m in measured]), np.array([m.ag for m in measured])
    chosen = choose(vr, ag, Drop())
    print(table(["exact labels", "mean", "median", "p90", "p95", "max"], [["VR", *spread(vr)], ["AG", *spread(ag)]]))
    print(f"\nHR {np.mean([m.hr for m in measured]):.4f}, MR {np.mean([m.mr for m in measured]):.4f} on average")
    print(f"the paper's filters drop VR > {chosen.vr:.4f} ({chosen.dropped_vr} pairs), ", end="")
    print(f"then AG > {chosen.ag:.4f} ({chosen.dropped_ag} pairs)")
    p90 = vr < np.percentile(vr, 90)
    print(f"the reference's VR < percentile 90 drops {len(vr) - p90.sum()} pairs\n")


def report_truth(originals: list[list[str]], truth: list[np.ndarray], window: int) -> None:
    pairs = [(a, [w for w, k in zip(a, mask, strict=True) if k]) for a, mask in zip(originals, truth, strict=True)]
    flat, rows = np.concatenate(truth), []
    for name, method in methods(window).items():
        labels, _ = timed(method, pairs)
        wrong = np.concatenate(labels) != flat
        clean = np.mean([(a == b).all() for a, b in zip(labels, truth, strict=True)])
        rows.append([name, f"{wrong.mean():.2%}", f"{clean:.1%}"])
    print(f"random deletion, {flat.mean():.1%} kept\n")
    print(table(["labels", "wrong labels", "texts without a wrong one"], rows))


def report_costs(records: list[dict]) -> None:
    """What plan.py estimates with."""
    count = counter()
    rate = sum(count(r["compressed"]) for r in records) / sum(count(r["text"]) for r in records)
    asked = [{k: r[k] for k in ("question", "answer", "evidence")} for r in records if r.get("question")]
    tokens = [count(json.dumps(a, ensure_ascii=False)) for a in asked]
    print(f"\ntokens kept: {rate:.1%}; a question as JSON: {np.mean(tokens):.0f} tokens, ", end="")
    print(f"p95 {np.percentile(tokens, 95):.0f}")


if __name__ == "__main__":
    main()
