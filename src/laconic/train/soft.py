"""Train a soft encoder: LoRA and memory embeddings, until the frozen base reads slots in a text's place.

Or its upper bound: LoRA on a reader of the full contexts, with the same draws, losses and steps.

500xCompressor (arXiv 2408.03094) learns to have the text said again, then answers; ICAE (arXiv 2307.06945) also what
comes next. `distil` adds what the same reader says with the full context before it (PISCO, arXiv 2501.16075). Texts may
begin short and grow: regeneration of long ones alone stays on a plateau for long.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from laconic.errors import InputError
from laconic.soft import Base, Reader, SoftEncoder, Tuned, Tuning, judge
from laconic.soft import Settings as Encoder
from laconic.train import tasks
from laconic.train.contexts import Context, Draw, Said, Texts, answers, made_facts
from laconic.train.loop import Loop, Say, State, nothing
from laconic.train.shard import Whole, shard

_TIMES = 10  # that a run is judged …
_APART = 50  # … but not more often than after so many steps
_DEV = 64  # contexts to judge by, of each file and each task
_TOGETHER = 16  # of them read at a time
_PAIRS = (4, 8, 12, 16)
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Settings:
    """What decides how a run goes. The defaults are 500xCompressor's, where it says what they are."""

    base: str  # causal language model
    encoder: Encoder | Tuning  # what is trained
    slots: tuple[int, ...] = (16,)  # each step trains one of these numbers, drawn at random; (): for Tuning
    steps: int = 2000
    batch: int = 4  # contexts a step, on each process
    lr: float = 1e-4  # peak
    warmup: int = 300  # steps
    decay: float = 0.0  # share of the steps in which the learning rate falls to zero at the end
    shortest: int = 0  # tokens of the first texts (0: the window)
    grow: float = 0.5  # share of the steps in which they become as long as the window
    follow: int = 0  # tokens after a text that are to be said, too (ICAE's language modelling)
    distil: float = 0.0  # weight of the divergence from the reader of the full context
    facts: float = 0.0  # share of contexts that are made-up facts
    lookup: float = 0.0  # share of contexts that are pairs of symbols
    checkpointing: bool = False  # less memory, a third more time
    shard: bool = False  # the base split over the processes: less memory for each, more traffic between them
    seed: int = 0

    def __post_init__(self) -> None:
        for rule, value, fine in (
            self._slots_rule(),
            ("steps must be 1 or more", self.steps, self.steps >= 1),
            ("a batch must have 1 context or more", self.batch, self.batch >= 1),
            ("lr must be in [0, 1)", self.lr, 0 <= self.lr < 1),
            ("warmup must be 0 steps or more", self.warmup, self.warmup >= 0),
            ("decay must be in [0, 1]", self.decay, 0 <= self.decay <= 1),
            ("shortest must be from 0 to the window", self.shortest, 0 <= self.shortest <= self.encoder.window),
            ("grow must be in [0, 1]", self.grow, 0 <= self.grow <= 1),
            ("follow must be 0 tokens or more", self.follow, self.follow >= 0),
            ("distil must be 0 or more", self.distil, self.distil >= 0),
            ("facts must be 0 or more", self.facts, self.facts >= 0),
            ("lookup must be 0 or more", self.lookup, self.lookup >= 0),
            ("facts and lookup must be 1 or less together", self.facts + self.lookup, self.facts + self.lookup <= 1),
            ("seed must be 0 or more", self.seed, self.seed >= 0),
        ):
            if not fine:
                raise InputError(f"{rule}, got {value}")

    def _slots_rule(self) -> tuple[str, object, bool]:
        if isinstance(self.encoder, Tuning):
            return "slots must be () for full contexts", self.slots, not self.slots
        slots, most = self.slots, self.encoder.slots
        return f"slots must be from 1 to {most}", slots, bool(slots) and all(1 <= m <= most for m in slots)

    def longest(self, step: int) -> int:
        """Tokens of the longest text at a step: int in [shortest, window]."""
        window, first = self.encoder.window, self.shortest or self.encoder.window
        until = self.grow * self.steps
        return window if step >= until else first + int((window - first) * step / until)


