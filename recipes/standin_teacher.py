"""A stand-in for a teacher: an OpenAI-compatible chat completions server that needs no model, for tests and dry runs.

    python recipes/standin_teacher.py --port 8901 [--script ok,500,ok,429] &
    laconic distill texts/ labels.jsonl --teacher http://localhost:8901 --teacher-model standin

It deletes stop words, and asks for the longest word of the first sentence. `--script` names what happens to each
request in turn, over and over; the names are those of `BEHAVIOURS`.
"""

from __future__ import annotations

import argparse
import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from typing import Any

STOP_WORDS = re.compile(
    r"(a|an|the|of|to|and|in|on|that|this|is|are|was|were|be|it|for|with|as|at|by|from|very|really|just|so|or|its|has|had)"
    r"[.,;]?",
    re.IGNORECASE,
)


class Teacher(ThreadingHTTPServer):
    """Serves on 127.0.0.1 until the `with` block ends. `script`: what happens to each request in turn, then `ok`.

    key: the only one that is accepted; None: none is needed. `seen`: the bodies of all requests.
    """

    daemon_threads = True

    def __init__(
        self, script: Sequence[str] = (), *, port: int = 0, key: str | None = None, again: bool = False
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.key = key
        self.seen: list[dict[str, Any]] = []
        self._script = iter(cycle(script) if again else script)
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Teacher:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def next(self, body: dict[str, Any]) -> str:
        """Note a request; what shall happen to it."""
        with self._lock:
            self.seen.append(body)
            return next(self._script, "ok")

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is none of our business."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Teacher

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self.fail(404, "no such address")
        elif self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            self.fail(
                401, f"Incorrect API key provided: {self.headers.get('Authorization', '')[7:]}", "invalid_api_key"
            )
        else:
            BEHAVIOURS[self.server.next(body)](self, body)

    def say(self, text: str | None, finish: str = "stop", **message: Any) -> None:
        """A completion, as OpenAI's own look."""
        choice = {"index": 0, "message": {"role": "assistant", "content": text} | message, "finish_reason": finish}
        usage = {"prompt_tokens": 100, "completion_tokens": len((text or "").split())}
        self.send(200, json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode())

    def fail(self, status: int, message: str, code: str = "", param: str = "", **headers: str) -> None:
        """An error, as OpenAI's own look."""
        error = {"message": message, "type": "invalid_request_error", "param": param or None, "code": code or None}
        self.send(status, json.dumps({"error": error}).encode(), **headers)

    def send(self, status: int, data: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def _passage(body: dict[str, Any]) -> str:
    return re.search(r"<passage>\n(.*)\n</passage>", body["messages"][-1]["content"], re.DOTALL)[1]  # type: ignore[index]


def _asks(body: dict[str, Any]) -> bool:
    return "JSON" in body["messages"][0]["content"]


def _shorter(text: str) -> str:
    """The passage without its stop words."""
    return " ".join(w for w in text.split() if not STOP_WORDS.fullmatch(w))


def _question(body: dict[str, Any]) -> dict[str, Any]:
    """A question for the longest word of the first sentence, or for the given question's longest word in the text."""
    text, content = _passage(body), body["messages"][-1]["content"]
    given = re.search(r"<question>\n(.*)\n</question>", content, re.DOTALL)
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())
    if not given:
        answer = max(re.findall(r"\w+", sentences[0]), key=len)
        return {"question": "Which word is the longest?", "answer": answer, "evidence": sentences[:1]}
    wanted = [w for w in sorted(re.findall(r"\w+", given[1]), key=len, reverse=True) if len(w) > 3 and w in text]
    if not wanted:
        return {"question": given[1], "answer": "", "evidence": []}
    evidence = [s for s in sentences if wanted[0] in s][:1]
    return {"question": given[1], "answer": wanted[0], "evidence": evidence}


# What can happen to a request


def _ok(handler: _Handler, body: dict[str, Any]) -> None:
    handler.say(json.dumps(_question(body)) if _asks(body) else _shorter(_passage(body)))


def _invented(handler: _Handler, body: dict[str, Any]) -> None:
    if _asks(body):
        handler.say(json.dumps({"question": "What?", "answer": "zebra", "evidence": ["A zebra said so."]}))
    else:
        handler.say("Summarising freely: " + _shorter(_passage(body)) + " and verily zebras rejoiced")


def _slow(handler: _Handler, body: dict[str, Any]) -> None:
    time.sleep(0.3)
    _ok(handler, body)


def _truncated(handler: _Handler, body: dict[str, Any]) -> None:
    """The body ends in the middle of the JSON, and says that it is whole."""
    handler.send(200, b'{"object": "chat.completion", "choices": [{"index": 0, "mess')


def _dropped(handler: _Handler, body: dict[str, Any]) -> None:
    """The connection closes before the announced end of the body."""
    handler.send(200, b'{"object": "chat.', length=1000)
    handler.close_connection = True


BEHAVIOURS: dict[str, Callable[[_Handler, dict[str, Any]], None]] = {
    "ok": _ok,
    "slow": _slow,
    "invented": _invented,
    "truncated": _truncated,
    "dropped": _dropped,
    "refusal": lambda handler, body: handler.say("I'm sorry, but I can't help with that."),
    "refusal-field": lambda handler, body: handler.say(None, refusal="I cannot assist with that."),
    "empty": lambda handler, body: handler.say(""),
    "identical": lambda handler, body: handler.say(_passage(body)),
    "cut": lambda handler, body: handler.say(_shorter(_passage(body))[:10], finish="length"),
    "filtered": lambda handler, body: handler.say("", finish="content_filter"),
    "not-json": lambda handler, body: handler.say("Here you are: {question: none}"),
    "no-choices": lambda handler, body: handler.send(200, b'{"error": {"message": "upstream is busy"}}'),
    "html": lambda handler, body: handler.send(200, b"<html>It works!</html>"),
    "500": lambda handler, body: handler.fail(500, "the server had an error"),
    "429": lambda handler, body: handler.fail(429, "rate limit reached", "rate_limit_exceeded", Retry_After="0.05"),
    "429-long": lambda handler, body: handler.fail(429, "daily limit reached", Retry_After="86400"),
    "quota": lambda handler, body: handler.fail(429, "You exceeded your current quota", "insufficient_quota"),
    "400": lambda handler, body: handler.fail(
        400, "the passage is too long for the context", "context_length_exceeded"
    ),
    "404": lambda handler, body: handler.fail(404, "model not found", "model_not_found"),
    "no-temperature": lambda handler, body: (
        handler.fail(400, "temperature is not supported", "unsupported_value", "temperature")
        if "temperature" in body
        else _ok(handler, body)
    ),
    "no-max-tokens": lambda handler, body: (
        handler.fail(400, "use max_completion_tokens", "unsupported_parameter", "max_tokens")
        if "max_tokens" in body
        else _ok(handler, body)
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8901)
    parser.add_argument("--script", default="ok", help=f"comma-separated, of: {', '.join(BEHAVIOURS)}")
    parser.add_argument("--key", help="answer only requests with this key")
    args = parser.parse_args()
    with Teacher(args.script.split(","), port=args.port, key=args.key, again=True) as teacher:
        print(f"listening on {teacher.url}, stop with Ctrl-C", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
