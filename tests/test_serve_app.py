"""The proxy for real: clients of both makers, unmodified, over sockets, against a local upstream."""

from __future__ import annotations

import json

import anthropic
import httpx
import openai
import pytest

from laconic.serve.app import create_app
from laconic.serve.config import Config
from laconic.serve.rules import Rules
from laconic.serve.service import Service
from serving import Fickle, long
from upstream import CHUNKS, Upstream, running

SAID = "".join(f"w{k} é " for k in range(CHUNKS))


@pytest.fixture
def upstream():
    return Upstream()


@pytest.fixture
def address(upstream):
    with running(upstream.app) as url:
        yield url


@pytest.fixture
def service(address, tmp_path):
    return Service(Config({"openai": address}, store=tmp_path), Rules(floor=20), Fickle())


@pytest.fixture
def proxy(service):
    with running(create_app(service)) as url:
        yield url


@pytest.fixture
def oai(proxy):
    with openai.OpenAI(base_url=f"{proxy}/v1", api_key="sk-secret", max_retries=2) as client:
        yield client


@pytest.fixture
def claude(proxy):
    with anthropic.Anthropic(base_url=proxy, api_key="sk-secret", max_retries=2) as client:
        yield client


def test_openai_chat(oai, upstream):
    said = [{"role": "user", "content": "look"}, {"role": "tool", "tool_call_id": "c1", "content": long("t")}]
    answer = oai.chat.completions.with_raw_response.create(model="m", messages=said)
    assert answer.parse().choices[0].message.content == "The harbour is open."
    assert answer.headers["x-laconic-did"] == "newest=1,compressed=1"
    (got,) = upstream.received
    assert got.json()["messages"][1]["content"].startswith("#")
    assert got.header("authorization") == ["Bearer sk-secret"]


def test_openai_streams(oai):
    stream = oai.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == SAID


def test_anthropic_streams(claude):
    with claude.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]) as stream:
        assert "".join(stream.text_stream) == SAID


def test_health(proxy):
    assert httpx.get(f"{proxy}/healthz").json()["status"] == "ok"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
def test_everything_else_passes_through(proxy, upstream, method):
    body = json.dumps({"x": 1.0}, indent=3).encode() if method != "GET" else b""
    answer = httpx.request(method, f"{proxy}/v1/files/a%2Fb?limit=2&a=%20", content=body)
    assert answer.content == body
    assert (answer.headers["x-path"], answer.headers["x-query"]) == ("/v1/files/a%2Fb", "limit=2&a=%20")
