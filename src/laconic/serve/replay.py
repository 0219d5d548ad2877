"""What the proxy would have saved on recorded requests, net of what the provider's prefix cache makes cheap anyway.

Price model. A request is its tools, its system prompt, and its messages or items, in this order. What begins like an
earlier request of the session, as it was sent, is read from the cache, at `read` of a token's price; all else is
written to it, at `write`. The cache never expires and has no smallest size. Images, files and the frame around texts
are not counted; answers cost the same with and without.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from typing import Any

from laconic.serve.recorded import Recorded
from laconic.serve.report import PartReport
from laconic.serve.rewrite import Rewriter

_FIRST = ("tools", "system", "instructions")  # of a request, before its messages
_TEXTS = ("content", "text", "output", "thinking", "tool_calls", "function", "custom", "arguments", "input", "source")


@dataclass
class Bill:
    """Tokens of requests, and what they cost in tokens at full price."""

    count: Callable[[str], int]
    read: float
    write: float
    tokens: int = 0
    cost: float = 0.0
    _seen: set[str] = field(default_factory=set)  # beginnings of requests

    def add(self, request: Recorded, sent: Mapping[str, Any]) -> int:
        """Charge a request as it was sent; how many of its pieces were in the cache."""
        sizes, keys, key = list[int](), list[str](), request.session
        for piece in _pieces(sent):
            text = json.dumps(piece)
            key = sha256(f"{key} {text}".encode()).hexdigest()
            keys.append(key)
            sizes.append(self.count("\n".join(_words(piece))))
        cached = next((k for k, key in enumerate(keys) if key not in self._seen), len(keys))
        self._seen.update(keys)
        self.tokens += sum(sizes)
        self.cost += self.read * sum(sizes[:cached]) + self.write * sum(sizes[cached:])
        return cached


@dataclass
class Line:
    """Parts of one kind and fate, when they were first sent."""

    parts: int = 0
    tokens_before: int = 0
    tokens_after: int = 0

    def add(self, part: PartReport) -> None:
        self.parts += 1
        self.tokens_before += part.tokens_before
        self.tokens_after += part.tokens_after


@dataclass
class Saving:
    """What became of all requests."""

    plain: Bill
    ours: Bill
    requests: int = 0
    sessions: set[str] = field(default_factory=set)
    answered: int = 0  # requests that end with the model's words
    broken: int = 0  # requests of which less was in the cache than without laconic
    whole: Counter[str] = field(default_factory=Counter)  # requests that went out as they came, by `report.WHOLE`
    lines: dict[tuple[str, str], Line] = field(default_factory=dict)  # by kind and reason
    seconds: list[float] = field(default_factory=list)  # of each request

    @property
    def net(self) -> float:
        """Share of the cost of what was sent that would have been saved; below 0: more would have been paid."""
        return 1 - self.ours.cost / self.plain.cost if self.plain.cost else 0.0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [{"kind": k, "reason": why, **vars(line)} for (k, why), line in self.lines.items()]
        return {
            "requests": self.requests,
            "sessions": len(self.sessions),
            "tokens": {"before": self.plain.tokens, "after": self.ours.tokens},
            "cost": {"before": self.plain.cost, "after": self.ours.cost, "saved": self.net},
            "cache": {"read": self.plain.read, "write": self.plain.write, "broken": self.broken},
            "parts": rows,
            "whole": dict(self.whole),
            "milliseconds": {f"p{p}": 1000 * percentile(self.seconds, p) for p in (50, 95)},
        }


def replay(requests: Iterable[Recorded], rewriter: Rewriter, read: float = 0.1, write: float = 1.25) -> Saving:
    """Send recorded requests through a rewriter, in their order."""
    count = cache(rewriter.compressor.counter)
    saving = Saving(Bill(count, read, write), Bill(count, read, write))
    for request in requests:
        body = json.dumps(request.body).encode()
        began = time.perf_counter()
        rewritten = rewriter.rewrite(request.protocol, body, {})
        saving.seconds.append(time.perf_counter() - began)
        sent = json.loads(rewritten.body)
        saving.broken += saving.plain.add(request, request.body) > saving.ours.add(request, sent)
        saving.requests += 1
        saving.sessions.add(request.session)
        saving.answered += _answered(request.body)
        if rewritten.report.whole:
            saving.whole[rewritten.report.whole] += 1
        for part in rewritten.report.parts:
            if part.new:
                saving.lines.setdefault((part.kind, part.reason), Line()).add(part)
    return saving


def percentile(values: list[float], percent: int) -> float:
    """The smallest value that so many percent do not exceed; 0 if there are none."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1] if values else 0.0


def _pieces(body: Mapping[str, Any]) -> Iterator[Any]:
    """What a provider reads of a request, in order."""
    yield from ({key: body[key]} for key in _FIRST if body.get(key))
    given = body.get("messages", body.get("input"))
    yield from given if isinstance(given, list) else [{"content": given}]


def _words(value: Any) -> Iterator[str]:
    """The texts that a model reads in a piece."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _words(item)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key == "tools" or (key == "input" and isinstance(inner, dict)):
                yield json.dumps(inner, ensure_ascii=False)
            elif (key == "data" and value.get("type") == "text") or key in _TEXTS or key in _FIRST:
                yield from _words(inner)


def _answered(body: Mapping[str, Any]) -> bool:
    return any(isinstance(last, dict) and last.get("role") == "assistant" for last in [*_pieces(body)][-1:])
