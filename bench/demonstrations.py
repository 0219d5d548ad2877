"""Worked examples before a question: do numbers survive whole, and does the question stay?

    python bench/demonstrations.py ../shared/data/tasks/gsm8k [--model NAME|DIR] [--method M] [--keep REGEX]

Prompts of eight worked GSM8K problems (train) with another problem (test) as question at the end, as one plain text.
*Numbers of kept lines*: of the numbers on lines of which a word is kept, the share that is there, whole. *Cut*: numbers
of the result that the prompt does not have. *Question whole*: prompts whose last paragraph is there to the last
character; *fits*: prompts whose budget the question alone does not exceed. Rates in tokens of o200k_base.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from pathlib import Path

import numpy as np

import laconic
from laconic.budget import Budget, counter
from laconic.eval.metrics import line_numbers, number_recall, numbers_whole

SHOTS = 8
RATES = (0.5, 0.33, 0.2, 0.1)


def problems(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def solved(problem: dict) -> str:
    steps, answer = problem["answer"].split("####")
    plain = "".join(part.split(">>")[-1] for part in steps.split("<<")).strip()
    return f"Question: {problem['question']}\n{plain}\nThe answer is {answer.strip()}."


def prompts(folder: Path, count: int) -> list[tuple[str, str]]:
    """(worked examples, question) pairs, drawn anew for each."""
    rng = random.Random(0)
    train, test = problems(folder / "train.jsonl.gz"), problems(folder / "test.jsonl")
    return [
        ("\n\n".join(map(solved, rng.sample(train, SHOTS))) + "\n\n", f"Question: {p['question']}")
        for p in rng.sample(test, count)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train.jsonl.gz and test.jsonl")
    parser.add_argument("--model", default=laconic.DEFAULT_MODEL)
    parser.add_argument("--method", default="llmlingua2", help="default: %(default)s")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--keep", action="append", default=[], help=r"what is never dropped; '\d': all numbers")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    args = parser.parse_args()
    model, count = laconic.load(args.model, method=args.method), counter("o200k_base")
    pairs = prompts(args.data, args.prompts)
    found = {}
    print("| rate | got | numbers kept | numbers of kept lines | cut | question whole | of those that fit |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for rate in RATES:
        rows = []
        compressed = model.compress_many([a + b for a, b in pairs], rate=rate, protect=args.keep)
        for (shots, question), c in zip(pairs, compressed, strict=True):
            text = shots + question
            fits = count(question) < (Budget(rate=rate).limit(count(text)) or 0)
            whole, cut = c.text.endswith(question), 1 - (numbers_whole(text, c.text) or 0)
            rows.append((c.rate, number_recall(text, c.text), line_numbers(text, c.spans), cut, whole, fits))
        got, kept, lines, cut, whole, fits = np.array(rows, float).T
        found[rate] = {"got": got.mean(), "kept": kept.mean(), "lines": lines.mean(), "cut": cut.mean()}
        found[rate] |= {"question": whole.mean(), "fits": fits.mean(), "of_fitting": whole[fits > 0].mean()}
        shares = " | ".join(f"{v:.3f}" for v in (got.mean(), kept.mean(), lines.mean(), cut.mean()))
        print(
            f"| {rate} | {shares} | {whole.mean():.3f} | {whole[fits > 0].mean():.3f} ({int(fits.sum())}) |", flush=True
        )
    if args.json:
        args.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
