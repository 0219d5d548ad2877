"""What a distillation will ask for, and what that will cost, before anything is asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from laconic.budget import DEFAULT_COUNTER, counter
from laconic.distill.chunks import LEAST_TOKENS, TOKENS, chunks
from laconic.distill.teach import requests
from laconic.distill.texts import Document, Fields, read
from laconic.endpoint import Endpoint
from laconic.errors import InputError

# A strong model kept 58 % of the tokens of 2,832 passages; questions with answer and evidence took it 61 tokens as
# JSON, 83 at percentile 95 (bench/annotation.py).
_RATE = 0.6
_QUESTION_TOKENS = 80
_MESSAGE_TOKENS = 4  # what chat formats add to each message


@dataclass(frozen=True)
class Job:
    """What to distill from: `tokens` bounds a chunk, in tokens of `counter`; `questions` asks about each chunk too."""

    source: Path
    fields: Fields = field(default_factory=Fields)
    tokens: int = TOKENS
    counter: str = DEFAULT_COUNTER
    questions: bool = False
    skip_broken: bool = False

    def __post_init__(self) -> None:
        if self.tokens < LEAST_TOKENS:
            raise InputError(f"a chunk needs {LEAST_TOKENS} tokens or more, got {self.tokens}; the default is {TOKENS}")

    def passages(self, broken: list[str]) -> Iterator[Document]:
        """The chunks, in order, as documents `ID#0`, `ID#1`, …; `broken` gets a message for each record skipped."""
        count = counter(self.counter)
        for document in read(self.source, self.fields, broken.append if self.skip_broken else None):
            for k, piece in enumerate(chunks(document.text, self.tokens, count)):
                if piece.strip():
                    yield replace(document, id=f"{document.id}#{k}", text=piece)


@dataclass(frozen=True)
class Prices:
    """Of a million tokens, in any currency."""

    tokens_in: float
    tokens_out: float

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """What so many tokens cost."""
        return (tokens_in * self.tokens_in + tokens_out * self.tokens_out) / 1e6


@dataclass(frozen=True)
class Plan:
    """A job that was read through once. Tokens: an estimate for the requests that have no answer in the cache yet."""

    job: Job
    chunks: int
    requests: int
    cached: int
    tokens_in: int
    tokens_out: int
    broken: tuple[str, ...]

    def line(self, prices: Prices | None = None) -> str:
        """The plan for a person."""
        have = f" ({self.cached:,} answered before)" if self.cached else ""
        skipped = f", {len(self.broken):,} broken records skipped" if self.broken else ""
        cost = f", cost about {prices.cost(self.tokens_in, self.tokens_out):,.2f}" if prices else ""
        return (
            f"{self.chunks:,} chunks, {self.requests:,} requests{have}{skipped}: about {self.tokens_in:,} tokens in, "
            f"{self.tokens_out:,} out{cost}"
        )


def plan(job: Job, endpoint: Endpoint) -> Plan:
    """Read everything and ask nothing: broken input and costs show before anything is paid."""
    count, broken = counter(job.counter), list[str]()
    passages = wanted = cached = tokens_in = tokens_out = 0
    for passage in job.passages(broken):
        passages += 1
        for k, messages in enumerate(requests(passage, job.questions)):
            wanted += 1
            if endpoint.cached(messages):
                cached += 1
                continue
            tokens_in += sum(count(m["content"]) + _MESSAGE_TOKENS for m in messages)
            tokens_out += _QUESTION_TOKENS if k else round(_RATE * count(passage.text))
    if not passages:
        why = f"{len(broken)} broken records, the first: {broken[0]}" if broken else "nothing but white space"
        raise InputError(f"no text in {job.source} ({why})")
    return Plan(job, passages, wanted, cached, tokens_in, tokens_out, tuple(broken))
