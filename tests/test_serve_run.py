"""The command `laconic serve` as its users start it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from serving import body, long, tool
from upstream import Upstream, running, until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


@pytest.mark.parametrize("workers", [1, 2])
def test_it_serves_until_a_signal_and_its_workers_count_together(tmp_path, workers):
    upstream = Upstream()
    with running(upstream.app) as address:
        command = [sys.executable, "-m", "laconic.cli", "serve", "--upstream", address, "--port", "0"]
        command += ["--store", tmp_path, "--method", "tfidf", "--workers", str(workers)]
        environment = {**os.environ, "LACONIC_FLOOR": "20"}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
            try:
                proxy = re.search(r"http://\S+", server.stderr.readline()).group()
                conversations(proxy, upstream)
                until(lambda: httpx.get(f"{proxy}/v1/ledger").json()["totals"]["requests"] == 16)
                text = httpx.get(f"{proxy}/metrics").text
                assert 'laconic_requests_total{protocol="chat",status="200",upstream="openai"} 16.0' in text
            finally:
                server.send_signal(signal.SIGTERM)
            _, log = server.communicate(timeout=30)
    assert server.returncode == 0
    assert [json.loads(line)["status"] for line in log.splitlines()] == [200] * 18
    for file in tmp_path.glob("*.sqlite*"):
        assert file.stat().st_mode & 0o077 == 0


def conversations(proxy, upstream):
    """The same one from eight clients, twice: all send the same bytes."""
    transport = httpx.HTTPTransport(retries=10)  # the first ones come before the server listens
    sent = body("chat", [tool("chat", long("t"))])
    with httpx.Client(transport=transport, timeout=60) as client, ThreadPoolExecutor(8) as clients:
        assert client.get(f"{proxy}/v1/models").status_code == client.get(f"{proxy}/v1/files").status_code == 200
        for _ in range(16):
            clients.submit(httpx.post, f"{proxy}/v1/chat/completions", content=sent)
    bodies = {got.body for got in upstream.received if got.method == "POST"}
    assert len(bodies) == 1 and bodies != {sent}
