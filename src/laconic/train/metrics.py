"""How well scores agree with labels."""

from __future__ import annotations

import numpy as np

from laconic.text import Bools, Floats


def f1_at_rate(score: Floats, truth: Bools) -> float:
    """F1 when as many units are kept, best score first, as in `truth`."""
    keep = np.zeros(len(truth), bool)
    keep[np.argsort(-score, kind="stable")[: truth.sum()]] = True
    return float(2 * (keep & truth).sum() / max(1, keep.sum() + truth.sum()))


def auc(score: Floats, truth: Bools) -> float:
    """Area under the ROC curve: the chance that a kept unit scores above a dropped one (ties by place)."""
    ranks = np.empty(len(score))
    ranks[np.argsort(score, kind="stable")] = np.arange(1, len(score) + 1)
    positive = int(truth.sum())
    negative = len(truth) - positive
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / max(1, positive * negative))
