"""Which ranker finds the document that answers, and the two that a two-hop question needs?

    python bench/rankers.py nq20=../shared/data/qa/nq20.jsonl twohop=../shared/data/qa/twohop_100.json [--limit 110]

Documents are given as title, line break, text, in an order drawn by the question. Of Natural Questions only the half
that no model of ours was trained on is asked. Prints Markdown: the share of questions for which all gold documents are
among the first 1, 2, 4, 5, and seconds of CPU time a question. To try others: --ranker reranker=DIR.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import table
from laconic.rankers import ranker
from laconic.train.split import held_out

PLACES = (1, 2, 4, 5)


@dataclass
class Case:
    """A question, its documents, and which of them it needs."""

    question: str
    documents: list[str]
    gold: set[int]


def nq20(path: Path) -> Iterator[Case]:
    """20 passages, one of them gold."""
    for line in path.open(encoding="utf-8"):
        record = json.loads(line)
        if held_out(record["question"], 2):
            docs = [(f"{d['title']}\n{d['text']}", d["gold"]) for d in record["docs"]]
            yield shuffled(record["question"], docs)


def twohop(path: Path) -> Iterator[Case]:
    """10 documents, two of them needed."""
    for r in json.loads(path.read_text(encoding="utf-8")):
        needed = [(r["title_a"], r["para_a"]), (r["title_b"], r["para_b"])]
        docs = [(f"{t}\n{''.join(p)}", True) for t, p in needed]
        yield shuffled(r["question"], docs + [(f"{d[0]}\n{''.join(d[1])}", False) for d in r["distractors"]])


def shuffled(question: str, docs: list[tuple[str, bool]]) -> Case:
    random.Random(question).shuffle(docs)
    return Case(question, [text for text, _ in docs], {k for k, (_, gold) in enumerate(docs) if gold})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="nq20|twohop=FILE")
    parser.add_argument("--ranker", action="append", help="repeatable; default: evidence, bm25, gzip, embedding")
    parser.add_argument("--limit", type=int, help="the first so many questions of each file")
    args = parser.parse_args()
    for spec in args.data:
        name, _, path = spec.partition("=")
        cases = list({"nq20": nq20, "twohop": twohop}[name](Path(path)))[: args.limit]
        print(f"\n{name}: {len(cases)} questions\n")
        rows = [row(made, cases) for made in args.ranker or ["evidence", "bm25", "gzip", "embedding"]]
        print(table(["ranker", *(f"in first {n}" for n in PLACES), "CPU s"], rows), flush=True)


def row(name: str, cases: list[Case]) -> list[str]:
    made, began = ranker(name), time.process_time()
    ranked = [np.argsort(-made.rank(c.documents, c.question), kind="stable").tolist() for c in cases]
    seconds = (time.process_time() - began) / len(cases)
    found = [np.mean([c.gold <= set(order[:n]) for c, order in zip(cases, ranked, strict=True)]) for n in PLACES]
    return [name, *(f"{share:.3f}" for share in found), f"{seconds:.3f}"]


if __name__ == "__main__":
    main()
