"""The command `laconic serve`."""

from __future__ import annotations

import argparse
import logging
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laconic.console import number, say, whole
from laconic.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from laconic.serve.config import Config
    from laconic.serve.rules import Rules

_EPILOG = """
example:
  laconic serve --upstream openai=https://api.openai.com --upstream anthropic=https://api.anthropic.com
  OPENAI_BASE_URL=http://127.0.0.1:8787/v1  ANTHROPIC_BASE_URL=http://127.0.0.1:8787

Clients keep their keys and send them as before. docs/serve.md says what is compressed, and all settings.
"""


def options(sub: argparse.ArgumentParser) -> None:
    """The command's options; those that are not given leave the word to the environment and the file."""
    sub.set_defaults(run=serve)
    sub.formatter_class = argparse.RawDescriptionHelpFormatter
    sub.description = "A proxy for OpenAI's and Anthropic's APIs that compresses long results of tools and documents."
    sub.epilog = _EPILOG
    add = sub.add_argument
    where = "whom to ask; NAME: openai, anthropic or your own; repeatable"
    add("--upstream", metavar="[NAME=]URL", action="append", default=[], help=where)
    add("--config", metavar="FILE", type=Path, help="TOML with [server], [upstreams] and [rules]")
    add("--host", help="address to listen on (default: 127.0.0.1, this machine alone)")
    add("--port", type=whole, metavar="N", help="default: 8787")
    add("--workers", type=whole, metavar="N", help="processes (default: 1)")
    add("--store", type=Path, metavar="DIR", help="folder of what was decided (default: in the user's data folder)")
    add("--model", metavar="NAME|DIR", help="as for compress")
    add("--method", metavar="M", help="as for compress")
    add("--seconds", type=number, metavar="S", help="that a request waits for the compressor at most (default: 2)")


def serve(args: argparse.Namespace) -> int:
    """Run until a signal ends it."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise MissingExtraError("laconic serve", "serve") from None
    from laconic.serve.config import Config
    from laconic.serve.rules import Rules

    given: dict[str, Any] = {name: getattr(args, name) for name in _NAMES}
    config = Config.read_all(args.config, {**given, "upstreams": _upstreams(args.upstream)})
    return run(config, Rules.read(args.config))


_NAMES = ("host", "port", "workers", "store", "model", "method", "seconds")


def run(config: Config, rules: Rules) -> int:
    """Listen and serve."""
    import uvicorn

    listening = _listen(config.host, config.port)
    host, port = listening.getsockname()[:2]
    say(f"laconic listens on http://{f'[{host}]' if ':' in host else host}:{port} for {', '.join(config.upstreams)}")
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what is cut short, the log of requests says
    settings = uvicorn.Config(
        partial(build, config, rules),
        factory=True,
        workers=config.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        ws="none",
        timeout_graceful_shutdown=config.grace,
    )
    uvicorn.Server(settings).run([listening])
    return 0


def build(config: Config, rules: Rules) -> ASGIApp:
    """The application of one process."""
    import laconic
    from laconic.serve.app import create_app
    from laconic.serve.service import Service

    return create_app(Service(config, rules, laconic.load(config.model, method=config.method)))


def _upstreams(given: list[str]) -> dict[str, str] | None:
    """NAME=URL; a URL alone is called after its host, or "openai"."""
    pairs = [text.split("=", 1) if "=" in text.split(":", 1)[0] else [_name(text), text] for text in given]
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two upstreams are named {twice}; pass --upstream NAME=URL")
    return dict(pairs) or None


def _name(url: str) -> str:
    return "anthropic" if "anthropic" in url else "openai"


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise InputError(f"cannot listen on {host}, port {port}: {error.strerror}; pass another --port") from None
    listening.set_inheritable(True)
    return listening
