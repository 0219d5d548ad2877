"""What recorded requests would have saved: reading them, the bill, the command."""

from __future__ import annotations

import gzip
import json
import os

import pytest

from laconic.cli import main
from laconic.errors import InputError
from laconic.serve.decisions import Decisions, store_file
from laconic.serve.recorded import recorded
from laconic.serve.replay import Bill, percentile, replay
from laconic.serve.rewrite import Rewriter
from laconic.serve.rules import Rules
from serving import PROTOCOLS, WORDS, Fickle, body, calls, entry_key, long, says, tool, user

every = pytest.mark.parametrize("protocol", PROTOCOLS)
TEXT = "The meeting was held on Monday, and everyone who was there agreed on the new plan. " * 9


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LACONIC_STORE", str(tmp_path / "store"))


@pytest.fixture
def rewriter(tmp_path):
    with Decisions(tmp_path / "decisions.sqlite") as decisions:
        yield Rewriter(Fickle(), Rules(floor=20), decisions)


def lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def conversation(protocol):
    return [
        user(protocol, "go"),
        calls(protocol),
        tool(protocol, long("t")),
        says(protocol, "done"),
        user(protocol, "on"),
    ]


def request(protocol, messages, **more):
    return json.loads(body(protocol, messages, **more))


@every
def test_a_conversation_becomes_a_request_for_each_call(tmp_path, protocol):
    path = lines(tmp_path / "x.jsonl", request(protocol, conversation(protocol), max_tokens=5))
    found = list(recorded(path, protocol, expand=True))
    assert [len(one.body[entry_key(protocol)]) for one in found] == [1, 3]
    assert {one.protocol for one in found} == {protocol} and len({one.session for one in found}) == 1
    assert all(one.body["max_tokens"] == 5 and one.body["model"] == "m" for one in found)


def test_items_of_one_answer_are_one_call(tmp_path):
    said = [user("responses", "go"), {"type": "reasoning", "summary": []}, calls("responses")]
    path = lines(tmp_path / "x.jsonl", {"input": [*said, tool("responses", "ok"), says("responses", "done")]})
    assert [len(one.body["input"]) for one in recorded(path, expand=True)] == [1, 4]


@pytest.mark.parametrize("record", [{"traj": 0}, {"traj": {"history": 0}}, {"history": 0}, {"messages": 0}])
def test_recordings_of_agents_are_conversations(tmp_path, record):
    text = json.dumps(record).replace("0", json.dumps(conversation("chat")))
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    found = list(recorded(tmp_path / "x.jsonl.gz", expand=True))
    assert [one.body["messages"] for one in found] == [conversation("chat")[:1], conversation("chat")[:3]]


@pytest.mark.parametrize(
    ("found", "protocol"),
    [
        ({"input": "x"}, "responses"),
        ({"input": []}, "responses"),
        ({"messages": [user("chat", "x")]}, "chat"),
        ({"messages": [{"role": "system", "content": "x"}], "max_tokens": 3}, "chat"),
        ({"messages": conversation("chat"), "max_tokens": 3}, "chat"),
        ({"messages": [user("chat", "x")], "tools": [{"type": "function"}]}, "chat"),
        ({"messages": [user("chat", "x")], "system": "y"}, "messages"),
        ({"messages": [user("chat", "x")], "tools": [{"name": "t", "input_schema": {}}]}, "messages"),
        ({"messages": conversation("messages")}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}], "max_tokens": 3}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, "chat"),
        ({"body": {"messages": []}, "path": "/v1/messages?beta=true"}, "messages"),
        ({"body": {"messages": []}, "path": "https://x.org/v1/chat/completions"}, "chat"),
        ({"body": '{"messages": []}', "protocol": "messages"}, "messages"),
    ],
)
def test_a_protocol_is_recognised(tmp_path, found, protocol):
    (one,) = recorded(lines(tmp_path / "x.jsonl", found))
    assert one.protocol == protocol
    (one,) = recorded(tmp_path / "x.jsonl", "chat")
    assert one.protocol == "chat"


