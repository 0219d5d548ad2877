"""Is a teacher's compression a faithful deletion, and are its labels right? Measures and filters of LLMLingua-2.

Section 3.3 of arXiv 2403.12968, over units (words and single punctuation marks) in lower case; S_o, S_c: the units of
the text and of its compression.

* Variation Rate VR: share of S_c that does not occur in S_o, words the teacher invented or changed.
* Hitting Rate HR: how many of S_c occur in S_o, per unit of S_o.
* Matching Rate MR: share of S_o labelled as kept.
* Alignment Gap AG = HR - MR: words that are in the text but found no label (reordered, repeated, changed in case).

The paper drops the 5 % with the highest VR, then of the rest the 10 % with the highest AG. The reference code takes
percentile 90 for both and drops what is equal to it too: where most examples have VR 0, that drops nearly all of them.
Here equal values stay or go together, and never more goes than the share that is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from laconic.errors import InputError


@dataclass(frozen=True)
class Quality:
    """The measures of one example: vr in [0, 1]; hr and ag may exceed 1 where the compression repeats itself."""

    vr: float
    hr: float
    mr: float
    ag: float


def measure(original: Sequence[str], compressed: Sequence[str], keep: npt.NDArray[np.bool_]) -> Quality:
    """VR, HR, MR and AG of one example; `keep`: bool[len(original)], its labels. An empty compression has VR 1.

    >>> measure(["The", "cat", "sat"], ["cat", "purred"], np.array([False, True, False]))
    Quality(vr=0.5, hr=0.3333333333333333, mr=0.3333333333333333, ag=0.0)
    """
    known = {w.lower() for w in original}
    hits = sum(w.lower() in known for w in compressed)
    hr, mr = hits / max(1, len(original)), float(keep.sum()) / max(1, len(original))
    return Quality(vr=1 - hits / len(compressed) if compressed else 1.0, hr=hr, mr=mr, ag=hr - mr)


@dataclass(frozen=True)
class Drop:
    """Percent of the examples to drop by Variation Rate, then of the rest by Alignment Gap; the paper's by default."""

    vr: float = 5.0
    ag: float = 10.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < 100:
                raise InputError(f"the share to drop by {name.upper()} is a percentage in [0, 100), got {value}")


@dataclass(frozen=True)
class Chosen:
    """Which examples pass: bool[n], and the highest VR and AG among them."""

    passed: npt.NDArray[np.bool_]
    vr: float
    ag: float
    dropped_vr: int
    dropped_ag: int


def choose(vr: npt.NDArray[np.float64], ag: npt.NDArray[np.float64], drop: Drop) -> Chosen:
    """Filter examples by their measures: float64[n] each, n >= 1.

    >>> choose(np.array([0, 0, 0, 0.5]), np.array([0, 0.1, 0, 0]), Drop(25, 34)).passed.tolist()
    [True, False, True, False]
    """
    most_vr = _highest(vr, drop.vr)
    faithful = vr <= most_vr
    most_ag = _highest(ag[faithful], drop.ag)
    passed = faithful & (ag <= most_ag)
    return Chosen(passed, most_vr, most_ag, int((~faithful).sum()), int((faithful & ~passed).sum()))


def _highest(values: npt.NDArray[np.float64], share: float) -> float:
    """The highest value that stays when so many percent may be dropped."""
    return float(np.sort(values)[-1 - int(len(values) * share / 100)])
