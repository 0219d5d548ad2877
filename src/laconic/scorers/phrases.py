"""Noun phrases, as spaCy's English pipeline finds them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from laconic.errors import MissingExtraError, ModelError
from laconic.segment import sentences
from laconic.text import Ints, Tiling, readable

_PIPELINE = "en_core_web_sm"


def noun_phrases() -> Callable[[Tiling], Ints]:
    """A function from a tiling to the bounds of its phrases in units, int64[k + 1]; other units are their own."""
    try:
        import spacy
    except ImportError as error:
        raise MissingExtraError("Noun phrases", "spacy") from error
    try:
        pipeline = spacy.load(_PIPELINE, exclude=["ner", "lemmatizer"])
    except OSError as error:
        raise ModelError(
            f"spaCy's pipeline {_PIPELINE} is not installed; run: python -m spacy download {_PIPELINE}"
        ) from error
    return lambda tiling: _bounds(tiling, pipeline)


def _bounds(tiling: Tiling, pipeline: Any) -> Ints:
    """Sentence by sentence: a parser takes no text of any length."""
    edge = np.ones(len(tiling) + 1, bool)
    text, places = readable(tiling.text), tiling.bounds[sentences(tiling)].tolist()
    docs = pipeline.pipe(text[s:e] for s, e in pairwise(places))
    for place, doc in zip(places[:-1], docs, strict=True):
        for chunk in doc.noun_chunks:
            first, last = tiling.unit_at([place + chunk.start_char, place + chunk.end_char - 1]).tolist()
            edge[first + 1 : last + 1] = False
    return np.flatnonzero(edge)
