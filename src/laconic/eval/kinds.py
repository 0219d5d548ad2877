"""Kinds of tasks: how an endpoint is asked, and how its answer is measured.

The prompts are short and the same for every method; scores compare methods with one reader, not with published figures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from statistics import geometric_mean
from typing import Any

from laconic.errors import InputError
from laconic.eval.data import Example
from laconic.eval.metrics import bbh_correct, exact_match, gsm8k_correct, qa_score, token_f1

Scores = dict[str, float]


@dataclass(frozen=True)
class Kind:
    """What is asked, how long the answer may be, and its measures."""

    prompt: Callable[[str, Example], str]  # (context, example) -> the user's message
    max_tokens: int
    scores: Callable[[str, Example], Scores]


def kind(name: str) -> Kind:
    """A kind by the name that a task gives."""
    return KINDS[name]


def rouge(answer: str, golds: Sequence[str]) -> Scores:
    """ROUGE-1, -2 and -L (F1, stemmed) by the package rouge-score; of several references the best one each."""
    from rouge_score.rouge_scorer import RougeScorer

    names = ["rouge1", "rouge2", "rougeL"]
    found = RougeScorer(names, use_stemmer=True).score_multi(list(golds), answer)
    return {name: float(found[name].fmeasure) for name in names}


def bleu(answer: str, golds: Sequence[str]) -> float:
    """BLEU of one answer in [0, 1] by sacrebleu (effective order); the mean over examples is not corpus BLEU."""
    from sacrebleu import sentence_bleu

    return float(sentence_bleu(answer, list(golds)).score) / 100


def corpus_bleu(answers: Sequence[str], golds: Sequence[str]) -> float:
    """BLEU of a whole corpus in [0, 1] by sacrebleu (13a, exponential smoothing); one reference an answer."""
    from sacrebleu import corpus_bleu as whole

    return float(whole(list(answers), [list(golds)]).score) / 100


def span_scores(answer: str, example: Example) -> Scores:
    """SQuAD's EM and F1."""
    return {"em": exact_match(answer, example.answers), "f1": token_f1(answer, example.answers)}


def _qa_scores(answer: str, example: Example) -> Scores:
    """SQuAD's EM and F1 of the first line, and containment in it as LLMLingua-2's scripts have it."""
    line = answer.strip().split("\n")[0]
    return {**span_scores(line, example), "contains": qa_score(line, example.answers)}


def _summary_scores(answer: str, example: Example) -> Scores:
    return {**rouge(answer, example.answers), "bleu": bleu(answer, example.answers)}


def _qa_prompt(context: str, example: Example) -> str:
    return (
        f"{context}\n\nAnswer the question with a few words from the text above (which may be shortened), and nothing "
        f"else.\n\nQuestion: {example.question}\nAnswer:"
    )


def _summary_prompt(context: str, example: Example) -> str:
    task = example.question or "Summarise the text"
    return f"{context}\n\nThe text above may be shortened. Answer in one paragraph, without an introduction.\n\n{task}"


def _gsm8k_prompt(context: str, example: Example) -> str:
    return f"{context}Question: {example.question}\nThink step by step, and end with: The answer is NUMBER."


def _bbh_prompt(context: str, example: Example) -> str:
    return f"{context}Q: {example.question}\nA: Let's think step by step. End with: So the answer is"


def _longbench_prompt(context: str, example: Example) -> str:
    measure = _measure(example, LONGBENCH)
    if _dataset(example) in _FEW_SHOT:
        return f"{context}\n{example.question}"
    if measure == "rouge":
        return _summary_prompt(context, example)
    if measure == "code":
        return f"Write only the next line of this code.\n\n{context}{example.question or ''}"
    if measure == "count":
        return f"{context}\n\nHow many different paragraphs are there, repeated ones counted once? Only the number."
    if measure == "paragraph":
        return f"{context}\n\n{example.question}\n\nWhich paragraph is this the abstract of? Answer: Paragraph NUMBER"
    return _qa_prompt(context, example)


def _longbench_scores(answer: str, example: Example) -> Scores:
    measure = _measure(example, LONGBENCH)
    if _dataset(example) in _FEW_SHOT:  # a model may go on with cases of its own
        answer = answer.lstrip("\n").split("\n")[0]
    return {"score": max(_LONGBENCH_MEASURES[measure](answer, gold, example) for gold in example.answers)}


