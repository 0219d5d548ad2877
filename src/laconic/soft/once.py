"""Memories between a store and what makes or reads them: encoded once, found by the beginning of a key."""

from __future__ import annotations

from dataclasses import astuple
from typing import NamedTuple

from laconic.errors import InputError
from laconic.soft.encoder import SoftEncoder
from laconic.soft.memory import Memory
from laconic.soft.store import MemoryStore, memory_key


class Kept(NamedTuple):
    """A memory that a store holds."""

    key: str
    memory: Memory
    size: int  # bytes in the store
    new: bool  # was it encoded now, or found?


def encode_once(
    encoder: SoftEncoder, store: MemoryStore, text: str, *, label: str, slots: int | None = None, chunks: bool = True
) -> Kept:
    """The memory of a text as `encoder.encode` makes it: from the store, or made now and put there.

    label: what the store and errors call it, such as a file name. A text that `encode` refuses is refused also where
    its memory is at hand.

    with MemoryStore(Path("memories"), max_bytes=1 << 30) as store:
        kept = encode_once(encoder, store, report, label="report.md")
    """
    encoder.pieces(text, chunks=chunks, name=label)
    count = encoder.settings.slots if slots is None else slots
    key = memory_key("-".join(astuple(encoder.made)), count, text)
    if (data := store.get(key)) is not None:
        return Kept(key, Memory.from_bytes(data, label), len(data), False)
    memory = encoder.encode(text, slots, chunks=chunks)
    data = memory.to_bytes()
    store.put(key, data, label=label, tokens=memory.tokens, slots=memory.slots)
    return Kept(key, memory, len(data), True)


def recall(store: MemoryStore, beginning: str) -> Memory:
    """The memory whose key begins so; InputError if there is none, more than one, or if it is damaged."""
    entry = store.find(beginning)
    data = store.get(entry.key)
    if data is None:
        raise InputError(f"memory {entry.short} was damaged and is removed; encode {entry.label} again")
    return Memory.from_bytes(data, entry.short)
