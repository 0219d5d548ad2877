"""One request on its way to an upstream, and the answer on its way back, byte for byte.

A plain ASGI application: no layer stands between the socket and an upstream's bytes. Requests of three protocols go
through the `Rewriter`; all others, and those it does not read, are sent as they came.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import anyio
import httpx

from laconic.serve.connections import Connections
from laconic.serve.log import Entry, reasons
from laconic.serve.report import Report
from laconic.serve.rewrite import Rewritten, protocol_of
from laconic.serve.rules import HEADER
from laconic.serve.service import KEY_HEADER, Sending, Service
from laconic.serve.upstreams import Upstream, Upstreams, safe

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

Headers = list[tuple[bytes, bytes]]
_HOP = {  # of one connection, not of the request (RFC 9110, 7.6.1)
    *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
    *(b"te", b"trailer", b"transfer-encoding", b"upgrade"),
}
_NOT_SENT = _HOP | {b"host", b"content-length", b"expect"}  # the connection to the upstream has its own
_OURS = HEADER.encode()
_REJECTIONS = (400, 413, 422)
_LONGEST_NOTE = 500  # characters of a reply header


class Proxy:
    """The application for all routes that are not our own."""

    def __init__(self, service: Service) -> None:
        config = service.config
        self.service, self.upstreams = service, Upstreams(config.upstreams)
        self.connections = {name: Connections(url.startswith("https:")) for name, url in config.upstreams.items()}
        self.timeouts = {"connect": config.connect, "read": config.read, "write": config.read, "pool": None}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _Exchange(self, scope, receive, send).run()

    async def aclose(self) -> None:
        """Close the connections to upstreams."""
        for connections in self.connections.values():
            await connections.aclose()


class _Refused(Exception):
    """A request that is answered here, with an error in its protocol's form."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


class _Gone(Exception):
    """The client hung up."""


class _Exchange:
    """One request and its answer."""

    def __init__(self, proxy: Proxy, scope: Scope, receive: Receive, send: Send) -> None:
        self.proxy, self.service, self.scope, self.receive, self.send = proxy, proxy.service, scope, receive, send
        self.began = time.perf_counter()
        self.headers: Headers = scope["headers"]
        self.path: bytes = scope.get("raw_path") or b""
        self.names = {name for name, _ in self.headers}
        self.anthropic = b"anthropic-version" in self.names
        self.upstream, self.route = proxy.upstreams.choose(self.path, self.anthropic)
        self.protocol = protocol_of(self.route.decode("latin-1")) if scope["method"] == "POST" else ""
        self.sending: Sending | None = None
        self.entry = Entry(secrets.token_hex(8), scope["method"], scope["path"], self.upstream.name, self.protocol)
        self.started = False
        self.watch: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Answer, log; a client that hangs up ends the request to the upstream."""
        try:
            with anyio.CancelScope() as scope:
                self.cancel = scope
                await self._answer()
        except _Gone:
            self.entry.error = "client gone"
        finally:
            if self.watch:
                self.watch.cancel()
            if self.sending:
                self.entry.report, self.entry.compressing = self.sending.rewritten.report, self.sending.seconds
            self.entry.seconds = time.perf_counter() - self.began
            self.service.seen(self.entry)

    async def _answer(self) -> None:
        try:
            self._check()
            await self._forward(await self._body())
        except _Refused as refused:
            await self._refuse(refused)
        except httpx.HTTPError as error:
            await self._cut(error, _unreached(error, self.upstream, self.service.config.connect))
        except _Gone:
            raise
        except Exception as error:
            await self._cut(error, _Refused(500, "api_error", "this is a bug of the proxy; please report it"))

    async def _cut(self, error: Exception, refused: _Refused) -> None:
        """No answer, or not all of it: then the connection is closed, which a client sees as an error, too."""
        self.entry.error = type(error).__name__
        if not self.started:
            await self._refuse(refused)

    def _check(self) -> None:
        """May this request be sent on?"""
        keys = [value for name, value in self.headers if name == KEY_HEADER.encode()]
        if not self.service.permits(*keys):
            raise _Refused(401, "authentication_error", f"this proxy needs its key in the header {KEY_HEADER}")
        if not (safe(self.path) and safe(self.route)):  # behind the upstream's name, too, it is no `//other`
            raise _Refused(400, "invalid_request_error", "the path is not one that this proxy sends on; check the URL")
        if any(name == b"upgrade" and value.lower() == b"websocket" for name, value in self.headers):
            raise _Refused(400, "invalid_request_error", "no websockets here; use HTTP, or ask the upstream itself")
        if {b"content-length", b"transfer-encoding"} <= self.names:  # who reads only one of them sees two requests
            raise _Refused(400, "invalid_request_error", "a body has a length or comes in chunks, not both")

    async def _body(self) -> bytes | _Stream:
        """The whole body, or if it is larger than what is rewritten, a stream of it."""
        limit = self.service.rules.largest if self.protocol else 0
        pieces: list[bytes] = []
        size, more = 0, True
        while more and size <= limit:
            piece, more = await self._piece()
            pieces.append(piece)
            size += len(piece)
        if not more:
            return b"".join(pieces)
        return _Stream(self._rest(b"".join(pieces)))

    async def _rest(self, first: bytes) -> AsyncIterator[bytes]:
        yield first
        more = True
        while more:
            piece, more = await self._piece()
            yield piece

    async def _piece(self) -> tuple[bytes, bool]:
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        more = message.get("more_body", False)
        if not more:
            self.watch = asyncio.create_task(self._watch())
        return message.get("body", b""), more

    async def _watch(self) -> None:
        """After the body nothing comes but the end of the connection."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.entry.error = "client gone"
        self.cancel.cancel()

    async def _forward(self, body: bytes | _Stream) -> None:
        """Rewrite, send, relay; once more with what is new left alone if the upstream rejects the request."""
        if self.protocol and isinstance(body, bytes):
            self.sending = await self.service.rewrite(self.protocol, body, self._ours())
            if again := await self._tried(self.sending, body):
                self.sending = again
                await self._passed(again.rewritten.body)
        else:
            if self.protocol:
                self.sending = Sending(Rewritten(b"", Report(whole="large")), 0.0)
            await self._passed(body)
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _tried(self, sending: Sending, body: bytes) -> Sending | None:
        """Send and relay. If the upstream rejects what is new in it, nothing is relayed: what to send instead."""
        async with self._asking(sending.rewritten.body) as response:
            rejected = response.status_code in _REJECTIONS and sending.rewritten.undo
            again = await self.service.withdraw(sending, self.protocol, body, self._ours()) if rejected else None
            if again is None:
                await self._relay(response)
        return again

    async def _passed(self, body: bytes | _Stream) -> None:
        """Send and relay."""
        async with self._asking(body) as response:
            await self._relay(response)

    def _asking(self, body: bytes | _Stream) -> AbstractAsyncContextManager[httpx.Response]:
        return self.proxy.connections[self.upstream.name].asking(self._request(body))

    def _ours(self) -> dict[str, str]:
        """The headers that are for the rules, and the one that says whether the body is signed."""
        return {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in self.headers
            if name == b"authorization" or (name.startswith(_OURS) and name != KEY_HEADER.encode())
        }

    def _request(self, body: bytes | _Stream) -> httpx.Request:
        query = self.scope["query_string"]
        target = self.upstream.target(self.route) + (b"?" + query if query else b"")
        return httpx.Request(
            self.scope["method"],
            self.upstream.url,
            headers=[*_without(self.headers, _NOT_SENT), *self._length(body)],
            content=body or None,
            extensions={"timeout": self.proxy.timeouts, "target": target},
        )

    def _length(self, body: bytes | _Stream) -> Headers:
        """A stream keeps the length that the client announced, if it did."""
        return [pair for pair in self.headers if pair[0] == b"content-length" and not isinstance(body, bytes)]

    async def _relay(self, response: httpx.Response) -> None:
        """Send the answer on as it comes."""
        status = response.status_code
        if not 200 <= status < 600:
            raise _Refused(502, "api_error", f"the upstream {self.upstream.name} answers with no valid status")
        headers = [*_without(response.headers.raw, _HOP), *self._reply()]
        self.entry.stream = _streams(headers)
        await self._start(status, headers)
        async for chunk in response.stream:  # type: ignore[union-attr]
            await self.send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def _start(self, status: int, headers: Headers) -> None:
        self.started, self.entry.status = True, status
        self.entry.waited = time.perf_counter() - self.began
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    def _reply(self) -> Headers:
        """What was done, for the client."""
        found = [("id", self.entry.id)]
        if self.sending:
            found += _told(self.sending.rewritten.report, self.sending.seconds)
        return [(f"{HEADER}{name}".encode(), value.encode("ascii", "replace")) for name, value in found]

    async def _refuse(self, refused: _Refused) -> None:
        anthropic = self.anthropic or self.protocol == "messages"
        data = json.dumps(_error(anthropic, refused.kind, f"laconic: {refused}")).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
        await self._start(refused.status, [*headers, *self._reply()])
        await self.send({"type": "http.response.body", "body": data, "more_body": False})


