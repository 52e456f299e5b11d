"""The pages of the console, one module a subject."""

from starlette.routing import BaseRoute

from headrace_gateway.live import Hub
from headrace_gateway.pages import Pages
from headrace_gateway.platform import Platform
from headrace_gateway.views import (
    charts,
    compare,
    deleted,
    drift,
    endpoints,
    events,
    gates,
    history,
    home,
    models,
    pipelines,
    run,
    runs,
    traces,
    webhooks,
)
from headrace_gateway.watching import Watches
from headrace_kit.objects import ObjectStore


def routes(platform: Platform, pages: Pages, hub: Hub, objects: ObjectStore, watches: Watches) -> list[BaseRoute]:
    """Every page."""
    return [
        *home.routes(platform, pages, hub),
        *runs.routes(platform, pages),
        *charts.routes(platform, pages),
        *compare.routes(platform, pages),
        *deleted.routes(platform, pages),
        *run.routes(platform, pages, objects, watches),
        *traces.routes(platform, pages),
        *gates.routes(platform, pages),
        *models.routes(platform, pages),
        *endpoints.routes(platform, pages),
        *drift.routes(platform, pages),
        *pipelines.routes(platform, pages),
        *webhooks.routes(platform, pages),
        *history.routes(platform, pages),
        *events.routes(platform, pages),
    ]
