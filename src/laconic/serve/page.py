"""The playground page and the routes of what it needs: its files, the plain API, the description of the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
from importlib import resources

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from laconic.serve.api import Api, Service
from laconic.serve.openapi import description

_STATIC = resources.files("laconic.serve") / "static"
_MEDIA = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # asked for each time, and sent only when it has changed
}


def routes(service: Service) -> list[Route]:
    """`/` and its files under `/page/`, `/openapi.json`, `/v1/compress`."""
    names = sorted(file.name for file in _STATIC.iterdir())
    api = Api(service)
    return [
        Route("/", _file("index.html"), methods=["GET"]),
        *(Route(f"/page/{name}", _file(name), methods=["GET"]) for name in names if name != "index.html"),
        Route("/openapi.json", _openapi, methods=["GET"]),
        Route("/v1/compress", api.compress, methods=["POST"]),
    ]


async def _openapi(request: Request) -> Response:
    return JSONResponse(description())


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint for a file of the package, read once."""
    content = (_STATIC / name).read_bytes()
    media = _MEDIA[name.rpartition(".")[2]]
    headers = {**_HEADERS, "etag": f'"{sha256(content).hexdigest()[:16]}"'}

    async def endpoint(request: Request) -> Response:
        if headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media, headers=headers)

    return endpoint
