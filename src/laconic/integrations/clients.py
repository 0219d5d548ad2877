"""The seam of the wrapped clients: their HTTP client, whose `send` passes the bytes of a request through a `Rewriter`.

Everything a client offers ends in `send` (streams, raw responses, parsing, retries), so nothing else changes; and what
is permitted and the prefix cache are the proxy's. The user's HTTP client still sends, with its own timeouts, proxies,
limits, hooks and connections; only the public methods of the HTTP library are used.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import laconic
from laconic.errors import InputError
from laconic.serve.decisions import Decisions, store_file
from laconic.serve.rewrite import Rewriter, protocol_of
from laconic.serve.rules import HEADER, Rules

if TYPE_CHECKING:
    from laconic.compressor import Compressor
    from laconic.serve.report import Report

_LIBRARIES = ("httpx", "httpx2")
_OURS = (HEADER.encode(), b"content-length", b"transfer-encoding")  # headers that are for us, or made anew
_lock = threading.Lock()
Client = TypeVar("Client")


@dataclass(frozen=True)
class Options:
    """What `wrap` was given."""

    rules: Rules | None = None
    compressor: Compressor | None = None
    store: Path | str | None = None
    on_report: Callable[[Report], object] | None = None


def wrapped(client: Client, kinds: tuple[type, type], protocols: tuple[str, ...], options: Options) -> Client:
    """A copy of a client of one of these kinds whose requests of these protocols are compressed."""
    if not isinstance(client, kinds):
        names = " or ".join(f"{kind.__module__}.{kind.__name__}" for kind in kinds)
        raise InputError(f"wrap takes a client, {names}, got {type(client).__name__}; pass the client that you made")
    inner = client._client  # type: ignore[attr-defined]
    if isinstance(inner, (_Sync, _Async)):
        raise InputError("this client is wrapped already; wrap the one that you made, once")
    return client.copy(http_client=_between(inner, _Rewriting(protocols, options)))  # type: ignore[attr-defined, no-any-return]


@dataclass
class _Rewriting:
    """Requests of an HTTP library in, requests to send out."""

    protocols: tuple[str, ...]
    options: Options

    def __post_init__(self) -> None:
        self.rules = self.options.rules or Rules.read()
        self.decisions = Decisions(store_file(self.options.store))

    def protocol(self, request: Any) -> str:
        """A key of `READERS`; empty for what is sent as it is."""
        found = protocol_of(request.url.path) if request.method == "POST" else ""
        return found if found in self.protocols else ""

    def rewrite(self, protocol: str, request: Any) -> tuple[Any, Report]:
        """The request to send in place of one whose body was read, without the headers that are for us."""
        rewriter = Rewriter(self.options.compressor or _default(), self.rules, self.decisions)
        rewritten = rewriter.rewrite(protocol, request.content, request.headers)
        headers = [(name, text) for name, text in request.headers.raw if not name.lower().startswith(_OURS)]
        made = type(request)(
            request.method, request.url, headers=headers, content=rewritten.body, extensions=request.extensions
        )
        return made, rewritten.report

    def tell(self, report: Report) -> None:
        if self.options.on_report:
            self.options.on_report(report)


def _default() -> Compressor:
    """The default model, loaded by the first request."""
    with _lock:
        return _load()


@cache
def _load() -> Compressor:
    return laconic.load()


class _Between:
    """A client of the HTTP library that builds and sends with another one, the user's."""

    _inner: Any
    _rewriting: _Rewriting

    def build_request(self, *args: Any, **options: Any) -> Any:
        return self._inner.build_request(*args, **options)

    @property
    def is_closed(self) -> bool:
        return bool(self._inner.is_closed)


class _Sync(_Between):
    def send(self, request: Any, **options: Any) -> Any:
        if protocol := self._rewriting.protocol(request):
            request.read()
            request, report = self._rewriting.rewrite(protocol, request)
            self._rewriting.tell(report)
        return self._inner.send(request, **options)

    def close(self) -> None:
        self._inner.close()
        self._rewriting.decisions.close()


class _Async(_Between):
    async def send(self, request: Any, **options: Any) -> Any:
        from anyio import to_thread  # the library needs it anyway

        if protocol := self._rewriting.protocol(request):
            await request.aread()
            job = partial(self._rewriting.rewrite, protocol, request)
            request, report = await to_thread.run_sync(job, abandon_on_cancel=True)
            self._rewriting.tell(report)
        return await self._inner.send(request, **options)

    async def aclose(self) -> None:
        await self._inner.aclose()
        self._rewriting.decisions.close()


def _between(inner: Any, rewriting: _Rewriting) -> Any:
    """A client of the same library as `inner`, as the clients of the APIs want it; its own transport sends nothing."""
    base = next(kind for kind in type(inner).__mro__ if kind.__module__ in _LIBRARIES)
    library, waits = sys.modules[base.__module__], hasattr(base, "aclose")
    kind: Any = type(base.__name__, (_Async if waits else _Sync, base), {})
    made = kind(timeout=inner.timeout, transport=library.AsyncBaseTransport() if waits else library.BaseTransport())
    made._inner, made._rewriting = inner, rewriting
    return made
