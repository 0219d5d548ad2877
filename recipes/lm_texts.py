"""Texts to pretrain laconic-lm on, and to judge it by.

    python recipes/lm_texts.py ../shared/data build/lm-texts

Writes train.jsonl.gz and, from documents held out, {arxiv, podcasts, meetings, documents, wikipedia}.jsonl.gz (`id,
text`; documents are PEPs and EIPs). Of arXiv, the abstracts from June 2026 on are held out altogether: dev takes a few,
the rest is for later work that needs texts no model here has seen. Of the others, documents are held out by hash.
Documents with a passage of the teacher's development set are left out: methods that use the model are judged on it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from laconic.train.split import held_out, published

UNSEEN_FROM = 2026, 6  # of arXiv
ONE_IN = {"arxiv": 20, "podcasts": 25, "meetings": 16, "documents": 25, "wikipedia": 6}  # documents are held out
PROBE = 100  # letters from the middle of a passage by which its document is known
_OTHER = re.compile(r"[^a-z]+")


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def documents(data: Path) -> Iterator[tuple[str, str, str]]:
    """Kind, identifier and text."""
    for r in lines(data / "arxiv_abstracts.jsonl.gz"):
        yield "arxiv", r["id"], f"{r['title']}\n\n{r['abstract']}"
    for r in lines(data / "podcasts_250.jsonl.gz"):
        yield "podcasts", r["id"], r["text"].replace("**", "")
    for r in lines(data / "qmsum_train.jsonl.gz"):
        turns = (f"{t['speaker']}: {t['content']}" for t in r["meeting_transcripts"])
        yield "meetings", r["meeting_id"], "\n".join(turns)
    for name in ("peps_200", "eips_200"):
        for r in lines(data / f"{name}.jsonl.gz"):
            yield "documents", r["id"], r["text"]
    for title, text in articles((data / "wikitext2_valid.txt").read_text(encoding="utf-8-sig")):
        yield "wikipedia", title, text


def articles(text: str) -> Iterator[tuple[str, str]]:
    """The articles of WikiText, without its spacing of marks."""
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    text = re.sub(r" ([,.;:!?)\]'%])", r"\1", re.sub(r"([(\[]) ", r"\1", text)).replace("<unk>", "Unk")
    parts = re.split(r"^ = ([^=].*) = *$", text, flags=re.M)
    yield from zip(parts[1::2], (p.strip() for p in parts[2::2]), strict=True)


def place(kind: str, name: str, text: str, teacher: Sequence[str]) -> str:
    """The file that a document belongs to, or "" for none."""
    new = kind == "arxiv" and published(name) >= UNSEEN_FROM
    if (new or kind != "arxiv") and held_out(name, ONE_IN[kind]):
        return kind
    if new:
        return ""
    plain = letters(text)
    return "" if any(probe in plain for probe in teacher) else "train"


def probes(path: Path) -> list[str]:
    """Some letters of every passage of the teacher's."""
    found = [letters(json.loads(line)["text"]) for line in path.read_text(encoding="utf-8").splitlines()]
    return [text[len(text) // 2 :][:PROBE] for text in found]


def letters(text: str) -> str:
    return _OTHER.sub("", text.lower())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    teacher = probes(args.data / "teacher" / "dev.jsonl")
    count: Counter[tuple[str, str]] = Counter()
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(gzip.open(args.out / f"{name}.jsonl.gz", "wt", compresslevel=6, encoding="utf-8"))
            for name in ("train", *ONE_IN)
        }
        for kind, name, text in documents(args.data / "text"):
            target = place(kind, name, text, teacher)
            if target:
                files[target].write(json.dumps({"id": name, "text": text}) + "\n")
            count[kind, target or "left out"] += 1
    for (kind, target), n in sorted(count.items()):
        print(f"{kind} -> {target}: {n}")


if __name__ == "__main__":
    main()
