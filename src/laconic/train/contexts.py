"""What a soft encoder learns from: contexts, and what a reader of their memories has to say.

    again     BOS text EOS                          the text itself (500xCompressor's pretraining, ICAE's autoencoding)
    on        the tokens that follow the text       (ICAE's language modelling)
    answer    \\nQuestion: … Answer: … EOS           questions on the text, on made-up facts, on pairs of symbols

Everything is drawn while training, from seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from laconic.distill.texts import Fields, read
from laconic.errors import InputError
from laconic.train import tasks
from laconic.train.tasks import Asked, Encode, Told

Goal = Literal["again", "on", "answer"]
_PEOPLE = (2, 8)  # of whom a context tells two facts each, more in long ones; or as few as one, of whom it tells all
_LINE, _LIFE = 20, 65  # tokens that two facts about somebody take, or all six, at least
_ASKED = 16  # facts that a context is asked for, at most
_PAIRS = (4, 16)


class Said(NamedTuple):
    """What a reader says after a memory: tokens, of which those from `after` on are to be learnt."""

    ids: list[int]
    after: int
    goal: Goal


class Context(NamedTuple):
    """Tokens to compress, and what is to be said of them."""

    ids: list[int]
    said: list[Said]


class Texts:
    """The records of files: a text, or a text with a question and its answer."""

    def __init__(self, paths: Sequence[Path], encode: Encode, start: int, end: int, field: str = "text") -> None:
        self.encode, self.start, self.end = encode, start, end
        self.records = [d for path in paths for d in read(path, Fields(text=field)) if d.text.strip()]

    def __len__(self) -> int:
        return len(self.records)

    def context(self, k: int, most: int, follow: int, random: np.random.Generator) -> Context | None:
        """The k-th record as a context of at most so many tokens; None where a text with a question is longer.

        A text without a question is read from a random place; `follow`: tokens after it that a reader goes on with.
        """
        record = self.records[k]
        if record.question and record.answer:
            asked = Told(record.text, [(record.question, record.answer)]).asked(self.encode)
            return answers(asked, self.end) if len(asked.context) <= most else None
        ids = self.encode(record.text)
        first = int(random.integers(max(1, len(ids) - most - follow + 1)))
        text, rest = ids[first : first + most], ids[first + most :][:follow]
        if not text:
            return None
        said = [Said([self.start, *text, self.end], 1, "again")]
        return Context(text, said + ([Said(rest, 1, "on")] if len(rest) > 1 else []))


class Draw:
    """The contexts of every step, by share: the same for the same seed, whichever step one begins with."""

    def __init__(self, texts: Texts, *, facts: float, lookup: float, rows: int, seed: int) -> None:
        if not len(texts) and facts + lookup < 1:
            raise InputError("no text to learn from; pass files, or shares of facts and lookup that are 1 together")
        self.texts, self.rows, self.seed = texts, rows, seed
        self.shares = [facts, lookup, max(0.0, 1 - facts - lookup)]

    def __call__(self, step: int, row: int, most: int, follow: int) -> Context:
        """One context of at most `most` tokens (of made-up ones, at least the smallest)."""
        random = np.random.default_rng([self.seed, step, row])
        kind = int(random.choice(3, p=self.shares))
        if kind < 2:
            return answers((self._facts, self._pairs)[kind](most, random), self.texts.end)
        for k in self._order(step * self.rows + row):
            if found := self.texts.context(k, most, follow, random):
                return found
        raise InputError(f"no text of at most {most} tokens with a question; use a longer window")

    def _order(self, place: int) -> Iterator[int]:
        """Records for a place: each epoch has an order of its own; where one is too long, others at random."""
        epoch, k = divmod(place, len(self.texts))
        if getattr(self, "_epoch", None) != epoch:
            self._epoch, self._shuffled = epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.texts))
        yield int(self._shuffled[k])
        spare = np.random.default_rng([self.seed, place, 1])
        yield from (int(spare.integers(len(self.texts))) for _ in range(100))

    def _facts(self, most: int, random: np.random.Generator) -> Asked:
        return made_facts(self.texts.encode, most, random)

    def _pairs(self, most: int, random: np.random.Generator) -> Asked:
        fewest, longest = _PAIRS
        return tasks.pairs(int(random.integers(fewest, max(fewest, min(longest, most // 3)), endpoint=True)), random)


def made_facts(encode: Encode, most: int, random: np.random.Generator, *, fresh: bool = False) -> Asked:
    """Two facts about each of several people, or all six about few, in at most so many tokens if two people fit."""
    if random.random() < 0.5:
        for people in range(int(random.integers(1, max(1, most // _LIFE), endpoint=True)), 0, -1):
            asked = _told(encode, people, 6, random, fresh)
            if len(asked.context) <= most:
                return asked
    fewest, longest = _PEOPLE
    for people in range(int(random.integers(fewest, max(longest, most // _LINE), endpoint=True)), fewest, -1):
        asked = _told(encode, people, 2, random, fresh)
        if len(asked.context) <= most:
            return asked
    return _told(encode, fewest, 2, random, fresh)


def full_of_facts(encode: Encode, most: int, random: np.random.Generator) -> Asked | None:
    """Two facts about each of as many people as so many tokens have room for, fresh names; None if not for two."""
    for people in range(most // _LINE + 1, _PEOPLE[0] - 1, -1):
        asked = _told(encode, people, 2, random, fresh=True)
        if len(asked.context) <= most:
            return asked
    return None


def _told(encode: Encode, people: int, kinds: int, random: np.random.Generator, fresh: bool) -> Asked:
    asked = tasks.facts(people, kinds, random, fresh=fresh).asked(encode)
    return asked._replace(questions=asked.questions[:_ASKED])


def answers(asked: Asked, end: int) -> Context:
    """A context with the answers to its questions."""
    return Context(asked.context, [Said([*q, *a, end], len(q), "answer") for q, a in asked.questions])
