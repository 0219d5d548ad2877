"""The proxy for real: clients of both makers, unmodified, over sockets, against a local upstream."""

from __future__ import annotations

import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import anthropic
import httpx
import openai
import pytest
from starlette.responses import Response
from starlette.routing import Route

import laconic
from laconic.errors import InputError
from laconic.serve import guard
from laconic.serve import service as serving
from laconic.serve.app import create_app
from laconic.serve.config import Config
from laconic.serve.rules import Rules
from laconic.serve.service import Service
from serving import PROTOCOLS, ROUTES, Fickle, body, calls, entries, long, says, tool, user
from upstream import CHUNKS, Upstream, chat_events, message_events, response_events, running, until

SAID = "".join(f"w{k} é " for k in range(CHUNKS))
every = pytest.mark.parametrize("protocol", PROTOCOLS)
PIXEL = "iVBORw0KGgo="


@pytest.fixture
def upstream():
    return Upstream()


@pytest.fixture
def address(upstream):
    with running(upstream.app) as url:
        yield url


@pytest.fixture
def config():
    """Settings of a test's own."""
    return {}


@pytest.fixture
def compressor():
    return Fickle()


@pytest.fixture
def service(address, tmp_path, config, compressor):
    return Service(Config({"openai": address}, store=tmp_path, **config), Rules(floor=20), compressor)


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


def post(proxy, protocol, said, **headers):
    return httpx.post(proxy + ROUTES[protocol], content=body(protocol, said), headers=headers)


# The real clients


def test_openai_chat_with_tools(oai, upstream):
    tools = [{"type": "function", "function": {"name": "look", "description": long("d"), "parameters": {}}}]
    said = [{"role": "system", "content": long("s")}, {"role": "user", "content": "look"}]
    call = oai.chat.completions.create(model="m", messages=said, tools=tools).choices[0].message
    assert call.tool_calls[0].function.name == "look"
    said += [call.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": "c1", "content": long("t")}]
    answer = oai.chat.completions.with_raw_response.create(model="m", messages=said, tools=tools)
    assert answer.headers["x-laconic-did"] == "newest=1,compressed=1"
    sent = upstream.received[-1].json()
    assert sent["tools"] == tools and sent["messages"][:3] == said[:3]
    assert sent["messages"][3]["content"].startswith("#")


def test_openai_streams(oai):
    stream = oai.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == SAID


def test_openai_responses(oai, upstream):
    said = [
        {"role": "user", "content": "look"},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": long("t")},
    ]
    assert oai.responses.create(model="m", input=said).output_text == "The harbour is open."
    assert upstream.received[-1].json()["input"][2]["output"].startswith("#")
    with oai.responses.create(model="m", input=said, stream=True) as stream:
        assert "".join(e.delta for e in stream if e.type == "response.output_text.delta") == SAID
    assert upstream.received[-1].json()["input"] == upstream.received[-2].json()["input"]


def test_openai_embeddings_and_models(oai, upstream):
    assert oai.embeddings.create(model="m", input=long("t"), encoding_format="float").data[0].embedding == [0.5, 0.25]
    assert upstream.received[-1].json()["input"] == long("t")
    assert [model.id for model in oai.models.list()] == ["m"]


def test_anthropic_messages_with_tools(claude, upstream):
    tools = [{"name": "look", "description": long("d"), "input_schema": {"type": "object"}}]
    said = [{"role": "user", "content": "look"}]
    call = claude.messages.create(model="m", max_tokens=9, system=long("s"), messages=said, tools=tools)
    assert call.content[0].name == "look"
    said += [{"role": "assistant", "content": [call.content[0].model_dump(exclude_none=True)]}]
    said += [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": long("t")}]}]
    claude.messages.create(model="m", max_tokens=9, messages=said, tools=tools)
    sent = upstream.received[-1].json()
    assert sent["tools"] == tools and sent["messages"][:2] == said[:2]
    assert sent["messages"][2]["content"][0]["content"].startswith("#")
    got = upstream.received[-1]  # older clients send x-api-key, newer ones a bearer token
    assert got.header("x-api-key") + got.header("authorization") in (["sk-secret"], ["Bearer sk-secret"])


def test_anthropic_streams(claude):
    with claude.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]) as stream:
        assert "".join(stream.text_stream) == SAID


