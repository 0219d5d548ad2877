"""Originals of compressed parts: the command, the route, the rule `marker`, and the tool for models."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import openai
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from clients_upstream import Upstream
from laconic.cli import main
from laconic.integrations import openai as wrapped
from laconic.integrations import restore as tool_of
from laconic.serve.decisions import Decisions, store_file
from laconic.serve.restore import original, routes
from laconic.serve.rewrite import MARKER, Rewriter
from laconic.serve.rules import Rules
from serving import POISON, PROTOCOLS, WORDS, Fickle, body, calls, entries, long, tool, user

RULES = Rules(floor=20, marker=True)
LINE = re.compile(re.escape(MARKER).replace(r"\{\}", "([0-9a-f]{12})") + r"\Z")
every = pytest.mark.parametrize("protocol", PROTOCOLS)


@pytest.fixture
def store(tmp_path):
    return tmp_path


@pytest.fixture
def decisions(store):
    with Decisions(store_file(store)) as made:
        yield made


def rewritten(decisions, text, rules=RULES, compressor=None):
    return Rewriter(compressor or Fickle(), rules, decisions).rewrite("chat", body("chat", [tool("chat", text)]), {})


def content(result):
    return entries("chat", result.body)[0]["content"]


@pytest.mark.parametrize("text", [long("t"), long("é\r\n\ud800 \x00"), long("t") + "\n"])
def test_the_command_prints_the_original_byte_for_byte(decisions, store, capfdbinary, text):
    (part,) = rewritten(decisions, text, Rules(floor=20)).report.parts
    for identity in (part.id, part.id[:12]):
        assert main(["restore", identity, "--store", str(store)]) == 0
        assert capfdbinary.readouterr() == (text.encode("utf-8", "surrogatepass"), b"")


def test_the_command_looks_in_the_users_data(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("LACONIC_STORE", str(tmp_path))
    assert main(["restore", "0123456789ab"]) == 2 and not store_file().exists()
    assert "there is no store of decisions" in capfd.readouterr().err
    with Decisions(store_file()) as decisions:
        (part,) = rewritten(decisions, long("t")).report.parts
    assert original(part.id) == long("t")


@pytest.mark.parametrize(
    ("identity", "advice"), [("x", "12 to 64 characters"), ("0" * 12, "no compressed part begins")]
)
def test_what_is_not_there_is_told(decisions, store, capfd, identity, advice):
    rewritten(decisions, long("t"))
    assert main(["restore", identity, "--store", str(store)]) == 2
    told = capfd.readouterr()
    assert advice in told.err and not told.out and "Traceback" not in told.err


def test_the_route(decisions):
    (part,) = rewritten(decisions, long("\ud800é")).report.parts
    client = TestClient(Starlette(routes=routes(SimpleNamespace(decisions=decisions))))
    found = client.get(f"/v1/restore/{part.id[:12]}")
    assert found.content == long("\ud800é").encode("utf-8", "surrogatepass")
    assert (found.status_code, found.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    missing = client.get("/v1/restore/0123456789ab")
    assert missing.status_code == 404 and "no compressed part begins with 0123456789ab" in missing.text


def test_a_marker_ends_what_was_shortened_and_counts(decisions):
    result = rewritten(decisions, long("t"))
    (part,) = result.report.parts
    text, line = content(result).rsplit("\n", 1)
    assert text.endswith("t18 t19") and LINE.match(line)[1] == part.id[:12]
    assert part.tokens_after == WORDS(content(result)) > WORDS(text)


def test_a_marker_is_part_of_what_was_decided(decisions):
    first = rewritten(decisions, long("t"))
    assert rewritten(decisions, long("t"), Rules(floor=20)).body == first.body
    without = rewritten(decisions, long("s"), Rules(floor=20))
    assert "laconic_restore" not in content(without)
    assert rewritten(decisions, long("s")).body == without.body
    text = tool("chat", long("r"))  # in two conversations: under each rules it is decided for itself
    requests = [(Rules(floor=20), [user("chat", "a"), text]), (RULES, [user("chat", "b"), text])]
    sent = [
        Rewriter(Fickle(), rules, decisions).rewrite("chat", body("chat", said), {}).body for rules, said in requests
    ]
    assert [b"laconic_restore" in body for body in sent] == [False, True]


def test_a_marker_that_eats_the_gain_is_not_worth_it(decisions):
    text = long("t", 24)  # 8 words stay and a number; the marker has more than 20
    assert [rewritten(decisions, text, rules).report.parts[0].reason for rules in (RULES, Rules(floor=20))] == [
        "gain"
    ] * 2
    assert rewritten(decisions, text + " more", Rules(floor=20)).report.parts[0].reason == "compressed"


def test_a_marker_fits_in_a_budget_of_tokens(decisions):
    compressor = Fickle()
    rewritten(decisions, long("t"), Rules(floor=20, tokens=50, marker=True), compressor)
    ((_, options),) = compressor.calls
    assert options["tokens"] == 50 - WORDS("\n" + MARKER.format("0" * 12))


def test_a_marker_without_room_in_the_budget_is_left_out(decisions):
    result = rewritten(decisions, long("t"), Rules(floor=20, tokens=9, marker=True), compressor := Fickle())
    ((_, options),) = compressor.calls
    assert options["tokens"] == 9 and "laconic_restore" not in content(result)


def test_json_and_what_is_left_alone_get_no_marker(decisions):
    class Halving(Fickle):
        def compress(self, text, **options):
            short = json.dumps(json.loads(text)[:5])
            return SimpleNamespace(text=short, tokens_after=WORDS(short))

    result = rewritten(decisions, json.dumps([f"word {k}" for k in range(60)]), compressor=Halving())
    assert json.loads(content(result)) == [f"word {k}" for k in range(5)]
    for text in ("short", long(POISON)):
        assert content(rewritten(decisions, text)) == text


@every
def test_what_the_tool_answers_is_never_compressed(decisions, store, protocol):
    """A model reads a marker, asks for the whole text, and gets it, in a conversation that goes on."""
    rewriter, sent = Rewriter(Fickle(), RULES, decisions), b""
    said = [calls(protocol), tool(protocol, long("t"))]
    for k in range(3):
        result = rewriter.rewrite(protocol, body(protocol, said), {})
        assert result.body.startswith(sent)
        sent = result.body.removesuffix(b"]}")
        identity = re.search(r'laconic_restore\(id=\\"([0-9a-f]{12})', result.body.decode())[1]
        answer = tool_of.answer({"id": identity}, store)
        assert answer == long("t")
        said += [calls(protocol, tool_of.NAME, f"r{k}"), tool(protocol, answer, f"r{k}")]
    result = rewriter.rewrite(protocol, body(protocol, said), {})
    assert [part.reason for part in result.report.parts] == ["compressed", "tool", "tool", "tool"]
    assert entries(protocol, result.body)[3:] == said[3:]


def test_the_loop_with_a_real_client(store):
    with Upstream() as upstream:
        options = {"rules": RULES, "compressor": Fickle(), "store": store}
        with wrapped.wrap(openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="k"), **options) as client:
            said = [calls("chat"), tool("chat", long("t"))]
            client.chat.completions.create(model="m", messages=said, tools=[tool_of.TOOL_OPENAI])
            identity = LINE.search(entries("chat", upstream.bodies[0])[1]["content"])[1]
            call = {"name": tool_of.NAME, "arguments": json.dumps({"id": identity})}
            asked = {"role": "assistant", "tool_calls": [{"id": "r", "type": "function", "function": call}]}
            said += [asked, tool("chat", tool_of.answer(call["arguments"], store), "r")]
            client.chat.completions.create(model="m", messages=said, tools=[tool_of.TOOL_OPENAI])
    sent = entries("chat", upstream.bodies[1])
    assert sent[:2] == entries("chat", upstream.bodies[0]) and sent[3]["content"] == long("t")


def test_definitions_and_wrong_calls(store, decisions):
    rewritten(decisions, long("t"))
    assert Rules().skips(tool_of.NAME)
    definitions = [tool_of.TOOL_OPENAI["function"], tool_of.TOOL_RESPONSES, tool_of.TOOL_ANTHROPIC]
    assert {definition["name"] for definition in definitions} == {tool_of.NAME}
    for wrong in ("", "[]", "{}", '{"id": 3}', {}, {"id": None}):
        assert tool_of.answer(wrong, store).startswith("laconic_restore takes one argument")
    assert "12 to 64 characters" in tool_of.answer({"id": "zzz"}, store)
    assert "no compressed part" in tool_of.answer('{"id": "0123456789ab"}', store)
