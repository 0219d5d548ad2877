"""Texts to train a policy on with laconic-lm as the reader: made-up facts among sentences of abstracts, and a question.

    python recipes/policy_data.py ../shared/data build/policy-data

Writes train.jsonl, dev.jsonl (which checkpoint is kept) and test.jsonl (what is reported): `text, question, answer,
facts`. laconic-lm answers few questions about other texts, but what is said of people in these words it nearly always
hears, so what it gets wrong is due to what was dropped. Dev and test have names that neither it nor the policy was
trained on, and sentences of other abstracts. Seeded.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from laconic.train.split import held_out
from laconic.train.tasks import facts

ROWS = {"train": 2000, "dev": 64, "test": 256}
PEOPLE, KINDS = 2, 2  # of whom two facts each are told
OTHERS = 6  # sentences around them
LENGTH = range(40, 160)  # characters of such a sentence
ABSTRACTS = 4000  # are plenty
_END = re.compile(r"(?<=[a-z0-9)]\.)\s+(?=[A-Z])")


def sentences(data: Path, held: bool) -> list[str]:
    """Of abstracts that are held out, or of the others."""
    with gzip.open(data / "text" / "arxiv_abstracts.jsonl.gz", "rt", encoding="utf-8") as file:
        records = [json.loads(line) for line, _ in zip(file, range(ABSTRACTS), strict=False)]
    texts = [" ".join(r["abstract"].split()) for r in records if held_out(r["id"]) == held]
    return [s for text in texts for s in _END.split(text) if len(s) in LENGTH]


def rows(count: int, others: list[str], random: np.random.Generator, fresh: bool) -> Iterator[dict[str, Any]]:
    """Facts and sentences in any order, and a question about one of the facts."""
    for _ in range(count):
        told = facts(PEOPLE, KINDS, random, fresh=fresh)
        said = _END.split(told.text)
        parts = [*said, *(others[k] for k in random.choice(len(others), OTHERS, replace=False))]
        question, answer = told.questions[0]
        text = " ".join(parts[k] for k in random.permutation(len(parts)))
        yield {"text": text, "question": question, "answer": answer, "facts": said}


def main(data: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for k, (name, count) in enumerate(ROWS.items()):
        fresh = name != "train"
        made = rows(count, sentences(data, fresh), np.random.default_rng(k), fresh)
        (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