def numbers_right(answer: str, gold: str) -> float:
    """Share of the numbers in the answer that are the gold one: LongBench's measure of counting and retrieval."""
    found, (wanted, *_) = re.findall(r"\d+", answer), re.findall(r"\d+", gold)
    return found.count(wanted) / len(found) if found else 0.0


def class_named(answer: str, gold: str, classes: Sequence[str]) -> float:
    """1 / (classes named in the answer) if the gold one is among them; parts of the gold one's name do not count."""
    named = [c for c in classes if c in answer and (c == gold or c not in gold)]
    return 1 / len(named) if gold in named else 0.0


def code_similarity(answer: str, gold: str) -> float:
    """Similarity of the first line of code in the answer (no fence, no comment) and the gold line, by difflib."""
    lines = [line for line in answer.lstrip("\n").split("\n") if not re.search(r"`|#|//", line)]
    return SequenceMatcher(None, lines[0] if lines else "", gold, autojunk=False).ratio()


def _zeroscrolls_prompt(context: str, example: Example) -> str:
    _measure(example, ZEROSCROLLS)
    return f"{example.meta['instruction']}\n\n{context}\n\n{example.question or ''}\n\nAnswer:"


def _zeroscrolls_scores(answer: str, example: Example) -> Scores:
    measure, golds = _measure(example, ZEROSCROLLS), example.answers
    if measure == "rouge":  # the geometric mean of the three, as SCROLLS has it
        values = rouge(answer, golds).values()
        return {"score": geometric_mean(values) if all(values) else 0.0}
    if measure == "letter":
        found = re.search(r"\b[A-D]\b", answer)
        return {"score": float(found is not None and found.group() == golds[0].strip(" ()")[:1])}
    return {"score": token_f1(answer, golds)}


def _dataset(example: Example) -> str:
    return str(example.meta["dataset"]).removesuffix("_e")  # LongBench-E


def _measure(example: Example, table: dict[str, str]) -> str:
    dataset = _dataset(example)
    if dataset not in table:
        raise InputError(f"no measure for the data set {dataset!r}; there are {', '.join(table)}")
    return table[dataset]


_LONGBENCH_MEASURES: dict[str, Callable[[str, str, Any], float]] = {
    "f1": lambda answer, gold, example: token_f1(answer, [gold]),
    "rouge": lambda answer, gold, example: rouge(answer, [gold])["rougeL"],
    "classes": lambda answer, gold, example: class_named(answer, gold, example.meta["classes"]),
    "count": lambda answer, gold, example: numbers_right(answer, gold),
    "paragraph": lambda answer, gold, example: numbers_right(answer, gold),
    "code": lambda answer, gold, example: code_similarity(answer, gold),
}
# The data sets of LongBench in English and code (the Chinese ones need a word segmenter), and what each is measured by.
LONGBENCH = {
    **dict.fromkeys(["narrativeqa", "qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "musique", "triviaqa"], "f1"),
    **dict.fromkeys(["gov_report", "qmsum", "multi_news", "samsum"], "rouge"),
    "trec": "classes",
    "passage_count": "count",
    "passage_retrieval_en": "paragraph",
    **dict.fromkeys(["lcc", "repobench-p"], "code"),
}
_FEW_SHOT = ("trec", "triviaqa", "samsum")  # the context is solved cases in the form of the question
# ZeroSCROLLS without its two tasks over lists of reviews (space_digest, book_sum_sort).
ZEROSCROLLS = {
    **dict.fromkeys(["gov_report", "summ_screen_fd", "qmsum", "squality"], "rouge"),
    **dict.fromkeys(["qasper", "narrative_qa", "musique"], "f1"),
    "quality": "letter",
}
KINDS = {
    "qa": Kind(_qa_prompt, 100, _qa_scores),
    "summary": Kind(_summary_prompt, 400, _summary_scores),
    "gsm8k": Kind(_gsm8k_prompt, 400, lambda a, e: {"correct": gsm8k_correct(a, e.answers)}),
    "bbh": Kind(_bbh_prompt, 400, lambda a, e: {"correct": bbh_correct(a, e.answers)}),
    "longbench": Kind(_longbench_prompt, 512, _longbench_scores),
    "zeroscrolls": Kind(_zeroscrolls_prompt, 512, _zeroscrolls_scores),
}
