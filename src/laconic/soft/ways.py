"""What a reader has before it: nothing, the full context, a memory of it, or what a hard method kept of it.

All ways but one have the frozen reader; `Upper` has one that was fine-tuned on full contexts, the upper bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from torch import Tensor

from laconic.compressor import Compressor
from laconic.soft.base import Base
from laconic.soft.encoder import SoftEncoder
from laconic.soft.items import LOOKUP, Item
from laconic.soft.judge import without
from laconic.soft.reader import Reader
from laconic.soft.tuned import Tuned

NONE, FULL, TUNED, HARD = "none", "full", "tuned", "hard"


class Before(NamedTuple):
    """What some items are read after: keys and values, then tokens."""

    kv: Tensor  # float[B, L, 2, n_kv, P, d_h]
    heads: list[list[int]]
    bytes: list[int]  # that have to be kept for it


class Way(Protocol):
    """A way to put a context before a reader."""

    name: str  # what tables call it
    kind: str  # NONE, FULL, TUNED, HARD, or the mode of an encoder
    slots: int  # or tokens in place of slots
    made: str  # a fingerprint of what makes it
    reader: Reader

    def takes(self, item: Item) -> bool:
        """Is it a way for this item, and has the base the positions for it?"""
        ...

    def before(self, items: Sequence[Item]) -> Before:
        """What some items are read after, in order."""
        ...


class Whole:
    """The ends of the scale: no context, or all of it, as tokens."""

    slots = 0

    def __init__(self, kind: str, reader: Reader) -> None:
        self.name = self.kind = kind
        self.made, self.reader, self._base = reader.base.made.base, reader, reader.base

    def takes(self, item: Item) -> bool:
        """Texts that are said again stand twice before the reader."""
        return len(self._head(item)) + len(item.said.ids) <= self._base.window

    def before(self, items: Sequence[Item]) -> Before:
        """A BOS, and the context or nothing."""
        heads = [self._head(item) for item in items]
        return Before(self.reader.nothing(len(items)), heads, [_size(self._base, head) for head in heads])

    def _head(self, item: Item) -> list[int]:
        return [self._base.start, *([] if self.kind == NONE else item.ids)]


class Upper(Whole):
    """All of the context, before a reader that was fine-tuned on full contexts."""

    def __init__(self, name: str, tuned: Tuned) -> None:
        super().__init__(TUNED, tuned.reader())
        self.name, self.made = f"{name}, tuned", tuned.made.adapter  # a folder may be called full


class Soft:
    """Memories of an encoder, in so many slots."""

    def __init__(self, name: str, encoder: SoftEncoder, reader: Reader, slots: int) -> None:
        self.name, self.slots = name, slots
        self.kind: str = encoder.settings.mode
        self.made = encoder.made.adapter
        self._encoder, self.reader = encoder, reader

    def takes(self, item: Item) -> bool:
        """The encoder's window has been seen to."""
        return self.slots + len(item.said.ids) <= self.reader.base.window

    def before(self, items: Sequence[Item]) -> Before:
        """The slots; a context of several items is encoded once."""
        rows = {item.context: item.ids for item in items}
        places = {context: k for k, context in enumerate(rows)}
        states = self._encoder(list(rows.values()), self.slots)
        kv = self.reader.kv(states)[[places[item.context] for item in items]]
        return Before(kv, [[] for _ in items], [states[0].nbytes] * len(items))

    def less(self, before: Before, slot: int) -> Before:
        """The same with one slot that nobody looks at."""
        return before._replace(kv=without(before.kv, slot, self.reader.base.frequencies))


class Hard:
    """Words of the text that a hard method keeps, in as many tokens of the base as there are slots."""

    kind = HARD

    def __init__(self, name: str, compressor: Compressor, reader: Reader, tokens: int, asks: bool) -> None:
        self.name = name + " (question)" * asks
        self.made, self.slots = reader.base.made.base, tokens
        self.reader, self._base, self._asks = reader, reader.base, asks
        self._kept: Callable[[str, str | None], list[int]] = lru_cache(maxsize=1024)(
            lambda text, question: self._base.tokens(compressor.compress(text, tokens=tokens, question=question).text)
        )

    def takes(self, item: Item) -> bool:
        """Pairs of symbols are no text; with the question only where there is one."""
        asked = item.said.goal == "answer" or not self._asks
        room = self._base.window - 1 - self.slots
        return asked and item.task != LOOKUP and len(item.said.ids) <= room

    def before(self, items: Sequence[Item]) -> Before:
        """A BOS and the short text."""
        short = [self._kept(self._base.text(item.ids), self._question(item)) for item in items]
        heads = [[self._base.start, *ids] for ids in short]
        return Before(self.reader.nothing(len(items)), heads, [_size(self._base, head) for head in heads])

    def _question(self, item: Item) -> str | None:
        if not self._asks:
            return None
        return self._base.text(item.prompt).strip().removeprefix("Question: ").removesuffix(" Answer:")


def _size(base: Base, ids: Sequence[int]) -> int:
    """Bytes of a text in UTF-8."""
    return len(base.text(ids).encode())
