"""Does a policy keep what its reader needs? Texts with made-up facts, compressed without the question.

    python bench/policy.py build/policy-data/test.jsonl --reader checkpoints/laconic-lm \\
        --before build/policy-base/model --after build/policy/model [--rate 0.3] [--json OUT]

The reader answers from what is kept. *reward*: how likely the right answer is, next to what it is given the full text
(`laconic.train.rewards.Likelihood`); *right*: share of answers that are right word for word. 95 % bootstrap intervals
over texts; the differences are of the same texts. *whole facts*: share of the facts of a text that stay word for word
(but for the full stop), whichever of them is asked for.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import laconic
from laconic.compressor import Compressor
from laconic.eval.data import Example
from laconic.eval.metrics import exact_match
from laconic.eval.stats import difference, mean
from laconic.train.rewards import Likelihood, Local

ANSWER = 6  # tokens, at most


def methods(before: str, after: str) -> dict[str, Compressor]:
    """What is compared, by the names of the rows."""
    controls = {name: laconic.load(method=name) for name in ("random", "tfidf")}
    return {**controls, "laconic-small": laconic.load(), "before": laconic.load(before), "after": laconic.load(after)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="JSON lines with text, question, answer, facts")
    parser.add_argument("--reader", required=True, help="causal language model")
    parser.add_argument("--before", required=True, help="model that the policy started from")
    parser.add_argument("--after", required=True, help="the policy")
    parser.add_argument("--rate", type=float, default=0.3)
    parser.add_argument("--json", type=Path, help="write the numbers of each text there")
    args = parser.parse_args()
    records = [json.loads(line) for line in args.data.open(encoding="utf-8")]
    examples = [Example("", r["text"], r["question"], (r["answer"],)) for r in records]
    with TemporaryDirectory() as folder:
        reader = Local(args.reader, ANSWER, Path(folder) / "answers.sqlite")
        kept = {"nothing": [""] * len(records), "everything": [r["text"] for r in records]}
        rates = {"nothing": [0.0], "everything": [1.0]}
        for name, compressor in methods(args.before, args.after).items():
            made = [compressor.compress(r["text"], rate=args.rate) for r in records]
            kept[name], rates[name] = [m.text for m in made], [m.rate for m in made]
        reward = {name: Likelihood(reader)(texts, examples) for name, texts in kept.items()}
        right = {name: answers(reader, texts, examples) for name, texts in kept.items()}
        reader.close()
    whole = {name: [stays(r["facts"], t) for r, t in zip(records, texts, strict=True)] for name, texts in kept.items()}
    columns = (reward, right, whole)
    print(f"{len(records)} texts\n\n| kept by | tokens | reward | right | whole facts |\n|---|--:|--:|--:|--:|")
    for name in kept:
        print(f"| {name} | {np.mean(rates[name]):.3f} |", *(f"{mean(column[name])} |" for column in columns))
    for name in ("before", "laconic-small", "tfidf", "random"):
        print(f"| after - {name} | |", *(f"{difference(column['after'], column[name])} |" for column in columns))
    for name in ("before", "after"):
        print(f"\n{name}:", *kept[name][:3], sep="\n\n")
    if args.json:
        args.json.write_text(json.dumps({"reward": reward, "right": right, "kept": kept}))


def answers(reader: Local, texts: list[str], examples: list[Example]) -> list[float]:
    """1 for each answer that is right."""
    said = reader.answers(texts, examples)
    return [exact_match(str(a), list(e.answers)) for a, e in zip(said, examples, strict=True)]


def stays(facts: list[str], text: str) -> float:
    """The share of the facts that the text has, full stops aside."""
    return float(np.mean([fact.rstrip(".") in text for fact in facts]))


if __name__ == "__main__":
    main()
