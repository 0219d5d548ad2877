"""LLMLingua-2: a small encoder says of every token whether to keep it; words get the mean of their tokens.

Faithful to the paper (arXiv 2403.12968, section 3.3), with these differences to its package, all of them about not
losing text: true [CLS] and [SEP], windows cut at sentence ends and never truncated, words by offsets into the text for
any tokenizer, one threshold over the whole input. `laconic.legacy` has the package's exact decisions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from laconic.score import Progress, Scores
from laconic.scorers.foreign import foreign_sentences
from laconic.scorers.tfidf import surprisal_ranks
from laconic.segment import sentences
from laconic.text import Bools, Floats, Ints, Tiling, pool

if TYPE_CHECKING:
    from laconic.hub import Model

_PIECE = 4096  # characters tokenized as one string; a longer sentence is cut between units
_PIECES = 256  # strings tokenized at a time, and ...
_WAVE = 64  # ... windows scored at a time: memory stays flat however long the text is
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass
class _Window:
    """A stretch of one text in model tokens, at most as long as the encoder reads."""

    text: int  # which
    ids: Ints
    starts: Ints  # code point offsets into the whole text
    ends: Ints


_Found = tuple[Ints, Ints, Floats]  # starts, ends, P(keep) of a window's tokens


class Classifier:
    """P(keep) of each unit from a token-classification model."""

    name = "llmlingua2"

    def __init__(self, model: Model) -> None:
        self._model = model
        self.model = model.manifest.name
        special = np.array(model.tokenizer.encode("a").special_tokens_mask, bool)
        ids = model.tokenizer.encode("a").ids
        inner = np.flatnonzero(~special)
        self._head, self._tail = ids[: inner[0]], ids[inner[-1] + 1 :]  # [CLS] and [SEP], as the tokenizer has them
        self._room = model.manifest.window - len(self._head) - len(self._tail)

    def score(self, tilings: Sequence[Tiling], progress: Progress | None = None) -> list[Scores]:
        """float32[n] a tiling: P(keep), NaN for units without a token; what the model cannot read goes to tfidf."""
        bounds = [sentences(t) for t in tilings]
        languages = self._model.manifest.languages
        foreign = [foreign_sentences(t, b, languages) for t, b in zip(tilings, bounds, strict=True)]
        found: list[list[_Found]] = [[] for _ in tilings]
        jobs = zip(tilings, bounds, foreign, strict=True)
        windows = (w for k, (t, b, f) in enumerate(jobs) for w in self._windows(k, t, b[:-1][~f], b[1:][~f]))
        while wave := list(islice(windows, _WAVE)):
            for window, p in zip(wave, self._probabilities(wave), strict=True):
                found[window.text].append((window.starts, window.ends, p))
                if progress:
                    progress(int(window.ends[-1] - window.starts[0]))
        return [self._scores(*job) for job in zip(tilings, bounds, foreign, found, strict=True)]

    def _scores(self, tiling: Tiling, bounds: Ints, foreign: Bools, found: list[_Found]) -> Scores:
        values = np.full(len(tiling), np.nan, np.float32)
        if found:
            starts, ends, p = (np.concatenate(column) for column in zip(*found, strict=True))
            values = pool(p, starts, ends, tiling)
        if not foreign.any():
            return Scores(values, self.name)
        where = np.flatnonzero(np.repeat(foreign, np.diff(bounds)))
        edges = zip(tiling.bounds[where].tolist(), tiling.bounds[where + 1].tolist(), strict=True)
        values[where] = surprisal_ranks([tiling.text[s:e] for s, e in edges], np.diff(bounds)[foreign])
        return Scores(values, "tfidf" if foreign.all() else f"{self.name}+tfidf")

    def _windows(self, which: int, tiling: Tiling, first: Ints, last: Ints) -> Iterator[_Window]:
        """Sentences (units first[k] to last[k]) packed into windows; one that is too long is cut between tokens."""
        text = _SURROGATES.sub("\ufffd", tiling.text)  # one for one: offsets stay true
        pieces = _pieces(tiling, first, last)
        full: list[tuple[Ints, Ints, Ints]] = []
        room = self._room
        while block := list(islice(pieces, _PIECES)):
            encodings = self._model.tokenizer.encode_batch([text[s:e] for s, e in block], add_special_tokens=False)
            for (start, _), encoding in zip(block, encodings, strict=True):
                ids = np.array(encoding.ids, np.int64)
                offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2) + start
                while len(ids) > (room if full else self._room):
                    if not full:
                        full = [(ids[: self._room], offsets[: self._room, 0], offsets[: self._room, 1])]
                        ids, offsets = ids[self._room :], offsets[self._room :]
                    yield _joined(which, full)
                    full, room = [], self._room
                if len(ids):
                    full.append((ids, offsets[:, 0], offsets[:, 1]))
                    room -= len(ids)
        if full:
            yield _joined(which, full)

    def _probabilities(self, windows: Sequence[_Window]) -> list[Floats]:
        """P(keep) of every token of every window, float32[T] each."""
        width = max(len(w.ids) for w in windows) + len(self._head) + len(self._tail)
        ids = np.zeros((len(windows), width), np.int64)  # what pads does not matter: the mask hides it
        mask = np.zeros_like(ids)
        for row, w in enumerate(windows):
            whole = [*self._head, *w.ids.tolist(), *self._tail]
            ids[row, : len(whole)] = whole
            mask[row, : len(whole)] = 1
        logits = self._model.encoder.logits(ids, mask)  # float32[B, T, 2]
        keep = self._model.manifest.keep_label
        p = 1 / (1 + np.exp(logits[..., 1 - keep] - logits[..., keep]))
        return [p[row, len(self._head) : len(self._head) + len(w.ids)] for row, w in enumerate(windows)]


def load(model: str) -> Classifier:
    """The classifier of a model name or folder."""
    from laconic.hub import load_folder

    return Classifier(load_folder(model))


def _pieces(tiling: Tiling, first: Ints, last: Ints) -> Iterator[tuple[int, int]]:
    """Sentences as ranges of characters; one longer than `_PIECE` is cut between units."""
    bounds = tiling.bounds
    for a, z in zip(first.tolist(), last.tolist(), strict=True):
        while bounds[z] - bounds[a] > _PIECE:
            middle = max(a + 1, int(np.searchsorted(bounds, bounds[a] + _PIECE, side="right")) - 1)
            yield int(bounds[a]), int(bounds[middle])
            a = middle
        yield int(bounds[a]), int(bounds[z])


def _joined(which: int, parts: Sequence[tuple[Ints, Ints, Ints]]) -> _Window:
    return _Window(which, *(np.concatenate(column) for column in zip(*parts, strict=True)))
