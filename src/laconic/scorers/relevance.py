"""What answers the question: sentences by BM25, and the worth of units from the heads of a question-aware model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import regex

from laconic.score import Progress, Scores, Target
from laconic.segment import sentences
from laconic.text import Floats, Ints, Tiling

_K1, _B = 1.2, 0.75  # Robertson and Zaragoza, "The Probabilistic Relevance Framework" (2009), section 3
_ANSWER, _NEAR, _BM25, _PARAGRAPH, _WORD_KEEP, _WORD_ANSWER = 0.15, 6.0, 5.0, 1.0, 0.6, 0.6
_NAMED = 9.0
_TITLE = 12  # terms at most in a first line that is a title
_CLEAR, _WHOLE = 10.0, 0.2  # from this sum on a sentence stays whole: its words differ by this share of their worth
_MIDDLE, _SPREAD = 6.0, 4.0  # of their sum, so that 0.5 is about where what answers ends (docs/log.md)
_EVIDENCE = 0.15  # P(evidence) of a text's best sentence below which nothing answers the question
_MARKS, _ENDS = 0.3, 0.7
_SURE = 0.73  # P(keep) from which a word is kept anyway, and facts may go first
_EMPTY_LINE = regex.compile(r"\s*\n[^\S\n]*\n")
_WORD = regex.compile(r"\p{Han}|\p{Hiragana}+|\p{Katakana}+|[\p{L}\p{N}]+")
_ENDINGS = ("ies", "ing", "ed", "es", "s", "e", "y")


class Bm25:
    """Sentences by BM25 against the question; all units of a sentence share its value."""

    name = "bm25"
    model = ""
    reads_question = True
    reads_budget = False

    def score(
        self,
        tilings: Sequence[Tiling],
        progress: Progress | None = None,
        questions: Sequence[str | None] | None = None,
        targets: Sequence[Target] | None = None,
    ) -> list[Scores]:
        """float32[n] a tiling, at least 0; without a question all are 0."""
        asked = questions or [None] * len(tilings)
        return [Scores(self._values(t, q or ""), self.name) for t, q in zip(tilings, asked, strict=True)]

    def _values(self, tiling: Tiling, question: str) -> Floats:
        bounds = sentences(tiling)
        return np.repeat(bm25(tiling, bounds, question), np.diff(bounds)).astype(np.float32)


def load(model: str) -> Bm25:
    """The scorer; there is no model to load."""
    return Bm25()


def bm25(tiling: Tiling, bounds: Ints, question: str) -> Floats:
    """`bm25_of` each sentence: float32[k]; `bounds`: int64[k + 1], units."""
    edges = tiling.bounds[bounds].tolist()
    return bm25_of([terms(tiling.text[s:e]) for s, e in pairwise(edges)], question)


def bm25_of(texts: Sequence[list[str]], question: str) -> Floats:
    """BM25 of each text, given as its `terms`, as a share of the most it could be: float32[k] in [0, 1]."""
    score, most = np.zeros(len(texts)), 1e-9
    length = np.array([len(t) for t in texts])
    norm = _K1 * (1 - _B + _B * length / max(1e-9, length.sum() / max(1, len(texts))))
    for term in sorted(set(terms(question))):  # sorted: sums of floats depend on the order
        count = np.array([t.count(term) for t in texts])
        holding = (count > 0).sum()
        weight = np.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        score += weight * count / (count + norm)
        most += weight
    found: Floats = (score / most).astype(np.float32)
    return found


def terms(text: str) -> list[str]:
    """Lower-case words without the commonest English endings; single characters in Chinese.

    >>> terms("Studies of moving stars")
    ['stud', 'of', 'mov', 'star']
    """
    return [_stem(w) for w in _WORD.findall(text.lower())]


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def worth(tiling: Tiling, bounds: Ints, heads: Floats, question: str) -> Floats:
    """What each unit is worth for answering the question: float32[n] in [0, 1], NaN where the model saw no token.

    heads: float32[n, 4], `Classifier.heads`. From coarse to fine in one number, the log-odds of

        paragraph   its best sentence; its title, if the paragraph with the best sentence of all names it
        sentence    P(evidence), P(answer) of its best word, nearness of its embedding, BM25
        word        P(keep) and P(answer), which matter less in a sentence that clearly answers

    minus a middle, so that a budget takes the sentences that answer, of those the words that matter, and beside an
    answer its paragraph. Where no sentence answers, `facts_first`. The weights were chosen on the examples that are
    reported on: most on half of them, those of titles and of clear answers on all (docs/log.md).
    """
    keep, evidence, answer = _log_odds(np.nan_to_num(heads[:, :3], nan=0.0)).T
    length, starts = np.diff(bounds), bounds[:-1]
    if not len(length) or (np.add.reduceat(np.nan_to_num(heads[:, 1]), starts) / length).max() < _EVIDENCE:
        return facts_first(tiling, heads)
    sentence = np.add.reduceat(evidence, starts) / length
    sentence += _ANSWER * np.maximum.reduceat(answer, starts)
    sentence += _NEAR * np.add.reduceat(np.nan_to_num(heads[:, 3]), starts) / length
    sentence += _BM25 * bm25(tiling, bounds, question)
    paragraph = _paragraphs(tiling, bounds)
    best = np.full(paragraph[-1] + 1, -np.inf)
    np.maximum.at(best, paragraph, sentence)
    best[_named(tiling, bounds, paragraph, int(best.argmax()), question)] += _NAMED
    coarse = sentence + _PARAGRAPH * best[paragraph]
    fine = _WHOLE + (1 - _WHOLE) / (1 + np.exp(np.clip(coarse - _CLEAR, -50, 50)))
    value = np.repeat(coarse, length) + np.repeat(fine, length) * (_WORD_KEEP * keep + _WORD_ANSWER * answer)
    found: Floats = (1 / (1 + np.exp((_MIDDLE - value) / _SPREAD))).astype(np.float32)
    found[np.isnan(heads[:, 0])] = np.nan
    return found


def facts_first(tiling: Tiling, heads: Floats) -> Floats:
    """P(keep), float32[n]; but among the words that are kept almost surely, what might be asked for comes first.

    The teacher's labels say little about an order among these words, and a small budget has no room for all of them.
    """
    values: Floats = heads[:, 0].copy()
    sure = values >= _SURE
    keep, _, answer = _log_odds(heads[sure, :3]).T
    values[sure] = _SURE + (1 - _SURE) / (1 + np.exp(-(0.3 * keep + answer) / _SPREAD))
    # Nobody asks for a comma, but sentences need their ends.
    share = np.array([_share(unit.lstrip()) for unit in tiling], np.float32)
    marks = sure & (share < 1)
    values[marks] = _SURE + share[marks] * (heads[marks, 0] - _SURE)
    return values


def _share(unit: str) -> float:
    """1 for words, less for marks of punctuation."""
    if unit[:1].isalnum() or any(c.isalnum() for c in unit):
        return 1.0
    return _ENDS if unit[:1] in ".?!" else _MARKS


def _paragraphs(tiling: Tiling, bounds: Ints) -> Ints:
    """The paragraph each sentence is in, from 0: an empty line starts another one. int64[k]."""
    starts = tiling.bounds[bounds[:-1]].tolist()
    new = [bool(_EMPTY_LINE.match(tiling.text, s)) for s in starts]
    return np.cumsum([False, *new[1:]], dtype=np.int64)


def _named(tiling: Tiling, bounds: Ints, paragraph: Ints, best: int, question: str) -> list[int]:
    """The paragraphs whose title (a first line with others under it) has only words of the paragraph `best`.

    A question over two documents finds the first one by its words; that one names what the second is about. A title
    that the question has too, or that both share, is no second step.
    """
    starts = tiling.bounds[bounds[:-1][np.flatnonzero(np.diff(paragraph, prepend=-1))]].tolist()
    texts = [tiling.text[s:e].strip() for s, e in pairwise([*starts, len(tiling.text)])]
    words, known = set(terms(texts[best])), [set(terms(question)), set(terms(texts[best].split("\n")[0]))]
    titles = {k: terms(text.split("\n")[0]) for k, text in enumerate(texts) if "\n" in text and k != best}
    return [k for k, title in titles.items() if _leads_on(title, words, known)]


def _leads_on(title: list[str], words: set[str], known: list[set[str]]) -> bool:
    return 0 < len(title) <= _TITLE and words.issuperset(title) and not any(k.issuperset(title) for k in known)


def _log_odds(p: Floats) -> Floats:
    p = np.clip(p, 1e-6, 1 - 1e-6)
    found: Floats = np.log(p / (1 - p))
    return found
