"""LLMLingua-2: a small encoder says of every token whether to keep it; words get the mean of their tokens.

Faithful to the paper (arXiv 2403.12968, section 3.3), with these differences to its package, all of them about not
losing text: true [CLS] and [SEP], windows cut at sentence ends and never truncated, words by offsets into the text for
any tokenizer, one threshold over the whole input. `laconic.legacy` has the package's exact decisions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from laconic.backends import Logits
from laconic.features import Features
from laconic.score import Progress, Scores, Target
from laconic.scorers.foreign import foreign_sentences
from laconic.scorers.relevance import bm25, facts_first, worth
from laconic.scorers.tfidf import surprisal_ranks
from laconic.segment import sentences
from laconic.text import Bools, Floats, Ints, Tiling, pool, readable

if TYPE_CHECKING:
    from laconic.hub import Model

_PIECE = 4096  # characters tokenized as one string; a longer sentence is cut between units
_PIECES = 256  # strings tokenized at a time, and ...
_WAVE = 64  # ... windows scored at a time: memory stays flat however long the text is
_QUESTION = 64  # tokens of a question that are read, the last ones: instructions come first, questions after
_AGAIN = 4  # with a question a window reads up to a 4th of the one before again: who is "he"?


@dataclass
class _Window:
    """A stretch of one text in model tokens, at most as long as the encoder reads."""

    text: int  # which
    ids: Ints
    starts: Ints  # code point offsets into the whole text
    ends: Ints
    lengths: list[int]  # of its sentences, in tokens
    new: int  # where it goes beyond the window before


_Piece = tuple[Ints, Ints, Ints]  # ids, starts, ends
_Found = tuple[Ints, Ints, Floats]  # starts, ends, float32[T, heads] of a window's tokens


@dataclass
class _Reading:
    """One text as the model reads it."""

    tiling: Tiling
    bounds: Ints  # of the sentences, in units
    foreign: Bools  # sentences the model cannot judge
    head: list[int]  # the tokens before each window: [CLS], or [CLS] question [SEP]
    room: int  # tokens of the text in a window
    again: int  # most tokens of a window that the next one reads again
    features: Features | None


class Classifier:
    """P(keep) of each unit from a token-classification model; with a question, how much it is needed to answer it."""

    name = "llmlingua2"
    reads_budget = False

    def __init__(self, model: Model) -> None:
        self._model = model
        self.model = model.manifest.name
        self.reads_question = model.manifest.question
        one = model.tokenizer.encode("a")
        inner = np.flatnonzero(~np.array(one.special_tokens_mask, bool))
        # [CLS] text [SEP], and [CLS] question [SEP] text [SEP], as the tokenizer has them
        self._head, self._tail = one.ids[: inner[0]], one.ids[inner[-1] + 1 :]
        if self.reads_question:
            two = model.tokenizer.encode("a", "a")
            self._between = two.ids[inner[-1] + 1 : two.sequence_ids.index(1)]

    def score(
        self,
        tilings: Sequence[Tiling],
        progress: Progress | None = None,
        questions: Sequence[str | None] | None = None,
        targets: Sequence[Target] | None = None,
    ) -> list[Scores]:
        """float32[n] a tiling: P(keep), NaN for units without a token; what the model cannot read goes to tfidf.

        What `facts_first` and, with a question, `worth` make of it: laconic.scorers.relevance.
        """
        asked = [self._asking(q) for q in questions or [None] * len(tilings)]
        readings, found = self._read(tilings, asked, progress)
        return [self._scores(*job) for job in zip(readings, found, asked, strict=True)]

    def heads(self, tiling: Tiling, question: str | None = None) -> Floats:
        """What the model says of each unit: float32[n, 1], P(keep); if it reads questions float32[n, 4]: P(keep),
        P(evidence), P(answer), and the cosine of its sentence and the question (0 without)."""
        (reading,), (found,) = self._read([tiling], [self._asking(question)], None)
        return self._pooled(reading, found)

    def _asking(self, question: str | None) -> str | None:
        """The question; None where the model finds no token in it (control characters): it asks nothing."""
        return question if question and self._tokens_of(question) else None

    def _tokens_of(self, question: str) -> list[int]:
        ids: list[int] = self._model.tokenizer.encode(readable(question), add_special_tokens=False).ids
        return ids[-min(_QUESTION, self._model.manifest.window // 3) :]

    def _read(
        self, tilings: Sequence[Tiling], questions: Sequence[str | None], progress: Progress | None
    ) -> tuple[list[_Reading], list[list[_Found]]]:
        readings = [self._reading(t, q) for t, q in zip(tilings, questions, strict=True)]
        found: list[list[_Found]] = [[] for _ in tilings]
        windows = (w for k, reading in enumerate(readings) for w in self._windows(k, reading))
        while wave := list(islice(windows, _WAVE)):
            for window, p in zip(wave, self._probabilities(wave, readings), strict=True):
                found[window.text].append((window.starts, window.ends, p))
                if progress:
                    progress(int(window.ends[-1]) - window.new)
        return readings, found

    def _reading(self, tiling: Tiling, question: str | None) -> _Reading:
        manifest = self._model.manifest
        bounds = sentences(tiling)
        foreign = foreign_sentences(tiling, bounds, manifest.languages)
        head, again = self._head, 0
        if question:
            head = [*head, *self._tokens_of(question), *self._between]
            again = manifest.window // _AGAIN
        room = manifest.window - len(head) - len(self._tail)
        features = Features(tiling.text) if manifest.features else None
        return _Reading(tiling, bounds, foreign, head, room, again, features)

    def _pooled(self, reading: _Reading, found: list[_Found]) -> Floats:
        """Token values to unit values: float32[n, heads]."""
        if not found:
            return np.full((len(reading.tiling), 4 if self.reads_question else 1), np.nan, np.float32)
        starts, ends, p = (np.concatenate(column) for column in zip(*found, strict=True))
        return np.stack([pool(column, starts, ends, reading.tiling) for column in p.T], axis=1)

    def _scores(self, reading: _Reading, found: list[_Found], question: str | None) -> Scores:
        tiling, bounds, foreign = reading.tiling, reading.bounds, reading.foreign
        heads = self._pooled(reading, found)
        if question:
            values = worth(tiling, bounds, heads, question)
        else:
            values = facts_first(tiling, heads) if self.reads_question else heads[:, 0]
        if not foreign.any():
            return Scores(values, self.name)
        where = np.flatnonzero(np.repeat(foreign, np.diff(bounds)))
        edges = zip(tiling.bounds[where].tolist(), tiling.bounds[where + 1].tolist(), strict=True)
        values[where] = surprisal_ranks([tiling.text[s:e] for s, e in edges], np.diff(bounds)[foreign])
        if question:  # they answer as far as they share its words, and do not stand before what does answer
            shared = bm25(tiling, bounds, question)[foreign]
            values[where] = (values[where] + np.repeat(shared, np.diff(bounds)[foreign])) / 2
        return Scores(values, "tfidf" if foreign.all() else f"{self.name}+tfidf")

    def _windows(self, which: int, reading: _Reading) -> Iterator[_Window]:
        """Sentences packed into windows; with a question a window reads the end of the one before again."""
        full: list[_Piece] = []
        end = 0
        for piece in self._tokens(reading):
            if len(piece[0]) + sum(len(p[0]) for p in full) > reading.room:
                yield _joined(which, full, end)
                end = int(full[-1][2][-1])
                full = _last(full, min(reading.again, reading.room - len(piece[0])))
            full.append(piece)
        if full:
            yield _joined(which, full, end)

    def _tokens(self, reading: _Reading) -> Iterator[_Piece]:
        """The sentences the model can judge, in tokens; one that is longer than a window is cut between tokens."""
        text = readable(reading.tiling.text)
        pieces = _pieces(reading.tiling, reading.bounds[:-1][~reading.foreign], reading.bounds[1:][~reading.foreign])
        while block := list(islice(pieces, _PIECES)):
            encodings = self._model.tokenizer.encode_batch([text[s:e] for s, e in block], add_special_tokens=False)
            for (start, _), encoding in zip(block, encodings, strict=True):
                ids = np.array(encoding.ids, np.int64)
                starts, ends = np.array(encoding.offsets, np.int64).reshape(-1, 2).T + start
                for k in range(0, len(ids), reading.room):
                    part = slice(k, k + reading.room)
                    yield ids[part], starts[part], ends[part]

    def _probabilities(self, windows: Sequence[_Window], readings: Sequence[_Reading]) -> list[Floats]:
        """The heads for every token of every window, float32[T, heads] each."""
        read = [readings[w.text] for w in windows]
        width = max(len(r.head) + len(w.ids) + len(self._tail) for w, r in zip(windows, read, strict=True))
        ids = np.zeros((len(windows), width), np.int64)  # what pads does not matter: the mask hides it
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for row, (w, r) in enumerate(zip(windows, read, strict=True)):
            whole = [*r.head, *w.ids.tolist(), *self._tail]
            ids[row, : len(whole)] = whole
            mask[row, : len(whole)] = 1
            if r.features:
                types[row, len(r.head) : len(r.head) + len(w.ids)] = r.features.types(w.starts, w.ends)
        logits = self._model.encoder.logits(ids, mask, types)  # float32[B, T, C]
        return [self._heads(row, w, r) for row, w, r in zip(logits, windows, read, strict=True)]

    def _heads(self, logits: Logits, window: _Window, reading: _Reading) -> Floats:
        """What the columns of `heads` are made from, for the tokens of a window: float32[T, heads]."""
        keep, classes = self._model.manifest.keep_label, logits.shape[-1] - self._model.manifest.embedding
        first = len(reading.head)
        own = logits[first : first + len(window.ids)]
        chances = np.concatenate([own[:, [keep]] - own[:, [1 - keep]], own[:, 2:classes]], axis=1)
        p: Floats = np.float32(1) / (1 + np.exp(-chances))
        if not self.reads_question:
            return p
        near = np.zeros((len(own), 1), np.float32)
        if reading.again and self._model.manifest.embedding:
            asked = _unit(logits[len(self._head) : first - len(self._between), classes:].mean(0))
            starts = np.concatenate([[0], np.cumsum(window.lengths)[:-1]]).astype(np.int64)
            vectors = np.add.reduceat(own[:, classes:], starts)
            near[:, 0] = np.repeat(_unit(vectors) @ asked, window.lengths)
        return np.concatenate([p, near], axis=1)


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


def _joined(which: int, parts: Sequence[_Piece], end: int) -> _Window:
    ids, starts, ends = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _Window(which, ids, starts, ends, [len(part[0]) for part in parts], end)


def _last(pieces: list[_Piece], most: int) -> list[_Piece]:
    """The last pieces, together at most so many tokens."""
    first = len(pieces)
    while first and len(pieces[first - 1][0]) <= most:
        first -= 1
        most -= len(pieces[first][0])
    return pieces[first:]


def _unit(vectors: Floats) -> Floats:
    """Scaled to length 1, along the last axis."""
    scaled: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32(1e-9))
    return scaled
