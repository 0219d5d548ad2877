"""What soft compression is measured on: texts of given lengths, questions on texts, made-up facts, pairs of symbols."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np

from laconic.errors import InputError
from laconic.soft.base import Base
from laconic.train import tasks
from laconic.train.contexts import Context, Said, Texts, answers, full_of_facts, made_facts

LOOKUP = "lookup"
FACTS = "facts"
_PAIRS = (4, 8, 12, 16)


class Item(NamedTuple):
    """A context and one thing that is to be said of it."""

    task: str  # a file, FACTS or LOOKUP
    length: int  # tokens that texts were cut to, and of pairs; 0: each as long as it is
    id: str  # a hash of context and said: another item is another row
    context: str  # a hash of the context alone
    ids: list[int]
    said: Said

    @property
    def gold(self) -> list[int]:
        """What should be said, without the EOS."""
        return self.said.ids[self.said.after : -1]

    @property
    def prompt(self) -> list[int]:
        return self.said.ids[: self.said.after]


def of_texts(name: str, texts: Texts, lengths: Sequence[int], most: int, follow: int, limit: int | None) -> list[Item]:
    """Texts cut to exactly each of the lengths, and texts with questions of at most `most` tokens, whole.

    limit: contexts of each length at most. follow: tokens after a text that a reader goes on with.
    """
    plain = [k for k, d in enumerate(texts.records) if not (d.question and d.answer)]
    asked = [k for k, d in enumerate(texts.records) if d.question and d.answer]
    found = list(_cut(name, texts, asked, 0, most, follow, limit))
    for length in lengths if plain else ():
        found += (some := list(_cut(name, texts, plain, length, length, follow, limit)))
        if not some:
            raise InputError(f"no text of {name} has {length} tokens; pass shorter lengths, or other texts")
    if not found:
        raise InputError(f"{name} has no text of at most {most} tokens with a question; pass other texts")
    return found


def of_facts(base: Base, most: int, count: int) -> Iterator[Item]:
    """Contexts of at most `most` tokens about people whose names nothing was trained on, with all their questions."""
    for k in range(count):
        asked = made_facts(base.tokens, most, np.random.default_rng([k, 0, 0, 7]), fresh=True)
        if len(asked.context) > most:
            raise InputError(f"facts take {len(asked.context)} tokens, the encoders read {most}; measure without facts")
        yield from _items(FACTS, 0, answers(asked, base.ends[0]))


def of_facts_by_length(base: Base, lengths: Sequence[int], count: int) -> Iterator[Item]:
    """The same where contexts have just under so many tokens, `count` of each length, with 16 of their questions."""
    for length in lengths:
        for k in range(count):
            asked = full_of_facts(base.tokens, length, np.random.default_rng([k, length, 0, 7]))
            if asked is None:
                raise InputError(f"facts take more than {length} tokens; pass longer ones as their lengths")
            yield from _items(FACTS, length, answers(asked, base.ends[0]))


def of_pairs(base: Base, most: int, count: int) -> Iterator[Item]:
    """Contexts of 4, 8, 12 and 16 pairs, as many as fit, `count` of each, with four questions."""
    for pairs in _PAIRS:
        for k in range(count if 3 * pairs - 1 <= most else 0):
            context = answers(tasks.pairs(pairs, np.random.default_rng([k, pairs, 0, 8])), base.ends[0])
            yield from _items(LOOKUP, len(context.ids), context)


def others(items: Sequence[Item]) -> dict[str, list[int]]:
    """By the hash of each context, the ids of another of its task and length: the next; after the last, the first."""
    groups: dict[tuple[str, int], dict[str, list[int]]] = {}
    for item in items:
        groups.setdefault((item.task, item.length), {})[item.context] = item.ids
    found: dict[str, list[int]] = {}
    for (task, length), contexts in groups.items():
        if len(contexts) < 2:
            what = f"{task}, {length} tokens" if length else task
            raise InputError(f"only one context to measure ({what}); pass two or more, to swap their memories")
        found |= dict(zip(contexts, [*contexts.values()][1:] + [*contexts.values()][:1], strict=True))
    return found


def _cut(
    name: str, texts: Texts, records: Sequence[int], length: int, most: int, follow: int, limit: int | None
) -> Iterator[Item]:
    """The items of some records; those that have not the length, or are too long, are passed over."""
    count = 0
    for k in records:
        context = texts.context(k, most, follow, np.random.default_rng([k, 3]))
        if context and (not length or len(context.ids) == length):
            yield from _items(name, length, context)
            count += 1
        if count == limit:
            return


def _items(task: str, length: int, context: Context) -> Iterator[Item]:
    whole = _hash(context.ids)
    for said in context.said:
        yield Item(task, length, _hash([context.ids, *said]), whole, context.ids, said)


def _hash(value: object) -> str:
    return sha256(json.dumps(value).encode()).hexdigest()[:16]
