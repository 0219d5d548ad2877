"""Labelled passages as token labels.

A line of a data file is what `laconic distill` writes: `text` with `compressed` or `spans` (what the teacher kept) or
`keep` (`[start, end, value]`, P(keep) by other models, in [0, 1]: soft labels), and optionally `question` with
`evidence` (verbatim passages, an empty list where the text does not answer it), `relevance` (`[start, end, value]`,
what another ranker thinks of the rest, in [0, 1]) and `answers` (verbatim strings; without a question: whatever
somebody asked for). `protect` (`[start, end]`, what always stays) is for policies.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from laconic.distill.align import kept_units, units
from laconic.errors import InputError
from laconic.features import Features
from laconic.segment import sentences, words
from laconic.text import readable

KEEP, EVIDENCE, ANSWER = range(3)  # columns of the labels
_UNKNOWN = -1
_QUESTION = 64  # tokens of a question that are read, the last ones; at most a third of a window

Labels = npt.NDArray[np.float32]


@dataclass
class Row:
    """One passage in tokens. Labels are from 0 to 1, or -1 (unknown)."""

    ids: list[int]
    types: npt.NDArray[np.int64]
    keep: Labels  # float32[T], by the teacher or soft
    evidence: Labels  # given the question
    answer: Labels  # given the question
    answers: Labels  # to whatever question
    question: list[int]  # token ids, empty where there is none
    unit: npt.NDArray[np.int64]  # which word or mark of the text a token belongs to, -1: none
    sentence: npt.NDArray[np.int64]  # which sentence a token belongs to
    texts: list[str]  # the sentences, and last the question
    kept: npt.NDArray[np.bool_]  # per word or mark of the text, empty without a teacher
    around: int  # special tokens around question and text


def read(path: Path, tokenizer: Any, window: int) -> list[Row]:
    """The rows of a JSONL file; `window`: the most tokens of a row. Empty lines and texts are passed over."""
    return [row(record, tokenizer, window) for record in records(path)]


def records(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file, checked; empty ones and those with an empty text are passed over."""
    found = []
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                record = _record(line, f"{path}, line {number}") if line.strip() else {"text": ""}
                if record["text"].strip():
                    found.append(record)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; pass a file of JSON lines") from None
    if not found:
        raise InputError(f"{path} holds no text; pass a file of JSON lines, each with a text")
    return found


def _record(line: bytes, where: str) -> dict[str, Any]:
    """A line of a data file, without fields that are null; InputError where a field is not what it should be."""
    try:
        given = json.loads(line.decode("utf-8-sig"))
        record = {name: value for name, value in given.items() if value is not None}
        length = len(record["text"])
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{where} is not a labelled passage ({reason}); correct it") from None
    strings = [name for name in ("text", "compressed", "question", "answer") if name in record]
    lists = [name for name in ("evidence", "answers") if name in record]
    wrong = {
        **{f"{name} must be a string": not isinstance(record[name], str) for name in strings},
        **{f"{name} must be a list of strings": not _are(record[name], str) for name in lists},
        **{
            f"{name} must be [[start, end], …] within the text": not _ranges(record[name], 2, length)
            for name in ("spans", "protect")
            if name in record
        },
        **{
            f"{name} must be [[start, end, value], …] within the text, values from 0 to 1": not (
                _ranges(record[name], 3, length) and all(0 <= r[2] <= 1 for r in record[name])
            )
            for name in ("keep", "relevance")
            if name in record
        },
    }
    if broken := next((rule for rule, is_so in wrong.items() if is_so), None):
        raise InputError(f"{where}: {broken}; correct it")
    return record


