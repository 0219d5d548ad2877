"""Soft keep labels for text that no teacher has read: self-training, and distillation into a smaller model.

    python recipes/soft_labels.py ../shared/data build/questions build/soft --model DIR [--model DIR …]

Writes passages.jsonl (about 200 words each, of the kinds of text the teacher compressed), and questions.jsonl and
answers.jsonl of recipes/question_data.py again; every row gets `keep`, the mean log-odds of P(keep) of the models.
Passages that share eight words in a row with teacher/dev are left out. Seeded.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from laconic.budget import counter
from laconic.distill.align import units
from laconic.distill.chunks import chunks
from laconic.scorers import scorer
from laconic.scorers.classifier import Classifier
from laconic.text import Tiling

WORDS = 220  # most in a passage
_WORD = re.compile(r"\w+")


def lines(path: Path) -> Iterator[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def meetings(path: Path) -> Iterator[str]:
    for row in lines(path):
        yield "\n".join(f"{t['speaker']}: {t['content']}" for t in row["meeting_transcripts"])


def trajectories(path: Path) -> Iterator[str]:
    for row in lines(path):
        turns = row["traj"]["history"] if isinstance(row["traj"], dict) else row["traj"]
        yield "\n".join(f"{t['role']}: {t['content']}" for t in turns if isinstance(t.get("content"), str))


def wikipedia(path: Path) -> Iterator[str]:
    """Undoes WikiText's spacing, which no prompt has."""
    text = path.read_text(encoding="utf-8").replace(" @-@ ", "-").replace(" @,@ ", ",").replace(" @.@ ", ".")
    text = re.sub(r" ([,.;:!?)\]'%])", r"\1", re.sub(r"([(\[]) ", r"\1", text))
    yield re.sub(r"^ = .*$", "", text, flags=re.M).replace("<unk>", "Unk")


def sources(data: Path) -> dict[str, tuple[Iterable[str], int]]:
    """Texts and how many passages of them."""
    text, qa, tasks = data / "text", data / "qa", data / "tasks"
    statutes = (s for r in lines(qa / "housing_qa.jsonl.gz") for _, s in r["statutes"])
    papers = (" ".join(r["CONTEXTS"]) for r in json.loads((qa / "pubmedqa.json").read_text()).values())
    maths = (f"Question: {r['question']}\nAnswer: {r['answer']}" for r in lines(tasks / "gsm8k" / "train.jsonl.gz"))
    return {
        "meetings": (meetings(text / "qmsum_train.jsonl.gz"), 1900),
        "podcasts": ((r["text"].replace("**", "") for r in lines(text / "podcasts_250.jsonl.gz")), 1500),
        "abstracts": ((r["abstract"] for r in lines(text / "arxiv_abstracts.jsonl.gz")), 700),
        "papers": (papers, 300),
        "peps": ((r["text"] for r in lines(text / "peps_200.jsonl.gz")), 900),
        "eips": ((r["text"] for r in lines(text / "eips_200.jsonl.gz")), 500),
        "wikipedia": (wikipedia(text / "wikitext2_valid.txt"), 600),
        "statutes": (statutes, 200),
        "maths": (maths, 100),
        "customers": (trajectories(data / "agents" / "tau_airline.jsonl.gz"), 300),
        "programmers": (trajectories(data / "agents" / "swe_agent.jsonl.gz"), 200),
    }


def shingles(text: str) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return {tuple(words[k : k + 8]) for k in range(len(words) - 7)}


def passages(data: Path, seen: set[tuple[str, ...]], rng: random.Random) -> Iterator[dict]:
    count = counter("words")
    for name, (texts, most) in sources(data).items():
        whole = list(dict.fromkeys(texts))
        rng.shuffle(whole)
        found: list[str] = []
        for text in whole[: 4 * most]:
            found += [c.strip() for c in chunks(text, rng.randint(WORDS // 2, WORDS), count)]
        rng.shuffle(found)
        fresh = [c for c in dict.fromkeys(found) if len(c.split()) >= 40 and not shingles(c) & seen][:most]
        print(f"{name}: {len(fresh)} passages of {len(whole)} texts")
        yield from ({"source": name, "text": c} for c in fresh)


def label(rows: list[dict], models: list[Classifier]) -> None:
    """Adds `keep` to the rows."""
    for row in tqdm(rows, desc="labelling", unit="row", mininterval=10):
        spans = units(row["text"])
        tiling = Tiling.of(row["text"], [end for _, end in spans][:-1])
        p = np.array([np.clip(m.heads(tiling)[: len(spans), 0], 0.001, 0.999) for m in models])
        mean = 1 / (1 + np.exp(-np.log(p / (1 - p)).mean(0)))
        row["keep"] = [[s, e, round(float(v), 3)] for (s, e), v in zip(spans, mean, strict=True) if v == v]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("questions", type=Path, help="folder that recipes/question_data.py wrote")
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", action="append", required=True, help="a model that `laconic export` wrote")
    args = parser.parse_args()
    models = [m for name in args.model if isinstance(m := scorer("llmlingua2", name), Classifier)]
    dev = [json.loads(line)["text"] for line in (args.data / "teacher" / "dev.jsonl").open(encoding="utf-8")]
    seen = set().union(*map(shingles, dev))
    read = {n: [json.loads(x) for x in (args.questions / f"{n}.jsonl").open()] for n in ("questions", "answers")}
    args.out.mkdir(parents=True, exist_ok=True)
    for name, rows in {"passages": list(passages(args.data, seen, random.Random(0))), **read}.items():
        label(rows, models)
        with (args.out / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
        print(f"{name}.jsonl: {len(rows)} rows")


if __name__ == "__main__":
    main()
