"""The server's processes: they listen together, each with its own compressor, and share the store."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from tempfile import TemporaryDirectory

import uvicorn
from starlette.types import ASGIApp
from uvicorn.supervisors import Multiprocess

import laconic
from laconic.console import say
from laconic.errors import InputError
from laconic.serve import page, restore
from laconic.serve.app import create_app
from laconic.serve.config import Config
from laconic.serve.metrics import FOLDER
from laconic.serve.rules import Rules
from laconic.serve.service import LOCAL, Service


def run(config: Config, rules: Rules) -> int:
    """Listen and serve until a signal comes, then let answers end."""
    listening = _listen(config.host, config.port)
    host, port = listening.getsockname()[:2]
    say(f"laconic listens on http://{f'[{host}]' if ':' in host else host}:{port} for {', '.join(config.upstreams)}")
    if not config.key and not LOCAL.fullmatch(config.host):
        say(
            "laconic: without a key (LACONIC_KEY) whoever reaches this address may use the server and see what it keeps"
        )
    settings = _settings(config, rules)
    with suppress(KeyboardInterrupt):
        if config.workers == 1:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn repeats it when all has ended well
            uvicorn.Server(settings).run([listening])
        else:
            laconic.load(config.model, method=config.method)  # what is wrong with it is said once, not by each worker
            with _shared_metrics():
                Multiprocess(settings, [listening]).run()
    return 0


def _settings(config: Config, rules: Rules) -> uvicorn.Config:
    """How uvicorn is to serve."""
    return uvicorn.Config(
        partial(build, config, rules),
        factory=True,
        workers=config.workers,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        http="h11",  # whatever else is installed: it refuses what a proxy must not pass on, such as two hosts
        loop="asyncio",
        ws="none",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=config.grace,
    )


def build(config: Config, rules: Rules) -> ASGIApp:
    """The application of one process."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what is cut short, the log of requests says
    service = Service(config, rules, laconic.load(config.model, method=config.method))
    return create_app(service, [*page.routes(service), *restore.routes(service)])


@contextmanager
def _shared_metrics() -> Iterator[None]:
    """A folder where workers count together, read before they import anything."""
    with TemporaryDirectory(prefix="laconic-") as folder:
        os.environ[FOLDER] = folder
        yield


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named so that asyncio knows it, and lets no piece of a stream wait for the one before (Nagle).
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        where = f"{host}, port {port}"
        raise InputError(f"cannot listen on {where}: {error.strerror}; pass another --host or --port") from None
    listening.set_inheritable(True)
    listening.listen(2048)  # who asks while the model is being read waits for it
    return listening
