"""The wrapped Anthropic client: the real one, over sockets."""

from __future__ import annotations

import asyncio
import json

import anthropic
import httpx2
import pytest

from clients_upstream import Upstream
from laconic.errors import InputError
from laconic.integrations.anthropic import wrap
from laconic.serve.rules import Rules
from serving import Fickle, calls, entries, long, says, tool, user

MARK = {"cache_control": {"type": "ephemeral"}}
TURN = [user("messages", "go"), calls("messages"), tool("messages", long("t"))]
TOOLS = [{"name": "look", "description": long("d"), "input_schema": {"type": "object"}}]


@pytest.fixture
def upstream():
    with Upstream() as made:
        yield made


@pytest.fixture
def options(tmp_path):
    return {"rules": Rules(floor=20), "compressor": Fickle(), "store": tmp_path}


@pytest.fixture
def client(upstream, options):
    with wrap(anthropic.Anthropic(base_url=upstream.url, api_key="k", max_retries=2), **options) as made:
        yield made


def create(client, messages=TURN, **more):
    return client.messages.create(model="m", max_tokens=9, messages=messages, **more)


def shortened(body):
    """The result of the tool is short, and nothing else changed."""
    sent = entries("messages", body)
    (now,), (before,) = sent[2]["content"], TURN[2]["content"]
    assert sent[:2] == TURN[:2] and {**now, "content": ""} == {**before, "content": ""}
    return now["content"].startswith("#") and len(now["content"]) < 100


def test_a_request_is_compressed_and_reported(upstream, options):
    reports = []
    plain = anthropic.Anthropic(base_url=upstream.url, api_key="k")
    with wrap(plain, **options, on_report=reports.append) as client:
        answer = create(client, tools=TOOLS, system=long("s"))
        create(plain, tools=TOOLS, system=long("s"))
    assert answer.content[0].text == "ok" and shortened(upstream.bodies[0])
    assert json.loads(upstream.bodies[0])["tools"] == TOOLS and json.loads(upstream.bodies[0])["system"] == long("s")
    (path, headers, body), (_, others, original) = upstream.requests
    assert path == "/v1/messages" and entries("messages", original) == TURN
    assert headers == {**others, "content-length": str(len(body))}
    assert [part.reason for report in reports for part in report.parts] == ["sent", "compressed"]


def test_streams_and_raw_responses_are_the_clients(client, upstream):
    events = [event.type for event in create(client, stream=True)]
    with client.messages.stream(model="m", max_tokens=9, messages=TURN) as stream:
        text = "".join(stream.text_stream)
    raw = client.messages.with_raw_response.create(model="m", max_tokens=9, messages=TURN)
    create(client.with_options(timeout=5, max_retries=0))
    client.beta.messages.create(model="m", max_tokens=9, messages=TURN, betas=["b"])
    assert events[0] == "message_start" and events[-1] == "message_stop" and text == "ok"
    assert raw.headers["x-upstream"] == "yes" and raw.parse().content[0].text == "ok"
    assert len(upstream.bodies) == 5 and all(map(shortened, upstream.bodies))
    assert len({json.dumps(entries("messages", body)) for body in upstream.bodies}) == 1


def test_retries_and_errors(client, upstream):
    upstream.failures = [529, 500]
    create(client)
    assert len(upstream.bodies) == 3 and len(set(upstream.bodies)) == 1 and shortened(upstream.bodies[0])
    upstream.failures = [400]
    with pytest.raises(anthropic.BadRequestError, match="no"):
        create(client)
    assert len(upstream.bodies) == 4


def test_a_conversation_grows_while_the_mark_of_the_cache_wanders(client, upstream):
    said, before = [*TURN], []
    for k in range(4):
        last = {**said[-1], "content": [{**said[-1]["content"][0], **MARK}]}
        create(client, [*said[:-1], last])
        sent = json.loads(upstream.bodies[-1].replace(b',"cache_control":{"type":"ephemeral"}', b""))["messages"]
        assert sent[: len(before)] == before
        before = sent
        said += [says("messages", f"answer {k}"), tool("messages", long(f"r{k}"), f"c{k}")]
    assert long("t").encode() not in upstream.bodies[-1] and len(before) == 9


def test_other_endpoints_are_left_alone(client, upstream, options):
    client.messages.count_tokens(model="m", messages=TURN)
    assert entries("messages", upstream.bodies[0]) == TURN and not options["compressor"].calls


def test_async_clients_with_the_users_http_client(upstream, options):
    async def run():
        http = httpx2.AsyncClient(timeout=7, headers={"x-mine": "yes"})
        made = anthropic.AsyncAnthropic(base_url=upstream.url, api_key="k", http_client=http)
        async with wrap(made, **options) as client:
            await asyncio.gather(*(create(client) for _ in range(4)))
            async with client.messages.stream(model="m", max_tokens=9, messages=TURN) as stream:
                text = "".join([piece async for piece in stream.text_stream])
        assert http.is_closed
        return text

    assert asyncio.run(run()) == "ok"
    assert len(upstream.bodies) == 5 and all(map(shortened, upstream.bodies))
    assert {headers["x-mine"] for _, headers, _ in upstream.requests} == {"yes"}
    assert len({json.dumps(entries("messages", body)) for body in upstream.bodies}) == 1


def test_what_is_no_client_is_told():
    with pytest.raises(InputError, match="Anthropic or anthropic.AsyncAnthropic, got OpenAI; pass the client"):
        wrap(type("OpenAI", (), {})())
