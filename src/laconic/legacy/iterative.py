"""The decisions of llmlingua 0.2.2's LLMLingua and LongLLMLingua, as pure functions, for parity tests.

The package's loop around them cuts a key/value cache that newer transformers no longer have; ours is
`laconic.scorers.llmlingua`, whose decisions differ on purpose (docs/methods.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from laconic.text import Bools, Floats

Window = list[tuple[int, float]]  # (tokens, share to keep) of the stretches in one window
_MASKED = 10000.0  # a loss of exactly this counts as none


def threshold(losses: Floats, ratio: float) -> float:
    """The loss that a token must exceed: float32[T] and the share to keep. Quirk: it keeps one token too few."""
    if ratio == 1.0:
        return float("-inf")
    known = losses[losses != _MASKED]
    place = max(0, min(len(known) - 1, int(len(known) * ratio) - 1))
    return float(np.sort(known)[::-1][place])


def kept(losses: Floats, ratio: float) -> Bools:
    """Which tokens stay: bool[T + 1] for the losses float32[T] of tokens 1 to T.

    Quirk: `losses[i]` is the surprisal of token i + 1 and decides about token i, so what stands before a surprising
    token stays. The last token has the first one's luck: it stays if the first loss is above 0.
    """
    return np.append(losses > threshold(losses, ratio), losses[:1] > 0)


def windows(lengths: Sequence[int], target: float, size: int, changes: Sequence[float]) -> list[Window]:
    """The share to keep of each stretch of the contexts, in windows of `size` tokens (200).

    lengths: tokens of the contexts; two are added for the empty line between them. target: tokens that stay. changes:
    what to add to each context's share. Quirks: the first window is a token short, and one that is exactly full stays
    open, so that the next context begins with a stretch of none.
    """
    filled, current, done = 1, Window(), list[Window]()
    share = target / (sum(n + 2 for n in lengths) + 1)
    for length, change in zip(lengths, changes, strict=True):
        own = max(min(1, share + change), 0)
        total = filled + length + 2
        if total < size:
            current.append((length + 2, own))
            filled = total
            continue
        done.append([*current, (size - filled, own)])
        rest = total - size
        whole = rest // size if rest > size else 0
        done += [[(size, own)]] * whole
        filled = rest - whole * size
        current = [(filled, own)] if filled else []
    return [*done, current] if current else done


def taken(order: Sequence[int], lengths: Sequence[int], target: float) -> list[int]:
    """The contexts that stay whole, in order, until 100 tokens more than the target are exceeded."""
    room = (100 if target < 0 else target) + 100
    used = []
    for context in order:
        used.append(context)
        room -= lengths[context]
        if room < 0:
            break
    return used


def changes(count: int, spread: float) -> list[float]:
    """What the share of each of so many contexts changes by, the best first: from `spread` to `-spread`."""
    step = abs(spread) / (count - 1) if count > 1 else 0
    return [i * step for i in range(count - 1, -count, -2)]


def two_stage(order: Sequence[int]) -> list[int]:
    """The best contexts at the ends: every other one, then the others backwards."""
    return [*order[::2], *order[1::2][::-1]]
