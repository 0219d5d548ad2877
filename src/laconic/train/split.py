"""Which documents are held out of every training, so that one evaluation is fair to all models."""

from __future__ import annotations

import re
from hashlib import sha256

from laconic.errors import InputError

_ARXIV = re.compile(r"(?:arXiv:)?(?:[\w.-]+/)?(\d\d)(0[1-9]|1[0-2])(?:\.\d{4,5}|\d{3})(?:v\d+)?", re.ASCII)


def held_out(title: str, one_in: int = 4) -> bool:
    """Is the article of this title kept for evaluation? By hash: no list to carry along.

    >>> held_out("Normans"), held_out("Kenya")
    (True, False)
    """
    return int(sha256(title.encode()).hexdigest(), 16) % one_in == 0


def published(identifier: str) -> tuple[int, int]:
    """Year and month in which an arXiv identifier, new or old, was given: a split by time needs no other data.

    >>> published("2606.01234v2"), published("hep-th/9901001")
    ((2026, 6), (1999, 1))
    """
    found = _ARXIV.fullmatch(identifier)
    if not found:
        raise InputError(f"no arXiv identifier: {identifier!r}; pass one such as 2606.01234 or hep-th/9901001")
    year, month = map(int, found.groups())
    return year + (1900 if year > 90 else 2000), month  # arXiv began in 1991
