"""What goes wrong in production: upstreams, clients, bodies, paths, disks, processes. docs/reliability.md is the table.

A request either reaches the upstream as its client meant it, or its client is told why not; never half of it, never
somebody else's answer, never another host.
"""

from __future__ import annotations

import gzip
import json
import signal
import socket
import sqlite3
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import httpx
import pytest

from faulty import CHUNKED, OK, Contacts, connect, listens, memory, post, process, read_until, reset, said
from laconic.serve.app import create_app
from laconic.serve.config import Config
from laconic.serve.rules import Rules
from laconic.serve.service import Service
from serving import PROTOCOLS, Fickle, body, entries, long, says, tool, user
from upstream import Upstream, running, until

PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
CHAT = PATHS["chat"]
SHORT = body("chat", [user("chat", "hi")])
STREAMED = body("chat", [user("chat", "hi")], stream=True)
WORTH_IT = body("chat", [user("chat", "look"), tool("chat", long("t"))])


def service(url, store, compressor=None, **config):
    return Service(Config({"openai": url}, store=store, **config), Rules(floor=20), compressor or Fickle())


@contextmanager
def proxied(url, store, compressor=None, **config):
    with running(create_app(service(url, store, compressor, **config))) as address:
        yield address


@pytest.fixture(scope="module")
def _upstream():
    return Upstream()


@pytest.fixture
def upstream(_upstream):
    _upstream.received.clear()
    return _upstream


@pytest.fixture(scope="module")
def address(_upstream):
    with running(_upstream.app) as url:
        yield url


@pytest.fixture(scope="module")
def proxy(address, tmp_path_factory):
    with proxied(address, tmp_path_factory.mktemp("store")) as url:
        yield url


@contextmanager
def against(answer, store, **config):
    """(a proxy's address, its upstream), which answers by bare sockets."""
    with Contacts(answer) as contacts, proxied(contacts.url, store, **config) as url:
        yield url, contacts


def message(answer):
    """What an error says, in its protocol's form."""
    data = answer.json()
    if answer.request.url.path == PATHS["messages"]:
        assert data["type"] == "error"
    assert set(data["error"]) >= {"message", "type"}
    return data["error"]["message"]


# Upstreams


def test_no_upstream_is_a_502_with_advice(tmp_path):
    with socket.socket() as nobody:  # bound, so that no one else listens there
        nobody.bind(("127.0.0.1", 0))
        with proxied(f"http://127.0.0.1:{nobody.getsockname()[1]}", tmp_path) as url:
            for protocol in PROTOCOLS:
                answer = httpx.post(url + PATHS[protocol], content=body(protocol, [user(protocol, "hi")]))
                assert answer.status_code == 502
                assert "cannot be reached; check the address and that it runs" in message(answer)


def test_an_upstream_that_hangs_is_a_504_with_advice(tmp_path):
    with against(lambda connection, head: read_until(connection), tmp_path, read=0.2) as (url, contacts):
        for protocol in PROTOCOLS:
            answer = httpx.post(url + PATHS[protocol], content=body(protocol, [user(protocol, "hi")]))
            assert answer.status_code == 504
            assert "gave no answer in time; try again, or raise `read`" in message(answer)
        until(lambda: contacts.ended == len(PROTOCOLS))


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 20", b"SSH-2.0-OpenSSH_9\r\n\r\n"], ids=["none", "half", "foreign"])
def test_an_upstream_that_ends_before_the_headers_is_a_502_with_advice(answer, tmp_path):
    def end(connection, head):
        connection.sendall(answer)
        reset(connection)

    with against(end, tmp_path) as (url, _):
        answer = httpx.post(url + CHAT, content=SHORT)
    assert answer.status_code == 502
    assert "ended the connection without an answer; try again" in message(answer)


LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ndata: 0\n"