def test_counting_tokens_decides_nothing(claude, upstream, service):
    said = [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": long("t")}]}]
    claude.messages.count_tokens(model="m", messages=said)
    assert upstream.received[-1].json()["messages"] == said
    assert not service.compressor.calls
    claude.messages.create(model="m", max_tokens=9, messages=said)
    assert upstream.received[-1].json()["messages"] != said


def test_images_pass(oai, claude, upstream):
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    said = [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, image]}]
    oai.chat.completions.create(model="m", messages=said)
    assert upstream.received[-1].json()["messages"] == said
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    block = {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "image", "source": source}]}
    claude.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": [block]}])
    assert upstream.received[-1].json()["messages"][0]["content"] == [block]


def test_errors_reach_the_client_as_they_came(oai, claude, upstream):
    said = [{"role": "user", "content": "hi"}]
    upstream.behaviours += ["401", "400"]
    with pytest.raises(openai.AuthenticationError, match="status 401"):
        oai.chat.completions.create(model="m", messages=said)
    with pytest.raises(anthropic.BadRequestError, match="status 400"):
        claude.messages.create(model="m", max_tokens=9, messages=said)
    assert len(upstream.received) == 2


@pytest.mark.parametrize("status", ["429", "500", "529"])
def test_a_clients_retry_sends_the_same_bytes(oai, upstream, status):
    upstream.behaviours += [status, status]
    oai.chat.completions.create(model="m", messages=[{"role": "tool", "tool_call_id": "c", "content": long("t")}])
    sent = [got.body for got in upstream.received]
    assert len(sent) == 3 and len(set(sent)) == 1 and b"#" in sent[0]


def test_when_to_try_again_is_passed_on(proxy, upstream):
    answer = post(proxy, "chat", [user("chat", "hi")], **{"x-behave": "429"})
    assert (answer.status_code, answer.headers["retry-after"], answer.headers["retry-after-ms"]) == (429, "0", "1")


# Bytes


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_everything_else_passes_through(proxy, upstream, method):
    sent = json.dumps({"x": 1.0}, indent=3).encode() if method not in ("GET", "OPTIONS") else b""
    answer = httpx.request(method, f"{proxy}/v1/files/a%2Fb?limit=2&a=%20", content=sent)
    assert answer.content == sent
    assert (answer.headers["x-path"], answer.headers["x-query"]) == ("/v1/files/a%2Fb", "limit=2&a=%20")
    assert answer.headers["x-method"] == method


def test_a_head_has_no_body(proxy):
    answer = httpx.head(f"{proxy}/v1/models")
    assert (answer.status_code, answer.content) == (200, b"") and int(answer.headers["content-length"]) > 0


@pytest.mark.parametrize(
    ("protocol", "events"), [("chat", chat_events), ("responses", response_events), ("messages", message_events)]
)
def test_a_stream_is_the_upstreams_byte_for_byte(proxy, protocol, events):
    sent = body(protocol, [user(protocol, "hi")], stream=True)
    answer = httpx.post(proxy + ROUTES[protocol], content=sent)
    assert answer.content == b"".join(events())
    assert answer.headers["content-type"].startswith("text/event-stream")


def test_pieces_of_a_stream_come_as_soon_as_they_are_there(proxy):
    sent = body("chat", [user("chat", "hi")])
    headers = {"x-behave": "slow"}
    with httpx.stream("POST", proxy + ROUTES["chat"], content=sent, headers=headers) as answer:
        pieces = answer.iter_raw()
        assert [next(pieces) for _ in range(3)] == [b"data: %d\n\n" % k for k in range(3)]


