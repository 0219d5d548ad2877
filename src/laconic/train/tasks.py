"""What a language model is to do in a window: model text, read a passage and say it again, recall facts, look up pairs.

A frozen decoder can only read a compressed context if it can copy and recall (500xCompressor, arXiv 2408.03094, trains
none of it), and a small model does not learn that from text alone. Everything is made while training, from seeds.

    text      <s> document </s> <s> document …
    copy      <s> passage <s> passage </s> …          a second <s> without </s> before it asks for the same again
    recall    <s> facts \\nQuestion: … Answer: … </s> \\nQuestion: … </s> …
    lookup    <s> key value ; key value … ? key -> value </s> ? key -> value </s> …

The contexts of the last two and what is asked of them can be had alone (`facts`, `pairs`), for memories.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from laconic.errors import InputError
from laconic.train.bpe import BOS, EOS, PAD, SPECIALS
from laconic.train.corpus import Corpus, Ints, Packed
from laconic.train.split import held_out

Encode = Callable[[str], list[int]]

_SHORTEST = 8  # tokens of a passage to copy
_PEOPLE = (2, 8)  # of whom a context tells two facts each
_ASKED = 8  # facts that a context is asked for, at most

# Symbols are tokens, not text: those after the special ones, which every tokenizer of `bpe.train` has.
_ALPHABET = 64  # keys, and as many values
_BETWEEN, _ASK, _GIVES = range(len(SPECIALS), len(SPECIALS) + 3)  # ; ? ->
_KEYS = range(_GIVES + 1, _GIVES + 1 + _ALPHABET)
_VALUES_OF_KEYS = range(_KEYS.stop, _KEYS.stop + _ALPHABET)
_PAIRS = (4, 16)  # in a context
_LOOKED_UP = 4  # of them

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


class Told(NamedTuple):
    """A text, and what can be asked of it."""

    text: str
    questions: list[tuple[str, str]]  # question, answer

    def asked(self, encode: Encode) -> Asked:
        """In tokens, as windows put it."""
        questions = [(encode(f"\nQuestion: {q} Answer:"), encode(f" {a}")) for q, a in self.questions]
        return Asked(encode(self.text), questions)


class Asked(NamedTuple):
    """A context, and what is asked of it, in tokens without <s> and </s>."""

    context: list[int]
    questions: list[tuple[list[int], list[int]]]  # question, answer


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
        lookup: float,
        steps: int,
        rows: int,
        seed: int,
    ) -> None:
        self.corpus, self.encode, self.window, self.seed = corpus, encode, window, seed
        random = np.random.default_rng([seed, 0])
        rest = max(0.0, 1 - copy - recall - lookup)  # rounding may take it below 0
        self.kinds = random.choice(4, (steps, rows), p=[rest, copy, recall, lookup])
        self.texts = np.cumsum(self.kinds == 0).reshape(steps, rows) - 1  # how many windows of text come before
        self.packed: tuple[int, Packed] | None = None  # an epoch and its windows

    def __getitem__(self, place: tuple[int, int]) -> Window:
        """The window of a step and row."""
        if self.kinds[place] == 0:
            return text(self._text(int(self.texts[place])))
        random = np.random.default_rng([self.seed, 1, *place])
        if self.kinds[place] == 1:
            return copies(self.corpus, self.window, random)
        if self.kinds[place] == 2:
            return recalls(self.encode, self.window, random)
        return lookups(self.window, random)

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
    return _filled(window, _PEOPLE, lambda people: facts(people, 2, random, fresh=fresh).asked(encode), random)


def lookups(window: int, random: np.random.Generator) -> Window:
    """Contexts of 4 to 16 pairs with questions about four; nothing is to be learnt from the pairs themselves."""
    return _filled(window, _PAIRS, lambda count: pairs(count, random), random)


def facts(people: int, kinds: int, random: np.random.Generator, *, fresh: bool = False) -> Told:
    """So many kinds of facts about people with made-up names, in any order, with a question about each fact.

    One person and all six kinds make a biography: one of 16 values for five of them, of 9,000 for the sixth, 33.1 bits.
    fresh: names that are never trained on.
    """
    if people < 1 or not 1 <= kinds <= len(_KINDS):
        raise InputError(f"people must be 1 or more and kinds from 1 to {len(_KINDS)}, got {people} and {kinds}")
    names = _names(people, random, fresh)
    found = [
        (kind, name, _one(_VALUES[kind], random))
        for kind in random.choice(len(_KINDS), kinds, replace=False)
        for name in names
    ]
    text = " ".join(_KINDS[kind][0].format(name, value) for kind, name, value in _shuffled(found, random))
    return Told(text, [(_KINDS[kind][1].format(name), value) for kind, name, value in _shuffled(found, random)])


def pairs(count: int, random: np.random.Generator) -> Asked:
    """`k v ; k v …` with questions `? k ->` about four of the pairs (all, if fewer): a ruler for what a memory holds.

    The keys are distinct, each value is any of 64: exactly 6 bits a pair, and one answer in 64 is right by chance.
    """
    if not 1 <= count <= _ALPHABET:
        raise InputError(f"a context must have from 1 to {_ALPHABET} pairs, got {count}")
    keys, values = random.choice(_KEYS, count, replace=False), random.choice(_VALUES_OF_KEYS, count)
    found = list(zip(keys.tolist(), values.tolist(), strict=True))
    context = [token for pair in found for token in (*pair, _BETWEEN)][:-1]
    return Asked(context, [([_ASK, k, _GIVES], [v]) for k, v in _shuffled(found, random)[:_LOOKED_UP]])


def _filled(window: int, sizes: tuple[int, int], make: Callable[[int], Asked], random: np.random.Generator) -> Window:
    """As many contexts of random sizes as there is room for."""
    parts: list[_Part] = []
    size = int(random.integers(*sizes, endpoint=True))
    while size >= sizes[0]:
        context = _context(make(size))
        if _length(parts) + _length(context) > window:
            size -= 1  # a shorter one may still fit
        else:
            parts += context
            size = int(random.integers(*sizes, endpoint=True))
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


def _context(asked: Asked) -> list[_Part]:
    """A context, and questions with their answers."""
    parts = [_Part([BOS, *asked.context], learn=False)]
    for question, answer in asked.questions[:_ASKED]:
        parts += [_Part(question), _Part(answer, asked=True), _Part([EOS])]
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