@pytest.mark.parametrize("begun", [CHUNKED, LENGTH], ids=["chunked", "length"])
@pytest.mark.parametrize("end", ["closes", "resets", "hangs"])
def test_an_answer_that_breaks_off_breaks_off_for_the_client_too(begun, end, tmp_path, capfd):
    def answer(connection, head):
        connection.sendall(begun)
        assert began.wait(10)
        {"closes": connection.close, "resets": lambda: reset(connection), "hangs": lambda: read_until(connection)}[
            end
        ]()

    began = threading.Event()
    got = []
    with against(answer, tmp_path, read=0.3) as (url, _), pytest.raises(httpx.RemoteProtocolError):
        read_stream(url, got, began)
    assert got == [b"data: 0\n"]
    error = json.loads(capfd.readouterr().err.splitlines()[-1])["error"]
    assert error in ("ReadError", "ReadTimeout", "RemoteProtocolError")


def read_stream(url, got, began):
    with httpx.stream("POST", url + CHAT, content=STREAMED) as stream:
        for piece in stream.iter_raw():
            got.append(piece)
            began.set()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("status", [400, 401, 413, 429, 500, 529])
def test_an_upstreams_error_comes_as_it_is(status, protocol, proxy, address):
    data, headers = body(protocol, [user(protocol, "hi")]), {"x-behave": str(status)}
    there = httpx.post(address + PATHS[protocol], content=data, headers=headers)
    here = httpx.post(proxy + PATHS[protocol], content=data, headers=headers)
    assert (here.status_code, here.content) == (status, there.content)
    assert here.headers.get("retry-after") == there.headers.get("retry-after")
    assert dict(there.headers).items() <= dict(here.headers).items()


def test_connections_that_the_upstream_has_closed_are_not_used_again(tmp_path):
    def answer(connection, head):
        connection.sendall(OK)
        connection.close()  # although it did not say so

    with against(answer, tmp_path) as (url, contacts), httpx.Client() as client:
        for number in range(1, 6):
            assert client.get(url + "/v1/models").text == "ok"
            until(lambda n=number: contacts.ended == n)


def test_an_early_answer_ends_the_upload(tmp_path):
    def answer(connection, head):
        connection.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")
        connection.close()

    with against(answer, tmp_path) as (url, _):
        for path in ("/v1/files", CHAT):
            answer = httpx.post(url + path, content=bytes(1 << 20))
            assert answer.status_code in (413, 502)  # 502: the reset came before the answer was read


def test_hints_before_the_answer_are_left_out(tmp_path):
    hint = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    with against(lambda connection, head: connection.sendall(hint + OK), tmp_path) as (url, _):
        assert httpx.post(url + CHAT, content=SHORT).text == "ok"


def test_an_invalid_status_is_a_502(tmp_path):
    answer = b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n"
    with against(lambda connection, head: connection.sendall(answer), tmp_path) as (url, _):
        assert httpx.post(url + CHAT, content=SHORT).status_code == 502


# Clients


def test_a_slow_client_slows_the_upstream_down(tmp_path):
    """Of an answer that nobody reads only buffers are filled: the sockets' and the proxy's."""
    sent = []

    def flood(connection, head):
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        connection.settimeout(0.5)
        while True:
            sent.append(connection.send(bytes(65536)))

    with against(flood, tmp_path) as (url, contacts), connect(url) as client:
        client.sendall(post(CHAT, STREAMED))
        until(lambda: contacts.ended == 1)  # by the timeout
    assert sum(sent) < 32 << 20


@pytest.mark.parametrize("streams", [False, True], ids=["before the answer", "in a stream"])
@pytest.mark.parametrize("path", [CHAT, "/v1/files"])
@pytest.mark.parametrize("size", [10, 1 << 20])
def test_a_client_that_hangs_up_ends_the_request_to_the_upstream(streams, path, size, tmp_path):
    asked = threading.Event()

    def answer(connection, head):
        if streams:
            connection.sendall(CHUNKED)
        asked.set()
        while connection.recv(65536):
            pass

    with against(answer, tmp_path) as (url, contacts):
        with connect(url) as client:
            client.sendall(post(path, b"x" * size))
            assert asked.wait(10)
            if streams:
                read_until(client, b"data: 0")
        until(lambda: contacts.ended == 1, 2)


