"""Requests go to the configured upstreams and to no other host, whatever they say."""

from __future__ import annotations

import re
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.errors import InputError
from laconic.serve.app import create_app
from laconic.serve.config import Config
from laconic.serve.rules import Rules
from laconic.serve.service import Service
from laconic.serve.upstreams import Upstream, Upstreams, safe
from serving import Fickle
from upstream import Upstream as Fake
from upstream import running

TWO = Upstreams({"openai": "https://api.openai.com", "anthropic": "https://api.anthropic.com", "local": "http://x:1"})


@pytest.mark.parametrize(
    ("path", "anthropic", "name", "rest"),
    [
        (b"/v1/chat/completions", False, "openai", b"/v1/chat/completions"),
        (b"/v1/messages", False, "anthropic", b"/v1/messages"),
        (b"/v1/messages/count_tokens", False, "anthropic", b"/v1/messages/count_tokens"),
        (b"/v1/models", True, "anthropic", b"/v1/models"),
        (b"/v1/models", False, "openai", b"/v1/models"),
        (b"/local/v1/models", True, "local", b"/v1/models"),
        (b"/anthropic/v1/models", False, "anthropic", b"/v1/models"),
        (b"/local", False, "local", b"/"),
    ],
)
def test_the_path_names_the_upstream_else_the_protocol_does(path, anthropic, name, rest):
    upstream, found = TWO.choose(path, anthropic)
    assert (upstream.name, found) == (name, rest)


def test_azures_paths_are_whole_behind_another_name_than_openai():
    path = b"/openai/deployments/gpt/chat/completions"
    assert Upstreams({"azure": "https://x.openai.azure.com"}).choose(path, False)[1] == path


def test_one_upstream_is_for_everything():
    one = Upstreams({"vllm": "http://localhost:8000"})
    assert {one.choose(path, False)[0].name for path in (b"/v1/messages", b"/v1/models", b"/")} == {"vllm"}


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://api.openai.com", b"/v1/models"),
        ("https://api.openai.com/", b"/v1/models"),
        ("https://api.openai.com/v1", b"/v1/models"),
        ("https://example.org/v1beta/openai/", b"/v1beta/openai/models"),
        ("https://example.org/gateway", b"/gateway/v1/models"),
    ],
)
def test_a_version_in_the_url_takes_the_place_of_the_requests(url, target):
    assert Upstream("x", url).target(b"/v1/models") == target


@pytest.mark.parametrize(
    ("name", "url", "advice"),
    [
        ("OpenAI", "http://x", "a-z, 0-9"),
        ("v1", "http://x", "a-z, 0-9"),
        ("a/b", "http://x", "a-z, 0-9"),
        ("a", "ftp://x", "not a URL"),
        ("a", "api.openai.com", "not a URL"),
        ("a", "http://x:99999", "not a URL"),
        ("a", "http://ü", "not a URL"),
        ("a", "http://key@x", "may hold no key"),
        ("a", "http://x?key=1", "may hold no key"),
    ],
)
def test_a_wrong_upstream_is_answered_with_advice(name, url, advice):
    with pytest.raises(InputError, match=re.escape(advice)) as caught:
        Upstreams({name: url})
    assert "key@" not in str(caught.value)


@pytest.mark.parametrize("path", [b"/", b"/v1/models/org%2Fname", b"/v1/a..b", b"/v1/...", b"/a//b", b"/v1/%C3%A4@x"])
def test_paths_that_are_sent_on(path):
    assert safe(path)


@pytest.mark.parametrize(
    "path",
    [
        *(b"", b"*", b"http://other/v1", b"other:80", b"//other/v1", b"/%2Fother/v1", b"/v1/../x", b"/v1/%2e%2E/x"),
        *(
            b"/..",
            b"/v1/..%2fx",
            b"/v1/..\\x",
            b"/v1/./x",
            b"/v1/..;/x",
            b"/a%0d%0aHost: x",
            b"/a%00",
            b"/a\r\nb",
            b"/local/..",
            b"/%2e",
        ),
    ],
)
def test_paths_that_are_refused(path):
    assert not safe(path)


PIECES = st.lists(
    st.sampled_from(["/", "..", ".", "%2e", "%2f", "\\", "%5c", "a", "v1", "@", "//", "%0a", ":", "http://"])
)


@given(PIECES.map("".join))
def test_what_is_sent_on_stays_below_the_upstreams_path(path):
    import posixpath
    from urllib.parse import unquote

    if safe(path.encode()):
        target = unquote(Upstream("x", "http://x/base").target(path.encode()).decode()).replace("\\", "/")
        assert (posixpath.normpath(target) + "/").startswith("/base/")


HOSTILE = [
    b"GET http://elsewhere.invalid/v1/models HTTP/1.1\r\nHost: {0}\r\n\r\n",
    b"GET //elsewhere.invalid/v1/models HTTP/1.1\r\nHost: {0}\r\n\r\n",
    b"GET /openai//elsewhere.invalid/v1/models HTTP/1.1\r\nHost: {0}\r\n\r\n",
    b"GET @elsewhere.invalid/v1/models HTTP/1.1\r\nHost: {0}\r\n\r\n",
    b"GET /v1/../../secret HTTP/1.1\r\nHost: {0}\r\n\r\n",
    b"GET /v1/%2e%2e%2fsecret HTTP/1.1\r\nHost: {0}\r\n\r\n",
    b"GET /v1/%0d%0aX-Injected:%201 HTTP/1.1\r\nHost: {0}\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: {0}\r\n\r\n",
    b"CONNECT elsewhere.invalid:443 HTTP/1.1\r\nHost: elsewhere.invalid\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: {0}\r\nX-A: 1\rX-Injected: 1\r\n\r\n",
    b"POST /v1/files HTTP/1.1\r\nHost: {0}\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x",
]


@pytest.mark.parametrize("raw", HOSTILE)
def test_a_hostile_request_reaches_nobody(tmp_path, raw):
    fake = Fake()
    with running(fake.app) as address:
        service = Service(Config({"openai": f"{address}/base"}, store=tmp_path), Rules(), Fickle())
        with running(create_app(service)) as proxy:
            answer = exchange(proxy, raw.replace(b"{0}", proxy.removeprefix("http://").encode()))
    assert answer.startswith(b"HTTP/1.1 4") and not fake.received


@pytest.mark.parametrize("host", [b"elsewhere.invalid", b"169.254.169.254", b"a@b", b"localhost:1"])
def test_the_host_header_does_not_choose_the_upstream(tmp_path, host):
    fake = Fake()
    with running(fake.app) as address:
        service = Service(Config({"openai": f"{address}/base"}, store=tmp_path), Rules(), Fickle())
        with running(create_app(service)) as proxy:
            raw = b"GET /v1/models HTTP/1.1\r\nHost: " + host + b"\r\nX-Forwarded-Host: evil\r\n\r\n"
            assert exchange(proxy, raw).startswith(b"HTTP/1.1 200")
    (got,) = fake.received
    assert (got.path, got.header("host")) == ("/base/v1/models", [address.removeprefix("http://")])


def exchange(proxy, raw):
    """The beginning of what comes back for these bytes."""
    host, port = proxy.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.sendall(raw)
        return connection.recv(1000)
