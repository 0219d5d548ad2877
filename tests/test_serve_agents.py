"""Recorded agents, replayed request by request in all three protocols."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import httpx
import pytest

import laconic
from laconic.serve.app import create_app
from laconic.serve.config import Config
from laconic.serve.decisions import Decisions
from laconic.serve.rewrite import Rewriter
from laconic.serve.rules import Rules
from laconic.serve.service import Service
from serving import PROTOCOLS, ROUTES, entry_key
from upstream import Upstream, running

AGENTS = Path(__file__).parents[2] / "shared" / "data" / "agents"
pytestmark = pytest.mark.skipif(not AGENTS.is_dir(), reason="the data is not beside the project")
NUMBER = 4  # trajectories of each file


def trajectories(name):
    with gzip.open(AGENTS / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in itertools.islice(lines, NUMBER):
            found = json.loads(line)["traj"]
            yield found if isinstance(found, list) else found["history"]


def said(protocol, message):
    """The messages or items that an agent's entry is in a protocol."""
    role, text = message["role"], message["content"] or ""
    calls = [c["function"] | {"id": c["id"]} for c in message.get("tool_calls") or ()]
    answered = (message.get("tool_call_ids") or [message.get("tool_call_id")])[0]
    if protocol == "chat":
        fields = {"role": role, "content": message["content"], "tool_call_id": answered}
        return [{**fields, "tool_calls": message["tool_calls"]} if calls else fields]
    if protocol == "responses":
        made = [
            {"type": "function_call", "call_id": c["id"], **{k: c[k] for k in ("name", "arguments")}} for c in calls
        ]
        if role == "tool":
            return [{"type": "function_call_output", "call_id": answered, "output": text}]
        return [{"role": role, "content": text}, *made]
    if role == "tool":
        result = {"type": "tool_result", "tool_use_id": answered, "content": [{"type": "text", "text": text}]}
        return [{"role": "user", "content": [result]}]
    used = [{"type": "tool_use", "id": c["id"], "name": c["name"], "input": c["arguments"]} for c in calls]
    return [{"role": role, "content": [{"type": "text", "text": text}, *used] if used else text}]


def blanked(protocol, entries, paths):
    """The messages without the strings at these paths."""
    copy = {entry_key(protocol): json.loads(json.dumps(entries))}
    for path in paths:
        node = copy
        for step in path[:-1]:
            node = node[step]
        assert isinstance(node[path[-1]], str)
        node[path[-1]] = None
    return copy


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ["tau_airline", "swe_agent"])
def test_agents_are_equal_outside_permitted_text_and_their_prefixes_never_change(tmp_path, name, protocol):
    compressor, compressed = laconic.load(method="tfidf"), 0
    with Decisions(tmp_path / "decisions.sqlite") as decisions:
        rewriter = Rewriter(compressor, Rules(floor=100), decisions)
        for trajectory in trajectories(name):
            entries, before = [], b""
            for message in trajectory:
                if message["role"] == "assistant" and entries:
                    original = json.dumps({entry_key(protocol): entries}).encode()
                    rewritten = rewriter.rewrite(protocol, original, {})
                    assert rewritten.body.startswith(before)
                    before = rewritten.body.removesuffix(b"]}")
                    done = [part for part in rewritten.report.parts if part.reason == "compressed"]
                    compressed += len(done)
                    check(protocol, entries, json.loads(rewritten.body)[entry_key(protocol)], done, rewriter)
                entries += said(protocol, message)
    assert compressed


def check(protocol, entries, sent, done, rewriter):
    """Only results of tools changed: into spans of themselves, whose originals come back."""
    paths = [part.path for part in done]
    assert {part.kind for part in done} <= {"tool"}
    assert blanked(protocol, sent, paths) == blanked(protocol, entries, paths)
    for part in done:
        original, now = {entry_key(protocol): entries}, {entry_key(protocol): sent}
        for step in part.path:
            original, now = original[step], now[step]
        assert rewriter.decisions.restore(part.id) == original
        assert part.tokens_after == rewriter.compressor.counter(now) < part.tokens_before
        rest = iter(original)
        assert all(character in rest for character in now)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_agents_through_the_proxy_say_the_same_with_the_bytes_of_before(tmp_path, protocol):
    upstream, saved = Upstream(), 0
    with running(upstream.app) as address:
        service = Service(Config({"openai": address}, store=tmp_path), Rules(floor=100), laconic.load(method="tfidf"))
        with running(create_app(service)) as proxy, httpx.Client(base_url=proxy) as client:
            for trajectory in trajectories("tau_airline"):
                entries, before = [], b""
                for message in trajectory:
                    if message["role"] == "assistant" and entries:
                        content = json.dumps({entry_key(protocol): entries}).encode()
                        told = client.post(ROUTES[protocol], content=content).headers
                        sent = upstream.received[-1].body
                        assert sent.startswith(before)
                        before = sent.removesuffix(b"]}")
                        done = rewritten(service, protocol, content)  # decided: the same again, with its parts
                        check(protocol, entries, json.loads(sent)[entry_key(protocol)], done, service.rewriter)
                        saved += int(told["x-laconic-tokens-before"]) - int(told["x-laconic-tokens-after"])
                    entries += said(protocol, message)
    assert saved > 0


def rewritten(service, protocol, content):
    """The compressed parts of a request that was sent before."""
    report = service.rewriter.rewrite(protocol, content, {}).report
    assert not any(part.new for part in report.parts)
    return [part for part in report.parts if part.reason == "compressed"]