def test_folders_sessions_and_limits(tmp_path):
    lines(tmp_path / "b.jsonl", {"input": "1"}, {"body": {"input": "2"}, "session": "s"}, {"input": "3"})
    (tmp_path / "a.json").write_text('[{"input": "4"}, {"input": "5"}]')
    (tmp_path / "c.json").write_text('\ufeff{"input":\n "6"}', encoding="utf-8")
    (tmp_path / "notes.txt").write_text("not read")
    found = [(one.body["input"], one.session) for one in recorded(tmp_path)]
    a, b, c = (str(tmp_path / name) for name in ("a.json", "b.jsonl", "c.json"))
    assert found == [("4", a), ("5", a), ("1", b), ("2", "s"), ("3", b), ("6", c)]
    assert [one.body["input"] for one in recorded(tmp_path, limit=1)] == ["4", "1", "6"]


@pytest.mark.parametrize(
    ("text", "expand", "advice"),
    [
        ('{"input": "x"}\n\n{"input"', False, r"x\.jsonl, line 3 is not JSON \(.*\); write one request a line"),
        ("[1]", False, r"x\.jsonl, line 1: a record must be an object"),
        ('{"traj": []}', False, r"line 1: there is no request.*need --expand"),
        ('{"prompt": "x"}', True, r"line 1: there is no conversation.*leave --expand out"),
        ('{"body": "{"}', False, r"line 1: the body is not JSON"),
        ('{"body": {"input": "x"}, "protocol": "grpc"}', False, r"must be one of chat, .* got 'grpc'"),
        ("[" * 100_000, False, r"line 1 is not JSON"),
    ],
)
def test_a_wrong_record_is_told_with_its_place(tmp_path, text, expand, advice):
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(InputError, match=advice):
        list(recorded(tmp_path / "x.jsonl", expand=expand))


def test_wrong_files_are_told(tmp_path):
    with pytest.raises(InputError, match="has no file that ends in"):
        list(recorded(tmp_path))
    (tmp_path / "x.jsonl.gz").write_text("no gzip")
    for name in ("none.jsonl", "x.jsonl.gz"):
        with pytest.raises(InputError, match=f"{name} cannot be read: .*; pass JSON lines"):
            list(recorded(tmp_path / name))


def test_a_bill_charges_what_begins_like_an_earlier_request_as_read(tmp_path):
    system, one, two = {"role": "system", "content": "s " * 10}, user("chat", "a " * 20), user("chat", "b " * 30)
    path = lines(tmp_path / "x.jsonl", *({"messages": m} for m in ([system, one], [system, two], [system, one, two])))
    bill = Bill(WORDS, 0.1, 2)
    cached = [bill.add(request, request.body) for request in recorded(path)]
    assert cached == [0, 1, 2]
    assert bill.tokens == 30 + 40 + 60
    assert bill.cost == pytest.approx(2 * 30 + (0.1 * 10 + 2 * 30) + (0.1 * 30 + 2 * 30))


@every
def test_texts_and_arguments_are_counted(tmp_path, protocol):
    said = [user(protocol, "one two"), calls(protocol), tool(protocol, "three"), says(protocol, "four")]
    system = {"tools": [{"name": "t"}], "instructions" if protocol == "responses" else "system": "five six"}
    (one,) = recorded(lines(tmp_path / "x.jsonl", {**request(protocol, said), **system}), protocol)
    image = {"type": "image", "source": {"type": "base64", "data": "aaaa"}}
    (with_image,) = recorded(
        lines(tmp_path / "x.jsonl", {**one.body, entry_key(protocol): [*said, {"content": [image]}]})
    )
    bills = [Bill(WORDS, 0.1, 1.25) for _ in range(3)]
    bills[0].add(one, one.body)
    bills[1].add(one, {entry_key(protocol): said})
    bills[2].add(with_image, with_image.body)
    arguments = WORDS(json.dumps({"q": long("argument") if protocol == "chat" else "x"}))
    assert bills[1].tokens == 2 + arguments + 1 + 1
    assert bills[0].tokens == bills[2].tokens == bills[1].tokens + 2 + WORDS('[{"name": "t"}]')