class _Stream(httpx.AsyncByteStream):
    """A request body that is sent while it comes in."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces


def _error(anthropic: bool, kind: str, message: str) -> dict[str, Any]:
    """An error in the form that a protocol's clients read."""
    if anthropic:
        return {"type": "error", "error": {"type": kind, "message": message}}
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _unreached(error: httpx.HTTPError, upstream: Upstream, seconds: float) -> _Refused:
    """No answer at all."""
    who = f"the upstream {upstream.name} at {upstream.url}"
    if isinstance(error, httpx.ConnectTimeout):
        return _Refused(504, "api_error", f"{who} cannot be reached within {seconds:g} s; check address and network")
    if isinstance(error, httpx.TimeoutException):
        return _Refused(504, "api_error", f"{who} gave no answer in time; try again, or raise `read` in [server]")
    if isinstance(error, httpx.ConnectError):
        return _Refused(502, "api_error", f"{who} cannot be reached; check the address and that it runs")
    if isinstance(error, httpx.LocalProtocolError):
        return _Refused(400, "invalid_request_error", "the request is not valid HTTP; check its path and headers")
    return _Refused(502, "api_error", f"{who} ended the connection without an answer; try again")


def _told(report: Report, seconds: float) -> list[tuple[str, str]]:
    """Reply headers: counts and reasons."""
    found = [
        ("tokens-before", str(report.tokens_before)),
        ("tokens-after", str(report.tokens_after)),
        ("ms", f"{1000 * seconds:.1f}"),
        ("did", report.whole or ",".join(f"{why}={n}" for why, n in reasons(report).items()) or "nothing"),
    ]
    notes = "; ".join(report.notes)
    return [*found, ("notes", notes[:_LONGEST_NOTE])] if notes else found


def _without(headers: Headers, names: set[bytes]) -> Headers:
    """Headers without these, those that `Connection` names, and ours."""
    listed = [value for name, value in headers if name.lower() == b"connection"]
    more = {token.strip().lower() for value in listed for token in value.split(b",")} if listed else set()
    dropped = names | more
    return [(n, v) for n, v in headers if (low := n.lower()) not in dropped and not low.startswith(_OURS)]


def _streams(headers: Headers) -> bool:
    return any(n.lower() == b"content-type" and v.startswith(b"text/event-stream") for n, v in headers)
