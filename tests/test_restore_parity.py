"""`Compression.restore` beside `recover` of llmlingua 0.2.2, on generated prompts and answers.

The reference searches tokens of its tokenizer; here a token is a word, so that both have the same units. Both must say
the same, except for the kinds of cases in `kind`, where ours differs on purpose (docs/methods.md).
"""

from __future__ import annotations

import itertools
import random
import warnings
from collections import Counter

import numpy as np
import pytest

from laconic.restore import _GAP, Restorer, tells
from laconic.result import KeptPart
from laconic.segment import words
from laconic.text import mend

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("torch")
    reference_module = pytest.importorskip("llmlingua.prompt_compressor", reason="the reference package")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

NAMES = ["Willmar", "Emden", "harbour", "Berg", "repaired", "council", "measured", "bakery", "tower", "voted", "river"]
SMALL = ["of", "the", "in", "and", "a", "to"]
OTHER = ["yes", "because", "perhaps", "it", "was"]


def recover(original: str, compressed: str, answer: str) -> str:
    vocabulary = dict.fromkeys([*original.split(), *compressed.split(), *answer.split()])
    model = models.WordLevel({word: k for k, word in enumerate(["?", *vocabulary])}, unk_token="?")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    compressor = object.__new__(reference_module.PromptCompressor)  # `recover` needs nothing but a tokenizer
    compressor.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?")
    return compressor.recover(original, compressed, answer)


def case(seed: int) -> tuple[KeptPart, str]:
    """A text of 60 words in sentences of 12, about half of it kept; an answer that quotes it between other words."""
    rng = random.Random(seed)
    vocabulary = [*SMALL, *NAMES, *map(str, range(1000, 2000))]
    drawn = [rng.choice(vocabulary) for _ in range(60)]
    text = " . ".join(" ".join(drawn[k : k + 12]) for k in range(0, 60, 12)) + " ."
    tiling = words(text)
    keep = np.array([rng.random() < 0.55 for _ in range(len(tiling))], bool)
    part = KeptPart(tiling, np.zeros(len(tiling), np.float32), keep, mend(tiling, keep))
    kept = part.text.split(" ")
    said: list[str] = []
    for _ in range(2):
        start = rng.randrange(len(kept))
        said += [rng.choice(OTHER), *kept[start : start + rng.randrange(2, 6)]]
    return part, " ".join([*said, rng.choice(OTHER)])


def kind(part: KeptPart, answer: str) -> str:
    """Why the two may differ, "" if they may not."""
    quoted = [word for word in answer.split() if word not in OTHER]
    original, kept = part.original.split(), part.text.split()
    if any(not tells(word) for word in quoted):
        return "function words or marks"  # we close no gap beside them
    if any(original.count(word) > 1 for word in quoted):
        return "repeated words"  # the reference takes the shortest stretch, we the one that was kept
    pairs = [(a, b) for a, b in itertools.pairwise(quoted) if [a, b] in [kept[k : k + 2] for k in range(60)]]
    if any("." in original[original.index(a) : original.index(b)] for a, b in pairs):
        return "another sentence"
    if any(sum(len(w) + 1 for w in original[original.index(a) + 1 : original.index(b)]) > _GAP for a, b in pairs):
        return "long gap"
    return ""


def test_the_package_loses_a_word_that_is_too_far_away_and_ours_does_not():
    far = " ".join(f"x{k}" for k in range(12))
    tiling = words(f"Alpha {far} Beta")
    keep = np.isin(np.arange(len(tiling)), [0, len(tiling) - 1])
    part = KeptPart(tiling, np.zeros(len(tiling), np.float32), keep, mend(tiling, keep))
    assert part.text == "Alpha Beta"
    assert recover(part.original, part.text, "Alpha Beta") == "Alpha"
    assert Restorer([part]).restore("Alpha Beta") == f"Alpha {far} Beta"  # 47 characters dropped: no long gap for us


def test_restored_answers_are_those_of_the_package():
    cases: Counter[str] = Counter()
    for seed in range(400):
        part, answer = case(seed)
        ours, theirs = Restorer([part]).restore(answer), recover(part.original, part.text, answer)
        why = kind(part, answer)
        assert why or ours == theirs, (seed, part.original, part.text, answer)
        cases[f"{why or 'plain'}, {'same' if ours == theirs else 'different'}"] += 1
        cases["plain, same, changed"] += not why and ours != answer
    print(dict(sorted(cases.items())))
    assert cases["plain, same, changed"] > 50