def test_replay_is_net_of_the_cache(tmp_path, rewriter):
    said = conversation("chat")
    path = lines(tmp_path / "x.jsonl", {"messages": [*said, says("chat", "end")]})
    saving = replay(recorded(path, expand=True), rewriter, 0.1, 1)
    saved = WORDS(long("t")) - 21
    assert (saving.requests, len(saving.sessions), saving.broken, saving.answered) == (3, 1, 0, 0)
    assert saving.plain.tokens - saving.ours.tokens == 2 * saved  # sent twice, the second time from the cache
    assert saving.plain.cost - saving.ours.cost == pytest.approx((1 + 0.1) * saved)
    told = {(kind, why): (line.parts, line.tokens_after) for (kind, why), line in saving.lines.items()}
    assert told == {("user", "newest"): (2, 2), ("tool", "compressed"): (1, 21)}
    assert 0 < saving.net < 1 and json.loads(json.dumps(saving.to_dict()))["tokens"]["before"] == saving.plain.tokens


def test_requests_that_change_their_beginning_save_nothing_in_the_cache(tmp_path, rewriter):
    """A cache that a rewriter breaks is told: here one that forgets what it decided."""
    said = conversation("chat")
    path = lines(tmp_path / "x.jsonl", {"messages": [*said, says("chat", "end")]})

    class Forgetful:
        compressor = rewriter.compressor

        def rewrite(self, protocol, body, headers):
            new = body.replace(b"t0", f"n{len(self.compressor.calls)}".encode())
            self.compressor.calls.append(())
            return rewriter.rewrite(protocol, new, headers)

    assert replay(recorded(path, expand=True), Forgetful()).broken == 1


def test_percentiles():
    assert [percentile([3.0, 1.0, 2.0, 4.0], p) for p in (50, 95, 100)] == [2, 4, 4] and percentile([], 95) == 0


def test_the_command(tmp_path, capfd, monkeypatch):
    said = [user("chat", "go"), calls("chat"), tool("chat", TEXT), says("chat", "done")]
    path = lines(tmp_path / "x.jsonl", {"messages": said})
    (tmp_path / "laconic.toml").write_text("[rules]\nfloor = 100\n[server]\nport = 1\n")
    given = ["replay", str(path), "--expand", "--config", str(tmp_path / "laconic.toml")]
    assert main([*given, "--price", "1000000"]) == 0
    told = capfd.readouterr().out
    assert "2 requests, 1 sessions" in told and "tool  compressed      1" in told
    assert "no request had less in the cache" in told and "is not known" in told
    monkeypatch.setenv("LACONIC_BYPASS", "1")
    assert main([*given, "--format", "json", "--cache-write", "1"]) == 0
    made = json.loads(capfd.readouterr().out)
    assert made["cost"]["saved"] == 0 and made["whole"] == {"bypass": 2} and made["cache"]["write"] == 1
    assert not store_file().exists() and sorted(os.listdir(tmp_path)) == ["laconic.toml", "x.jsonl"]


def test_the_command_asks_about_whole_conversations(tmp_path, capfd):
    path = lines(tmp_path / "x.jsonl", {"messages": [user("chat", "go"), says("chat", "done")]})
    assert main(["replay", str(path)]) == 0
    told = capfd.readouterr()
    assert "saved 0.0%" in told.out and "pass --expand" in told.err


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (["--cache-read", "-1"], "--cache-read must be 0 or more, got -1.0"),
        (["--price", "nan"], "--price must be 0 or more"),
        (["--limit", "0"], "--limit must be 1 or more, got 0"),
        (["--config", "none.toml"], "none.toml cannot be read as TOML"),
        ([], "no requests in"),
    ],
)
def test_the_command_gives_advice(tmp_path, capfd, options, advice):
    path = lines(tmp_path / "x.jsonl")
    assert main(["replay", str(path), *options]) == 2
    told = capfd.readouterr()
    assert advice in told.err and told.err.count("\n") == 1 and not told.out