def test_a_client_that_hangs_up_while_its_text_is_compressed_costs_the_upstream_nothing(address, upstream, tmp_path):
    class Held(Fickle):
        def compress(self, text, **options):
            begun.set()
            assert go.wait(10)
            return super().compress(text, **options)

    begun, go = threading.Event(), threading.Event()
    with proxied(address, tmp_path, Held(), seconds=10) as url:
        with connect(url) as client:
            client.sendall(post(CHAT, WORTH_IT))
            assert begun.wait(10)
        assert httpx.get(url + "/healthz").json()["status"] == "ok"
        go.set()
        assert httpx.get(url + "/v1/models").status_code == 200
    assert [got.path for got in upstream.received] == ["/v1/models"]


@pytest.mark.parametrize("path", [CHAT, "/v1/files"])
def test_half_a_request_is_never_a_whole_one(path, tmp_path):
    whole = []

    def answer(connection, head):
        whole.append(read_until(connection, b"end"))
        connection.sendall(OK)

    with against(answer, tmp_path) as (url, contacts):
        with connect(url) as client:
            client.sendall(post(path, b"x" * 300_000 + b"end")[:200_000])
        assert httpx.post(url + path, content=b"all to the end").text == "ok"
        until(lambda: contacts.ended == len(contacts.heads) - 1)
    assert [got for got in whole if got.endswith(b"end")] == [b"all to the end"]


def test_no_connection_is_lost_to_clients_that_hang_up(tmp_path):
    def answer(connection, head):
        if b"silent" not in head:
            connection.sendall(CHUNKED)
        read_until(connection)

    with against(answer, tmp_path) as (url, contacts):
        for number, kind in enumerate(("silent", "streams") * 10, 1):
            with connect(url) as client:
                client.sendall(post(CHAT, STREAMED, f"x-kind: {kind}"))
                until(lambda n=number: len(contacts.heads) == n)
                if kind == "streams":
                    read_until(client, b"data: ")
        until(lambda: contacts.ended == 20 and not contacts.open, 5)


def test_requests_on_one_connection_are_answered_in_order(proxy, upstream):
    requests = [post(f"/v1/echo/{k}", b"%d" % k) for k in range(3)]
    answers = said(proxy, b"".join([*requests, post("/v1/echo/3", b"3", "connection: close")]))
    assert [answers.count(b"x-path: /v1/echo/%d" % k) for k in range(4)] == [1] * 4
    assert answers.index(b"echo/0") < answers.index(b"echo/1") < answers.index(b"echo/2") < answers.index(b"echo/3")


# Bodies


def deep(brackets):
    return b'{"messages": ' + b"[" * brackets + b"]" * brackets + b"}"


UNREAD = {
    "deep": deep(100_000),
    "encoding": b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}',
    "malformed": b'{"messages": [{"role": "user", "content": "hi"}',
    "foreign": b'[{"role": "user", "content": "hi"}]',
    "malformed nan": b'{"messages": [], "x": NaN}',
    "malformed bom": b"\xef\xbb\xbf" + SHORT,
    "encoding utf-16": SHORT.decode().encode("utf-16"),
    "malformed nothing": b"",
    "malformed nul": SHORT + b"\0",
}


@pytest.mark.parametrize("name", UNREAD)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_body_that_cannot_be_read_goes_out_as_it_came(name, protocol, proxy):
    answer = httpx.post(proxy + PATHS[protocol], content=UNREAD[name], headers={"x-behave": "echo"})
    assert answer.content == UNREAD[name]
    assert answer.headers["x-laconic-did"] == name.split()[0]


def test_a_compressed_body_goes_out_as_it_came(proxy, upstream):
    data = gzip.compress(WORTH_IT)
    answer = httpx.post(proxy + CHAT, content=data, headers={"content-encoding": "gzip", "x-behave": "echo"})
    assert answer.content == data
    assert upstream.received[0].header("content-encoding") == ["gzip"]