@every
@pytest.mark.parametrize("wrong", [b"", b"{", b"\xff\xfe", b"[" * 300, b'"x"', b'{"messages": 1}'])
def test_what_cannot_be_read_is_forwarded_as_it_came(proxy, upstream, protocol, wrong):
    answer = httpx.post(proxy + ROUTES[protocol], content=wrong, headers={"x-behave": "echo"})
    assert (answer.status_code, answer.content) == (200, wrong)
    assert answer.headers["x-laconic-did"] in ("malformed", "encoding", "foreign", "deep")


def test_what_is_larger_than_the_rules_allow_is_streamed_as_it_came(address, tmp_path, upstream):
    service = Service(Config({"openai": address}, store=tmp_path), Rules(floor=20, largest=100_000), Fickle())
    large = body("chat", [tool("chat", long("t", 300_000))])
    with running(create_app(service)) as proxy:
        answer = httpx.post(proxy + ROUTES["chat"], content=large)
        chunked = httpx.post(proxy + ROUTES["chat"], content=(large[k : k + 9999] for k in range(0, len(large), 9999)))
    assert [got.body == large for got in upstream.received] == [True, True]
    assert upstream.received[0].header("content-length") == [str(len(large))]
    assert upstream.received[1].header("transfer-encoding") == ["chunked"]
    assert answer.headers["x-laconic-did"] == chunked.headers["x-laconic-did"] == "large"


@every
def test_long_conversations_begin_with_the_bytes_that_were_sent_before(proxy, upstream, protocol):
    said, before = [], b""
    for turn in range(12):
        said += [user(protocol, f"look {turn}"), calls(protocol), tool(protocol, long(f"t{turn}"))]
        post(proxy, protocol, said, **({"x-laconic-rate": "0.2"} if turn % 2 else {}))
        sent = upstream.received[-1].body
        assert sent.startswith(before)
        before = sent.removesuffix(b"]}")
        assert [entries(protocol, sent)[k] == said[k] for k in range(len(said))] == (
            [True, True, False] + [True, True, True, False] * turn
        )
        said += [says(protocol, f"answer {turn}")]


def test_an_agents_requests_are_spans_of_themselves(address, tmp_path, upstream):
    """With a real compressor: equal outside of results of tools, whose originals come back."""
    service = Service(Config({"openai": address}, store=tmp_path), Rules(floor=50), laconic.load(method="tfidf"))
    listing = "\n".join(f"{k:03d} harbour master of quay {k} paid {k}.50 at noon" for k in range(60))
    said, before = [{"role": "system", "content": listing}, user("chat", "who paid?")], b""
    with running(create_app(service)) as proxy:
        for turn in range(4):
            said += [calls("chat", "look", f"c{turn}"), tool("chat", f"{turn}\n{listing}", f"c{turn}")]
            answer = post(proxy, "chat", said)
            sent = upstream.received[-1].body
            assert sent.startswith(before)
            before = sent.removesuffix(b"]}")
            for old, new in zip(said, entries("chat", sent), strict=True):
                assert {**old, "content": 0} == {**new, "content": 0}
                if old["role"] == "tool":
                    rest = iter(old["content"])
                    assert len(new["content"]) < len(old["content"]) and all(c in rest for c in new["content"])
                else:
                    assert old == new
            assert int(answer.headers["x-laconic-tokens-after"]) < int(answer.headers["x-laconic-tokens-before"])


# Headers


def test_reply_headers_tell_counts_and_reasons(proxy):
    said = [tool("chat", long("secret")), user("chat", "hi")]
    answer = post(proxy, "chat", said, **{"x-laconic-rate": "7", "x-laconic-nonsense": "secret\x7f"})
    told = {name: value for name, value in answer.headers.items() if name.startswith("x-laconic-")}
    assert (told["x-laconic-tokens-before"], told["x-laconic-tokens-after"]) == ("61", "22")
    assert told["x-laconic-did"] == "compressed=1,newest=1" and float(told["x-laconic-ms"]) >= 0
    assert "'x-laconic-rate' was ignored" in told["x-laconic-notes"]
    assert "secret" not in str(told.values()) and str(told).isascii()


