"""Tasks by name: how a file becomes examples, and which kind of answer is asked for.

To add one, write a function from a path to examples and put it into `TASKS`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

from laconic.errors import InputError
from laconic.eval.data import Example, Record, each, joined, located, parsed, text_of
from laconic.segment import sentences, words
from laconic.train.split import held_out

PARAGRAPHS = 10  # of an article, in one context: about 1,200 words
SHOTS = 8  # demonstrations of GSM8K


@dataclass(frozen=True)
class Task:
    """How a task is loaded, and the kind of its answers (`laconic.eval.kinds`)."""

    load: Callable[[Path], Iterator[Example]]
    kind: str
    about: str


def load(name: str, path: str) -> Iterator[Example]:
    """The examples of a task from a file or folder, or from the hub (`hf:org/name/file`)."""
    return _checked(task(name).load(located(path)), name, path)


def _checked(examples: Iterator[Example], name: str, path: str) -> Iterator[Example]:
    try:
        yield from examples
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path} is not in the format of {name} ({what}); see docs/eval.md") from None


def task(name: str) -> Task:
    """A task by name."""
    if name not in TASKS:
        raise InputError(f"no task {name!r}; there are {', '.join(TASKS)}")
    return TASKS[name]


def _strings(values: Any) -> tuple[str, ...]:
    """A list of strings; a string is none, though it would pass for one of letters."""
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        raise TypeError(f"{values!r} is no list of strings")
    return tuple(values)


def _keep(path: Path) -> Iterator[Example]:
    """What `laconic distill` writes, with or without questions."""

    def make(r: Record) -> Iterator[Example]:
        yield Example(r["id"], r["text"], group=r["id"], meta={"compressed": r["compressed"]})

    return each(path, make)


def _teacher(path: Path) -> Iterator[Example]:
    def make(r: Record) -> Iterator[Example]:
        yield Example(r["id"], r["text"], r["question"], (r["answer"],), _strings(r["evidence"]), r["id"])

    return each(path, make)


def _articles(path: Path) -> Iterator[Example]:
    """Ten consecutive paragraphs of a held-out article; the evidence is the sentence with the answer."""
    document = parsed(path)
    if not isinstance(document, dict) or "data" not in document:
        raise InputError(f"{path} is not in SQuAD's format: an object with the list `data`")
    for article in document["data"]:
        if not held_out(article["title"]):
            continue
        paragraphs = article["paragraphs"]
        for start in range(0, len(paragraphs) - PARAGRAPHS + 1, PARAGRAPHS):
            part = paragraphs[start : start + PARAGRAPHS]
            context = "\n\n".join(p["context"] for p in part)
            group = f"{article['title']}/{start}"
            yield from (_squad(qa, p["context"], context, group) for p in part for qa in p["qas"] if qa["answers"])


def _squad(qa: Record, paragraph: str, context: str, group: str) -> Example:
    answers = tuple(dict.fromkeys(a["text"] for a in qa["answers"]))
    at = qa["answers"][0]["answer_start"]
    evidence = [paragraph[s:e] for s, e in _sentences(paragraph) if s <= at < e]
    return Example(qa["id"], context, qa["question"], answers, tuple(evidence), group)


def _sentences(text: str) -> list[tuple[int, int]]:
    tiling = words(text)
    return list(pairwise(tiling.bounds[sentences(tiling)].tolist()))


def _nq20(path: Path) -> Iterator[Example]:
    """The held-out half of the questions; the evidence is the sentences of the gold passage with an answer."""

    def make(r: Record) -> Iterator[Example]:
        question = r["question"]
        if int(sha256(question.encode()).hexdigest(), 16) % 2:
            return
        gold = "\n".join(d["text"] for d in r["docs"] if d["gold"])
        pieces = [gold[s:e] for s, e in _sentences(gold)]
        evidence = [p for p in pieces if any(a.lower() in p.lower() for a in r["answers"])]
        context = joined([(d["title"], d["text"]) for d in r["docs"]])
        yield Example(_id(question), context, question, _strings(r["answers"]), tuple(evidence))

    return each(path, make)


def _twohop(path: Path) -> Iterator[Example]:
    """The two documents that the answer rests on among the distractors, in an order drawn by the id."""

    def make(r: Record) -> Iterator[Example]:
        docs = [(r["title_a"], r["para_a"]), (r["title_b"], r["para_b"]), *((d[0], d[1]) for d in r["distractors"])]
        evidence = [docs[k][1][line] for k, lines in enumerate(r["supporting_facts"]) for line in lines]
        random.Random(r["_id"]).shuffle(docs)
        context = joined([(title, "".join(lines)) for title, lines in docs])
        yield Example(r["_id"], context, r["question"], (r["answer"],), tuple(evidence))

    return each(path, make)


def _gsm8k(path: Path) -> Iterator[Example]:
    """Worked examples from train.jsonl(.gz) before each question of test.jsonl, the same ones for all."""
    solved = list(each(_inside(path, "train.jsonl", "train.jsonl.gz"), _problem))
    shots = random.Random(0).sample(solved, min(SHOTS, len(solved)))
    context = "".join(f"Question: {e.question}\n{e.context}\n\n" for e in shots)

    def make(r: Record) -> Iterator[Example]:
        yield from (Example(e.id, context, e.question, e.answers) for e in _problem(r))

    return each(_inside(path, "test.jsonl", "test.jsonl.gz"), make)


def _problem(r: Record) -> Iterator[Example]:
    """A problem with its worked solution as context; the marks of the calculator (<<3*4=12>>) go."""
    steps, result = r["answer"].split("####")
    plain = "".join(part.split(">>")[-1] for part in steps.split("<<")).strip()
    context = f"{plain}\nThe answer is {result.strip()}."
    yield Example(_id(r["question"]), context, r["question"], (result.strip(),))


def _bbh(path: Path) -> Iterator[Example]:
    """The chain-of-thought prompt of each task (cot-prompts/*.txt) before its questions (bbh/*.json)."""
    for file in sorted(_inside(path, "bbh").glob("*.json")):
        prompt = text_of(_inside(path, f"cot-prompts/{file.stem}.txt"))
        context = prompt.split("-----\n", 1)[-1].strip() + "\n\n"  # what stands before is the canary
        for k, r in enumerate(parsed(file)["examples"]):
            yield Example(f"{file.stem}/{k}", context, r["input"], (r["target"],), group=file.stem)


def _inside(folder: Path, *names: str) -> Path:
    found = [folder / name for name in names if (folder / name).exists()]
    if not found:
        raise InputError(f"{folder} lacks {' or '.join(names)}; pass the folder of the task")
    return found[0]


def _longbench(path: Path) -> Iterator[Example]:
    def make(r: Record) -> Iterator[Example]:
        meta = {"dataset": r["dataset"], "classes": r.get("all_classes") or []}
        yield Example(r["_id"], r["context"], r["input"] or None, _strings(r["answers"]), meta=meta)

    return each(path, make)


def _zeroscrolls(path: Path) -> Iterator[Example]:
    """TASK/validation.jsonl; the context is the document within the input, what follows it is the question."""

    def make(r: Record) -> Iterator[Example]:
        start, end = r["document_start_index"], r["document_end_index"]
        meta = {"dataset": r.get("dataset", path.parent.name), "instruction": r["input"][:start].strip()}
        question = r["input"][r["query_start_index"] : r["query_end_index"]].strip() or None
        yield Example(
            f"{r['id']}/{r['pid']}", r["input"][start:end], question, (r["output"],), group=r["id"], meta=meta
        )

    return each(path, make)


def _meetingbank(path: Path) -> Iterator[Example]:
    """Transcripts (`prompt`) with `QA_pairs`, as LLMLingua-2's scripts read them."""

    def make(r: Record) -> Iterator[Example]:
        for k, qa in enumerate(r["QA_pairs"]):
            group = str(r["idx"])
            yield Example(f"{group}/{k}", r["prompt"], qa["question"], (qa["answer"],), group=group)

    return each(path, make)


def _qmsum(path: Path) -> Iterator[Example]:
    """Meetings with a query and the summary that answers it; the evidence is the turns that the query is about."""

    def make(r: Record) -> Iterator[Example]:
        turns = [f"{t['speaker']}: {t['content']}\n" for t in r["meeting_transcripts"]]
        for k, query in enumerate([*r["general_query_list"], *r["specific_query_list"]]):
            stretches = [(int(a), int(b)) for a, b in query.get("relevant_text_span", [])]
            evidence = tuple("".join(turns[a : b + 1]) for a, b in stretches)
            group = r["meeting_id"]
            yield Example(f"{group}/{k}", "".join(turns), query["query"], (query["answer"],), evidence, group)

    return each(path, make)


def _id(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


TASKS = {
    "keep": Task(_keep, "keep", "agreement of keep scores with a teacher's compression"),
    "teacher": Task(_teacher, "qa", "questions on the teacher's passages"),
    "articles": Task(_articles, "qa", "SQuAD: ten paragraphs of a held-out article"),
    "nq20": Task(_nq20, "qa", "Natural Questions: a gold passage among 19 others"),
    "twohop": Task(_twohop, "qa", "two-hop questions with distractors"),
    "meetingbank": Task(_meetingbank, "qa", "MeetingBank-QA: questions on transcripts of councils"),
    "gsm8k": Task(_gsm8k, "gsm8k", "school mathematics; the demonstrations are compressed"),
    "bbh": Task(_bbh, "bbh", "BIG-Bench Hard; the chain-of-thought prompt is compressed"),
    "longbench": Task(_longbench, "longbench", "a file in LongBench's format"),
    "zeroscrolls": Task(_zeroscrolls, "zeroscrolls", "a file in ZeroSCROLLS's format"),
    "multi_news": Task(_longbench, "summary", "summaries of several articles (LongBench's format)"),
    "qmsum": Task(_qmsum, "summary", "summaries of meetings by query"),
}