def test_keys_that_come_twice_stay(proxy, upstream):
    said = json.dumps(long("t"))
    data = b'{"messages": [{"role": "tool", "content": %s, "content": %s}], "n": 1, "n": 1.0}' % ((said.encode(),) * 2)
    answer = httpx.post(proxy + CHAT, content=data, headers={"x-behave": "echo"}).content
    first, second = json.loads(answer, object_pairs_hook=lambda pairs: pairs)[0][1][0][1:]
    assert first[1] == long("t") and second[1].startswith("#")
    assert answer.endswith(b'], "n": 1, "n": 1.0}')


def test_a_chat_of_10000_messages(proxy, upstream):
    turns = [m for k in range(4999) for m in (user("chat", f"question {k}"), says("chat", "answer"))]
    data = body("chat", [*turns, user("chat", "look"), tool("chat", long("t"))])
    for _ in range(2):
        assert httpx.post(proxy + CHAT, content=data, timeout=20).status_code == 200
    first, second = (got.body for got in upstream.received)
    assert first == second
    assert entries("chat", first)[:-1] == entries("chat", data)[:-1]
    assert entries("chat", first)[-1]["content"].startswith("#")


@pytest.mark.parametrize("path", [CHAT, "/v1/files"])
def test_50_megabytes_go_through_in_bounded_memory(path, tmp_path):
    sizes, more = [], 50 << 20

    def answer(connection, head):
        left = more
        while left:
            left -= len(connection.recv(1 << 20))
        sizes.append(more - left)
        connection.sendall(OK)

    with Contacts(answer) as contacts, process(tmp_path, contacts.url) as (url, server, _):
        assert httpx.get(url + "/healthz").json()["status"] == "ok"
        before = memory(server.pid)
        assert httpx.post(url + path, content=bytes(more), timeout=20).text == "ok"
        grown = memory(server.pid) - before
    assert sizes == [more]
    assert grown < (100 << 20 if path == CHAT else 8 << 20)  # what may be JSON is collected, up to `largest`


# Framing


def chunked(path, *headers):
    head = "\r\n".join([f"POST {path} HTTP/1.1", "host: proxy", "transfer-encoding: chunked", *headers, "", ""])
    half = len(SHORT) // 2
    pieces = (SHORT[:half], SHORT[half:], b"")
    return head.encode() + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


@pytest.mark.parametrize("path", [CHAT, "/v1/files"])
def test_chunks_are_a_body(path, proxy, upstream):
    assert b" 200 " in said(proxy, chunked(path, "connection: close"))
    assert upstream.received[0].body == SHORT


@pytest.mark.parametrize("path", [CHAT, "/v1/files"])
@pytest.mark.parametrize("length", [3, len(SHORT), 3000])
def test_chunks_with_a_length_are_refused(path, length, proxy, upstream):
    answer = said(proxy, chunked(path, f"content-length: {length}", "connection: close"))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert not upstream.received