def train(
    texts: Sequence[Path],
    dev: Sequence[Path],
    out: Path,
    settings: Settings,
    *,
    start: Path | None = None,
    field: str = "text",
    save_every: int = 200,
    say: Say = nothing,
) -> Path:
    """Train and write the encoder to `out`/checkpoint (`SoftEncoder.load`, or `Tuned.load`, reads it); returns it.

    texts, dev: files of records with a text, or with a text, `question` and `answer`. start: an encoder to go on from,
    such as one trained on texts alone.

    Killed at any moment, the same call goes on after the last saved step with the same result. One process a device:
    `accelerate launch` or `torchrun` start several. `say` gets a line of progress now and then.
    """
    run = _Full if isinstance(settings.encoder, Tuning) else _Run
    return run(texts, dev, out, settings, start, field, save_every, say).train()


class _Run(Loop):
    kind: Any = SoftEncoder  # of what is trained

    def __init__(
        self,
        texts: Sequence[Path],
        dev: Sequence[Path],
        out: Path,
        settings: Settings,
        start: Path | None,
        field: str,
        save_every: int,
        say: Say,
    ) -> None:
        super().__init__(out, settings, save_every, say)
        s, torch = settings, self.torch
        self.base = self._load_base()
        self.reader = Reader(self.base, self.base.body)
        self.files = [*texts, *dev, *([start / "soft.json"] if start else [])]
        edges = self.base.start, self.base.ends[0]
        self.texts = Texts(texts, self.base.tokens, *edges, field=field)
        rows = s.batch * self.accelerator.num_processes
        self.draw = Draw(self.texts, facts=s.facts, lookup=s.lookup, rows=rows, seed=s.seed)
        self.dev = self._make_dev({path.name: Texts([path], self.base.tokens, *edges, field=field) for path in dev})
        self._make_folder()
        window = s.encoder.window
        self.model = self.kind.load(start, self.base, window) if start else self.kind.create(self.base, s.encoder)
        if self.model.settings != s.encoder:
            raise InputError(f"{start} is of other settings ({self.model.settings}); pass those: Encoder.of(start)")
        self.model.recompute(s.checkpointing)
        self.reader.recompute(s.checkpointing)
        self.whole = shard(self.base, self.model, self.accelerator.device) if s.shard else Whole()
        self.optimizer = torch.optim.AdamW(self.model.trained(), lr=s.lr, weight_decay=0.0)
        falling = max(1.0, s.decay * s.steps)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: min((step + 1) / max(1, s.warmup), 1.0, (s.steps - step) / falling if s.decay else 1.0),
        )
        self.state, self.steps = State(), s.steps
        every = max(_APART, s.steps // _TIMES)
        self.ends = [*range(every, s.steps, every), s.steps]
        self.known: dict[str, tuple[float, float]] = {}  # nats of each dev task without and with the full context
        self._resume()

    def _load_base(self) -> Base:
        device, processes = self.accelerator.device, self.accelerator.num_processes
        if not self.settings.shard:
            return Base.load(self.settings.base, str(device))
        if processes == 1:
            raise InputError(
                "shard splits the base over processes, and there is 1; start more (accelerate launch), or leave it out"
            )
        return Base.load(self.settings.base, "cpu", as_saved=device.type != "cpu")  # a GPU may have no room for all

    def _backward(self, loss: Any) -> None:
        """Also averages them: accelerate's DDP makes an encoder's states float32, which a bfloat16 base cannot read."""
        super()._backward(loss)
        trained = self.model.trained()
        means = self.accelerator.reduce([p.grad for p in trained], "mean")
        for parameter, mean in zip(trained, means, strict=True):
            parameter.grad = mean

    def _make_dev(self, files: dict[str, Texts]) -> dict[str, list[Context]]:
        """What to judge by, the same for every seed: of each file, and of each task that is trained on."""
        s, window = self.settings, self.settings.encoder.window
        found = {}
        for name, texts in files.items():
            some = (texts.context(k, window, s.follow, np.random.default_rng([k, 3])) for k in range(len(texts)))
            found[name] = [c for c in some if c][:_DEV]
            if not found[name]:
                raise InputError(f"no text of {name} can be judged by: all are longer than {window} tokens")
        encode, end = self.base.tokens, self.base.ends[0]
        if s.facts:
            made = (made_facts(encode, window, np.random.default_rng([k, 4]), fresh=True) for k in range(_DEV))
            found["facts"] = [answers(asked, end) for asked in made]
        if s.lookup:
            counts = [p for p in _PAIRS if 3 * p <= window + 1] or [_PAIRS[0]]
            pairs = (tasks.pairs(counts[k % len(counts)], np.random.default_rng([k, 5])) for k in range(_DEV))
            found["lookup"] = [answers(asked, end) for asked in pairs]
        return found

    def _batch(self, step: int) -> list[Context]:
        s = self.settings
        first = self.accelerator.process_index * s.batch
        return [self.draw(step, first + k, s.longest(step), s.follow) for k in range(s.batch)]

    def _step(self, batch: list[Context]) -> float:
        self.model.train()
        with self.accelerator.autocast():
            loss = self.whole(partial(self._loss, batch))
        self._learn(loss)
        return float(loss.detach())

    def _loss(self, batch: Sequence[Context]) -> Any:
        """Mean nats of what is to be said, and the weighted mean divergence from the reader of the full context."""
        said = [s for c in batch for s in self._said(c)]
        rows, after = [s.ids for s in said], [s.after for s in said]
        states = self._states(batch, rows, after)
        loss = self.reader.spent(states, rows, after).mean()
        if self.settings.distil:
            loss = loss + self.settings.distil * self.reader.apart(states, self._frozen(batch)).mean()
        return loss

    def _said(self, context: Context) -> Sequence[Said]:
        """What the reader that is trained for is to say of a context."""
        return context.said

    def _states(self, batch: Sequence[Context], rows: Any, after: Any) -> Any:
        """The last states of the reader that is trained for: float[N, H]."""
        slots = int(np.random.default_rng([self.settings.seed, self.state.step, 2]).choice(self.settings.slots))
        kv = self.reader.kv(self.model([c.ids for c in batch], slots))
        owner = [k for k, c in enumerate(batch) for _ in c.said]
        return self.reader.states(kv[owner], rows, after)

    def _frozen(self, batch: Sequence[Context]) -> Any:
        """Those of the base after the full contexts, without gradient."""
        said = [s for c in batch for s in self._full(c)]
        with self.torch.no_grad():
            return self.reader.states(self.reader.nothing(len(said)), [s.ids for s in said], [s.after for s in said])

    def _pace(self, seconds: float) -> str:
        return f"{seconds:.2f} s/step, texts to {self.settings.longest(self.state.step)} tokens"

    def _judge(self) -> None:
        self.model.eval()
        scores = self.whole(self._scores)
        self.state.history.append({"step": self.state.step, **scores})
        self._say(json.dumps(self.state.history[-1]))
        if self.accelerator.is_main_process:
            self.model.save(self.out / "checkpoint")
            self._write_run()

    def _scores(self) -> dict[str, float]:
        """Of each file and task, in each way of `_ways`: nats a token, and how much of the full context's gain."""
        found = {}
        for name, contexts in self.dev.items():
            none, full = self._known(name, contexts)
            for label, nats in self._ways(contexts):
                found[f"nats {name}{label}"] = nats
                found[f"retention {name}{label}"] = (none - nats) / (none - full)
        return {name: round(value, 4) for name, value in found.items()}

    def _ways(self, contexts: Sequence[Context]) -> Iterator[tuple[str, float]]:
        """With each number of slots: what the record calls it, and nats a token."""
        for m in sorted(set(self.settings.slots)):
            kv = lambda some, m=m: self.reader.kv(self.model([c.ids for c in some], m))  # noqa: E731
            yield f" {m}", self._nats(self.reader, contexts, kv)

    def _known(self, name: str, contexts: Sequence[Context]) -> tuple[float, float]:
        if name not in self.known:
            none = [c._replace(said=[judge.after([self.base.start], s) for s in c.said]) for c in contexts]
            full = [c._replace(said=self._full(c)) for c in contexts]
            self.known[name] = self._plain(self.reader, none), self._plain(self.reader, full)
        return self.known[name]

    def _full(self, context: Context) -> list[Said]:
        """What is to be said after the BOS and all of the context."""
        return [judge.after([self.base.start, *context.ids], said) for said in context.said]

    def _plain(self, reader: Reader, contexts: Sequence[Context]) -> float:
        """Mean nats a token of what is to be said after nothing else."""
        return self._nats(reader, contexts, lambda some: reader.nothing(len(some)))

    def _nats(self, reader: Reader, contexts: Sequence[Context], kv: Any) -> float:
        """Mean nats a token of what is to be said after keys and values, float[B, …] of some contexts."""
        found = []
        with self.torch.no_grad():
            for start in range(0, len(contexts), _TOGETHER):
                some = contexts[start : start + _TOGETHER]
                owner = [k for k, c in enumerate(some) for _ in c.said]
                found += judge.nats(reader, kv(some)[owner], [said for c in some for said in c.said])
        return float(np.concatenate(found).mean())

    def _weights(self) -> dict[str, Any]:
        """What is trained: the base stays where it is."""
        return {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}

    def _take(self, weights: dict[str, Any]) -> None:
        self.model.load_state_dict(weights, strict=False)

    def _data(self) -> str:
        from laconic.hub import sha256

        made = asdict(self.base.made)
        return json.dumps([[sha256(p) for p in self.files], made, self.accelerator.num_processes])

    def _write_run(self) -> None:
        """The record of the run."""
        s = self.settings
        run = {
            "command": "laconic train soft",
            "settings": {**asdict(s), "base": Path(s.base).name},
            "texts": len(self.texts),
            "dev": {name: len(contexts) for name, contexts in self.dev.items()},
            "trained": sum(p.numel() for p in self.model.trained()),
            "full context": {name: dict(zip(("none", "full"), nats, strict=True)) for name, nats in self.known.items()},
            "best": self.state.history[-1],
            "history": self.state.history,
        }
        (self.out / "run.json").write_text(json.dumps(run, indent=2) + "\n")


class _Full(_Run):
    """LoRA on the reader, which has the full context before it."""

    kind = Tuned

    def _said(self, context: Context) -> Sequence[Said]:
        return self._full(context)

    def _states(self, batch: Sequence[Context], rows: Any, after: Any) -> Any:
        return self.model.reader().states(self.reader.nothing(len(rows)), rows, after)

    def _ways(self, contexts: Sequence[Context]) -> Iterator[tuple[str, float]]:
        yield "", self._plain(self.model.reader(), [c._replace(said=self._full(c)) for c in contexts])

    def _make_dev(self, files: dict[str, Texts]) -> dict[str, list[Context]]:
        """Also finds out before the first step whether all has room."""
        found, s = super()._make_dev(files), self.settings
        text = [0] * s.encoder.window
        said = [Said([0, *text, 0], 1, "again"), Said([0] * s.follow, 1, "on")]
        plain = [Context(text, said)] if any(not (d.question and d.answer) for d in self.texts.records) else []
        for context in [*plain, *(c for contexts in found.values() for c in contexts)]:
            self._full(context)
        return found

    def _full(self, context: Context) -> list[Said]:
        found = super()._full(context)
        longest, window = max(len(said.ids) for said in found), self.base.window
        if longest > window:
            raise InputError(
                f"a context and what is said of it take {longest:,} positions, {self.base.name} has {window:,}; use a "
                "shorter window (a text that is said again stands there twice)"
            )
        return found
