"""Originals of compressed parts: the command `laconic restore`, and a route of the server."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laconic.console import write
from laconic.errors import InputError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route


def original(identity: str, store: Path | str | None = None) -> str:
    """The original of a part by its id, from the store in a folder; without one from the user's data.

    InputError where there is no such part, or no such file: looking for one makes none.
    """
    from laconic.serve.decisions import Decisions, store_file

    path = store_file(store)
    if not path.exists():
        raise InputError(f"there is no store of decisions {path}; pass the folder that the part was compressed with")
    with Decisions(path) as decisions:
        return decisions.restore(identity)


def options(sub: argparse.ArgumentParser) -> None:
    """The command `laconic restore`."""
    sub.set_defaults(run=run)
    sub.add_argument("id", metavar="ID", help="of a part, from a report or a marker; 12 or more of its characters")
    sub.add_argument("--store", metavar="DIR", type=Path, help="folder of decisions (default: in the user's data)")


def run(args: argparse.Namespace) -> int:
    """The original on standard output, byte for byte."""
    write(None, original(args.id, args.store))
    return 0


def routes(service: Any) -> list[Route]:
    """`GET /v1/restore/{id}` for a server whose `service.decisions` are its store: the original, or 404 with advice."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def restore(request: Request) -> Response:
        try:
            text = await run_in_threadpool(service.decisions.restore, request.path_params["id"])
        except InputError as error:
            return PlainTextResponse(f"{error}\n", 404)
        return PlainTextResponse(text.encode("utf-8", "surrogatepass"))

    return [Route("/v1/restore/{id}", restore)]