BROKEN = {
    "carriage return": b"x-a: 1\rx-b: 2",
    "nul": b"x-a: 1\0",
    "no colon": b"x-a",
    "blank in a name": b"x-a : 1",
    "two lengths": b"content-length: 1\r\ncontent-length: 2",
    "negative length": b"content-length: -1",
    "no number": b"content-length: 0x10",
    "two hosts": b"host: a\r\nhost: b",
    "unknown coding": b"transfer-encoding: gzip, chunked",
    "oversized": b"x-a: " + b"a" * 1_000_000,
    "many": b"\r\n".join(b"x-%d: a" % k for k in range(100_000)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_invalid_headers_are_refused(name, proxy, upstream):
    answer = said(proxy, b"GET /v1/models HTTP/1.1\r\nhost: proxy\r\nconnection: close\r\n%s\r\n\r\n" % BROKEN[name])
    assert not answer or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 ", b"HTTP/1.1 501 "))
    assert not upstream.received


def test_expect_is_answered_here(proxy, upstream):
    with connect(proxy) as client:
        client.sendall(post(CHAT, SHORT, "expect: 100-continue", "connection: close")[: -len(SHORT)])
        assert read_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.sendall(SHORT)
        assert b" 200 " in read_until(client)
    assert upstream.received[0].body == SHORT
    assert not upstream.received[0].header("expect")


def test_what_belongs_to_one_connection_is_not_sent_on(tmp_path):
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: x-mine\r\nx-mine: 1\r\nkeep-alive: timeout=5\r\n"
    more = b"proxy-authenticate: Basic\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\nok"
    ours = ["connection: close, x-hop", "x-hop: 1", "keep-alive: 5", "te: trailers", "trailer: x-t", "upgrade: h2c"]
    ours += ["proxy-authorization: Basic eDp5", "proxy-connection: close", "x-laconic-rate: 0.5", "cookie: a=1"]
    with against(lambda connection, _: connection.sendall(head + more), tmp_path) as (url, contacts):
        answer = said(url, post(CHAT, SHORT, *ours, "authorization: Bearer k", "x-stays: 1"))
    names = {line.split(b":")[0].lower() for line in contacts.heads[0].split(b"\r\n")[1:] if line}
    assert names == {b"host", b"content-length", b"cookie", b"authorization", b"x-stays"}
    assert answer.count(b"set-cookie") == 2
    assert not any(name in answer for name in (b"x-mine", b"keep-alive", b"proxy-authenticate"))


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "GET"])
@pytest.mark.parametrize("path", [CHAT, "/v1/files/f1"])
def test_other_methods_pass_through(method, path, proxy, upstream):
    answer = httpx.request(method, proxy + path, headers={"x-behave": "echo"})
    assert (answer.status_code, answer.headers["x-method"], answer.headers["x-path"]) == (200, method, path)
    assert upstream.received[0].body == b""


def test_a_websocket_is_refused_with_advice(proxy, upstream):
    head = "GET /v1/realtime HTTP/1.1\r\nhost: proxy\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    with connect(proxy) as client:
        client.sendall(f"{head}sec-websocket-version: 13\r\nsec-websocket-key: eHh4\r\n\r\n".encode())
        answer = read_until(client, b"}}")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"no websockets here; use HTTP" in answer
    assert not upstream.received


# Other hosts


def test_no_request_reaches_another_host(proxy, address, upstream):
    with Contacts() as evil:
        host = evil.url.removeprefix("http://")
        targets = [
            *(evil.url, f"{evil.url}/v1/models", f"//{host}/v1/models", f"/\\{host}/", f"\\\\{host}\\", f"@{host}/"),
            *(f"/@{host}/v1", f"/v1/../../{host}", f"/%2f%2f{host}", f"/v1%2f..%2f@{host}", f":80@{host}", host, "*"),
            *(f"/openai/{evil.url}", f"/openai//{host}/", f"/openai/@{host}", "/openai", "/openai?x", "/openai/"),
            *(f"/v1/%2e%2e/%2e%2e/{host}", f"/v1/%0d%0ahost:%20{host}%0d%0a", f"/v1/models?u={evil.url}", "/v1/..;/x"),
            *(
                f"/v1/models#@{host}/",
                f"/v1/%00@{host}",
                f"/%5c%5c{host}",
                f"/v1/\t{host}",
                f"/v1/models HTTP/1.1 {host}",
            ),
            *(f"/v1/é@{host}", f"/v1/..%5c{host}", f"/.%2e/{host}", "/v1/%252e%252e/x"),
        ]
        more = [
            f"host: {host}",
            f"x-forwarded-host: {host}",
            f"forwarded: host={host}",
            f"x-laconic-upstream: {evil.url}",
        ]
        for target in targets:
            for method in ("GET", "POST", "CONNECT"):
                for header in ("host: proxy", more[0]):
                    lines = [f"{method} {target} HTTP/1.1", header, *more[1:], "connection: close", "", ""]
                    said(proxy, "\r\n".join(lines).encode())
        assert not evil.heads
    sent = upstream.received
    assert len(sent) > 20
    assert not [got.path for got in sent if ".." in got.path or not got.path.startswith("/")]
    assert {value for got in sent for value in got.header("host")} == {address.removeprefix("http://")}
    assert not any(got.header("x-laconic-upstream") for got in sent)


