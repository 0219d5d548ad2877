"""How well do scores agree with a strong LLM that was told to delete words only?

    python bench/keep_f1.py ../shared/data/teacher/dev.jsonl [--model NAME|DIR] [--json OUT]

Keep-F1 at the teacher's rate: units are words and single punctuation marks, one threshold over the whole set such that
as many units are kept as the teacher kept, F1 of the kept units. "As used" is the same with laconic's own units and
rules (numbers whole, negations with their clause, code by lines …), again at the teacher's rate over the whole set.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from laconic.choose import by_score, entries
from laconic.distill.align import kept_units, units
from laconic.scorers import scorer
from laconic.segment import segment
from laconic.text import Tiling


def tiling(text: str) -> Tiling:
    """Words and single punctuation marks, each with the white space before it."""
    return Tiling.of(text, [end for _, end in units(text)][:-1])


def labels(record: dict) -> np.ndarray:
    """What the teacher kept: bool[units]."""
    text, compressed = record["text"], record["compressed"]
    return kept_units([text[s:e] for s, e in units(text)], [compressed[s:e] for s, e in units(compressed)])


def f1_at_rate(order: np.ndarray, truth: np.ndarray) -> float:
    """F1 when as many units are kept as in `truth`; `order`: lower is kept first."""
    keep = np.zeros(len(truth), bool)
    keep[np.argsort(order, kind="stable")[: truth.sum()]] = True
    return 2 * (keep & truth).sum() / (keep.sum() + truth.sum())


def auc(score: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a kept unit scores above a dropped one."""
    ranks = np.empty(len(score))
    ranks[np.argsort(score, kind="stable")] = np.arange(1, len(score) + 1)
    positive = truth.sum()
    return (ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * (len(truth) - positive))


def as_used(records: list[dict], method: str, model: str, truth: np.ndarray) -> float:
    """Keep-F1 of laconic's own units under its rules, mapped onto words and punctuation marks."""
    parts = [segment(r["text"]) for r in records]
    scores = scorer(method, model).score([p.tiling for p in parts])
    place = []
    for record, part, score in zip(records, parts, scores, strict=True):
        rank = by_score(score.values, part)
        entry = entries(rank, part, np.zeros(len(part.tiling), bool))
        ordered = np.append(np.inf, score.values[rank])  # the score each cut-off stands for
        at = np.where(entry <= len(rank), ordered[np.minimum(entry, len(rank))], -np.inf)
        place.append(at[part.tiling.unit_at([s for s, _ in units(record["text"])])])
    return f1_at_rate(-np.nan_to_num(np.concatenate(place), nan=-1.0, posinf=2.0), truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="JSON lines with text, compressed, domain")
    parser.add_argument("--model", default="laconic-small")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    args = parser.parse_args()
    records = [json.loads(line) for line in args.data.open(encoding="utf-8")]
    truth = [labels(r) for r in records]
    flat = np.concatenate(truth)
    results = {}
    print(f"{len(records)} passages, {len(flat):,} units, the teacher kept {flat.mean():.1%}\n")
    print("| method | keep-F1 | AUC | keep-F1 as used |\n|---|--:|--:|--:|")
    for method in ("random", "lead", "tfidf", "llmlingua2"):
        scores = scorer(method, args.model).score([tiling(r["text"]) for r in records])
        values = [np.nan_to_num(s.values[: len(t)], nan=-1.0) for s, t in zip(scores, truth, strict=True)]
        order = np.concatenate(values)
        row = {"f1": f1_at_rate(-order, flat), "auc": auc(order, flat)}
        row["as_used"] = as_used(records, method, args.model, flat)
        results[method] = row
        print(f"| {method} | {row['f1']:.4f} | {row['auc']:.4f} | {row['as_used']:.4f} |")
    domains: dict[str, list[int]] = defaultdict(list)
    for k, record in enumerate(records):
        domains[record["domain"]].append(k)
    print("\n| domain | passages | kept by the teacher | keep-F1 |\n|---|--:|--:|--:|")
    for name, members in sorted(domains.items()):
        of = np.concatenate([truth[k] for k in members])
        f1 = f1_at_rate(-np.concatenate([values[k] for k in members]), of)
        print(f"| {name} | {len(members)} | {of.mean():.0%} | {f1:.3f} |")
    if args.json:
        args.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
