"""What the proxy adds to streams under load, beside a bare pass-through: latency, throughput, CPU, memory.

    python bench/serve_load.py [--streams 200] [--seconds 20] [--rounds 3] [--requests 20000] [--json OUT]

The load generator (this process), an upstream and each proxy are processes of their own, all on the same two cores.
A stream is 20 events over 1.5 s, the first one after 50 ms; 200 clients ask for one after the other, each on its own
connection, which is about 130 requests and 2700 events a second: below saturation. The ways, in turns in every round:

    direct     no proxy
    bare       the peer: 20 lines of Starlette and httpx that pass everything through
    short      laconic, a chat of 10 short messages that it has not seen: nothing to compress, but it is read and noted
    replayed   laconic, a chat with 4 results of tools of 1000 tokens each that were compressed before
    new        laconic, a result of 1000 tokens that it has not seen, from 2 clients (beside `direct` of 200)

Before that memory: resident megabytes of a fresh laconic before, after a tenth, and after all of --requests short
chats. After it what happens above saturation: streams without pauses from as many clients, for the requests/s; and
paced streams with a new result each: how long does a request wait, how many go out whole?

First: from sending a request to the first event of its answer. Event: from the upstream's write to the client's read.
Added: these percentiles less those of `direct`. CPU: of the proxy's process, a request. On a busy machine latencies
are upper bounds; CPU is disturbed little.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import counter, document, table

EVENTS, PAUSE, FIRST = 20, 0.075, 0.05  # seconds
WAYS = ("direct", "bare", "short", "replayed", "new")
FEW = 2  # clients with something new
CONVERSATIONS, RESULTS, TOKENS = 20, 4, 1000  # of what is replayed
PATH = "/v1/chat/completions"
Row = tuple[Any, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=200, help="clients at once (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20, help="of each way in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--requests", type=int, default=20_000, help="of the memory test (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the rows there, too")
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        {"upstream": _serve_upstream, "bare": _serve_bare}[args.serve[0]](*args.serve[1:])
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    random.seed(0)
    with servers() as found:
        tables = asyncio.run(Bench(found, args.streams, args.seconds, args.rounds).run(args.requests))
    if args.json:
        args.json.write_text(json.dumps(tables, indent=2) + "\n", encoding="utf-8")


# What is measured


@dataclass
class Answers:
    """What clients saw, in ms."""

    first: list[float] = field(default_factory=list)
    event: list[float] = field(default_factory=list)
    end: list[float] = field(default_factory=list)
    whole: int = 0  # requests in which nothing was compressed
    seconds: float = 0.0
    cpu: float = 0.0  # seconds of the proxy's process


class Bench:
    """All runs."""

    def __init__(self, found: dict[str, Server], streams: int, seconds: float, rounds: int) -> None:
        self.servers, self.streams, self.seconds, self.rounds = found, streams, seconds, rounds
        chats = Chats()
        replayed = itertools.cycle([chats.replayed(k) for k in range(CONVERSATIONS)])
        self.replay = lambda: next(replayed)
        self.make = {"direct": chats.short, "bare": chats.short, "short": chats.short, "new": chats.new}
        self.make["replayed"] = self.replay

    async def run(self, requests: int) -> dict[str, list[Row]]:
        """Rows of each table, which are printed as they come."""
        await self._load("replayed", Answers(), 1, (request(self.replay()) for _ in range(CONVERSATIONS)))
        return {
            "memory": _shown("Memory of laconic, MB resident", HEAD_MEMORY, await self._memory(requests)),
            "paced": _shown("Paced streams, ms", HEAD, await self._paced()),
            "fast": _shown("Above saturation", HEAD_FAST, await self._fast()),
            "overload": _shown("Everything new, ms", HEAD_OVER, await self._overload()),
        }

    async def _paced(self) -> list[Row]:
        found = {way: Answers() for way in WAYS}
        for _, way in itertools.product(range(self.rounds), WAYS):
            await self._timed(way, found[way], FEW if way == "new" else self.streams)
        return list(_latencies(found))

    async def _fast(self) -> list[Row]:
        found = {way: Answers() for way in WAYS if way != "new"}
        for _, way in itertools.product(range(self.rounds), found):
            await self._timed(way, found[way], self.streams, "x-fast: 1\r\n")
        return [_speed(way, answers) for way, answers in found.items()]

    async def _overload(self) -> list[Row]:
        answers = Answers()
        await self._timed("new", answers, self.streams)
        return [_overload(answers)]

    async def _timed(self, way: str, answers: Answers, clients: int, header: str = "") -> None:
        end, make = time.monotonic() + self.seconds, self.make[way]
        requests = (request(make(), header) for _ in iter(lambda: time.monotonic() < end, False))
        await self._load(way, answers, clients, requests)

    async def _load(self, way: str, answers: Answers, clients: int, requests: Iterator[bytes]) -> None:
        server = self.servers[way if way in self.servers else "laconic"]
        began, cpu = time.monotonic(), server.cpu()
        await asyncio.gather(*(_client(server.port, answers, requests) for _ in range(clients)))
        answers.seconds += time.monotonic() - began
        answers.cpu += server.cpu() - cpu

    async def _memory(self, requests: int) -> list[Row]:
        server, sizes = self.servers["laconic"], list[float]()
        for number in (0, requests // 10, requests - requests // 10):
            made = (request(self.make["short"](), "x-fast: 1\r\n") for _ in range(number))
            await self._load("short", Answers(), 50, made)
            sizes.append(server.resident())
        return [("resident", *(f"{size:.1f}" for size in sizes))]


HEAD = ("way", "requests", "first p50", "p99", "added p50", "p99", "event p50", "p99", "end p50", "p99", "CPU")
HEAD_FAST = ("way", "requests/s", "first p50", "p99", "CPU ms")
HEAD_OVER = ("requests", "went out whole", "first p50", "p99", "most")
HEAD_MEMORY = ("", "before", "after a tenth", "after all")


def _latencies(found: dict[str, Answers]) -> Iterator[Row]:
    base = found["direct"]
    for way, a in found.items():
        added = [at(a.first, share) - at(base.first, share) for share in (0.5, 0.99)]
        values = [at(a.first, 0.5), at(a.first, 0.99), *added, at(a.event, 0.5), at(a.event, 0.99)]
        values += [at(a.end, 0.5), at(a.end, 0.99), 1000 * a.cpu / len(a.end)]
        yield (way, len(a.end), *(f"{value:.1f}" for value in values))


def _speed(way: str, a: Answers) -> Row:
    values = (len(a.end) / a.seconds, at(a.first, 0.5), at(a.first, 0.99), 1000 * a.cpu / len(a.end))
    return (way, *(f"{value:.1f}" for value in values))


def _overload(a: Answers) -> Row:
    values = (at(a.first, 0.5), at(a.first, 0.99), max(a.first))
    return (len(a.end), f"{100 * a.whole / len(a.end):.0f} %", *(f"{value:.0f}" for value in values))


def at(values: list[float], share: float) -> float:
    """A percentile."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _shown(title: str, head: Row, rows: list[Row]) -> list[Row]:
    print(f"\n{title}\n\n{table(head, rows)}", flush=True)
    return rows


