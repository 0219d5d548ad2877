"""Connections to upstreams."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx

_IDLE = 60.0  # seconds: what was not used for so long is closed


class Connections:
    """Connections to one upstream; each carries one request at a time, and the last one used is used first.

    A transport for each of them, because one of many connections looks at all of them, for each, at each request:
    30 ms with 200. Transports alone, because a client would keep cookies, follow redirects, and read `.netrc` and the
    proxies that the environment names.
    """

    def __init__(self, secure: bool) -> None:
        self._verify = httpx.create_ssl_context() if secure else False  # certificates take a tenth of a second to load
        self._idle: deque[tuple[float, httpx.AsyncHTTPTransport]] = deque()  # (since when, one), oldest first

    @asynccontextmanager
    async def asking(self, request: httpx.Request) -> AsyncIterator[httpx.Response]:
        """The answer, of which only the head was read; httpx.HTTPError if there is none."""
        transport = self._idle.pop()[1] if self._idle else self._made()
        try:
            response = await transport.handle_async_request(request)
            try:
                yield response
            finally:
                with anyio.CancelScope(shield=True):
                    await response.aclose()
        finally:  # what was cut short has closed the connection, and the transport makes another one
            self._idle.append((time.monotonic(), transport))
            await self._sweep()

    async def aclose(self) -> None:
        """Close what is idle."""
        while self._idle:
            await self._idle.popleft()[1].aclose()

    async def _sweep(self) -> None:
        while self._idle and time.monotonic() - self._idle[0][0] > _IDLE:
            await self._idle.popleft()[1].aclose()

    def _made(self) -> httpx.AsyncHTTPTransport:
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_IDLE)
        return httpx.AsyncHTTPTransport(verify=self._verify, limits=limits, trust_env=False)
