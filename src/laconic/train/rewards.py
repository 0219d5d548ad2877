"""What a policy is paid for: how well a language model does on the compressed text, and how short that is.

A `Quality` compares what a model makes of the compressed text with what it makes of the full one. An `Algorithm` turns
that and the lengths into the reward. Lengths are in tokens of the policy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from laconic.errors import InputError, LaconicError, MissingExtraError
from laconic.eval.answer import Answerer, EndpointAnswerer
from laconic.eval.data import Example
from laconic.eval.kinds import bleu, kind, rouge
from laconic.eval.metrics import token_f1
from laconic.store import Store
from laconic.text import Bools, Floats, Ints

if TYPE_CHECKING:
    from laconic.endpoint import Endpoint

Rewards = npt.NDArray[np.float64]

_SHORTEST = 0.1  # share of a text below which TACO-RL asks nobody ...
_TOO_SHORT = -0.4  # ... and pays this
# How near an answer is to the answer on the full text, from 0 to 1.
MEASURES: dict[str, Callable[[str, str], float]] = {
    "rouge-l": lambda answer, full: rouge(answer, [full])["rougeL"],
    "bleu": lambda answer, full: bleu(answer, [full]),
    "f1": lambda answer, full: token_f1(answer, [full]),
}
REWARDS = (*MEASURES, "likelihood")


@dataclass(frozen=True)
class Pcrl:
    """PCRL (arXiv 2308.08758, section 3): the removed share is paid, if what the model says stays nearly the same.

    >>> Pcrl().reward(np.array([0.95, 0.9]), np.array([40, 40]), np.array([100, 100]), fixed=np.array([20, 0]))
    array([ 0.75, -0.01])
    """

    tau: float = 0.9  # the quality must be above it ...
    penalty: float = -0.01  # ... else this is the reward
    hidden: int = 4096  # width of the head's hidden layer over the frozen encoder

    def __post_init__(self) -> None:
        _check("tau must be in [0, 1)", self.tau, 0 <= self.tau < 1)
        _check("penalty must be 0 or less", self.penalty, self.penalty <= 0)
        _check("hidden must be 1 or more", self.hidden, self.hidden >= 1)

    def asks(self, kept: Ints, whole: Ints) -> Bools:
        """Does the reward depend on the quality? Arrays over texts; kept, whole: tokens."""
        return np.ones(len(kept), bool)

    def reward(self, quality: Rewards, kept: Ints, whole: Ints, fixed: Ints) -> Rewards:
        """quality: 0 to 1; kept, whole, fixed (protected): tokens. Arrays over texts."""
        removed = 1 - (kept - fixed) / np.maximum(whole - fixed, 1)
        return np.where(quality > self.tau, removed, self.penalty)

    def greedy(self, chance: Floats, cost: Ints, whole: int, fixed: int) -> Bools:
        """The likelier decision for each unit that is not protected: float32[n], P(keep), to bool[n]."""
        return chance >= 0.5


@dataclass(frozen=True)
class TacoRl:
    """TACO-RL (arXiv 2409.13035, section 4): the quality is the reward, if the length is near to what was asked for.

    >>> TacoRl(rate=0.5, tolerance=30).reward(np.array([0.8, 0.8, 0.8]), np.array([80, 81, 9]), np.array([100] * 3), 0)
    array([ 0.8, -0.1, -0.4])
    """

    rate: float = 0.5  # share of the tokens to keep
    tolerance: int = 30  # tokens more or less that are allowed
    penalty: float = -0.1  # for more than that

    def __post_init__(self) -> None:
        _check("rate must be in (0, 1)", self.rate, 0 < self.rate < 1)
        _check("tolerance must be 0 tokens or more", self.tolerance, self.tolerance >= 0)
        _check("penalty must be 0 or less", self.penalty, self.penalty <= 0)

    def asks(self, kept: Ints, whole: Ints) -> Bools:
        """As for `Pcrl`: what has not the right length is punished whatever a model makes of it."""
        return (np.abs(kept - self.rate * whole) <= self.tolerance) & (kept > _SHORTEST * whole)

    def reward(self, quality: Rewards, kept: Ints, whole: Ints, fixed: Ints) -> Rewards:
        """As for `Pcrl`; the length counts with what is protected in it."""
        wrong = np.where(kept > _SHORTEST * whole, self.penalty, _TOO_SHORT)
        return np.where(self.asks(kept, whole), quality, wrong)

    def greedy(self, chance: Floats, cost: Ints, whole: int, fixed: int) -> Bools:
        """As for `Pcrl`, but the likeliest units that fit into the rate, as a budget is filled; cost: their tokens."""
        order = np.argsort(-chance, kind="stable")
        keep = np.zeros(len(chance), bool)
        keep[order[np.cumsum(cost[order]) <= self.rate * whole - fixed]] = True
        return keep


Algorithm = Pcrl | TacoRl


def algorithm(name: str, **settings: Any) -> Algorithm:
    """`pcrl` or `taco-rl` with some of its settings; InputError for one that it has not."""
    kind: type[Pcrl] | type[TacoRl] = Pcrl if name == "pcrl" else TacoRl
    known = [f.name for f in fields(kind)]
    if strange := sorted(set(settings) - set(known)):
        raise InputError(f"{name} has no setting {strange[0]}; it has {', '.join(known)}")
    return kind(**settings)


class Quality(Protocol):
    """How well a model does on compressed texts."""

    name: str  # of the model and the measure; a run goes on only with the same

    def takes(self, example: Example) -> bool:
        """Can the model read all of it, and has it what the measure needs?"""
        ...

    def __call__(self, texts: Sequence[str], examples: Sequence[Example]) -> list[float]:
        """From 0 to 1 for each text, compressed from the `context` of the example of the same place."""
        ...


class Agreement:
    """Is the answer on the compressed text near to the model's own answer on the full text? `measure`: of `MEASURES`.

    A question is answered; a text without one is gone on with by a local model, summed up by an endpoint. An answer
    that cannot be had, and what is compared with an empty one, is worth 0.
    """

    def __init__(self, reader: Reader, measure: str) -> None:
        if measure != "f1" and not all(map(find_spec, ("rouge_score", "sacrebleu"))):
            raise MissingExtraError(f"The reward {measure}", "eval")
        self._reader, self._measure = reader, MEASURES[measure]
        self.name = f"{measure}, {reader.name}"

    def takes(self, example: Example) -> bool:
        return self._reader.takes(example)

    def __call__(self, texts: Sequence[str], examples: Sequence[Example]) -> list[float]:
        contexts = [e.context for e in examples]
        answers = self._reader.answers([*texts, *contexts], [*examples, *examples])
        return [self._near(*pair) for pair in zip(answers[: len(texts)], answers[len(texts) :], strict=True)]

    def _near(self, answer: str | LaconicError, full: str | LaconicError) -> float:
        if isinstance(answer, LaconicError) or isinstance(full, LaconicError) or not full.strip():
            return 0.0
        return self._measure(answer, full)


class Likelihood:
    """How likely is the right answer given the compressed text, next to what it is given the full one? In no paper.

    exp(mean nats a token given the full text - the same given the compressed one), at most 1. Of use where a model is
    too small to answer in its own words.
    """

    def __init__(self, model: Local) -> None:
        self._model = model
        self.name = f"likelihood, {model.name}"

    def takes(self, example: Example) -> bool:
        return bool(example.answers) and self._model.takes(example)

    def __call__(self, texts: Sequence[str], examples: Sequence[Example]) -> list[float]:
        contexts = [e.context for e in examples]
        nats = np.array(self._model.nats([*texts, *contexts], [*examples, *examples]))
        return np.exp(np.minimum(nats[len(texts) :] - nats[: len(texts)], 0)).tolist()  # type: ignore[no-any-return]


class Reader(Answerer, Protocol):
    """Answers, and says which texts it can read."""

    def takes(self, example: Example) -> bool:
        """Can it read the whole text and the question?"""
        ...


class Remote(EndpointAnswerer):
    """A model behind an endpoint, which says itself what it refuses; `most`: tokens of an answer."""

    def __init__(self, endpoint: Endpoint, most: int) -> None:
        _check_answer(most)
        super().__init__(endpoint, replace(kind("qa"), prompt=_remote_prompt, max_tokens=most))
        self.name = f"{endpoint.model} at {endpoint.url}, {most} tokens"

    def takes(self, example: Example) -> bool:
        return True


class Local:
    """A causal language model on this machine; what it said before is read from `cache`. `most`: tokens of an answer.

    It reads `text\\nQuestion: … Answer:`, or the text alone, and goes on with what is most probable. No chat template
    is applied: a chat model is asked better behind an endpoint.
    """

    def __init__(self, model: str, most: int, cache: Path) -> None:
        from laconic.hub import fingerprint, load_decoder

        _check_answer(most)
        self._model, self._most, self._store = load_decoder(model), most, Store(cache)
        assert self._model.path is not None
        self._hash = fingerprint(self._model.path)
        self.name = f"{self._model.name} {self._hash[:12]}, {most} tokens"

    def close(self) -> None:
        """Close the cache."""
        self._store.close()

    def takes(self, example: Example) -> bool:
        """Is there room for text, question and answer in a window?"""
        answer = max((len(self._ids(" " + a)) for a in example.answers), default=0)
        prompt = len(self._ids(_local_prompt(example.context, example)))
        return 1 + prompt + max(answer, self._most) <= self._model.decoder.window

    def answers(self, contexts: Sequence[str], examples: Sequence[Example]) -> list[str | LaconicError]:
        """What it says; to a question, up to the end of the line."""
        prompts = [_local_prompt(c, e) for c, e in zip(contexts, examples, strict=True)]
        said = self._recall([["answer", self._most, p] for p in prompts], self._say)
        return [s.strip().split("\n")[0] if e.question else s for s, e in zip(said, examples, strict=True)]

    def nats(self, contexts: Sequence[str], examples: Sequence[Example]) -> list[float]:
        """The mean surprisal of a token of the first answer of each example."""
        pairs = zip(contexts, examples, strict=True)
        return self._recall([["nats", e.answers[0], _local_prompt(c, e)] for c, e in pairs], self._surprisal)

    def _recall(self, asked: list[Any], compute: Callable[[list[Any]], list[Any]]) -> list[Any]:
        """What is asked, computed once for all that is equal and not known yet."""
        keys = [hashlib.sha256(json.dumps([self._hash, *a]).encode()).hexdigest() for a in asked]
        new = {key: a for key, a in zip(keys, asked, strict=True) if self._store.get(key) is None}
        for key, value in zip(new, compute(list(new.values())) if new else (), strict=True):
            self._store.put(key, {"value": value})
        return [(self._store.get(key) or {})["value"] for key in keys]

    def _say(self, asked: list[Any]) -> list[str]:
        rows = [self._row(prompt) for _, _, prompt in asked]
        said = self._model.decoder.greedy(rows, self._most)
        return [self._model.tokenizer.decode(ids.tolist()) for ids in said]

    def _surprisal(self, asked: list[Any]) -> list[float]:
        rows = [(self._row(prompt), np.array(self._ids(" " + answer), np.int64)) for _, answer, prompt in asked]
        ids = np.zeros((len(rows), max(len(p) + len(a) for p, a in rows)), np.int64)
        mask = np.zeros_like(ids)
        for k, (prompt, answer) in enumerate(rows):
            ids[k, : len(prompt) + len(answer)] = [*prompt, *answer]
            mask[k, : len(prompt) + len(answer)] = 1
        nll = self._model.decoder.nll(ids, mask)
        return [float(row[len(p) : len(p) + len(a)].mean()) for row, (p, a) in zip(nll, rows, strict=True)]

    def _row(self, prompt: str) -> Ints:
        return np.array([self._model.decoder.start, *self._ids(prompt)], np.int64)

    def _ids(self, text: str) -> Ints:
        return self._model.tokens(text)[0]


def quality(reward: str, reader: Local | Remote) -> Quality:
    """The quality of a name in `REWARDS`, by a model on this machine or behind an endpoint."""
    if reward not in REWARDS:
        raise InputError(f"no reward {reward!r}; there are {', '.join(REWARDS)}")
    if reward != "likelihood":
        return Agreement(reader, reward)
    if isinstance(reader, Remote):
        raise InputError("an endpoint tells no likelihoods; pass a model on this machine, or another reward")
    return Likelihood(reader)


def _local_prompt(context: str, example: Example) -> str:
    return f"{context}\nQuestion: {example.question} Answer:" if example.question else context


def _remote_prompt(context: str, example: Example) -> str:
    return kind("qa" if example.question else "summary").prompt(context, example)


def _check_answer(most: int) -> None:
    _check("an answer must have 1 token or more", most, most >= 1)


def _check(rule: str, value: float, fine: bool) -> None:
    if not fine:
        raise InputError(f"{rule}, got {value}")
