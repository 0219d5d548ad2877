"""A local upstream of both APIs for the real clients: it notes what it gets and answers as it is told, over sockets."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Upstream:
    """Answers every request with "ok", as JSON or as a stream; the first ones with `failures`, statuses.

    with Upstream() as upstream: OpenAI(base_url=upstream.url + "/v1", api_key="k")
    """

    def __init__(self):
        self.requests: list[tuple[str, dict[str, str], bytes]] = []  # path, headers (names in small letters), body
        self.failures: list[int] = []
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"upstream": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @property
    def bodies(self):
        return [body for _, _, body in self.requests]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    upstream: Upstream
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): text for name, text in self.headers.items()}
        with self.upstream.lock:
            self.upstream.requests.append((self.path, headers, body))
            status = self.upstream.failures.pop(0) if self.upstream.failures else 200
        if status != 200:
            return self.reply(status, "application/json", json.dumps({"error": {"message": "no", "type": "t"}}))
        streams = b"multipart" not in headers["content-type"].encode() and json.loads(body).get("stream")
        answer, events = _ANSWERS[next(end for end in _ANSWERS if self.path.split("?")[0].endswith(end))]
        if streams:
            return self.reply(200, "text/event-stream", "".join(map(_event, events)))
        return self.reply(200, "application/json", json.dumps(answer))

    def reply(self, status, kind, text):
        data = text.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.send_header("retry-after-ms", "1")
        self.send_header("x-upstream", "yes")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *values):
        pass


def _event(value):
    name = f"event: {value['type']}\n" if isinstance(value, dict) and "type" in value else ""
    return f"{name}data: {value if isinstance(value, str) else json.dumps(value)}\n\n"


def _chunk(delta, reason):
    choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}


_CHAT = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": '{"word": "ok"}'}}],
}
_CHAT_EVENTS = [_chunk({"role": "assistant", "content": "o"}, None), _chunk({"content": "k"}, "stop"), "[DONE]"]
_ITEM = {"type": "message", "id": "i", "role": "assistant", "status": "completed"}
_TEXT = {"type": "output_text", "text": "ok", "annotations": []}
_RESPONSE = {
    "id": "r",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "status": "completed",
    "output": [{**_ITEM, "content": [_TEXT]}],
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
}
_RESPONSE_EVENTS = [
    {
        "type": "response.created",
        "sequence_number": 0,
        "response": {**_RESPONSE, "status": "in_progress", "output": []},
    },
    {"type": "response.completed", "sequence_number": 1, "response": _RESPONSE},
]
_USAGE = {"input_tokens": 1, "output_tokens": 1}
_MESSAGE = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "ok"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": _USAGE,
}
_MESSAGE_EVENTS = [
    {"type": "message_start", "message": {**_MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ok"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": _USAGE},
    {"type": "message_stop"},
]
_EMBEDDINGS = {"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]}
_ANSWERS = {  # by the end of the path
    "/chat/completions": (_CHAT, _CHAT_EVENTS),
    "/responses": (_RESPONSE, _RESPONSE_EVENTS),
    "/messages": (_MESSAGE, _MESSAGE_EVENTS),
    "/embeddings": ({**_EMBEDDINGS, "usage": {"prompt_tokens": 1, "total_tokens": 1}}, []),
    "/count_tokens": ({"input_tokens": 1}, []),
}
