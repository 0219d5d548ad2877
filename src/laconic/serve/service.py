"""What the routes share: the compressor, the rules, the store, and the one way to rewrite a request."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from laconic.console import say
from laconic.errors import InputError
from laconic.serve.config import Config
from laconic.serve.decisions import Decisions, store_file
from laconic.serve.guard import Deadline, Guard
from laconic.serve.ledger import Ledger
from laconic.serve.log import Entry
from laconic.serve.metrics import Metrics
from laconic.serve.report import Report
from laconic.serve.rewrite import Rewriter, Rewritten
from laconic.serve.rules import Rules

if TYPE_CHECKING:
    from laconic.compressor import Compressor

Endpoint = Callable[[Request], Awaitable[Response]]
LOCAL = re.compile(r"(localhost|127\.0\.0\.1|\[?::1\]?)(:\d+)?")
KEY_HEADER = "x-laconic-key"
_GRACE = 0.5  # seconds: a compressor that heeds the deadline ends in this time, with what it has
_REPLAY = 10.0  # seconds for what was decided before: longer than it ever takes, since without it the cache is lost
_PATIENCE = 1.0  # seconds that a request waits for other processes at the store
_QUICK = 4  # threads for requests in which nothing is to be compressed


@dataclass(frozen=True)
class Sending:
    """A request that was rewritten, and how long that took."""

    rewritten: Rewritten
    seconds: float


class Service:
    """One process of the server; close it after use."""

    def __init__(self, config: Config, rules: Rules, compressor: Compressor) -> None:
        self.config, self.rules, self.compressor = config, rules, compressor
        self.decisions = Decisions(store_file(config.store), _PATIENCE)
        self.guard = Guard(config.threads, config.queue)
        self.rewriter = Rewriter(compressor, rules, self.decisions, self.guard)
        self.ledger, self.metrics = Ledger(config.store / "ledger.sqlite"), Metrics()
        self._threads = ThreadPoolExecutor(config.threads + config.queue + _QUICK, "laconic")

    async def rewrite(self, protocol: str, body: bytes, headers: Mapping[str, str]) -> Sending:
        """Off the event loop, in bounded time: first all of it, then without anything new, then not at all."""
        began = time.perf_counter()
        limit = self.config.seconds
        for seconds, patience in ((limit, limit + _GRACE), (0.0, _REPLAY)):
            deadline = Deadline(seconds)
            work = self._run(protocol, body, headers, deadline)
            done, _ = await asyncio.wait([work], timeout=patience)
            if done or not deadline.claim():
                return Sending(await work, time.perf_counter() - began)
            if seconds:
                self.guard.failed()
        return Sending(Rewritten(body, Report(whole="late")), time.perf_counter() - began)

    async def withdraw(
        self, sending: Sending, protocol: str, body: bytes, headers: Mapping[str, str]
    ) -> Sending | None:
        """The request once more, with what is new in it left alone; None where that cannot be written down."""
        try:
            await asyncio.to_thread(self.rewriter.withdraw, sending.rewritten)
        except InputError:
            return None
        again = await self.rewrite(protocol, body, headers)
        return Sending(again.rewritten, sending.seconds + again.seconds)

    def _run(
        self, protocol: str, body: bytes, headers: Mapping[str, str], deadline: Deadline
    ) -> asyncio.Future[Rewritten]:
        return asyncio.get_running_loop().run_in_executor(
            self._threads, self._rewritten, protocol, body, headers, deadline
        )

    def _rewritten(self, protocol: str, body: bytes, headers: Mapping[str, str], deadline: Deadline) -> Rewritten:
        try:
            return self.rewriter.rewrite(protocol, body, headers, deadline)
        except Exception as error:  # a bug of ours: the request must go through
            say(json.dumps({"error": f"{type(error).__name__} while a request was rewritten"}))
            return Rewritten(body, Report(whole="failed"))

    def health(self) -> dict[str, str]:
        """How it goes, for a probe."""
        try:
            self.decisions.turns(["-"])
            store = "ok"
        except InputError:
            store = "unusable"
        return {"status": "ok", "store": store, "compressor": "resting" if self.guard.resting else "ok"}

    def seen(self, entry: Entry) -> None:
        """Note a request that has ended."""
        say(entry.line())
        self.metrics.seen(entry)
        if entry.report:  # not of who was refused
            self.ledger.add(entry.row())

    def permits(self, *keys: bytes) -> bool:
        """Is our key among these, or is none needed?"""
        wanted = self.config.key.encode()
        return not wanted or any(hmac.compare_digest(key, wanted) for key in keys)

    def guarded(self, endpoint: Endpoint) -> Endpoint:
        """An endpoint of our own that asks for our key. Without a key, only this machine's own names may reach it: the
        page of some other site, whose name was made to lead here, may not."""

        async def checked(request: Request) -> Response:
            keys = request.headers.getlist(KEY_HEADER)
            keys += [text.removeprefix("Bearer ") for text in request.headers.getlist("authorization")]
            if not self.permits(*(key.encode("latin-1") for key in keys)):
                return refusal(401, f"this server needs its key in the header {KEY_HEADER} or as a bearer token")
            named = [self.config.host, request.headers.get("host", "")]
            if not self.config.key and [bool(LOCAL.fullmatch(name)) for name in named] == [True, False]:
                return refusal(403, "this host name does not lead here; use http://localhost, or run with a key")
            return await endpoint(request)

        return checked

    def close(self) -> None:
        """Close the files."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.decisions.close()
        self.ledger.close()


def refusal(status: int, message: str) -> Response:
    """An error of a route of our own."""
    return JSONResponse({"error": {"message": f"laconic: {message}", "type": "invalid_request_error"}}, status)
