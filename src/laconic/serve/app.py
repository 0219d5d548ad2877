"""The application: our own routes first, everything else is the proxy's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, Router

from laconic.serve.proxy import Proxy
from laconic.serve.service import Service

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def create_app(service: Service, routes: Sequence[BaseRoute] = ()) -> ASGIApp:
    """An ASGI application; it closes the service when it ends. `routes`: more of our own, before the proxy's."""
    proxy = Proxy(service)

    @asynccontextmanager
    async def lifespan(app: Router) -> AsyncIterator[None]:
        yield
        await proxy.aclose()
        service.close()

    found = [*_routes(service), *routes]
    return Router(found, redirect_slashes=False, default=proxy, lifespan=lifespan)


def _routes(service: Service) -> list[BaseRoute]:
    async def health(request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(service.health))

    return [Route("/healthz", health)]
