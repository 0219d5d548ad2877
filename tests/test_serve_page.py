"""The playground page in a real browser: what it shows, that it can be used by all, that it asks no other host.

LACONIC_SCREENSHOTS=docs/images also writes the pictures of the documentation.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvicorn
from playwright.sync_api import expect, sync_playwright
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import laconic
from laconic.serve.page import routes

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome is installed")
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PICTURES = os.environ.get("LACONIC_SCREENSHOTS")
TEXT = "Please note that the meeting of the board was moved to 14:30 on Friday, because the hall is not free."
HOSTILE = "<img src=x onerror=alert(1)> & <b>bold</b> words that are to be kept and to be dropped, all the same 😀 end."
CHAT = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": TEXT}]},
        {"role": "assistant", "content": "The cat sat on the mat because the mat was warm, and then it slept there."},
        {"role": "user", "content": "And then?"},
    ],
}
ENTRY = {"protocol": "chat", "upstream": "openai", "status": 200, "ms": 812.4, "stream": True}


class Server(threading.Thread):
    """The page's routes on a free port, with a ledger and a key that tests may change."""

    def __init__(self):
        super().__init__(daemon=True)
        self.key, self.ledger, self.broken = "", None, 0
        service = SimpleNamespace(compressor=laconic.load())
        app = Starlette(routes=[*routes(service), Route("/v1/ledger", self._ledger)])
        app.add_middleware(lambda inner: SimpleNamespaceApp(self, inner))
        config = uvicorn.Config(app, port=0, log_level="error", lifespan="off")
        self.server = uvicorn.Server(config)

    async def _ledger(self, request):
        if self.ledger is None:
            return JSONResponse({"error": {"message": "no ledger"}}, 404)
        return JSONResponse(self.ledger)

    def run(self):
        self.server.run()

    @property
    def url(self):
        while not self.server.started:
            time.sleep(0.01)
        return f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}/"


class SimpleNamespaceApp:
    """Asks for the key of API calls, and is broken when a test says so."""

    def __init__(self, server, inner):
        self.server, self.inner = server, inner

    async def __call__(self, scope, receive, send):
        headers = dict(scope.get("headers", ()))
        wrong = self.server.key and headers.get(b"x-laconic-key", b"").decode() != self.server.key
        if scope["path"].startswith("/v1/") and (wrong or self.server.broken):
            status = 401 if wrong else self.server.broken
            message = "send the key as x-laconic-key" if wrong else "too many are waiting"
            answer = JSONResponse({"error": {"message": message}}, status, {"retry-after": "1"})
            return await answer(scope, receive, send)
        return await self.inner(scope, receive, send)
