"""Perplexity by a causal language model: of texts, and of a question given a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from laconic.errors import InputError
from laconic.hub import LanguageModel, load_decoder
from laconic.text import Floats, Ints

RESTRICTION = " We can get the answer to this question in the given documents."  # LongLLMLingua, section 4.1
_TOGETHER = 64  # rows padded to one length
_QUESTION = 3  # a question has at most a 3rd of the window, its end: instructions come first


def surprisals(model: LanguageModel, rows: Sequence[Ints], last: int | None = None) -> list[Floats]:
    """The surprisal of every token of rows of ids, each read as a text of its own: float32[T] each, nats.

    Of the `last` only, if that is given; the others are NaN.
    """
    found: list[Floats] = [np.zeros(0, np.float32)] * len(rows)
    order = sorted(range(len(rows)), key=lambda k: len(rows[k]))
    for part in (order[k : k + _TOGETHER] for k in range(0, len(order), _TOGETHER)):
        ids = np.zeros((len(part), 1 + len(rows[part[-1]])), np.int64)
        mask = np.zeros_like(ids)
        ids[:, 0] = model.decoder.start
        for line, k in enumerate(part):
            ids[line, 1 : 1 + len(rows[k])] = rows[k]
            mask[line, : 1 + len(rows[k])] = 1
        for k, values in zip(part, model.decoder.nll(ids, mask, last), strict=True):
            found[k] = values[1 : 1 + len(rows[k])]
    return found


def question_ids(model: LanguageModel, question: str) -> Ints:
    """A question in tokens, its end if it is long."""
    ids: Ints = model.tokens(question)[0][-(model.decoder.window // _QUESTION) :]
    return ids


@dataclass(frozen=True)
class QuestionPerplexity:
    """Documents by how well they foretell the question (LongLLMLingua, arXiv 2310.06839, eq. 3).

    -r_k = (1 / N_c) Σ log p(x_i of question and restriction | document k, the x before i). Of a document beyond the
    model's window, its end counts.
    """

    model: LanguageModel

    def rank(self, documents: Sequence[str], question: str) -> Floats:
        """float32[k], higher is more relevant; at most 0."""
        tail = question_ids(self.model, question.strip() + RESTRICTION)
        rows = [np.append(self.model.tokens(d.strip() + "\n\n")[0], tail) for d in documents]
        return np.array([-row[-len(tail) :].mean() for row in surprisals(self.model, rows, len(tail))], np.float32)


@dataclass(frozen=True)
class DocumentPerplexity:
    """Documents by how well the question foretells them: LongLLMLingua's section 4.1 weighs this against eq. 3.

    -r_k = (1 / N_k) Σ log p(x_i of document k | question and restriction, the x before i). Of a document beyond the
    model's window, what follows is judged without the question.
    """

    model: LanguageModel

    def rank(self, documents: Sequence[str], question: str) -> Floats:
        """float32[k], higher is more relevant; an empty document is as bad as the worst."""
        head = question_ids(self.model, question.strip() + RESTRICTION + "\n\n")
        rows = [np.append(head, self.model.tokens(d.strip())[0]) for d in documents]
        return _means([-row[len(head) :] for row in surprisals(self.model, rows)])


@dataclass(frozen=True)
class Surprise:
    """Documents by their own perplexity, high first: LLMLingua's demonstrations (arXiv 2310.05736, algorithm 1)."""

    model: LanguageModel

    def rank(self, documents: Sequence[str], question: str) -> Floats:
        """float32[k], nats; an empty document is as bad as the worst. The question is not read."""
        return _means(surprisals(self.model, [self.model.tokens(d.strip())[0] for d in documents]))


def _means(rows: Sequence[Floats]) -> Floats:
    """Of each row: float32[k]; of an empty one the lowest."""
    known = [float(row.mean()) for row in rows if len(row)]
    floor = min(known, default=0.0)
    return np.array([row.mean() if len(row) else floor for row in rows], np.float32)


def load(model: str) -> QuestionPerplexity:
    """The ranker of a causal language model, by name or folder."""
    if not model:
        raise InputError("the ranker perplexity needs a causal language model: write perplexity=NAME or perplexity=DIR")
    return QuestionPerplexity(load_decoder(model))