def test_a_bypass_is_heeded_and_told(proxy, upstream):
    answer = post(proxy, "chat", [tool("chat", long("t"))], **{"x-laconic-bypass": "1"})
    assert answer.headers["x-laconic-did"] == "bypass"
    assert upstream.received[-1].body == body("chat", [tool("chat", long("t"))])


def test_headers_of_the_connection_and_ours_are_not_sent_on(proxy, upstream):
    headers = {"connection": "x-private", "x-private": "1", "te": "trailers", "proxy-authorization": "x"}
    headers |= {"x-laconic-rate": "0.2", "user-agent": "me", "accept-encoding": "gzip", "cookie": "a=b"}
    post(proxy, "chat", [user("chat", "hi")], **headers)
    (got,) = upstream.received
    names = [name for name, _ in got.headers]
    assert not {"connection", "x-private", "te", "proxy-authorization", "x-laconic-rate"} & set(names)
    assert [got.header(name) for name in ("user-agent", "accept-encoding", "cookie")] == [["me"], ["gzip"], ["a=b"]]
    assert len(names) == len(set(names))


def test_redirects_cookies_and_the_upstreams_names_are_passed_on(proxy):
    answer = httpx.get(f"{proxy}/v1/models", headers={"x-behave": "redirect"})
    assert (answer.status_code, answer.headers["location"]) == (307, "http://elsewhere.invalid/v1/models")
    assert "access-control-allow-origin" not in answer.headers


# Never worse


@every
def test_a_rejected_request_goes_out_once_more_whole(proxy, upstream, protocol):
    upstream.reject = "t59"  # it refuses what is compressed
    said = [tool(protocol, long("t"))]
    answer = post(proxy, protocol, said)
    assert (answer.status_code, answer.headers["x-laconic-did"]) == (200, "rejected=1")
    assert [got.body == body(protocol, said) for got in upstream.received] == [False, True]
    said += [says(protocol, "a"), tool(protocol, long("s"))]
    post(proxy, protocol, said)
    sent = entries(protocol, upstream.received[-1].body)
    assert sent[:2] == said[:2] and sent[2] != said[2]
    assert len(upstream.received) == 3


def test_without_a_store_a_rejection_is_passed_on(proxy, upstream, service, monkeypatch):
    def full(undo):
        raise InputError("no space")

    monkeypatch.setattr(service.decisions, "replace", full)
    upstream.reject = "t59"
    answer = post(proxy, "chat", [tool("chat", long("t"))])
    assert (answer.status_code, answer.headers["x-laconic-did"]) == (400, "compressed=1")
    assert len(upstream.received) == 1


def test_a_request_with_nothing_new_compressed_is_not_repeated(proxy, upstream):
    for _ in range(2):
        assert post(proxy, "chat", [user("chat", "hi")], **{"x-behave": "400"}).status_code == 400
    assert len(upstream.received) == 2


@pytest.mark.parametrize("config", [{"seconds": 0.05, "threads": 1}])
def test_a_compressor_that_hangs_costs_its_time_and_nothing_more(proxy, upstream, compressor):
    hung = threading.Event()
    compressor.meanwhile = lambda: hung.wait(60)
    said = [tool("chat", long("t"))]
    try:
        answer = post(proxy, "chat", said)
        assert (answer.status_code, answer.headers["x-laconic-did"]) == (200, "late=1")
        assert upstream.received[-1].body == body("chat", said)
    finally:
        hung.set()
    said += [says("chat", "a"), tool("chat", long("s"))]
    compressor.meanwhile = bool
    post(proxy, "chat", said)
    assert entries("chat", upstream.received[-1].body)[0] == said[0]