def test_nothing_leaves_the_upstreams_base_path(tmp_path):
    with Contacts() as contacts, proxied(f"{contacts.url}/base/v1", tmp_path) as url:
        for path in ("/v1/../x", "/../../x", "/v1/%2e%2e/x", "/v1/..%2fx", "/v1/.%2e/x", "/v1/..%5cx", "/v1/x"):
            said(url, f"GET {path} HTTP/1.1\r\nhost: proxy\r\nconnection: close\r\n\r\n".encode())
    assert [head.split()[1] for head in contacts.heads] == [b"/base/v1/x"]


# Disks


def test_a_damaged_store_stops_no_request(address, upstream, tmp_path):
    (tmp_path / "decisions.sqlite").write_bytes(b"no database" * 1000)
    with proxied(address, tmp_path) as url:
        answer = httpx.post(url + CHAT, content=WORTH_IT)
        health = httpx.get(url + "/healthz").json()
    assert (answer.status_code, answer.headers["x-laconic-did"]) == (200, "store")
    assert upstream.received[0].body == WORTH_IT
    assert health["store"] == "unusable"


def test_a_store_that_cannot_be_made_stops_no_request(address, upstream, tmp_path):
    (tmp_path / "file").touch()
    with proxied(address, tmp_path / "file") as url:
        assert httpx.post(url + CHAT, content=WORTH_IT).status_code == 200
        assert httpx.get(url + "/healthz").json()["store"] == "unusable"
    assert upstream.received[0].body == WORTH_IT


def test_a_store_that_another_process_holds_stops_no_request(address, upstream, tmp_path):
    with proxied(address, tmp_path) as url:
        assert httpx.post(url + CHAT, content=WORTH_IT).status_code == 200
        database = sqlite3.connect(tmp_path / "decisions.sqlite")
        database.execute("BEGIN IMMEDIATE")
        new = body("chat", [user("chat", "look"), tool("chat", long("u"))])
        answers = [httpx.post(url + CHAT, content=data) for data in (WORTH_IT, new)]
        database.rollback()
        database.close()
    assert [answer.headers["x-laconic-did"] for answer in answers] == ["newest=1,compressed=1", "newest=1,store=1"]
    assert upstream.received[1].body == upstream.received[0].body
    assert upstream.received[2].body == new


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 kB."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def test_on_a_full_disk_nothing_new_is_compressed_and_what_was_stays(address, upstream, small_disk):
    def sent(data):
        assert httpx.post(url + CHAT, content=data).status_code == 200
        return upstream.received[-1].body

    new = body("chat", [user("chat", "look"), tool("chat", long("u"))])
    with proxied(address, small_disk) as url:
        first = sent(WORTH_IT)
        fill(small_disk / "full")
        while (got := sent(new)) != new:  # until the log of the database has no room either
            new = new.replace(b'"look', b'"look again')
        again, untouched = sent(WORTH_IT), got
        assert httpx.get(url + "/healthz").json()["store"] in ("ok", "full")
        (small_disk / "full").unlink()
        later = sent(new.replace(b'"look', b'"look once more'))
    assert first == again != WORTH_IT
    assert untouched == new
    assert entries("chat", later)[1]["content"].startswith("#")


def fill(file):
    with suppress(OSError), open(file, "wb", buffering=0) as full:
        while full.write(bytes(4096)):
            pass


# Processes


def test_a_process_that_is_killed_at_work_leaves_nothing_half_done(address, upstream, tmp_path):
    request = body("chat", [user("chat", "look"), tool("chat", "wait " + long("t"))])
    with process(tmp_path, address) as (url, server, _), connect(url) as client:
        client.sendall(post(CHAT, request))
        until((tmp_path / "waiting").exists)
        server.kill()
        assert read_until(client) == b""
    assert rows(tmp_path) == (0, 0)
    assert_replayed(request, address, upstream, tmp_path, sent=0)


