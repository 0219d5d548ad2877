"""The encoder beside laconic-lm: much of what it says of people nobody has heard of is true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from laconic.soft import Base, Reader, SoftEncoder
from laconic.train.tasks import facts

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"


@pytest.fixture(scope="module")
def encoder():
    return SoftEncoder.load(CHECKPOINTS / "laconic-lm-500x", Base.load(CHECKPOINTS / "laconic-lm"))


def share_right(encoder, told, memories):
    requests, expected = [], []
    for some, memory in zip(told, memories, strict=True):
        requests += [(memory, f"\nQuestion: {question} Answer:") for question, _ in some.questions]
        expected += [answer for _, answer in some.questions]
    found = Reader(encoder.base).generate_many(requests, 8)
    return np.mean([f.strip() == e for f, e in zip(found, expected, strict=True)])


def test_it_answers_from_sixteen_slots_and_not_from_those_of_others(encoder):
    told = [facts(2, 2, np.random.default_rng([k, 11]), fresh=True) for k in range(40)]
    memories = encoder.encode_many([some.text for some in told])
    assert {memory.slots for memory in memories} == {16}
    assert share_right(encoder, told, memories) > 0.35
    assert share_right(encoder, told, memories[1:] + memories[:1]) < 0.15
