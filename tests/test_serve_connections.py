"""Connections to upstreams are used again, and closed when nobody needs them."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from laconic.serve import connections as connecting
from laconic.serve.connections import Connections
from upstream import Upstream, running


@pytest.fixture
def address():
    with running(Upstream().app) as url:
        yield url


def ask(address, *behaviours, together=False):
    """What is idle after these requests."""
    connections = Connections(secure=False)

    async def one(behaviour):
        request = httpx.Request("GET", f"{address}/v1/models", headers={"x-behave": behaviour})
        async with connections.asking(request) as response:
            return b"".join([chunk async for chunk in response.stream])

    async def every():
        if together:
            await asyncio.gather(*map(one, behaviours))
        for behaviour in () if together else behaviours:
            try:
                await one(behaviour)
            except httpx.RemoteProtocolError:
                assert behaviour == "broken"
        idle = len(connections._idle)
        await connections.aclose()
        return idle

    return asyncio.run(every())


def test_one_after_another_needs_one_connection(address):
    assert ask(address, "", "", "echo") == 1


def test_each_carries_one_request_at_a_time(address):
    assert ask(address, "", "", "", together=True) == 3


def test_what_broke_off_is_made_anew(address):
    assert ask(address, "broken", "", "broken", "") == 1


def test_what_is_idle_for_long_is_closed(address, monkeypatch):
    monkeypatch.setattr(connecting, "_IDLE", -1.0)
    assert ask(address, "", "", together=True) == 0
