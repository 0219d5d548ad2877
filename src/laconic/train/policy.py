"""Train a policy by its reward: PCRL (arXiv 2308.08758) and TACO-RL (arXiv 2409.13035).

A policy says of every unit of a text, all at once, how likely it keeps it: the mean of P(keep) over the unit's tokens,
as `laconic.scorers.classifier` has it, so what is learnt is what is used. Decisions are drawn, the kept text goes to a
language model, and REINFORCE (Williams 1992) makes decisions likelier that are paid better than the baseline:

    gradient of   mean (r(kept) - baseline) · log P(kept)  +  entropy · H

What is paid: laconic.train.rewards. Where we differ from the papers: docs/methods.md.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from laconic.errors import InputError
from laconic.eval.data import Example
from laconic.export import quiet
from laconic.features import Features
from laconic.hub import sha256
from laconic.segment import words
from laconic.text import Bools, Floats, Ints, Tiling, cut, mend, readable, touching
from laconic.train import base
from laconic.train.data import Frame, padded, records
from laconic.train.loop import Loop, Say, State, nothing
from laconic.train.rewards import Algorithm, Pcrl, Quality, Rewards, TacoRl

BASELINES = ("greedy", "others", "none")
_TIMES = 10  # that a run is judged
_READ = 32  # texts that a model reads at once when a run is judged
_CALIBRATION = 64  # texts to find the bias on
_LEAST = 1e-6  # probability, so that logarithms are finite
# Of the papers: the learning rate, texts in a step, drawn compressions of each, weight of the entropy, baseline.
_PAPERS: dict[type, dict[str, Any]] = {
    Pcrl: {"lr": 3e-5, "batch": 32, "samples": 4, "entropy": 0.001, "baseline": "greedy"},
    TacoRl: {"lr": 1e-5, "batch": 8, "samples": 1, "entropy": 0.01, "baseline": "none"},
}


@dataclass(frozen=True)
class Settings:
    """What decides how a run goes; the same settings, data, rewards and versions give the same weights.

    baseline: `greedy`, the reward of the likeliest decisions (self-critical, arXiv 1612.00563); `others`, the mean
    reward of the text's other samples (arXiv 2402.14740); `none`.
    """

    base: str  # HF checkpoint, name or folder: an encoder for PCRL, a keep/drop classifier for TACO-RL
    algorithm: Algorithm
    lr: float  # at the start, falling to 0 along a cosine
    batch: int  # texts a step, on each process
    samples: int  # compressions drawn of each
    entropy: float  # weight of the entropy of the decisions on a text, in nats
    baseline: str
    steps: int = 1000
    window: int = 512  # most tokens of a text
    seed: int = 0

    @classmethod
    def of(cls, base: str, algorithm: Algorithm, **changes: Any) -> Settings:
        """The settings of the algorithm's paper, with changes.

        >>> Settings.of("encoder", Pcrl(tau=0.8), steps=200).samples
        4
        """
        return cls(base, algorithm, **{**_PAPERS[type(algorithm)], **changes})

    def __post_init__(self) -> None:
        for rule, value, fine in (
            ("lr must be in [0, 1)", self.lr, 0 <= self.lr < 1),
            ("a batch must have 1 text or more", self.batch, self.batch >= 1),
            ("samples must be 1 or more", self.samples, self.samples >= 1),
            ("entropy must be 0 or more", self.entropy, self.entropy >= 0),
            (f"baseline must be one of {', '.join(BASELINES)}", self.baseline, self.baseline in BASELINES),
            ("samples must be 2 or more for the baseline others", self.samples, self._has_others()),
            ("steps must be 1 or more", self.steps, self.steps >= 1),
            ("window must be 16 tokens or more", self.window, self.window >= 16),
        ):
            if not fine:
                raise InputError(f"{rule}, got {value}")

    def _has_others(self) -> bool:
        return self.samples >= 2 or self.baseline != "others"


@dataclass
class Passage:
    """One text as the policy sees it."""

    example: Example
    tiling: Tiling
    ids: list[int]
    types: Ints  # int64[T]
    token: Ints  # tokens and the units they touch: int64[P] each
    unit: Ints
    cost: Ints  # int64[U], tokens that begin in a unit
    free: Bools  # bool[U], units that are decided on; those without a token are dropped
    fixed: Bools  # bool[U], protected ones

    def kept(self, decisions: Bools) -> Bools:
        """What stays when so is decided about the free units: bool[U]."""
        keep: Bools = self.fixed.copy()
        keep[self.free] = decisions
        return keep

    def text(self, keep: Bools) -> str:
        """As a `Compression` has it."""
        return cut(self.tiling, mend(self.tiling, keep))


def train(
    texts: Sequence[Path],
    dev: Path,
    out: Path,
    settings: Settings,
    quality: Quality,
    save_every: int = 50,
    say: Say = nothing,
) -> Path:
    """Train and write a Hugging Face checkpoint to `out`/checkpoint, the best so far on dev; returns it.

    texts, dev: JSON lines with `text`, and optionally `question`, `answer` or `answers`, and `protect` ([[start, end],
    …] that always stay). What the policy or the model of `quality` cannot read whole is passed over.

    Killed at any moment, the same call goes on after the last saved step with the same result. One process a device:
    `accelerate launch` or `torchrun` start several. `say` gets a line of progress now and then.
    """
    return _Run(texts, dev, out, settings, quality, save_every, say).train()


@dataclass
class _State(State):
    best: float = -math.inf


class _Run(Loop):
    def __init__(
        self,
        texts: Sequence[Path],
        dev: Path,
        out: Path,
        settings: Settings,
        quality: Quality,
        save_every: int,
        say: Say,
    ) -> None:
        super().__init__(out, settings, save_every, say)
        s, torch = settings, self.torch
        self.algorithm, self.quality, self.files = s.algorithm, quality, [*texts, dev]
        self.tokenizer = base.tokenizer(s.base)
        self.frame = Frame.of(self.tokenizer)
        hidden = s.algorithm.hidden if isinstance(s.algorithm, Pcrl) else None
        self.model = base.policy(s.base, window=s.window, hidden=hidden)
        self.features = self.model.config.laconic["features"]
        self.passages = [p for path in texts for p in self._read(path)]
        self.dev = self._read(dev)
        self._make_folder()
        if isinstance(s.algorithm, TacoRl):
            self._calibrate(s.algorithm.rate)
        learning = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=s.lr, weight_decay=0.01)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: (1 + math.cos(math.pi * step / s.steps)) / 2
        )
        self.state, self.steps = _State(), s.steps
        every = max(1, s.steps // _TIMES)
        self.ends = [*range(every, s.steps, every), s.steps]
        torch.manual_seed(s.seed + self.accelerator.process_index)  # the processes draw for texts of their own
        self._start()
        if not self.state.history:
            self._judge()

    def _read(self, path: Path) -> list[Passage]:
        """The texts of a file that both the policy and the model of the rewards can read whole."""
        found = [self._passage(record) for record in records(path)]
        taken = [p for p in found if p and p.free.any() and self.quality.takes(p.example)]
        if not taken:
            raise InputError(
                f"no text of {path} is of use: all are longer than the window of {self.settings.window} tokens or than "
                f"what the model of the reward reads, or lack what it needs ({self.quality.name})"
            )
        if len(taken) < len(found):
            self._say(f"{path.name}: {len(found) - len(taken)} of {len(found)} texts are too long or lack an answer")
        return taken

    def _passage(self, record: dict[str, Any]) -> Passage | None:
        """A record in tokens and units; None where it is longer than the window."""
        text = readable(record["text"])
        made = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, around = made["input_ids"], len(self.frame.head) + len(self.frame.tail)
        if not ids or len(ids) + around > self.settings.window:
            return None
        starts, ends = np.array(made["offset_mapping"], np.int64).reshape(-1, 2).T
        tiling = words(text)
        token, unit = touching(starts, ends, tiling)
        fixed = _within(tiling, record.get("protect", ()))
        touched = np.bincount(unit, minlength=len(tiling)) > 0
        cost = np.bincount(tiling.unit_at(starts[ends > starts]), minlength=len(tiling))
        answers = record.get("answers") or ([record["answer"]] if record.get("answer") else [])
        example = Example("", text, record.get("question"), tuple(answers))
        types = Features(text).types(starts, ends)
        return Passage(example, tiling, ids, types, token, unit, cost, touched & ~fixed, fixed)

    def _calibrate(self, rate: float) -> None:
        """Give keep the bias with which the mean P(keep) of a token is the rate, so that lengths start near to it."""
        odds = []
        for k in range(0, min(_CALIBRATION, len(self.passages)), 8):
            batch = self.passages[k : k + 8]
            with self.torch.no_grad():
                found = self._odds(self.model.eval(), batch).numpy()
            odds += [row[len(self.frame.head) :][: len(p.ids)] for row, p in zip(found, batch, strict=True)]
        everything = np.concatenate(odds).astype(np.float64)
        low, high = -50.0, 50.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if (1 / (1 + np.exp(-everything - middle))).mean() > rate else (middle, high)
        with self.torch.no_grad():
            self.model.classifier.bias[1] += low

    def _batch(self, step: int) -> list[Passage]:
        """The next texts; they are shuffled anew when all had their turn, and each process takes its share."""
        s, world, count = self.settings, self.accelerator.num_processes, len(self.passages)
        first = (step * world + self.accelerator.process_index) * s.batch
        places = range(first, first + s.batch)
        orders = {turn: self._order(turn) for turn in {k // count for k in places}}
        return [self.passages[orders[k // count][k % count]] for k in places]

    def _order(self, turn: int) -> list[int]:
        order = list(range(len(self.passages)))
        random.Random(f"{self.settings.seed} {turn}").shuffle(order)
        return order

    def _step(self, batch: Sequence[Passage]) -> float:
        """One step towards higher rewards; returns the mean reward of the samples with the sign turned."""
        torch = self.torch
        self.model.eval()  # dropout would judge by other probabilities than decisions were drawn with
        with self.accelerator.autocast():
            chance = self._chance(self.model, batch)
        draws = torch.rand(self.settings.samples, *chance.shape)
        drawn = (draws < chance.detach().cpu()).numpy()
        samples = [[p.kept(d[k][: len(p.tiling)][p.free]) for d in drawn] for k, p in enumerate(batch)]
        rewards, advantage = self._advantage(batch, chance.detach().cpu().numpy(), samples)
        keep, free = np.zeros((len(batch), *drawn.shape[::2]), bool), np.zeros(tuple(chance.shape), bool)
        for k, (p, kept) in enumerate(zip(batch, samples, strict=True)):
            keep[k, :, : len(p.tiling)], free[k, : len(p.tiling)] = kept, p.free
        given = [torch.from_numpy(x).to(chance.device) for x in (keep, advantage.astype(np.float32), free)]
        self._learn(objective(chance, *given, entropy=self.settings.entropy))
        return -float(rewards.mean())

    def _advantage(
        self, batch: Sequence[Passage], chance: Floats, samples: Sequence[Sequence[Bools]]
    ) -> tuple[Rewards, Rewards]:
        """Rewards of the samples, and how far they are above the baseline: float64[B, S] each."""
        everything = [(p, keep) for p, kept in zip(batch, samples, strict=True) for keep in kept]
        if self.settings.baseline == "greedy":
            everything += [(p, self._greedy(p, row)) for p, row in zip(batch, chance, strict=True)]
        found = self._rewards(everything)[0]
        count = len(batch) * self.settings.samples
        rewards = found[:count].reshape(len(batch), -1)
        return rewards, above(rewards, found[count:], self.settings.baseline)

    def _greedy(self, passage: Passage, chance: Floats) -> Bools:
        """What the policy keeps without chance: float32[at least U] to bool[U]."""
        p, free = passage, passage.free
        fixed = int(p.cost[p.fixed].sum())
        return p.kept(self.algorithm.greedy(chance[: len(free)][free], p.cost[free], int(p.cost.sum()), fixed))

    def _rewards(self, compressed: Sequence[tuple[Passage, Bools]]) -> tuple[Rewards, Rewards, Rewards]:
        """Rewards, qualities (0 where nobody was asked) and rates: float64[n] each."""
        kept = np.array([p.cost[keep].sum() for p, keep in compressed])
        whole = np.array([p.cost.sum() for p, _ in compressed])
        fixed = np.array([p.cost[p.fixed].sum() for p, _ in compressed])
        quality = np.zeros(len(compressed))
        asked = np.flatnonzero(self.algorithm.asks(kept, whole)).tolist()
        some = [compressed[k] for k in asked]
        if some:
            quality[asked] = self.quality([p.text(keep) for p, keep in some], [p.example for p, _ in some])
        return self.algorithm.reward(quality, kept, whole, fixed), quality, kept / whole

    def _chance(self, model: Any, batch: Sequence[Passage]) -> Any:
        """P(keep) of every unit, the mean over the tokens that touch it: float32[B, U], 0 for units without a token."""
        torch = self.torch
        p = self._odds(model, batch).sigmoid()
        width, first = max(len(x.tiling) for x in batch), len(self.frame.head)
        row = np.repeat(np.arange(len(batch)), [len(x.unit) for x in batch])
        unit = torch.from_numpy(row * width + np.concatenate([x.unit for x in batch])).to(p.device)
        token = torch.from_numpy(row * p.shape[1] + first + np.concatenate([x.token for x in batch])).to(p.device)
        total = p.new_zeros(len(batch) * width).index_add(0, unit, p.flatten()[token])
        count = torch.bincount(unit, minlength=len(total)).clamp(min=1)
        return (total / count).view(len(batch), width)

    def _odds(self, model: Any, batch: Sequence[Passage]) -> Any:
        """The log-odds of keeping each token, special ones and padding included: float32[B, T]."""
        frame = self.frame
        rows = [[*frame.head, *x.ids, *frame.tail] for x in batch]
        ids = np.full((len(batch), padded(max(map(len, rows)))), frame.pad)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for k, (row, x) in enumerate(zip(rows, batch, strict=True)):
            ids[k, : len(row)], mask[k, : len(row)] = row, 1
            types[k, len(frame.head) : len(frame.head) + len(x.ids)] = x.types
        device = next(model.parameters()).device
        given = {"input_ids": ids, "attention_mask": mask, **({"token_type_ids": types} if self.features else {})}
        logits = model(**{name: self.torch.from_numpy(x).to(device) for name, x in given.items()}).logits.float()
        return logits[..., 1] - logits[..., 0]

    def _judge(self) -> None:
        if self.accelerator.is_main_process:
            self._keep_the_best(self.out / "checkpoint")

    def _keep_the_best(self, checkpoint: Path) -> None:
        """Compress dev without chance, and keep the weights if they are paid best so far."""
        model = self.accelerator.unwrap_model(self.model)
        scores = self.scores(model)
        self.state.history.append({"step": self.state.step, **scores})
        self._say(json.dumps(self.state.history[-1]))
        if scores["reward"] > self.state.best:
            self.state.best = scores["reward"]
            with quiet():
                model.save_pretrained(checkpoint)
                self.tokenizer.save_pretrained(checkpoint)
        self._write_run()

    def scores(self, model: Any) -> dict[str, float]:
        """On dev, decided without chance: the mean reward, quality (where it was asked for) and share of tokens."""
        model.eval()
        found = []
        for k in range(0, len(self.dev), _READ):
            batch = self.dev[k : k + _READ]
            with self.torch.no_grad():
                chance = self._chance(model, batch).cpu().numpy()
            found.append(self._rewards([(p, self._greedy(p, row)) for p, row in zip(batch, chance, strict=True)]))
        means = (float(np.concatenate(column).mean()) for column in zip(*found, strict=True))
        return {name: round(value, 4) for name, value in zip(("reward", "quality", "rate"), means, strict=True)}

    def _data(self) -> str:
        return json.dumps([[sha256(p) for p in self.files], self.quality.name, self.accelerator.num_processes])

    def _write_run(self) -> None:
        """What the manifest and the model card are made from."""
        s = self.settings
        rows = len(self.passages)
        names = ", ".join(p.name for p in self.files[:-1])
        run = {
            "command": "laconic train policy",
            "settings": {
                **asdict(s),
                "base": "/".join(Path(s.base).parts[-2:]),
                "algorithm": type(s.algorithm).__name__.lower(),
                **asdict(s.algorithm),
                "rewards": self.quality.name,
            },
            "data": [{"file": names, "rows": rows, "an epoch": rows}],
            "dev": len(self.dev),
            "best": max(self.state.history, key=lambda scores: float(scores["reward"])),  # the first of equal ones
            "history": self.state.history,
        }
        (self.out / "run.json").write_text(json.dumps(run, indent=2) + "\n")


def _within(tiling: Tiling, spans: Sequence[Sequence[int]]) -> Bools:
    """The units that have a character in a span: bool[U]."""
    inside = np.zeros(len(tiling), bool)
    for s, e in spans:
        inside[(tiling.bounds[:-1] < e) & (tiling.bounds[1:] > s)] = True
    return inside


def above(rewards: Rewards, greedy: Rewards, baseline: str) -> Rewards:
    """How far the rewards of samples are above the baseline: float64[B, S]; greedy: float64[B].

    >>> above(np.array([[1.0, 0.0, 0.5]]), np.array([]), "others")
    array([[ 0.75, -0.75,  0.  ]])
    """
    expected: Rewards = np.zeros_like(rewards)
    if baseline == "greedy":
        expected = greedy[:, None]
    elif baseline == "others":
        expected = (rewards.sum(1, keepdims=True) - rewards) / (rewards.shape[1] - 1)
    return rewards - expected


def objective(chance: Any, keep: Any, advantage: Any, free: Any, *, entropy: float) -> Any:
    """What to minimise: its gradient is that of -(expected reward + entropy · H), in the mean over samples.

    chance: P(keep), float32[B, U]; keep: what was drawn, bool[B, S, U]; advantage: float32[B, S]; free: units that were
    decided on, bool[B, U]; H: the entropy of all decisions on a text, in nats.
    """
    import torch

    p = chance.clamp(_LEAST, 1 - _LEAST)
    said = torch.where(keep, p[:, None], 1 - p[:, None]).log() * free[:, None]
    spread = -(p * p.log() + (1 - p) * (1 - p).log()) * free
    return -(advantage * said.sum(-1)).mean() - entropy * spread.sum(-1).mean()
