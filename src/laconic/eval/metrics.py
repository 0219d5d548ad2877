"""Measures of answers and of compressed texts. Shares in [0, 1]; None where a measure has no meaning."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from laconic.text import Bools, Span

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
_LAST_NUMBER = re.compile(r"\d*\.?\d+")


def normalise(text: str) -> str:
    """Lower case, no ASCII punctuation, no articles, single blanks: SQuAD's normalisation (Rajpurkar et al., 2016).

    >>> normalise("The  Cat's hat!")
    'cats hat'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """1 if the answer equals any gold answer after normalisation, else 0."""
    return float(any(normalise(answer) == normalise(gold) for gold in golds))


def token_f1(answer: str, golds: Sequence[str]) -> float:
    """Best F1 of normalised words over the gold answers, as SQuAD has it (two empty ones agree)."""
    return max((_f1(normalise(answer).split(), normalise(gold).split()) for gold in golds), default=0.0)


def _f1(answer: Sequence[str], gold: Sequence[str]) -> float:
    if not answer or not gold:
        return float(answer == gold)
    common = sum((Counter(answer) & Counter(gold)).values())
    return 2 * common / (len(answer) + len(gold))


def qa_score(answer: str, golds: Sequence[str]) -> float:
    """1 if the first line of the answer contains a gold answer, both normalised, else 0.

    What the scripts of LLMLingua-2 measure on MeetingBank, and its paper calls exact match.
    """
    line = normalise(answer.lstrip("\n").split("\n")[0])
    return float(any(normalise(gold) in line for gold in golds))


def survives(text: str, golds: Sequence[str]) -> float | None:
    """1 if the text still contains any gold answer as whole words, both normalised; None for yes and no."""
    wanted = {normalise(gold) for gold in golds} - {"", "yes", "no"}
    words = f" {normalise(text)} "
    return float(any(f" {gold} " in words for gold in wanted)) if wanted else None


def evidence_recall(original: str, spans: Sequence[Span], evidence: Sequence[str]) -> float | None:
    """Share of the words of the evidence that are whole within the kept spans; None without evidence.

    Pieces of evidence are looked for where they first occur in the original; one that does not occur is lost.
    """
    inside = _inside(len(original), spans)
    kept = total = 0
    for piece in evidence:
        begin = original.find(piece)
        for word in _WORD.finditer(piece):
            total += 1
            kept += begin >= 0 and bool(inside[begin + word.start() : begin + word.end()].all())
    return kept / total if total else None


def number_recall(original: str, text: str) -> float | None:
    """Share of the numbers of the original that the text still has; each occurrence counts."""
    before, after = _numbers(original), _numbers(text)
    return sum((before & after).values()) / sum(before.values()) if before else None


def numbers_whole(original: str, text: str) -> float | None:
    """Share of the numbers of the text that the original has, too: below 1 where a number was cut or made up."""
    before, after = _numbers(original), _numbers(text)
    return sum((before & after).values()) / sum(after.values()) if after else None


def line_numbers(original: str, spans: Sequence[Span]) -> float | None:
    """Share of the numbers on kept lines that are whole; a line is kept if a word of it is."""
    inside = _inside(len(original), spans)
    kept = total = start = 0
    for line in original.splitlines(keepends=True):
        places = [(start + w.start(), start + w.end()) for w in _WORD.finditer(line)]
        if any(inside[s:e].all() for s, e in places):
            numbers = [inside[start + n.start() : start + n.end()].all() for n in _NUMBER.finditer(line)]
            total += len(numbers)
            kept += sum(map(bool, numbers))
        start += len(line)
    return kept / total if total else None


def _numbers(text: str) -> Counter[str]:
    return Counter(_NUMBER.findall(text))


def _inside(length: int, spans: Sequence[Span]) -> Bools:
    """Which characters of the original are kept: bool[length]."""
    inside = np.zeros(length, bool)
    for start, end in spans:
        inside[start:end] = True
    return inside


def gsm8k_answer(text: str) -> float | None:
    """The last number on the last line with "answer is", or else of the whole text; None if there is none.

    >>> gsm8k_answer("6 * 3 = 18.\\nThe answer is $1,018.")
    1018.0
    """
    lines = [line for line in text.splitlines() if "answer is" in line.lower()] or [text]
    found = _LAST_NUMBER.findall(lines[-1].replace(",", ""))
    return float(found[-1]) if found else None


def gsm8k_correct(answer: str, golds: Sequence[str]) -> float:
    """1 if the answer's number is the gold one."""
    return float(any(gsm8k_answer(answer) == gsm8k_answer(gold) is not None for gold in golds))


def bbh_answer(text: str) -> str:
    """What follows the last "answer is", or else the whole text: its letter in brackets, or its first line.

    >>> bbh_answer("So the answer is (B) Tuesday."), bbh_answer("So the answer is valid.")
    ('(B)', 'valid')
    """
    lines = text.rsplit("answer is", 1)[-1].strip().splitlines() or [""]
    letter = re.search(r"\([A-Z]\)", lines[0])
    return letter.group() if letter else lines[0].strip(" .")


def bbh_correct(answer: str, golds: Sequence[str]) -> float:
    """1 if the answer found in the text is the gold one."""
    return float(bbh_answer(answer) in golds)


def within(rate: float, tokens_before: int, tokens_after: int) -> float:
    """1 if the budget was kept: not more than floor(rate x tokens before), counted in one tokenizer."""
    from laconic.budget import Budget

    limit = Budget(rate=rate).limit(tokens_before)
    return float(limit is not None and tokens_after <= limit)


def token_accuracy(answer: Sequence[int], gold: Sequence[int]) -> float:
    """Share of places where both have the same token, of the places of the longer one; 1 only for the very same.

    >>> token_accuracy([7, 8, 9], [7, 5, 9, 6])
    0.5
    """
    right = sum(a == g for a, g in zip(answer, gold, strict=False))
    return right / max(len(answer), len(gold)) if answer or gold else 1.0


def exact_prefix(answer: Sequence[int], gold: Sequence[int]) -> float:
    """Share of the gold tokens before the first one that is wrong or missing.

    >>> exact_prefix([7, 8, 5, 6], [7, 8, 9, 6])
    0.5
    """
    wrong = (k for k, token in enumerate(gold) if list(answer[k : k + 1]) != [token])
    return next(wrong, len(gold)) / len(gold) if gold else 1.0