@pytest.mark.parametrize("config", [{"seconds": 0.05}])
def test_after_timeouts_in_a_row_the_compressor_rests_and_the_probe_says_so(proxy, compressor):
    compressor.meanwhile = lambda: time.sleep(0.6)
    names = (f"t{k}" for k in range(99))

    def did():
        return post(proxy, "chat", [tool("chat", long(next(names)))]).headers["x-laconic-did"]

    assert did() == "late=1"
    until(lambda: did() == "resting=1")
    found = httpx.get(f"{proxy}/healthz")
    assert (found.status_code, found.json()) == (200, {"status": "ok", "store": "ok", "compressor": "resting"})
    assert "laconic_resting 1.0" in httpx.get(f"{proxy}/metrics").text


@pytest.mark.parametrize("config", [{"seconds": 0.03, "threads": 4}])
def test_whatever_the_compressor_takes_what_was_sent_is_sent_again(proxy, compressor, monkeypatch):
    """Some are in time, some late, some given up at the very moment when they are done."""
    monkeypatch.setattr(serving, "_GRACE", 0.01)
    monkeypatch.setattr(guard, "FAILURES", 1000)
    compressor.meanwhile = lambda: time.sleep(random.uniform(0, 0.08))

    def talk(name):
        said, before, did = [], b"", []
        for turn in range(4):
            said += [tool("chat", long(f"{name}-{turn}"))]
            answer = post(proxy, "chat", said, **{"x-behave": "echo"})
            assert answer.content.startswith(before)
            before = answer.content.removesuffix(b"]}")
            did.append(answer.headers["x-laconic-did"])
            said += [says("chat", "a")]
        return did

    with ThreadPoolExecutor(8) as talking:
        did = str(list(talking.map(talk, range(24))))
    assert "compressed" in did and "late" in did


def test_a_bug_of_ours_fails_no_request(proxy, upstream, service, monkeypatch):
    monkeypatch.setattr(type(service.rewriter), "rewrite", lambda *_: 1 / 0)
    said = [tool("chat", long("t"))]
    answer = post(proxy, "chat", said)
    assert (answer.status_code, answer.headers["x-laconic-did"]) == (200, "failed")
    assert upstream.received[-1].body == body("chat", said)


# The network


def test_a_client_that_hangs_up_ends_the_upstreams_work(proxy, upstream):
    sent = body("chat", [user("chat", "hi")])
    with httpx.stream("POST", proxy + ROUTES["chat"], content=sent, headers={"x-behave": "slow"}) as answer:
        next(answer.iter_raw())
    until(lambda: upstream.gone == 1)


def test_an_answer_that_breaks_off_breaks_off_for_the_client(proxy):
    with pytest.raises(httpx.RemoteProtocolError):
        post(proxy, "chat", [user("chat", "hi")], **{"x-behave": "broken"})


@every
def test_an_upstream_that_cannot_be_reached_is_told_in_the_protocols_form(tmp_path, protocol):
    service = Service(Config({"local": "http://127.0.0.1:9"}, store=tmp_path), Rules(), Fickle())
    with running(create_app(service)) as proxy:
        answer = post(proxy, protocol, [user(protocol, "hi")])
    assert answer.status_code == 502
    error = answer.json()["error"]
    assert "local at http://127.0.0.1:9 cannot be reached" in error["message"]
    assert answer.json().get("type") == ("error" if protocol == "messages" else None)


@pytest.mark.parametrize("config", [{"read": 0.05}])
def test_an_upstream_that_is_silent_is_given_up(proxy):
    answer = post(proxy, "chat", [user("chat", "hi")], **{"x-behave": "silent"})
    assert answer.status_code == 504 and "no answer in time" in answer.json()["error"]["message"]


# Our own routes


def test_health(proxy):
    assert httpx.get(f"{proxy}/healthz").json() == {"status": "ok", "store": "ok", "compressor": "ok"}


