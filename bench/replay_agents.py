"""What the proxy saves on recorded agents, net of what a prefix cache makes free anyway.

    python bench/replay_agents.py ../shared/data/agents [--limit 6] [--method llmlingua2] [--model laconic-small]

Every call of the model in a trajectory is one request with all messages before it, as an agent sends it.

Price model: messages that begin like the request before (the cached prefix) cost 0.1 of a token each, all others 1.25,
the price of writing the cache; --read and --write change them (0.5 and 1 where writing the cache costs nothing extra).
The cache never expires and has no smallest size; system prompts count, tool definitions are not in the data, answers
cost the same with and without. "prefix kept" is the share of requests that begin with all of the one before.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import laconic
from common import table
from laconic.serve.decisions import Decisions
from laconic.serve.rewrite import Rewriter
from laconic.serve.rules import Rules

FIELDS = ("role", "content", "tool_calls", "tool_call_id", "name")
Messages = list[dict[str, Any]]


def trajectories(file: Path) -> Iterator[Messages]:
    """The messages of each trajectory, as a client of chat completions sends them."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            found = json.loads(line)["traj"] or []
            history = found if isinstance(found, list) else found.get("history", [])
            messages = []
            for entry in history:
                given = {**entry, "tool_call_id": (entry.get("tool_call_ids") or [entry.get("tool_call_id")])[0]}
                messages.append({name: given[name] for name in FIELDS if name == "content" or given.get(name)})
            yield messages


def requests(messages: Messages) -> Iterator[Messages]:
    """What was sent for each answer."""
    return (messages[:k] for k, message in enumerate(messages) if k and message["role"] == "assistant")


@dataclass
class Bill:
    """Tokens of requests, and what they cost."""

    count: Callable[[str], int]
    read: float
    write: float
    tokens: int = 0
    price: float = 0.0
    kept: int = 0  # requests that begin with all of the one before

    def add(self, sent: Messages, before: Messages) -> None:
        """A request, and the one before it in its conversation."""
        same = next((k for k, (a, b) in enumerate(zip(sent, before, strict=False)) if a != b), len(before))
        sizes = [self.count(_words(message)) for message in sent]
        self.tokens += sum(sizes)
        self.price += self.read * sum(sizes[:same]) + self.write * sum(sizes[same:])
        self.kept += same == len(before)


def _words(message: dict[str, Any]) -> str:
    arguments = [call["function"]["arguments"] for call in message.get("tool_calls") or ()]
    return "\n".join([message["content"] or "", *arguments])


def replay(file: Path, rewriter: Rewriter, args: argparse.Namespace) -> list[str]:
    """A row of the table."""
    count = cache(rewriter.compressor.counter)
    plain, ours = (Bill(count, args.read, args.write) for _ in range(2))
    number, reasons, seconds = 0, dict[str, int](), 0.0
    for _, messages in zip(range(args.limit), trajectories(file), strict=False):
        before: Messages = []
        sent_before: Messages = []
        for request in requests(messages):
            body = json.dumps({"messages": request}).encode()
            began = time.perf_counter()
            rewritten = rewriter.rewrite("chat", body, {})
            seconds += time.perf_counter() - began
            sent = json.loads(rewritten.body)["messages"]
            plain.add(request, before)
            ours.add(sent, sent_before)
            before, sent_before, number = request, sent, number + 1
            for part in rewritten.report.parts:
                if part.new:
                    reasons[part.reason] = reasons.get(part.reason, 0) + 1
    why = ", ".join(f"{n} {reason}" for reason, n in sorted(reasons.items(), key=lambda item: -item[1]))
    return [
        file.name.split(".")[0],
        f"{number}",
        f"{plain.tokens:,}",
        f"{1 - ours.tokens / plain.tokens:.1%}",
        f"{1 - ours.price / plain.price:.1%}",
        f"{ours.kept / number:.0%}",
        f"{1000 * seconds / number:.0f} ms",
        why,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=6, help="trajectories of each file (default: %(default)s)")
    parser.add_argument("--method", default="llmlingua2")
    parser.add_argument("--model", default="laconic-small")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--floor", type=int, default=Rules().floor, help="tokens (default: %(default)s)")
    parser.add_argument("--read", type=float, default=0.1)
    parser.add_argument("--write", type=float, default=1.25)
    args = parser.parse_args()
    compressor = laconic.load(args.model, method=args.method)
    rows = []
    for file in sorted(args.folder.glob("*.jsonl.gz")):
        with tempfile.TemporaryDirectory() as folder, Decisions(Path(folder, "decisions.sqlite")) as decisions:
            rows.append(replay(file, Rewriter(compressor, Rules(rate=args.rate, floor=args.floor), decisions), args))
    head = [
        "data",
        "requests",
        "tokens sent",
        "tokens saved",
        "cost saved",
        "prefix kept",
        "a request",
        "parts at first sight",
    ]
    print(table(head, rows))


if __name__ == "__main__":
    main()
