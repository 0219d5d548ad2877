"""The wrapped OpenAI client: the real one, over sockets."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from pathlib import Path

import httpx
import httpx2
import openai
import pydantic
import pytest

from clients_upstream import Upstream
from laconic.errors import InputError
from laconic.integrations.openai import wrap
from laconic.integrations.restore import TOOL_OPENAI
from laconic.serve.decisions import Decisions
from laconic.serve.rules import Rules
from serving import Fickle, calls, entries, long, says, tool, user

TURN = [user("chat", "go"), calls("chat"), tool("chat", long("t"))]
ITEMS = [user("responses", "go"), calls("responses"), tool("responses", long("t"))]
TOOLS = [{"type": "function", "function": {"name": "look", "description": long("d"), "parameters": {"type": "object"}}}]


@pytest.fixture
def upstream():
    with Upstream() as made:
        yield made


@pytest.fixture
def options(tmp_path):
    """What `wrap` is given; `seen` of the reports is in `options["on_report"].__self__`."""
    return {
        "rules": Rules(floor=20),
        "compressor": Fickle(),
        "store": tmp_path,
        "on_report": list[object]().append,
    }


@pytest.fixture
def plain(upstream):
    with openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="k", max_retries=2) as client:
        yield client


@pytest.fixture
def client(plain, options):
    with wrap(plain, **options) as made:
        yield made


def create(client, messages=TURN, **more):
    return client.chat.completions.create(model="m", messages=messages, **more)


def shortened(body, protocol="chat", said=TURN):
    """The result of the tool is short, and nothing else changed."""
    sent = entries(protocol, body)
    key = "output" if protocol == "responses" else "content"
    assert sent[:2] == said[:2] and {**sent[2], key: ""} == {**said[2], key: ""}
    return sent[2][key].startswith("#") and len(sent[2][key]) < 100


def test_a_request_is_compressed_and_reported(plain, client, upstream, options):
    answer = create(client, tools=TOOLS)
    assert answer.choices[0].message.content == '{"word": "ok"}'
    assert shortened(upstream.bodies[0]) and json.loads(upstream.bodies[0])["tools"] == TOOLS
    create(plain, tools=TOOLS)
    (path, headers, body), (_, others, original) = upstream.requests
    assert path == "/v1/chat/completions" and entries("chat", original) == TURN
    assert headers == {**others, "content-length": str(len(body))}
    (report,) = options["on_report"].__self__
    assert report.saved > 30 and [part.reason for part in report.parts] == ["sent", "compressed"]


def test_streams_parsing_and_raw_responses_are_the_clients(client, upstream):
    class Answer(pydantic.BaseModel):
        word: str

    chunks = [chunk.choices[0].delta.content for chunk in create(client, stream=True)]
    with client.chat.completions.stream(model="m", messages=TURN) as stream:
        streamed = [event.type for event in stream]
    parsed = client.chat.completions.parse(model="m", messages=TURN, response_format=Answer)
    raw = client.chat.completions.with_raw_response.create(model="m", messages=TURN)
    again = create(client.with_options(timeout=5, max_retries=0))
    with client.chat.completions.with_streaming_response.create(model="m", messages=TURN) as response:
        assert json.loads(response.read())["id"] == "c"
    assert chunks == ["o", "k"] and "content.done" in streamed
    assert parsed.choices[0].message.parsed == Answer(word="ok")
    assert raw.headers["x-upstream"] == "yes" and raw.parse().id == again.id == "c"
    assert len(upstream.bodies) == 6 and all(map(shortened, upstream.bodies))
    assert len({json.dumps(entries("chat", body)) for body in upstream.bodies}) == 1  # decided once


def test_responses(client, upstream):
    answer = client.responses.create(model="m", input=ITEMS)
    with client.responses.stream(model="m", input=ITEMS) as stream:
        streamed = [event.type for event in stream]
    assert answer.output_text == "ok" and streamed[-1] == "response.completed"
    assert all(shortened(body, "responses", ITEMS) for body in upstream.bodies) and len(upstream.bodies) == 2


def test_a_retry_sends_the_same_bytes(client, upstream):
    upstream.failures = [429, 500]
    create(client)
    assert len(upstream.bodies) == 3 and len(set(upstream.bodies)) == 1 and shortened(upstream.bodies[0])


def test_errors_are_the_clients(client, upstream):
    upstream.failures = [400]
    with pytest.raises(openai.BadRequestError, match="no") as caught:
        create(client)
    assert caught.value.status_code == 400 and len(upstream.bodies) == 1


def test_a_conversation_grows_and_its_beginning_never_changes(client, upstream):
    said, before = [*TURN], b""
    for k in range(4):
        create(client, said)
        assert upstream.bodies[-1].startswith(before)
        before = upstream.bodies[-1].removesuffix(b"]}")
        said += [says("chat", f"answer {k}"), calls("chat", call=f"c{k}"), tool("chat", long(f"r{k}"), f"c{k}")]
    assert len(entries("chat", upstream.bodies[-1])) == 12
    assert long("t").encode() not in upstream.bodies[-1]


def test_a_request_may_say_how(client, upstream):
    create(client, extra_headers={"x-laconic-bypass": "1"})
    assert entries("chat", upstream.bodies[0]) == TURN
    assert not any(name.startswith("x-laconic-") for name in upstream.requests[0][1])


def test_other_endpoints_and_signed_requests_are_left_alone(client, upstream, options):
    assert client.embeddings.create(model="m", input=long("t")).data[0].embedding == [0.5]
    assert json.loads(upstream.bodies[0])["input"] == long("t") and not options["on_report"].__self__
    create(client, extra_headers={"authorization": "AWS4-HMAC-SHA256 Credential=x"})
    assert entries("chat", upstream.bodies[1]) == TURN
    assert [report.whole for report in options["on_report"].__self__] == ["signed"]


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_the_users_http_client_still_sends(upstream, options, library):
    sent = []
    hooks = {"request": [lambda request: sent.append(request.url.path)]}
    with library.Client(timeout=7, headers={"x-mine": "yes"}, event_hooks=hooks) as http:
        client = wrap(openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="k", http_client=http), **options)
        create(client)
        assert (client.timeout.read, sent) == (7, ["/v1/chat/completions"])
        assert upstream.requests[0][1]["x-mine"] == "yes" and shortened(upstream.bodies[0])
        client.close()
        assert http.is_closed and client.is_closed()


def test_azure(upstream, options):
    with wrap(
        openai.AzureOpenAI(azure_endpoint=upstream.url, azure_deployment="d", api_key="k", api_version="1"), **options
    ) as client:
        create(client)
    assert upstream.requests[0][0].startswith("/openai/deployments/d/chat/completions") and shortened(
        upstream.bodies[0]
    )


def test_async_clients(upstream, options):
    async def run():
        async with wrap(openai.AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key="k"), **options) as client:
            await asyncio.gather(*(create(client) for _ in range(4)))
            chunks = [chunk.choices[0].delta.content async for chunk in await create(client, stream=True)]
            async with client.responses.stream(model="m", input=ITEMS) as stream:
                streamed = [event.type async for event in stream]
        assert client.is_closed()
        return chunks, streamed

    chunks, streamed = asyncio.run(run())
    assert chunks == ["o", "k"] and streamed[-1] == "response.completed"
    chats = [body for path, _, body in upstream.requests if path.endswith("completions")]
    assert len(chats) == 5 and all(map(shortened, chats)) and len({json.dumps(entries("chat", b)) for b in chats}) == 1


def test_the_event_loop_runs_while_a_text_is_compressed(upstream, options):
    begun, done = threading.Event(), threading.Event()
    compress = options["compressor"].compress

    def slow(text, **given):
        begun.set()
        assert done.wait(10)  # set by the loop: if the loop waited for this, nobody would
        return compress(text, **given)

    options["compressor"].compress = slow

    async def run():
        async with wrap(openai.AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key="k"), **options) as client:
            request = asyncio.create_task(create(client))
            while not begun.is_set():
                await asyncio.sleep(0.001)
            done.set()
            await request

    asyncio.run(run())
    assert shortened(upstream.bodies[0])


def test_clients_share_a_store_and_closing_one_closes_its_file(plain, options, upstream, monkeypatch):
    closed = []
    close = Decisions.close
    monkeypatch.setattr(Decisions, "close", lambda self: (closed.append(self), close(self)))
    for _ in range(2):
        with wrap(openai.OpenAI(base_url=plain.base_url, api_key="k"), **options) as client:
            create(client)
    assert len(set(upstream.bodies)) == 1 and len(closed) == 2


def test_the_defaults_are_the_environments(plain, upstream, tmp_path, monkeypatch):
    monkeypatch.setenv("LACONIC_STORE", str(tmp_path))
    monkeypatch.setenv("LACONIC_FLOOR", "20")
    text = "The meeting was held on Monday, and everyone who was there agreed on the new plan. " * 9
    with wrap(plain) as client:
        create(client, [tool("chat", text)])
    assert len(entries("chat", upstream.bodies[0])[0]["content"]) < 0.8 * len(text)
    assert (tmp_path / "decisions.sqlite").exists()


@pytest.mark.parametrize("wrong", [None, openai.OpenAI, "client"])
def test_what_is_no_client_is_told(wrong):
    with pytest.raises(InputError, match=r"wrap takes a client, openai\.OpenAI or openai\.AsyncOpenAI, got"):
        wrap(wrong)


def test_a_client_is_wrapped_once(client):
    with pytest.raises(InputError, match="wrapped already"):
        wrap(client)


def test_the_page_runs(upstream, tmp_path, monkeypatch):
    monkeypatch.setenv("LACONIC_STORE", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{upstream.url}/v1")
    page = (Path(__file__).parents[1] / "docs" / "clients.md").read_text(encoding="utf-8")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)
        names["client"].close()
    assert [json.loads(body).get("tools") for body in upstream.bodies] == [None, [TOOL_OPENAI]]
