"""Pretrain a small causal language model from scratch: a Llama with tied embeddings and a tokenizer of its own.

It is what perplexity methods and soft compression are tested and shown on, so besides text it learns to copy and to
recall (laconic.train.tasks). The learning rate warms up, stays, and falls to zero over the last 30 % of the steps
(arXiv 2405.18392 finds this as good as a cosine).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from math import fsum, log
from pathlib import Path
from typing import Any

import numpy as np

from laconic.errors import InputError
from laconic.export import quiet
from laconic.train import bpe, tasks
from laconic.train.corpus import Packed, Texts, prepare
from laconic.train.induction import wire
from laconic.train.loop import Loop, Say, State, nothing
from laconic.train.tasks import Mix, Window

_TIMES = 10  # that a run is judged …
_APART = 50  # … but not more often than after so many steps
_DEV = 32  # windows to judge by, of each file and each task
_CHUNK = 512  # tokens whose float32 scores exist at the same time
_DECAY = 0.3  # share of the steps in which the learning rate falls


@dataclass(frozen=True)
class Settings:
    """What decides how a run goes; the same settings, data and versions give the same weights."""

    steps: int = 2000
    batch: int = 32  # windows a step, on each process
    window: int = 512  # tokens, also the most that the model reads
    vocabulary: int = 8192  # tokens
    width: int = 384
    layers: int = 5
    heads: int = 6  # half as many of keys and values
    lr: float = 5e-4  # peak; from 6e-4 on the wired head was lost at this size (docs/log.md)
    copy: float = 0.2  # share of windows that are passages to copy
    recall: float = 0.2  # share of windows that are facts to recall
    lookup: float = 0.0  # share of windows that are pairs to look up
    seed: int = 0

    def __post_init__(self) -> None:
        shares = fsum((self.copy, self.recall, self.lookup))
        for rule, value, fine in (
            ("steps must be 1 or more", self.steps, self.steps >= 1),
            ("a batch must have 1 window or more", self.batch, self.batch >= 1),
            ("window must be 32 tokens or more", self.window, self.window >= 32),
            (
                f"vocabulary must be from {bpe.LEAST} to {bpe.MOST} tokens",
                self.vocabulary,
                bpe.LEAST <= self.vocabulary <= bpe.MOST,
            ),
            ("layers must be 1 or more", self.layers, self.layers >= 1),
            ("heads must be even, 2 or more", self.heads, self.heads >= 2 and self.heads % 2 == 0),
            ("lr must be in [0, 1)", self.lr, 0 <= self.lr < 1),
            ("copy must be 0 or more", self.copy, self.copy >= 0),
            ("recall must be 0 or more", self.recall, self.recall >= 0),
            ("lookup must be 0 or more", self.lookup, self.lookup >= 0),
            ("copy, recall and lookup must be 1 or less together", shares, shares <= 1),
            ("seed must be 0 or more", self.seed, self.seed >= 0),
        ):
            if not fine:
                raise InputError(f"{rule}, got {value}")
        if self.width < 1 or self.width % (2 * self.heads):
            raise InputError(f"width must be a multiple of twice the {self.heads} heads, got {self.width}")


def train(texts: Texts, out: Path, settings: Settings, save_every: int = 200, say: Say = nothing) -> Path:
    """Train and write a Hugging Face checkpoint (float16) to `out`/checkpoint; returns it.

    Killed at any moment, the same call goes on after the last saved step with the same result. One process a device:
    `accelerate launch` or `torchrun` start several. `say` gets a line of progress now and then.
    """
    return _Run(texts, out, settings, save_every, say).train()


class _Run(Loop):
    def __init__(self, texts: Texts, out: Path, settings: Settings, save_every: int, say: Say) -> None:
        super().__init__(out, settings, save_every, say)
        s, torch = settings, self.torch
        self._make_folder()
        with self.accelerator.main_process_first():
            self.data = prepare(texts, s.vocabulary, out)
        self._check()
        self._say(f"{len(self.data.train.tokens):,} tokens to learn from")
        rows = s.batch * self.accelerator.num_processes
        self.mix = Mix(
            self.data.train,
            self._encode,
            s.window,
            copy=s.copy,
            recall=s.recall,
            lookup=s.lookup,
            steps=s.steps,
            rows=rows,
            seed=s.seed,
        )
        self._make_dev()
        self.lm = _llama(s, self.data.tokenizer.get_vocab_size())
        self.model = _objective(self.lm, torch)
        matrices = [p for p in self.lm.parameters() if p.dim() > 1]
        others = [p for p in self.lm.parameters() if p.dim() == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
            lr=s.lr,
            betas=(0.9, 0.95),
            fused=True,
        )
        warmup, falling = max(1, s.steps // 20), max(1, int(s.steps * _DECAY))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min((step + 1) / warmup, 1.0, (s.steps - step) / falling)
        )
        self.state, self.steps = State(), s.steps
        every = max(_APART, s.steps // _TIMES)
        self.ends = [*range(every, s.steps, every), s.steps]
        self._start()

    def _check(self) -> None:
        """What would come to light only after hours of training."""
        window = self.settings.window
        for name, corpus in {"to learn from": self.data.train, **self.data.dev}.items():
            if not corpus.windows(window):
                raise InputError(
                    f"the text {name} has {len(corpus.tokens)} tokens, less than a window of {window}; "
                    "pass more text or a shorter window"
                )
        if self.settings.recall and not self._recalls(0).learn.any():
            raise InputError(f"a window of {window} tokens is too short for facts to recall; use a longer one")

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.data.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _recalls(self, k: int) -> Window:
        """Facts about people that are never trained on."""
        return tasks.recalls(self._encode, self.settings.window, np.random.default_rng([k, 3]), fresh=True)

    def _make_dev(self) -> None:
        """The windows to judge by: of each dev file, copies of them, facts, pairs; the same ones for every seed."""
        window, corpora = self.settings.window, self.data.dev
        packed = {name: Packed(corpus, window, np.random.default_rng(0)) for name, corpus in corpora.items()}
        self.dev = {name: [tasks.text(p[k]) for k in range(min(_DEV, len(p)))] for name, p in packed.items()}
        turns = [list(corpora.values())[k % len(corpora)] for k in range(_DEV)]
        self.copied = [tasks.copies(c, window, np.random.default_rng([k, 4])) for k, c in enumerate(turns)]
        self.recalled = [self._recalls(k) for k in range(_DEV)]
        some = range(_DEV if self.settings.lookup else 0)
        self.looked_up = [tasks.lookups(window, np.random.default_rng([k, 5])) for k in some]

    def _batch(self, step: int) -> list[Window]:
        first = self.accelerator.process_index * self.settings.batch
        return [self.mix[step, first + k] for k in range(self.settings.batch)]

    def _step(self, batch: list[Window]) -> float:
        self.model.train()
        ids, learn = (self._tensor([w[k] for w in batch]) for k in (0, 1))
        with self.accelerator.autocast():
            loss = self.model(ids, learn)
        self._learn(loss)
        return float(loss.detach())

    def _tensor(self, rows: Sequence[Any]) -> Any:
        return self.torch.from_numpy(np.stack(rows)).to(self.accelerator.device)

    def _pace(self, seconds: float) -> str:
        s = self.settings
        return f"{s.batch * s.window * self.accelerator.num_processes / seconds:,.0f} tokens/s"

    def _judge(self) -> None:
        """What is judged is what is kept: the weights in float16."""
        if not self.accelerator.is_main_process:
            return
        kept = deepcopy(self.lm).half().float().eval()
        self.state.history.append({"step": self.state.step, **self.scores(kept)})
        self._say(json.dumps(self.state.history[-1]))
        checkpoint = self.out / "checkpoint"
        with quiet():
            kept.half().save_pretrained(checkpoint)
        bpe.save(self.data.tokenizer, checkpoint, self.settings.window)
        self._write_run()

    def scores(self, lm: Any) -> dict[str, float]:
        """On windows of dev, each after <s>: nats a token and bits a byte of text; the share of tokens that are most
        probable where they are a copy, and at first sight; the share of answers of which all tokens are."""
        sizes = np.array([len(t) for t, _ in sorted(self.data.tokenizer.get_vocab().items(), key=lambda x: x[1])])
        out, nats, count = {}, 0.0, 0
        for name, windows in self.dev.items():
            some = [(nll[m], w.ids[m]) for w, nll, _ in self._read(lm, windows) for m in [w.learn & (w.ids != bpe.EOS)]]
            spent, ids = (np.concatenate(x) for x in zip(*some, strict=True))
            nats, count = nats + float(spent.sum()), count + len(ids)
            out[f"bits_per_byte {name}"] = float(spent.sum()) / log(2) / int(sizes[ids].sum())
        right: dict[str, list[Any]] = {"copy": [], "first_sight": [], "recall": [], "lookup": []}
        for w, _, hit in self._read(lm, self.copied):
            right["copy"] += hit[w.asked >= 0].tolist()
            right["first_sight"] += hit[w.learn & (w.asked < 0) & (w.ids != bpe.EOS)].tolist()
        for name, windows in (("recall", self.recalled), ("lookup", self.looked_up)):
            for w, _, hit in self._read(lm, windows):
                right[name] += [bool(hit[w.asked == k].all()) for k in range(w.asked.max() + 1)]
        shares = {name: float(np.mean(hits)) for name, hits in right.items() if hits}
        return {k: round(v, 4) for k, v in ({"loss": nats / count} | out | shares).items()}

    def _read(self, lm: Any, windows: Sequence[Window]) -> Iterator[tuple[Window, Any, Any]]:
        """Every window with float32[T] nats and bool[T], was the token the most probable one? 0 for the first token."""
        for start in range(0, len(windows), 4):
            batch = windows[start : start + 4]
            ids = self._tensor([w.ids for w in batch])
            with self.torch.no_grad():
                scores = lm(ids, use_cache=False).logits[:, :-1].transpose(1, 2)  # float32[B, V, T - 1]
            nll = self.torch.nn.functional.cross_entropy(scores, ids[:, 1:], reduction="none")
            right = scores.argmax(1) == ids[:, 1:]
            for k, window in enumerate(batch):
                yield window, np.pad(nll[k].cpu().numpy(), (1, 0)), np.pad(right[k].cpu().numpy(), (1, 0))

    def _data(self) -> str:
        return json.dumps([self.data.key, self.accelerator.num_processes])

    def _write_run(self) -> None:
        """What the model card is made from."""
        run = {
            "settings": asdict(self.settings),
            "data": self.data.files["train"],
            "dev": self.data.files["dev"],
            "windows": _DEV,
            "parameters": self.lm.num_parameters(),
            "tokens": len(self.data.train.tokens),
            "read": self.state.step * self.settings.batch * self.settings.window * self.accelerator.num_processes,
            "best": self.state.history[-1],
            "history": self.state.history,
        }
        (self.out / "run.json").write_text(json.dumps(run, indent=2) + "\n")


def _llama(settings: Settings, vocabulary: int) -> Any:
    """A Llama wired to copy: half as many heads of keys and values, 2.75 times the width between (in steps of 32)."""
    import transformers

    s = settings
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=s.width,
        intermediate_size=-(-s.width * 11 // (4 * 32)) * 32,
        num_hidden_layers=s.layers,
        num_attention_heads=s.heads,
        num_key_value_heads=s.heads // 2,
        max_position_embeddings=s.window,
        tie_word_embeddings=True,
        bos_token_id=bpe.BOS,
        eos_token_id=bpe.EOS,
        pad_token_id=bpe.PAD,
        initializer_range=s.width**-0.5,
    )
    lm = transformers.LlamaForCausalLM(config)
    wire(lm)
    return lm


def _objective(lm: Any, torch: Any) -> Any:
    """A module that gives the mean nats of the tokens to learn.

    ids int64[B, T], learn bool[B, T]. Scores over the vocabulary, the largest thing here, exist for some tokens at a
    time, and are computed again on the way back.
    """
    from torch.utils.checkpoint import checkpoint

    def spent(hidden: Any, targets: Any) -> Any:
        return torch.nn.functional.cross_entropy(lm.lm_head(hidden).float(), targets, reduction="sum")

    class Objective(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lm = lm

        def forward(self, ids: Any, learn: Any) -> Any:
            hidden, wanted = self.lm.model(ids, use_cache=False).last_hidden_state, learn[:, 1:]
            places, targets = hidden[:, :-1][wanted], ids[:, 1:][wanted]
            rest = -len(targets) % _CHUNK  # chunks of one size: freed memory fits again
            places = torch.nn.functional.pad(places, (0, 0, 0, rest))
            padded = torch.nn.functional.pad(targets, (0, rest), value=-100)
            parts = zip(places.split(_CHUNK), padded.split(_CHUNK), strict=True)
            return sum(checkpoint(spent, *part, use_reentrant=False) for part in parts) / max(1, len(targets))

    return Objective()