def _are(values: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(values, list) and all(isinstance(v, kind) and not isinstance(v, bool) for v in values)


def _ranges(values: Any, width: int, length: int) -> bool:
    """Lists of `width` numbers, the first two a range of a text of this length?"""
    if not isinstance(values, list) or not all(_are(r, (int, float)) and len(r) == width for r in values):
        return False
    return all(_are(r[:2], int) and 0 <= r[0] <= r[1] <= length for r in values)


def row(record: dict[str, Any], tokenizer: Any, window: int) -> Row:
    """One record of a data file in tokens."""
    text, question = (readable(record.get(name) or "") for name in ("text", "question"))
    most, around = min(_QUESTION, window // 3), _around(tokenizer)
    asked = tokenizer(question, add_special_tokens=False)["input_ids"][-most:] if question.strip() else []
    encoded = tokenizer(
        text,
        add_special_tokens=False,
        truncation=True,
        max_length=window - len(asked) - around,
        return_offsets_mapping=True,
    )
    starts, ends = np.array(encoded["offset_mapping"], np.int64).reshape(-1, 2).T
    spans = units(text)
    owner = np.full(len(text) + 1, -1)
    for k, (s, e) in enumerate(spans):
        owner[s:e] = k
    unit = np.where(ends > starts, owner[starts], -1)
    kept = _kept(record, text, spans)
    unknown = np.full(len(starts), _UNKNOWN, np.float32)
    if kept is not None:
        keep = np.where(unit >= 0, kept[unit], _UNKNOWN).astype(np.float32)
    else:
        keep = _values(text, record.get("keep", ()), _UNKNOWN)[starts]
    evidence, answer = unknown, unknown
    answers = record.get("answers") or ([record["answer"]] if record.get("answer") else [])
    inside = _covered(text, record.get("evidence", ()))
    if asked and "evidence" in record and (inside.any() or not record["evidence"]):  # else it is not in the text
        evidence = np.where(inside, 1, _values(text, record.get("relevance", ()), 0))[starts].astype(np.float32)
        answer = (_covered(text, answers) & inside)[starts].astype(np.float32)
    wanted = unknown if question or not answers else _covered(text, answers)[starts].astype(np.float32)
    types = Features(text).types(starts, ends)
    known = np.zeros(0, bool) if kept is None else kept
    tiling = words(text)
    edges = tiling.bounds[sentences(tiling)]
    sentence = np.searchsorted(edges, starts, side="right") - 1
    texts = [*(text[s:e].strip() for s, e in pairwise(edges.tolist())), question]
    return Row(encoded["input_ids"], types, keep, evidence, answer, wanted, asked, unit, sentence, texts, known, around)


def _around(tokenizer: Any) -> int:
    """The most tokens that a tokenizer puts around a question and a text: 3, in RoBERTa's family 4."""
    return max(3, int(tokenizer.num_special_tokens_to_add(pair=True)))


def _kept(record: dict[str, Any], text: str, spans: Sequence[tuple[int, int]]) -> npt.NDArray[np.bool_] | None:
    if record.get("spans") is not None:
        inside = np.zeros(len(text) + 1, bool)
        for s, e in record["spans"]:
            inside[s:e] = True
        return inside[[s for s, _ in spans]]
    if record.get("compressed") is not None:
        compressed = record["compressed"]
        return kept_units([text[s:e] for s, e in spans], [compressed[s:e] for s, e in units(compressed)])
    return None


def _values(text: str, ranges: Sequence[tuple[int, int, float]], other: float) -> Labels:
    """The value at every code point, `other` outside the ranges: float32[len(text) + 1]."""
    values = np.full(len(text) + 1, other, np.float32)
    for s, e, value in ranges:
        values[s:e] = value
    return values


def _covered(text: str, parts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """The code points of every place where a part stands as whole words: bool[len(text) + 1]."""
    inside = np.zeros(len(text) + 1, bool)
    for part in filter(None, (p.strip() for p in parts)):
        at = text.find(part)
        while at >= 0:
            end = at + len(part)
            cut = (at and text[at - 1].isalnum() and part[0].isalnum()) or (
                end < len(text) and text[end].isalnum() and part[-1].isalnum()
            )
            if not cut:
                inside[at:end] = True
            at = text.find(part, at + 1)
    return inside


@dataclass(frozen=True)
class Item:
    """A row as it is shown once: blind, with its question, or with another row's."""

    row: Row
    question: list[int]
    evidence: Labels
    answer: Labels
    asked: str = ""  # the question, in words

    def __len__(self) -> int:
        return len(self.row.ids) + len(self.question) + self.row.around


def items(rows: Sequence[Row], random: random.Random, blind: float, foreign: float, window: int) -> Iterator[Item]:
    """Each row once. `blind`: the share of a teacher's rows shown without their question; `foreign`: the share of
    the others shown with the question of another row, which has no evidence in them."""
    asking = [r for r in rows if r.question]
    for r in rows:
        unknown = np.full(len(r.ids), _UNKNOWN, np.float32)
        if not r.question or (len(r.kept) and random.random() < blind):
            yield Item(r, [], unknown, r.answers)
        elif random.random() < foreign:
            other = random.choice(asking)
            same = other.question == r.question
            room = window - r.around - len(r.ids)
            nothing = np.zeros_like(unknown)
            yield Item(
                r,
                other.question[max(0, len(other.question) - room) :],
                r.evidence if same else nothing,
                r.answer if same else nothing,
                other.texts[-1],
            )
        else:
            yield Item(r, r.question, r.evidence, r.answer, r.texts[-1])


def batches(parts: Sequence[Item], tokens: int, random: random.Random) -> list[list[Item]]:
    """Shuffled batches of items of like length, at most `tokens` with their padding."""
    order = list(parts)
    random.shuffle(order)
    out: list[list[Item]] = []
    for start in range(0, len(order), 512):
        batch: list[Item] = []
        for item in sorted(order[start : start + 512], key=len):
            if batch and padded(len(item)) * (len(batch) + 1) > tokens:
                out.append(batch)
                batch = []
            batch.append(item)
        out.append(batch)
    random.shuffle(out)
    return out


def padded(length: int) -> int:
    """A multiple of 32: few distinct shapes, because kernels are compiled for each."""
    return -(-length // 32) * 32


@dataclass(frozen=True)
class Frame:
    """The tokens a tokenizer puts around a text, and between a question and a text."""

    head: list[int]
    between: list[int]
    tail: list[int]
    pad: int

    @classmethod
    def of(cls, tokenizer: Any) -> Frame:
        """Found by trying, as `Classifier` does: pairs differ between families ([SEP], </s></s>)."""
        a, one, two = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a"), tokenizer("a", "a")
        first = one["input_ids"].index(a[0])
        last = first + len(a)
        between = two["input_ids"][last : two.sequence_ids().index(1)]
        return cls(one["input_ids"][:first], between, one["input_ids"][last:], tokenizer.pad_token_id or 0)


def collate(batch: Sequence[Item], frame: Frame) -> dict[str, npt.NDArray[Any]]:
    """ids, mask, types int64[B, T], labels float32[B, T, 3], group int64[B, T]: which of `passages` a token is in."""
    lefts = [frame.head + (i.question + frame.between if i.question else []) for i in batch]
    width = padded(max(len(left) + len(i.row.ids) + len(frame.tail) for left, i in zip(lefts, batch, strict=True)))
    shape = (len(batch), width)
    ids, mask, types = np.full(shape, frame.pad), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    labels, group = np.full((*shape, 3), _UNKNOWN, np.float32), np.full(shape, _UNKNOWN)
    passages = 0
    for k, (left, item) in enumerate(zip(lefts, batch, strict=True)):
        whole = left + item.row.ids + frame.tail
        text = slice(len(left), len(left) + len(item.row.ids))
        ids[k, : len(whole)] = whole
        mask[k, : len(whole)] = 1
        types[k, text] = item.row.types
        labels[k, text, KEEP] = item.row.keep
        labels[k, text, EVIDENCE] = item.evidence
        labels[k, text, ANSWER] = item.answer
        group[k, text] = passages + item.row.sentence
        passages += len(item.row.texts)
        group[k, len(frame.head) : len(frame.head) + len(item.question)] = passages - 1
    return {"ids": ids, "mask": mask, "types": types, "labels": labels, "group": group}


def passages(batch: Sequence[Item]) -> list[str]:
    """The sentences and the question of every item, as `collate` numbers them."""
    return [text for item in batch for text in [*item.row.texts[:-1], item.asked]]