# Requests


class Chats:
    """Bodies of chats; what is new is never twice the same."""

    def __init__(self) -> None:
        count, self._numbers = counter(), itertools.count()
        words = document(40 * TOKENS, count).split()
        share = len(words) // 40
        self._texts = [" ".join(words[k * share : (k + 1) * share]) for k in range(40)]

    def short(self) -> bytes:
        said = [entry for k in range(4) for entry in (user(f"Point {k} of the list, please."), says("Here it is."))]
        return body([*said, user(f"And what of number {next(self._numbers)}?")])

    def new(self) -> bytes:
        number = next(self._numbers)
        return body([user("Look."), call("c1"), result("c1", f"Page {number}. {self._texts[number % 40]}")])

    def replayed(self, k: int) -> bytes:
        steps = [(call(f"c{n}"), result(f"c{n}", self._texts[(k + n) % 40])) for n in range(RESULTS)]
        return body([user(f"Task {k}."), *itertools.chain(*steps)])


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def says(text: str) -> Any:
    return {"role": "assistant", "content": text}


def call(identity: str) -> Any:
    function = {"name": "look", "arguments": '{"q": "harbour"}'}
    return {"role": "assistant", "tool_calls": [{"id": identity, "type": "function", "function": function}]}


def result(identity: str, text: str) -> Any:
    return {"role": "tool", "tool_call_id": identity, "content": text}


def body(messages: list[Any]) -> bytes:
    return json.dumps({"model": "m", "stream": True, "messages": messages}).encode()


def request(data: bytes, header: str = "") -> bytes:
    head = f"POST {PATH} HTTP/1.1\r\nhost: local\r\ncontent-type: application/json\r\n{header}"
    return f"{head}authorization: Bearer k\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


# Clients


async def _client(port: int, answers: Answers, requests: Iterator[bytes]) -> None:
    await asyncio.sleep(random.uniform(0, EVENTS * PAUSE))  # so that not all come at one moment
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: Client(answers, requests), "127.0.0.1", port)
    await client.done


