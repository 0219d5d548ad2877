"""Train a token classifier: keep or drop (LLMLingua-2, arXiv 2403.12968, section 3.3), and what answers a question.

One encoder reads `[CLS] text [SEP]` or `[CLS] question [SEP] text [SEP]` and says of every token of the text

    drop, keep   does the teacher keep it? (softmax of two)
    evidence     does it stand in a sentence that answers the question? (sigmoid)
    answer       is it part of the answer; without a question: of anything that might be asked for? (sigmoid)

and, if there is an embedder to learn from, a vector whose mean over a sentence (or over the question) has the direction
of that sentence's own embedding: what is near the question, from a model that has seen a billion pairs.

Evidence and answer exist when the data has questions. Rows with a question are shown without it half of the time, and
sometimes with another row's, so that one model learns to do with and without.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from laconic.errors import InputError
from laconic.export import quiet
from laconic.hub import sha256
from laconic.train import data
from laconic.train.base import Embedder, classifier, tokenizer
from laconic.train.data import ANSWER, EVIDENCE, KEEP, Frame, Item, Row
from laconic.train.loop import Loop, Say, State, nothing
from laconic.train.metrics import auc, f1_at_rate

_EMBEDDING = 2.0  # weight of its loss


@dataclass(frozen=True)
class Source:
    """A data file and how many of its rows an epoch takes (None: all; else the next ones in each epoch)."""

    path: Path
    rows: int | None = None

    @classmethod
    def parse(cls, text: str) -> Source:
        """`FILE` or `FILE:ROWS`."""
        name, _, rows = text.rpartition(":")
        if not name or not rows.isdecimal() or Path(text).exists():
            return cls(Path(text))
        if not int(rows):
            raise InputError(f"{text} takes no row; write FILE:ROWS with 1 or more rows in an epoch, or FILE")
        return cls(Path(name), int(rows))


@dataclass(frozen=True)
class Settings:
    """What decides how a run goes; the same settings, data and versions give the same weights."""

    base: str  # HF encoder, name or folder
    epochs: int = 4
    lr: float = 1.5e-4  # peak; linear, after 5 % of warm-up
    tokens: int = 3072  # a batch, with padding, on each process
    window: int = 512  # most tokens of a row
    average: float = 0.999  # decay of the running average of the weights, 0: none
    embedder: str = ""  # HF encoder whose mean-pooled sentence embeddings are learnt too, name or folder
    layers: int | None = None  # so many of the base's layers, evenly spaced; None: all
    features: bool = True  # capitals and layout as token types (laconic.features)
    blind: float = 0.5  # share of a teacher's rows that are shown without their question
    foreign: float = 0.15  # share of the others shown with another row's question
    patience: int | None = None  # stop after so many epochs without a better score on dev
    seed: int = 0

    def __post_init__(self) -> None:
        patience = 0 if self.patience is None else self.patience
        for name, value, fine in (
            ("epochs must be 1 or more", self.epochs, self.epochs >= 1),
            ("lr must be in [0, 1)", self.lr, 0 <= self.lr < 1),
            ("a batch must have 1 token or more", self.tokens, self.tokens >= 1),
            ("window must be 16 tokens or more", self.window, self.window >= 16),
            ("average must be in [0, 1)", self.average, 0 <= self.average < 1),
            ("patience must be 0 or more", patience, patience >= 0),
        ):
            if not fine:
                raise InputError(f"{name}, got {value}")


@dataclass
class _State(State):
    best: float = -1.0
    stale: int = 0


def train(
    sources: Sequence[Source], dev: Path, out: Path, settings: Settings, save_every: int = 200, say: Say = nothing
) -> Path:
    """Train and write a Hugging Face checkpoint to `out`/checkpoint; returns it.

    Killed at any moment, the same call goes on after the last saved step with the same result. One process a device:
    `accelerate launch` or `torchrun` start several. `say` gets a line of progress now and then.
    """
    return _Run(sources, dev, out, settings, save_every, say).train()


class _Run(Loop):
    def __init__(
        self, sources: Sequence[Source], dev: Path, out: Path, settings: Settings, save_every: int, say: Say
    ) -> None:
        super().__init__(out, settings, save_every, say)
        torch = self.torch
        self.tokenizer = tokenizer(settings.base)
        self.frame = Frame.of(self.tokenizer)
        self.sources = [(s, data.read(s.path, self.tokenizer, settings.window)) for s in sources]
        self.dev_path, self.dev = dev, data.read(dev, self.tokenizer, settings.window)
        self.asks = any(r.question for _, rows in self.sources for r in rows)
        self._check(dev)
        self.plan = self._plan()
        self.steps = len(self.plan)
        self.embedder = Embedder(settings.embedder) if settings.embedder else None
        self.model = classifier(
            settings.base,
            asks=self.asks,
            embedding=self.embedder.width if self.embedder else 0,
            with_features=settings.features,
            window=settings.window,
            layers=settings.layers,
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=settings.lr, weight_decay=0.01)
        total = len(self.plan)
        warmup = max(1, total // 20)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min((step + 1) / warmup, (total - step) / max(1, total - warmup))
        )
        self.state = _State()
        self.average = [p.detach().clone() for p in self.model.parameters()]
        self._start()
        self.average = [a.to(self.accelerator.device) for a in self.average]

    def _check(self, dev: Path) -> None:
        """What would come to light only after hours of training."""
        if not any((x >= 0).any() for _, rows in self.sources for r in rows for x in (r.keep, r.evidence, r.answers)):
            names = ", ".join(str(s.path) for s, _ in self.sources)
            raise InputError(f"no row of {names} has labels: neither compressed, spans, keep, evidence nor answers")
        if not any(len(r.kept) or (self.asks and (r.evidence == 1).any()) for r in self.dev):
            raise InputError(
                f"no row of {dev} has labels to judge by; it needs compressed or spans"
                + (", or question and evidence" if self.asks else "")
            )
        self._make_folder()

    def _plan(self) -> list[list[Item]]:
        """The batches of all epochs."""
        s = self.settings
        plan: list[list[Item]] = []
        self.ends = []  # the step after each epoch
        for epoch in range(s.epochs):
            rng = random.Random(f"{s.seed} {epoch}")
            parts = [
                item
                for source, rows in self.sources
                for item in data.items(_share(rows, source.rows, epoch, s.seed), rng, s.blind, s.foreign, s.window)
            ]
            made = data.batches(parts, s.tokens, rng)
            world = self.accelerator.num_processes
            plan += made[: len(made) // world * world] if len(made) >= world else made * world
            self.ends.append(len(plan) // world)
        rank = self.accelerator.process_index
        return plan[rank :: self.accelerator.num_processes]

    def _batch(self, step: int) -> list[Item]:
        return self.plan[step]

    def _over(self) -> bool:
        return super()._over() or self._stale()

    def _stale(self) -> bool:
        """Is it time to stop? Also for a run that stopped before and is called again."""
        stop = self.settings.patience is not None and self.state.stale > self.settings.patience
        if stop:
            self._say(f"no better for {self.state.stale} epochs: stopped")
        return stop

    def _step(self, batch: Sequence[Item]) -> float:
        torch = self.torch
        self.model.train()
        made = self._tensors(data.collate(batch, self.frame))
        with self.accelerator.autocast():
            logits = self._logits(self.model, made)
            loss = self._loss(logits, made["labels"])
            if self.embedder:
                targets = self.embedder(data.passages(batch)).to(logits.device)
                loss = loss + _EMBEDDING * self._apart(logits[..., -self.embedder.width :], made["group"], targets)
        self._learn(loss)
        decay = min(self.settings.average, (1 + self.state.step) / (10 + self.state.step))
        with torch.no_grad():
            now = [p.detach() for p in self.model.parameters()]
            torch._foreach_lerp_(self.average, now, 1 - decay)
        return float(loss.detach())

    def _tensors(self, made: dict[str, Any]) -> dict[str, Any]:
        return {k: self.torch.from_numpy(v).to(self.accelerator.device) for k, v in made.items()}

    def _logits(self, model: Any, made: dict[str, Any]) -> Any:
        types = {"token_type_ids": made["types"]} if self.settings.features else {}
        return model(input_ids=made["ids"], attention_mask=made["mask"], **types).logits

    def _loss(self, logits: Any, labels: Any) -> Any:
        """Summed over what is labelled, divided by the tokens that are: every label counts the same."""
        bce = self.torch.nn.functional.binary_cross_entropy_with_logits
        logits = logits.float()
        heads = {KEEP: logits[..., 1] - logits[..., 0]}  # the log-odds of the softmax of two
        heads |= {column: logits[..., column + 1] for column in (EVIDENCE, ANSWER) if self.asks}
        known = labels >= 0
        losses = [bce(odds[known[..., c]], labels[..., c][known[..., c]], reduction="sum") for c, odds in heads.items()]
        return sum(losses) / known.any(-1).sum().clamp(min=1)

    def _apart(self, vectors: Any, group: Any, targets: Any) -> Any:
        """1 - cosine between the mean vectors of the groups and their embeddings, the mean over groups."""
        known = group >= 0
        sums = self.torch.zeros_like(targets).index_add_(0, group[known], vectors.float()[known])
        there = group[known].unique()
        return (1 - self.torch.nn.functional.cosine_similarity(sums[there], targets[there])).mean()

    def _judge(self) -> None:
        if self.accelerator.is_main_process:
            self._keep_the_best(self.out / "checkpoint")
        self.state.stale = self._of_all(self.state.stale)[0]  # the first process judges

    def _keep_the_best(self, checkpoint: Path) -> None:
        """Score the averaged weights on dev, and keep them if they are the best so far."""
        model = self.accelerator.unwrap_model(self.model)
        own = [p.detach().clone() for p in model.parameters()]
        self._load(model, self.average)
        scores = self.scores(model)
        score = float(np.mean([v for k, v in scores.items() if k in ("keep_f1", "evidence_auc")]))
        self.state.history.append({"step": self.state.step, **scores})
        self._say(json.dumps(self.state.history[-1]))
        self.state.stale += 1
        if score > self.state.best:
            self.state.best, self.state.stale = score, 0
            with quiet():
                model.save_pretrained(checkpoint)
                self.tokenizer.save_pretrained(checkpoint)
            self._write_run()
        self._load(model, own)

    def _load(self, model: Any, values: Sequence[Any]) -> None:
        with self.torch.no_grad():
            for p, v in zip(model.parameters(), values, strict=True):
                p.copy_(v)

    def scores(self, model: Any) -> dict[str, float]:
        """Keep-F1 at the teacher's rate (one threshold over the set) and the AUCs of the heads, on dev."""
        found: dict[str, list[Any]] = {"keep": [], "kept": [], "evidence": [], "is_evidence": []}
        for item, logits in self._predict(model, [Item(r, [], r.keep, r.answers) for r in self.dev if len(r.kept)]):
            unit = item.row.unit
            inside = unit >= 0
            p = logits[:, 1] - logits[:, 0]
            count = np.bincount(unit[inside], minlength=len(item.row.kept))
            sums = np.bincount(unit[inside], 1 / (1 + np.exp(-p[inside])), minlength=len(item.row.kept))
            found["keep"].append(np.where(count > 0, sums / np.maximum(count, 1), 0.5))
            found["kept"].append(item.row.kept)
        asked = [Item(r, r.question, r.evidence, r.answer) for r in self.dev if (r.evidence == 1).any()]
        for item, logits in self._predict(model, asked) if self.asks else ():
            found["evidence"].append(logits[:, EVIDENCE + 1])
            found["is_evidence"].append(item.evidence == 1)
        out: dict[str, float] = {}
        if found["kept"]:
            p, y = np.concatenate(found["keep"]), np.concatenate(found["kept"])
            out |= {"keep_f1": f1_at_rate(p, y), "keep_auc": auc(p, y)}
        if found["evidence"]:
            out["evidence_auc"] = auc(np.concatenate(found["evidence"]), np.concatenate(found["is_evidence"]))
        return {k: round(v, 4) for k, v in out.items()}

    def _predict(self, model: Any, asked: Sequence[Item]) -> Iterator[tuple[Item, Any]]:
        """float32[T, C] for the text's tokens of every item."""
        model.eval()
        for start in range(0, len(asked), 8):
            batch = asked[start : start + 8]
            with self.torch.no_grad():
                logits = self._logits(model, self._tensors(data.collate(batch, self.frame))).float().cpu().numpy()
            for k, item in enumerate(batch):
                left = len(self.frame.head) + (len(item.question) + len(self.frame.between) if item.question else 0)
                yield item, logits[k, left : left + len(item.row.ids)]

    def _extra(self) -> dict[str, Any]:
        return {"average": self.average}

    def _restore(self, whole: dict[str, Any]) -> None:
        self.average = whole["average"]

    def _data(self) -> str:
        files = [[sha256(s.path), s.rows] for s, _ in self.sources]
        return json.dumps([files, sha256(self.dev_path), self.accelerator.num_processes])

    def _write_run(self) -> None:
        """What the manifest and the model card are made from."""
        files = [{"file": s.path.name, "rows": len(rows), "an epoch": s.rows or len(rows)} for s, rows in self.sources]
        names = {k: "/".join(Path(getattr(self.settings, k)).parts[-2:]) for k in ("base", "embedder")}
        settings = {**asdict(self.settings), **names}
        history = self.state.history
        run = {
            "command": "laconic train classifier",
            "settings": settings,
            "data": files,
            "dev": len(self.dev),
            "best": history[-1],
            "history": history,
        }
        (self.out / "run.json").write_text(json.dumps(run, indent=2) + "\n")


def _share(rows: list[Row], some: int | None, epoch: int, seed: int) -> list[Row]:
    """All rows, or the next `some` of them in a shuffled round."""
    if some is None or some >= len(rows):
        return rows
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    return [rows[order[k % len(rows)]] for k in range(epoch * some, (epoch + 1) * some)]
