"""A training step of soft compression, against the plain form of the published recipe (500xCompressor's).

Both learn to regenerate the same random texts of different lengths with the same random Llama, each in a process of its
own. The plain form pads every text to the window, learns the padding too, computes scores of the vocabulary for every
place of both passes, and switches the adapter off for the second one. Printed: median seconds a step and peak memory,
that of the process before the first step taken off.

    python bench/soft_step.py --steps 8 --rows 8
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

WIDTH, LAYERS, HEADS, VOCABULARY, WINDOW, SLOTS, RANK = 384, 5, 6, 8192, 500, 16, 64
FORMS = ("plain", "laconic", "laconic, recomputed")


def texts(step: int, rows: int) -> list[list[int]]:
    """Lengths as those of abstracts: 220 tokens on average."""
    import numpy as np

    random = np.random.default_rng(step)
    lengths = np.clip(random.normal(220, 90, rows), 40, WINDOW).astype(int)
    return [random.integers(3, VOCABULARY, n).tolist() for n in lengths]


def llama(device: str) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=1056,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    return transformers.LlamaForCausalLM(config).to(device).requires_grad_(False)


def plain(model: Any, device: str) -> tuple[Callable[[list[list[int]]], Any], list[Any]]:
    import peft
    import torch
    from transformers import DynamicCache

    settings = peft.LoraConfig(r=RANK, lora_alpha=32, lora_dropout=0.0, target_modules=["q_proj", "v_proj"])
    adapted = peft.get_peft_model(model, settings)
    memory = torch.nn.Parameter(torch.randn(1, SLOTS, WIDTH, device=device))

    def loss(rows: list[list[int]]) -> Any:
        ids = torch.tensor([row + [2] * (WINDOW - len(row)) for row in rows], device=device)
        adapted.enable_adapter_layers()
        read = torch.cat([model.get_input_embeddings()(ids), memory.expand(len(rows), -1, -1)], 1)
        layers = adapted(inputs_embeds=read, use_cache=True).past_key_values.layers
        cache = DynamicCache([(x.keys[:, :, -SLOTS:], x.values[:, :, -SLOTS:]) for x in layers])
        for layer in (m for m in adapted.modules() if isinstance(m, peft.tuners.lora.LoraLayer)):
            layer._disable_adapters = True  # their `disable_adapter` would take the gradient too
        begin = torch.full((len(rows), 1), 1, device=device)
        scores = adapted(input_ids=torch.cat([begin, ids], 1), past_key_values=cache).logits
        for layer in (m for m in adapted.modules() if isinstance(m, peft.tuners.lora.LoraLayer)):
            layer._disable_adapters = False
        targets = torch.cat([ids, torch.full((len(rows), 1), 2, device=device)], 1)
        return torch.nn.functional.cross_entropy(scores.flatten(0, 1).float(), targets.flatten())

    return loss, [memory, *(p for p in adapted.parameters() if p.requires_grad)]


def ours(model: Any, recomputed: bool) -> tuple[Callable[[list[list[int]]], Any], list[Any]]:
    import tokenizers

    from laconic.soft import Base, Reader, Settings, SoftEncoder

    base = Base("random", model, tokenizers.Tokenizer(tokenizers.models.BPE()), 1, (2,))
    encoder = SoftEncoder.create(base, Settings(slots=SLOTS, window=WINDOW, rank=RANK, dropout=0.0)).train()
    reader = Reader(base)
    for part in (encoder, reader):
        part.recompute(recomputed)

    def loss(rows: list[list[int]]) -> Any:
        answers = [[1, *row, 2] for row in rows]
        return reader.nats(reader.kv(encoder(rows)), answers, [1] * len(rows)).mean()

    return loss, encoder.trained()


def measure(form: str, steps: int, rows: int) -> dict[str, float]:
    """In this process."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = llama(device)
    loss, trained = plain(model, device) if form == "plain" else ours(model, form != "laconic")
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    before, seconds = _peak(torch), list[float]()
    for step in range(steps):
        began = time.perf_counter()
        optimizer.zero_grad()
        loss(texts(step, rows)).backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return {"seconds": median(seconds[1:] or seconds), "mib": _peak(torch) - before}


def _peak(torch: Any) -> float:
    """MiB: of the GPU, or of the process."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rows", type=int, default=8, help="texts a step")
    parser.add_argument("--form", choices=FORMS, help="only this one, in this process, as JSON")
    given = parser.parse_args()
    if given.form:
        print(json.dumps(measure(given.form, given.steps, given.rows)))
        return
    found = {}
    for form in FORMS:
        command = [sys.executable, __file__, "--form", form, "--steps", str(given.steps), "--rows", str(given.rows)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[form] = json.loads(out.splitlines()[-1])
    print("| form | s/step | faster | peak MiB | less |\n|---|--:|--:|--:|--:|")
    first = found["plain"]
    for form, values in found.items():
        faster, less = first["seconds"] / values["seconds"], 1 - values["mib"] / first["mib"]
        print(f"| {form} | {values['seconds']:.2f} | {faster:.2f}x | {values['mib']:,.0f} | {less:.0%} |")


if __name__ == "__main__":
    main()