@pytest.mark.parametrize(("death", "written"), [("settling", (0, 0)), ("settled", (1, 1))])
def test_a_process_that_is_killed_while_it_decides_has_decided_all_or_nothing(
    death, written, address, upstream, tmp_path
):
    with process(tmp_path, address, death) as (url, server, _):
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.post(url + CHAT, content=WORTH_IT)
        assert server.wait(10) == -signal.SIGKILL
    assert not upstream.received
    assert rows(tmp_path) == written
    assert_replayed(WORTH_IT, address, upstream, tmp_path, sent=0)


def test_what_a_killed_process_sent_is_sent_again(address, upstream, tmp_path):
    with process(tmp_path, address) as (url, server, _), connect(url) as client:
        client.sendall(post(CHAT, WORTH_IT, "x-behave: slow"))
        read_until(client, b"data: ")
        server.kill()
        assert not read_until(client).endswith(b"0\r\n\r\n")
    assert_replayed(WORTH_IT, address, upstream, tmp_path, sent=1)


def rows(store):
    """(texts, turns) in the store."""
    database = sqlite3.connect(store / "decisions.sqlite")
    try:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return tuple(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("texts", "turns"))
    finally:
        database.close()


def assert_replayed(request, address, upstream, store, sent):
    """Whoever serves from this store sends what was sent, or what the first of them decides."""
    for _ in range(2):
        with proxied(address, store) as url:
            assert httpx.post(url + CHAT, content=request).status_code == 200
    bodies = {got.body for got in upstream.received}
    assert len(upstream.received) == sent + 2
    assert len(bodies) == 1 and request not in bodies


def test_a_signal_lets_streams_end(tmp_path):
    def answer(connection, head):
        connection.sendall(CHUNKED)
        assert go.wait(10)
        connection.sendall(b"8\r\ndata: 1\n\r\n0\r\n\r\n")

    go = threading.Event()
    with Contacts(answer) as contacts, process(tmp_path, contacts.url) as (url, server, _):
        with ThreadPoolExecutor(5) as threads:
            clients = [connect(url) for _ in range(5)]
            for client in clients:
                client.sendall(post(CHAT, STREAMED))
                read_until(client, b"data: 0")
            server.terminate()
            until(lambda: not listens(url))
            go.set()
            ends = list(threads.map(read_until, clients))
            for client in clients:
                client.close()
        assert all(b"data: 1" in end and end.endswith(b"0\r\n\r\n") for end in ends)
        assert server.wait(10) in (0, -signal.SIGTERM)


# Secrets


def test_keys_and_texts_are_in_no_log(tmp_path, address):
    secret, private = "sk-secret-0123456789", "confidential"
    keys = {"authorization": f"Bearer {secret}", "x-api-key": secret, "cookie": f"s={secret}"}
    request = body("chat", [user("chat", private), tool("chat", long(private))], user=secret)
    with process(tmp_path, address) as (url, _, log):
        for behave in ("", "echo", "400", "401", "500", "broken"):
            with httpx.Client(headers={**keys, "x-behave": behave}) as client:
                for path in (CHAT, f"/v1/models?key={secret}", "/v1/../x", f"/nowhere?api_key={secret}"):
                    try:
                        client.post(url + path, content=request)
                    except httpx.RemoteProtocolError:
                        assert behave == "broken"
        said(url, f"POST /v1 HTTP/1.1\r\nhost: {secret}\r\nauthorization: {secret}\0\r\n\r\n".encode())
        with connect(url) as client:  # which hangs up in the middle
            client.sendall(post(CHAT, request, f"authorization: {secret}", f"x-laconic-rate: {private}")[:-10])
    assert len(log) > 20
    assert not [line for line in log if secret in line or private in line]
    assert not [file for file in tmp_path.iterdir() if secret.encode() in file.read_bytes()]
