"""Wires the gateway."""

import asyncio
import contextlib
from collections.abc import Generator
from typing import Final

import uvicorn

from headrace_gateway import mlflow_api, otlp, rest
from headrace_gateway.config import GatewaySettings
from headrace_gateway.live import Hub
from headrace_gateway.pages import Pages
from headrace_gateway.people import People
from headrace_gateway.platform import Platform
from headrace_gateway.sessions import Sessions
from headrace_gateway.views import routes
from headrace_gateway.watching import Watches
from headrace_gateway.web import build_web
from headrace_kit.app import Application
from headrace_kit.auth import Tokens
from headrace_kit.service import open_objects

GRACE_S: Final = 5
"""How long requests under way may take at a stop; streams end at once."""


async def build(settings: GatewaySettings) -> Application:
    """The gateway's process."""
    platform = Platform(settings)
    people = People(platform.read.persons)
    pages = Pages(settings.project, people.named)
    objects = open_objects(settings)
    hub = Hub(platform.read, f"{platform.parent}/")
    watches = Watches(platform.read, hub)
    web = build_web(
        pages,
        sessions=Sessions(settings.data, settings.console_code_file),
        tokens=Tokens(settings.tokens_file),
        routes=[
            *routes(platform, pages, hub, objects, watches),
            *mlflow_api.routes(platform.read, objects, settings.project),
            *otlp.routes(platform.read, objects, settings.project),
            *rest.routes(platform.read, watches, platform.parent),
        ],
    )
    host, _, port = settings.http_listen.rpartition(":")
    server = _Server(
        uvicorn.Config(
            web,
            host=host,
            port=int(port),
            log_config=None,
            access_log=False,
            http="httptools",
            timeout_graceful_shutdown=GRACE_S,
        )
    )
    application = Application("gateway", settings)
    application.tasks["web"] = lambda: _serve(server)
    application.tasks["live"] = hub.run
    application.tasks["people"] = people.run
    application.close.extend([platform.close, objects.close])
    return application


class _Server(uvicorn.Server):
    """Leaves signals to the application."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def _serve(server: uvicorn.Server) -> None:
    """Answers HTTP until cancelled; pages that stay open do not hold the stop up."""
    serving = asyncio.create_task(server.serve())
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        raise
