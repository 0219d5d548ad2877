"""What the routes share: the compressor, the rules, the store, and the one way to rewrite a request."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from laconic.console import say
from laconic.errors import InputError
from laconic.serve.config import Config
from laconic.serve.decisions import Decisions
from laconic.serve.log import Entry
from laconic.serve.rewrite import Rewriter, Rewritten
from laconic.serve.rules import Rules

if TYPE_CHECKING:
    from laconic.compressor import Compressor

KEY_HEADER = "x-laconic-key"


@dataclass(frozen=True)
class Sending:
    """A request that was rewritten, and how long that took."""

    rewritten: Rewritten
    seconds: float


class Service:
    """One process of the server; close it after use."""

    def __init__(self, config: Config, rules: Rules, compressor: Compressor) -> None:
        self.config, self.rules, self.compressor = config, rules, compressor
        self.decisions = Decisions(config.store / "decisions.sqlite")
        self.rewriter = Rewriter(compressor, rules, self.decisions)
        self._threads = ThreadPoolExecutor(config.threads + config.queue + 4, "laconic")

    async def rewrite(self, protocol: str, body: bytes, headers: Mapping[str, str]) -> Sending:
        """Off the event loop."""
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        rewritten = await loop.run_in_executor(self._threads, self.rewriter.rewrite, protocol, body, headers)
        return Sending(rewritten, time.perf_counter() - began)

    def health(self) -> dict[str, str]:
        """How it goes, for a probe."""
        try:
            self.decisions.turns(["-"])
            store = "ok"
        except InputError:
            store = "unusable"
        return {"status": "ok", "store": store}

    def seen(self, entry: Entry) -> None:
        """Log a request that has ended."""
        say(entry.line())

    def permits(self, *keys: bytes) -> bool:
        """Is our key among these, or is none needed?"""
        wanted = self.config.key.encode()
        return not wanted or any(hmac.compare_digest(key, wanted) for key in keys)

    def close(self) -> None:
        """Close the store."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.decisions.close()
