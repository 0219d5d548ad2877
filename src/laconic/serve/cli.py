"""The command `laconic serve`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from laconic.console import number, whole
from laconic.errors import MissingExtraError

_NAMES = ("host", "port", "workers", "store", "model", "method", "seconds")  # options that are settings
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
    add("--store", type=Path, metavar="DIR", help="folder of what was decided (default: in the user's cache)")
    add("--model", metavar="NAME|DIR", help="as for compress")
    add("--method", metavar="M", help="as for compress")
    add("--seconds", type=number, metavar="S", help="that a request waits for the compressor at most (default: 2)")


def serve(args: argparse.Namespace) -> int:
    """Run until a signal ends it."""
    try:
        from laconic.serve.run import run
    except ImportError as error:
        raise MissingExtraError("laconic serve", "serve") from error
    from laconic.serve.config import Config
    from laconic.serve.rules import Rules
    from laconic.serve.upstreams import named

    given: dict[str, Any] = {name: getattr(args, name) for name in _NAMES}
    config = Config.read_all(args.config, {**given, "upstreams": named(args.upstream) or None})
    return run(config, Rules.read(args.config))
