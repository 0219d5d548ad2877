"""Does a model look up pairs that stand before it? The gate before any memory is trained for it.

    python recipes/lookup_gate.py build/lookup-base/checkpoint

Prints the share of right answers (the most probable token) for 4, 8, 12 and 16 pairs, four questions on each of 250
contexts never trained on; exit status 1 if any share is below 0.99.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from laconic.export import quiet
from laconic.train.bpe import BOS
from laconic.train.tasks import Asked, pairs

CONTEXTS = 250
LEAST = 0.99


def right(model: Any, contexts: list[Asked]) -> float:
    """The share of right answers; contexts of one length, and every question alone after its context."""
    asked = [(c.context, question, answer) for c in contexts for question, answer in c.questions]
    ids = torch.tensor([[BOS, *context, *question] for context, question, _ in asked])
    with torch.no_grad():
        found = torch.cat([model(some, logits_to_keep=1).logits[:, -1].argmax(-1) for some in ids.split(100)])
    return float((found == torch.tensor([answer[0] for _, _, answer in asked])).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(parser.parse_args().checkpoint, dtype=torch.float32).eval()
    shares = []
    for count in (4, 8, 12, 16):
        shares.append(right(model, [pairs(count, np.random.default_rng([k, count, 6])) for k in range(CONTEXTS)]))
        print(f"{count} pairs: {shares[-1]:.4f}")
    if min(shares) < LEAST:
        raise SystemExit(f"the gate is {LEAST}: train longer, with more lookups or another seed")


if __name__ == "__main__":
    main()
