"""Rankers that look at words and bytes: BM25 and the normalised compression distance."""

from __future__ import annotations

import gzip as compression
from collections.abc import Sequence

import numpy as np

from laconic.errors import InputError
from laconic.scorers.relevance import bm25_of, terms
from laconic.text import Floats


class Bm25:
    """BM25 with every document as one, as a share of the most it could be: [0, 1]."""

    def rank(self, documents: Sequence[str], question: str) -> Floats:
        """float32[k]; `laconic.scorers.relevance.bm25_of`."""
        return bm25_of([terms(d) for d in documents], question)


class Gzip:
    """Minus the normalised compression distance of the document and the question.

    NCD(x, y) = (C(xy) - min(C(x), C(y))) / max(C(x), C(y)), with C the length when gzipped and a blank between x and y
    (Cilibrasi and Vitányi, "Clustering by compression", 2005, eq. 6). It prefers short documents.
    """

    def rank(self, documents: Sequence[str], question: str) -> Floats:
        """float32[k], about -1 to 0."""
        return np.array([-_distance(d, question) for d in documents], np.float32)


def _distance(text: str, question: str) -> float:
    one, other, both = (_length(t) for t in (text, question, f"{text} {question}"))
    return (both - min(one, other)) / max(one, other)


def _length(text: str) -> int:
    return len(compression.compress(text.encode("utf-8", "surrogatepass"), mtime=0))


def bm25(model: str) -> Bm25:
    """The ranker `bm25`."""
    _no_model("bm25", model)
    return Bm25()


def gzip(model: str) -> Gzip:
    """The ranker `gzip`."""
    _no_model("gzip", model)
    return Gzip()


def _no_model(name: str, model: str) -> None:
    if model:
        raise InputError(f"the ranker {name} has no model, got {name}={model}; write {name}")
