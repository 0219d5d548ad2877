"""Upstreams and clients that misbehave, over bare sockets; and a proxy in a process of its own, which may be killed.

    python faulty.py STORE UPSTREAM [DEATH]

serves until a signal ends it. A text with the word "wait" is not compressed before the file STORE/go is there. DEATH,
where the process ends itself by SIGKILL: `settling` (the rows are written, the transaction is open) or `settled`.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from serving import Fickle
from upstream import until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n8\r\ndata: 0\n\r\n"


class Contacts:
    """A server of bare sockets: `answer(connection, head)` is called for each request, whose head was read."""

    def __init__(self, answer=lambda connection, head: connection.sendall(OK)):
        self.answer, self.heads, self.ended, self.open = answer, [], 0, set()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.listening.close()
        for connection in list(self.open):
            connection.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                connection, _ = self.listening.accept()
                self.open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with suppress(OSError), connection:
            while head := read_until(connection, b"\r\n\r\n", 1):
                self.heads.append(head)
                self.answer(connection, head)
        self.ended += 1
        self.open.discard(connection)


def read_until(connection, end=b"", size=65536):
    """Bytes up to `end`, and what came with it of `size`; without an end, until the peer closes or resets."""
    got = b""
    with suppress(ConnectionResetError):
        while not end or end not in got:
            piece = connection.recv(size)
            if not piece:
                break
            got += piece
    return got


def reset(connection):
    """End a connection without ceremony."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def connect(url):
    """A client's socket."""
    return socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=10)


def post(path, data, *headers):
    """The bytes of a request."""
    lines = [f"POST {path} HTTP/1.1", "host: proxy", f"content-length: {len(data)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + data


def said(url, request):
    """All that is answered to these bytes until the proxy ends the connection."""
    with connect(url) as client:
        with suppress(ConnectionError):
            client.sendall(request)
        return read_until(client)


class Patient(Fickle):
    """Waits for a file where a text says so; each process says something else."""

    def __init__(self, go):
        super().__init__()
        self.go = go

    def compress(self, text, **options):
        if "wait" in text:
            self.go.with_name("waiting").touch()
            until(self.go.exists)
        found = super().compress(text, **options)
        found.text = f"{os.getpid()} {found.text}"
        return found


@contextmanager
def process(store, upstream, death=""):
    """(its address, the process, lines of its log) of a proxy."""
    command = [sys.executable, __file__, str(store), upstream, death]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = [server.stderr.readline()]
    reader = threading.Thread(target=lambda: log.extend(server.stderr))
    reader.start()
    try:
        assert "listens on" in log[0], log
        url = log[0].split()[3]
        until(lambda: listens(url))
        yield url, server, log
    finally:
        server.kill()
        server.wait(10)
        reader.join(10)
        server.stderr.close()


def listens(url):
    """Does it accept a connection?"""
    try:
        connect(url).close()
    except ConnectionError:
        return False
    return True


def memory(pid):
    """The most bytes a process ever held."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def _serve(store, upstream, death):
    from laconic.serve import run
    from laconic.serve.app import create_app
    from laconic.serve.config import Config
    from laconic.serve.decisions import Decisions
    from laconic.serve.rules import Rules
    from laconic.serve.service import Service
    from laconic.store import Database

    def die(*args, **options):
        os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def cut_short(self, transaction=Database.transaction):
        with transaction(self) as database:
            yield database
            die()

    def settle(self, *args, settle=Decisions.settle):
        settle(self, *args)
        die()

    if death == "settling":
        Database.transaction = cut_short
    elif death == "settled":
        Decisions.settle = settle
    run.build = lambda config, rules: create_app(Service(config, rules, Patient(config.store / "go")))
    run.run(Config({"openai": upstream}, port=0, store=Path(store), seconds=30, grace=20), Rules(floor=20))


if __name__ == "__main__":
    _serve(*sys.argv[1:])
