"""The application: our own routes first, everything else is the proxy's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router

from laconic.errors import InputError
from laconic.serve.metrics import TYPE
from laconic.serve.proxy import Proxy
from laconic.serve.service import Service, refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_FLUSH = 1.0  # seconds that the ledger may lag behind, for other workers and after a kill


def create_app(service: Service, routes: Sequence[Route] = ()) -> ASGIApp:
    """An ASGI application; it closes the service when it ends.

    routes: more of our own, before the proxy's. Those under /v1/ ask for our key, pages do not.
    """
    proxy = Proxy(service)

    @asynccontextmanager
    async def lifespan(app: Router) -> AsyncIterator[None]:
        flushing = asyncio.create_task(_flush(service))
        yield
        flushing.cancel()
        await proxy.aclose()
        await asyncio.to_thread(service.close)

    found = [_guarded(service, route) for route in (*_routes(service), *routes)]
    return Router(found, redirect_slashes=False, default=proxy, lifespan=lifespan)


def _routes(service: Service) -> list[Route]:
    async def health(request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(service.health))

    async def metrics(request: Request) -> Response:
        text = await asyncio.to_thread(service.metrics.text, service.guard.resting)
        return Response(text, headers={"content-type": TYPE})

    async def ledger(request: Request) -> Response:
        try:
            return JSONResponse(await asyncio.to_thread(service.ledger.read))
        except InputError as error:
            return refusal(503, str(error))

    return [Route("/healthz", health), Route("/metrics", metrics), Route("/v1/ledger", ledger)]


def _guarded(service: Service, route: Route) -> Route:
    if not route.path.startswith(("/v1/", "/metrics")):  # /healthz says little, and probes have no key
        return route
    return Route(route.path, service.guarded(route.endpoint), methods=route.methods)


async def _flush(service: Service) -> None:
    while True:
        await asyncio.sleep(_FLUSH)
        await asyncio.to_thread(service.ledger.flush)
