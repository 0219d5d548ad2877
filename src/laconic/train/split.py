"""Which documents are held out of every training, so that one evaluation is fair to all models."""

from __future__ import annotations

from hashlib import sha256


def held_out(title: str, one_in: int = 4) -> bool:
    """Is the article of this title kept for evaluation? By hash: no list to carry along.

    >>> held_out("Normans"), held_out("Kenya")
    (True, False)
    """
    return int(sha256(title.encode()).hexdigest(), 16) % one_in == 0
