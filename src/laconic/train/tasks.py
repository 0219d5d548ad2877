"""What a language model is to do in a window: model text, read a passage and say it again, recall facts.

A frozen decoder can only read a compressed context if it can copy and recall (500xCompressor, arXiv 2408.03094, trains
none of it), and a small model does not learn that from text alone. Everything is made while training, from seeds.

    text      <s> document </s> <s> document …
    copy      <s> passage <s> passage </s> …          a second <s> without </s> before it asks for the same again
    recall    <s> facts \\nQuestion: … Answer: … </s> \\nQuestion: … </s> …
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from laconic.train.bpe import BOS, EOS, PAD
from laconic.train.corpus import Corpus, Ints, Packed
from laconic.train.split import held_out

Encode = Callable[[str], list[int]]

_SHORTEST = 8  # tokens of a passage to copy
_PEOPLE = (2, 8)  # of whom a context tells two facts each
_ASKED = 8  # facts that a context is asked for, at most

_KINDS = (  # fact, question, values
    (
        "{} lives in {}.",
        "Where does {} live?",
        "Lisbon Oslo Cairo Lima Kyoto Dublin Vienna Nairobi Havana Quito Riga Delhi Boston Turin Perth Seoul",
    ),
    (
        "{} works as a {}.",
        "What does {} work as?",
        "baker tailor pilot nurse farmer lawyer painter teacher sailor welder judge cook miner writer dentist clerk",
    ),
    (
        "{} keeps a {}.",
        "What animal does {} keep?",
        "horse parrot turtle goat rabbit snake donkey hamster falcon lizard pony crow sheep spider duck cat",
    ),
    (
        "{} likes {}.",
        "What food does {} like?",
        "rice bread cheese soup pasta apples honey beans fish nuts plums lentils curry grapes toast pears",
    ),
    (
        "The colour of {} is {}.",
        "What is the colour of {}?",
        "red blue green yellow black white orange purple brown grey pink silver gold violet crimson beige",
    ),
    ("The code of {} is {}.", "What is the code of {}?", " ".join(map(str, range(1000, 10000)))),
)
_VALUES = [values.split() for _, _, values in _KINDS]
_ONSETS, _VOWELS = "b d f g h j k l m n p r s t v w z br dr gr kr pl st tr", "a e i o u ai ea io"
_SOUNDS = [sounds.split() for sounds in (_ONSETS, _VOWELS, _ONSETS, _VOWELS, "l m n r s t x k nd rk")]


class Window(NamedTuple):
    """Tokens, and what is asked of them."""

    ids: Ints  # int64[T]
    learn: npt.NDArray[np.bool_]  # bool[T]: is this token to be predicted from those before it?
    asked: Ints  # int64[T]: the number of the answer that this token is part of, -1: none


class Mix:
    """The windows of every step, by share: the same for the same seed, whichever step one begins with."""

    def __init__(
        self,
        corpus: Corpus,
        encode: Encode,
        window: int,
        *,
        copy: float,
        recall: float,
        steps: int,
        rows: int,
        seed: int,
    ) -> None:
        self.corpus, self.encode, self.window, self.seed = corpus, encode, window, seed
        random = np.random.default_rng([seed, 0])
        self.kinds = random.choice(3, (steps, rows), p=[1 - copy - recall, copy, recall])
        self.texts = np.cumsum(self.kinds == 0).reshape(steps, rows) - 1  # how many windows of text come before
        self.packed: tuple[int, Packed] | None = None  # an epoch and its windows

    def __getitem__(self, place: tuple[int, int]) -> Window:
        """The window of a step and row."""
        if self.kinds[place] == 0:
            return text(self._text(int(self.texts[place])))
        random = np.random.default_rng([self.seed, 1, *place])
        if self.kinds[place] == 1:
            return copies(self.corpus, self.window, random)
        return recalls(self.encode, self.window, random)

    def _text(self, k: int) -> Ints:
        epoch, k = divmod(k, self.corpus.windows(self.window))
        if self.packed is None or self.packed[0] != epoch:
            self.packed = epoch, Packed(self.corpus, self.window, np.random.default_rng([self.seed, 2, epoch]))
        return self.packed[1][k]


def text(ids: Ints) -> Window:
    """Everything is to be predicted but <s>."""
    return Window(ids, ids != BOS, np.full(len(ids), -1))


def copies(corpus: Corpus, window: int, random: np.random.Generator) -> Window:
    """Passages of the corpus, each twice; what is asked for is the second of each.

    As many passages of 8 to 16 tokens as of 16 to 32, and so on: copying is learnt from short ones first.
    """
    parts: list[_Part] = []
    while (room := (window - _length(parts) - 3) // 2) >= _SHORTEST:
        longest = min(room, round(_SHORTEST * (((window - 3) / 2 / _SHORTEST) ** random.random())))
        passage = _passage(corpus, longest, random)
        parts += [_Part([BOS], False), _Part(passage), _Part([BOS], False), _Part(passage, asked=True), _Part([EOS])]
    return _joined(parts, window)


def recalls(encode: Encode, window: int, random: np.random.Generator, *, fresh: bool = False) -> Window:
    """Contexts of 4 to 16 facts with questions about up to eight; nothing is to be learnt from the facts themselves.

    fresh: names that are never trained on. Of a window that is too short for a context nothing is to be learnt.
    """
    parts: list[_Part] = []
    people = int(random.integers(*_PEOPLE, endpoint=True))
    while people >= _PEOPLE[0]:
        context = _context(encode, people, random, fresh)
        if _length(parts) + _length(context) > window:
            people -= 1  # a shorter one may still fit
        else:
            parts += context
            people = int(random.integers(*_PEOPLE, endpoint=True))
    return _joined(parts, window)


class _Part(NamedTuple):
    ids: list[int]
    learn: bool = True
    asked: bool = False


def _length(parts: Sequence[_Part]) -> int:
    return sum(len(p.ids) for p in parts)


def _joined(parts: Sequence[_Part], window: int) -> Window:
    """The parts one after another, padded; answers are numbered."""
    rest = window - _length(parts)
    sizes = [len(p.ids) for p in parts] + [rest]
    numbers = np.cumsum([p.asked for p in parts], dtype=np.int64) - 1
    asked = np.where([p.asked for p in parts], numbers, -1)
    return Window(
        np.array([token for p in parts for token in p.ids] + [PAD] * rest),
        np.repeat([p.learn for p in parts] + [False], sizes),
        np.repeat(np.append(asked, -1), sizes),
    )


def _context(encode: Encode, people: int, random: np.random.Generator, fresh: bool) -> list[_Part]:
    """Two facts about each of so many people, and questions with their answers."""
    names = _names(people, random, fresh)
    facts = [
        (kind, name, _one(_VALUES[kind], random))
        for kind in random.choice(len(_KINDS), 2, replace=False)
        for name in names
    ]
    told = " ".join(_KINDS[kind][0].format(name, value) for kind, name, value in _shuffled(facts, random))
    parts = [_Part([BOS, *encode(told)], learn=False)]
    for kind, name, value in _shuffled(facts, random)[:_ASKED]:
        question = f"\nQuestion: {_KINDS[kind][1].format(name)} Answer:"
        parts += [_Part(encode(question)), _Part(encode(f" {value}"), asked=True), _Part([EOS])]
    return parts


def _names(count: int, random: np.random.Generator, fresh: bool) -> list[str]:
    """Distinct made-up names; those held out, or the others."""
    found: dict[str, None] = {}
    while len(found) < count:
        name = "".join(_one(sounds, random) for sounds in _SOUNDS).capitalize()
        if held_out(name) == fresh:
            found[name] = None
    return list(found)


def _one(values: Sequence[str], random: np.random.Generator) -> str:
    return values[int(random.integers(len(values)))]


def _shuffled(values: Sequence[Any], random: np.random.Generator) -> list[Any]:
    return [values[k] for k in random.permutation(len(values))]


def _passage(corpus: Corpus, longest: int, random: np.random.Generator) -> list[int]:
    """At most so many tokens of one document, from a random place."""
    place = int(random.integers(len(corpus.tokens)))
    document = int(np.searchsorted(corpus.bounds, place, side="right")) - 1
    first, last = int(corpus.bounds[document]) + 1, int(corpus.bounds[document + 1]) - 1  # without <s> and </s>
    start = max(first, min(place, last - longest))
    found: list[int] = corpus.tokens[start : min(start + longest, last)].tolist()
    return found