def test_the_ledger_counts_what_was_rewritten(proxy):
    post(proxy, "chat", [tool("chat", long("t"))])
    post(proxy, "messages", [user("messages", "hi")])
    httpx.get(f"{proxy}/v1/models")
    found = httpx.get(f"{proxy}/v1/ledger").json()
    assert found["totals"] == {"requests": 2, "tokens_before": 61, "tokens_after": 22}
    newest, first = found["requests"]
    assert (newest["protocol"], newest["reasons"]) == ("messages", {"newest": 1})
    del first["time"], first["ms"]
    counted = {"tokens_before": 60, "tokens_after": 21, "reasons": {"compressed": 1}, "stream": False}
    assert first == {"protocol": "chat", "upstream": "openai", "status": 200, **counted}


def test_metrics(proxy):
    post(proxy, "chat", [tool("chat", long("t"))])
    found = httpx.get(f"{proxy}/metrics")
    assert 'laconic_requests_total{protocol="chat",status="200",upstream="openai"} 1.0' in found.text
    assert 'laconic_parts_total{reason="compressed"} 1.0' in found.text
    assert 'laconic_tokens_total{when="before"} 60.0' in found.text


def test_the_log_holds_no_contents_queries_or_keys(proxy, capfd):
    secret = {"authorization": "Bearer secret", "x-api-key": "secret"}
    httpx.post(
        f"{proxy}/v1/chat/completions?key=secret", content=body("chat", [user("chat", "secret")]), headers=secret
    )
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    (line,) = (line for line in lines if line["path"] == "/v1/chat/completions")
    assert "secret" not in str(line)
    assert (line["status"], line["tokens_before"], line["reasons"]) == (200, 1, {"newest": 1})


@pytest.mark.parametrize("config", [{"key": "ours"}])
def test_with_a_key_only_who_has_it_is_served(proxy, upstream):
    said, upstreams = [user("chat", "hi")], {"authorization": "Bearer ours"}
    assert post(proxy, "chat", said, **upstreams).status_code == 401
    assert post(proxy, "chat", said, **{"x-laconic-key": "our"}).status_code == 401
    assert not upstream.received
    answer = post(proxy, "chat", said, **{"x-laconic-key": "ours", "authorization": "Bearer upstreams"})
    assert (answer.status_code, answer.headers.get("x-laconic-notes")) == (200, None)
    assert upstream.received[0].header("x-laconic-key") == []
    assert upstream.received[0].header("authorization") == ["Bearer upstreams"]
    assert httpx.get(f"{proxy}/v1/ledger", headers=upstreams).json()["totals"]["requests"] == 1  # none that was refused
    for route in ("/metrics", "/v1/ledger"):
        assert httpx.get(proxy + route).status_code == 401
        assert httpx.get(proxy + route, headers=upstreams).status_code == 200
    assert httpx.get(f"{proxy}/healthz").status_code == 200


@pytest.mark.parametrize("config", [{"key": "ours"}])
def test_more_routes_of_our_own_ask_for_the_key_where_they_are_no_pages(service):
    async def endpoint(request):
        return Response("ours")

    routes = [Route("/", endpoint), Route("/v1/restore/{id}", endpoint)]
    with running(create_app(service, routes)) as proxy:
        assert httpx.get(proxy).text == "ours"
        assert httpx.get(f"{proxy}/v1/restore/abc").status_code == 401
        assert httpx.get(f"{proxy}/v1/restore/abc", headers={"x-laconic-key": "ours"}).text == "ours"


@pytest.mark.parametrize("route", ["/metrics", "/v1/ledger"])
def test_another_sites_page_cannot_read_our_routes(proxy, route):
    assert httpx.get(proxy + route, headers={"host": "evil.example:8787"}).status_code == 403
    assert httpx.get(proxy + route, headers={"host": "localhost:8787"}).status_code == 200
