"""A small server that speaks OpenAI's and Anthropic's protocols, and servers in threads.

`Upstream` keeps what it received, byte for byte. What it answers, a behaviour says: the header `x-behave` of a request,
or `upstream.behaviours`, a queue for the requests to come. A new behaviour is a function `(upstream, received) ->
Response` in `BEHAVIOURS`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

CHUNKS = 5
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    method: str
    path: str  # raw
    query: str
    headers: list[tuple[str, str]]
    body: bytes

    def json(self):
        return json.loads(self.body)

    def header(self, name):
        """All values."""
        return [value for key, value in self.headers if key == name]


@dataclass
class Upstream:
    received: list[Received] = field(default_factory=list)
    behaviours: deque[str] = field(default_factory=deque)
    gone: int = 0  # clients that hung up while they were answered
    reject: str = ""  # 400 for each body without this text in it

    @property
    def app(self):
        return Starlette(routes=[Route("/{path:path}", self._answer, methods=METHODS)])

    async def _answer(self, request):
        headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in request.scope["headers"]]
        raw = request.scope["raw_path"].decode()
        got = Received(request.method, raw, request.scope["query_string"].decode(), headers, await request.body())
        self.received.append(got)
        name = request.headers.get("x-behave") or (self.behaviours.popleft() if self.behaviours else "")
        if self.reject and self.reject.encode() not in got.body:
            name = "400"
        return BEHAVIOURS[name](self, got) if name else _usual(self, got)

    async def pieces(self, made, pause=0.0):
        try:
            for piece in made:
                yield piece
                await asyncio.sleep(pause)
        except asyncio.CancelledError:
            self.gone += 1
            raise


def _usual(upstream, got):
    path = got.path.removeprefix("/base")
    if path == "/v1/chat/completions":
        return _either(upstream, got, chat(got), chat_events())
    if path == "/v1/responses":
        return _either(upstream, got, response(), response_events())
    if path == "/v1/messages":
        return _either(upstream, got, message(got), message_events())
    if path == "/v1/messages/count_tokens":
        return JSONResponse({"input_tokens": len(got.body)})
    if path == "/v1/models":
        return JSONResponse({"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "x"}]})
    if path == "/v1/embeddings":
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return JSONResponse({"object": "list", "model": "m", "data": data, "usage": usage})
    return _echo(upstream, got)


def _either(upstream, got, whole, events):
    headers = {"x-request-id": "req_1", "request-id": "req_1"}
    if got.json().get("stream"):
        return StreamingResponse(upstream.pieces(events), headers=headers, media_type="text/event-stream")
    return JSONResponse(whole, headers=headers)


def _echo(upstream, got):
    return Response(got.body, headers={"x-path": got.path, "x-query": got.query, "x-method": got.method})


def _error(status, **headers):
    def answer(upstream, got):
        kind = {"type": "some_error", "message": f"status {status}"}
        return JSONResponse({"type": "error", "error": kind}, status, headers)

    return answer


def _slow(upstream, got):
    """Server-sent events, one in 20 ms, for half a minute."""
    made = (b"data: %d\n\n" % k for k in range(1500))
    return StreamingResponse(upstream.pieces(made, 0.02), media_type="text/event-stream")


class _Broken(Response):
    """Ends the connection in the middle of the answer."""

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for k in range(3):
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % k, "more_body": True})


class _Silent(Response):
    """Never answers."""

    async def __call__(self, scope, receive, send):
        await asyncio.sleep(60)


BEHAVIOURS = {
    "echo": _echo,
    "slow": _slow,
    "broken": lambda upstream, got: _Broken(),
    "silent": lambda upstream, got: _Silent(),
    "redirect": lambda upstream, got: RedirectResponse("http://elsewhere.invalid/v1/models", 307),
    "400": _error(400),
    "401": _error(401),
    "413": _error(413),
    "429": _error(429, **{"retry-after": "0", "retry-after-ms": "1"}),
    "500": _error(500),
    "529": _error(529),
}


def event(data, name=None):
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(data).encode() + b"\n\n"


def chat(got):
    """A completion; of a request with tools, a call."""
    said = {"role": "assistant", "content": "The harbour is open."}
    if "tools" in got.json():
        function = {"name": "look", "arguments": '{"q": "harbour"}'}
        said = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function"}]}
        said["tool_calls"][0]["function"] = function
    choice = {"index": 0, "finish_reason": "stop", "message": said}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


def chat_events():
    shared = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    for k in range(CHUNKS):
        delta = {"index": 0, "delta": {"content": f"w{k} é "}, "finish_reason": None}
        yield event({**shared, "choices": [delta]})
    yield b"data: [DONE]\n\n"


def response():
    text = {"type": "output_text", "text": "The harbour is open.", "annotations": []}
    output = [{"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": [text]}]
    shared = {"id": "r1", "object": "response", "created_at": 1, "model": "m", "status": "completed"}
    return {**shared, "output": output, "tools": [], "tool_choice": "auto", "parallel_tool_calls": True}


def response_events():
    made = {"item_id": "m1", "output_index": 0, "content_index": 0}
    for k in range(CHUNKS):
        delta = {"type": "response.output_text.delta", "sequence_number": k, "delta": f"w{k} é ", "logprobs": []}
        yield event({**delta, **made}, "response.output_text.delta")
    done = {"type": "response.completed", "sequence_number": CHUNKS, "response": response()}
    yield event(done, "response.completed")


def message(got):
    """A message; of a request with tools, a call."""
    content = [{"type": "text", "text": "The harbour is open."}]
    if "tools" in got.json():
        content = [{"type": "tool_use", "id": "c1", "name": "look", "input": {"q": "harbour"}}]
    usage = {"input_tokens": 1, "output_tokens": 1}
    shared = {"id": "x", "type": "message", "role": "assistant", "model": "m", "usage": usage}
    return {**shared, "content": content, "stop_reason": "end_turn", "stop_sequence": None}


def message_events():
    usage = {"input_tokens": 1, "output_tokens": 1}
    shared = {"id": "x", "type": "message", "role": "assistant", "model": "m", "usage": usage, "content": []}
    begun = {"type": "message_start", "message": {**shared, "stop_reason": None, "stop_sequence": None}}
    yield event(begun, "message_start")
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    yield event(block, "content_block_start")
    for k in range(CHUNKS):
        delta = {"type": "text_delta", "text": f"w{k} é "}
        yield event({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")
    yield event({"type": "content_block_stop", "index": 0}, "content_block_stop")
    ended = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}}
    yield event({**ended, "usage": {"output_tokens": 1}}, "message_delta")
    yield event({"type": "message_stop"}, "message_stop")


@contextmanager
def running(app, **settings):
    """Serve an application on a free port of this machine; gives its address."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # no Nagle
    listening.bind(("127.0.0.1", 0))
    quiet = {"log_config": None, "access_log": False, "ws": "none", "server_header": False, "date_header": False}
    server = uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=1, **quiet, **settings))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()


def until(holds, seconds=20):
    """Wait for it."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)