class Client(asyncio.Protocol):
    """One connection, which asks again as soon as an answer has ended."""

    def __init__(self, answers: Answers, requests: Iterator[bytes]) -> None:
        self.answers, self.requests, self.got, self.events = answers, requests, b"", EVENTS
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._ask()

    def _ask(self) -> None:
        data = next(self.requests, None)
        if data is None:
            self.transport.close()
            return
        self.got, self.events, self.read = b"", 0, 0
        self.sent = time.monotonic_ns()
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self.got += data
        for event in _EVENT.finditer(self.got, self.read):
            if not self.events:
                self.answers.first.append((now - self.sent) / 1e6)
            self.answers.event.append((now - int(event[1])) / 1e6)
            self.events, self.read = self.events + 1, event.end()
        if self.got.endswith(b"\r\n0\r\n\r\n"):
            self._ended(now)

    def _ended(self, now: int) -> None:
        if self.events != EVENTS or not self.got.startswith(b"HTTP/1.1 200 "):
            self.done.set_exception(RuntimeError(f"{self.events} events: {self.got[:300]!r}"))
            return
        self.answers.end.append((now - self.sent) / 1e6)
        self.answers.whole += b"compressed=" not in self.got
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            if self.events == EVENTS:
                self.done.set_result(None)
            else:
                self.done.set_exception(RuntimeError(f"cut off: {self.got[-300:]!r}"))


_EVENT = re.compile(rb"data: (\d+)\n")


# Servers


@dataclass(frozen=True)
class Server:
    """A process on a port."""

    process: subprocess.Popen[bytes]
    port: int

    def cpu(self) -> float:
        """Seconds that it has worked."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> float:
        """Megabytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


@contextmanager
def servers() -> Iterator[dict[str, Server]]:
    """The upstream is `direct`, the proxies `bare` and `laconic`."""
    with tempfile.TemporaryDirectory() as store, ExitStack() as stack:

        def start(*command: str) -> Server:
            return stack.enter_context(_process([sys.executable, *command], Path(store, "log")))

        direct = start(__file__, "--serve", "upstream")
        url = f"http://127.0.0.1:{direct.port}"
        options = ["--upstream", f"openai={url}", "--store", store]
        yield {
            "direct": direct,
            "bare": start(__file__, "--serve", "bare", url),
            "laconic": start("-c", "from laconic.cli import _entry; _entry()", "serve", *options, "--port"),
        }


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[Server]:
    """A process that is told its port last."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with log.open("ab") as output, subprocess.Popen([*command, str(port)], stderr=output) as process:
        try:
            _wait(port, process)
            yield Server(process, port)
        finally:
            process.terminate()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionError:
            time.sleep(0.05)
    raise SystemExit(f"{process.args} ended with {process.returncode}")


class Upstream(asyncio.Protocol):
    """Answers every request with events that say when they were written."""

    def connection_made(self, transport: Any) -> None:
        self.transport, self.got, self.loop = transport, b"", asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self.got += data
        head, end, rest = self.got.partition(b"\r\n\r\n")
        if not end or len(rest) < int(re.search(rb"content-length: (\d+)", head, re.I)[1]):  # type: ignore[index]
            return
        self.got = b""
        self.transport.write(_HEAD)
        if b"x-fast" in head:
            self.transport.write(b"".join(_event() for _ in range(EVENTS)) + _LAST)
        else:
            self.loop.call_later(FIRST, self._say, EVENTS)

    def _say(self, left: int) -> None:
        self.transport.write(_event())
        if left > 1:
            self.loop.call_later(PAUSE, self._say, left - 1)
        else:
            self.transport.write(_LAST)


_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_LAST = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def _event() -> bytes:
    made = b"data: %d\n\n" % time.monotonic_ns()
    return b"%x\r\n%s\r\n" % (len(made), made)


def _serve_upstream(port: str) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", int(port), backlog=1000)
        await server.serve_forever()

    asyncio.run(serve())


def _serve_bare(url: str, port: str) -> None:
    import httpx
    import uvicorn
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Route

    client = httpx.AsyncClient(base_url=url, timeout=None, limits=httpx.Limits())

    async def forward(got: Request) -> Response:
        headers = [(name, value) for name, value in got.headers.raw if name not in (b"host", b"content-length")]
        asked = client.build_request(got.method, got.url.path, headers=headers, content=await got.body())
        answer = await client.send(asked, stream=True)
        kept = {name: value for name, value in answer.headers.items() if name != "transfer-encoding"}
        return StreamingResponse(answer.aiter_raw(), answer.status_code, kept, background=BackgroundTask(answer.aclose))

    app = Starlette(routes=[Route("/{path:path}", forward, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_config=None, access_log=False, ws="none")


if __name__ == "__main__":
    main()
