"""The REST API of MLflow's tracking server and registry, so that scripts written for MLflow run as they are.

It stands on tracking's and the registry's gRPC and keeps nothing. docs/mlflow.md lists what it does and what it does
not. Every call is made with the caller's own token, so events name who it was.
"""

from starlette.routing import BaseRoute

from headrace_gateway.mlflow_api import (
    artifacts,
    experiments,
    loggedmodels,
    metrics,
    registered,
    runs,
    search,
    server,
    traces,
    versions,
    webhooks,
)
from headrace_gateway.mlflow_api.asking import Backend
from headrace_gateway.mlflow_api.table import Endpoint, routes_of
from headrace_gateway.platform import Services
from headrace_kit.objects import ObjectStore

__all__ = ["Endpoint", "endpoints", "routes"]


def endpoints() -> list[Endpoint]:
    """Every endpoint; those called most come first."""
    return [
        *metrics.endpoints(),
        *runs.endpoints(),
        *search.endpoints(),
        *artifacts.endpoints(),
        *experiments.endpoints(),
        *loggedmodels.endpoints(),
        *registered.endpoints(),
        *versions.endpoints(),
        *traces.endpoints(),
        *webhooks.endpoints(),
        *server.endpoints(),
    ]


def routes(services: Services, objects: ObjectStore, project: str) -> list[BaseRoute]:
    """The endpoints for the gateway's own ``project``, and for any below ``/projects/{project}``."""
    backend = Backend(services, objects, project)
    return [route for endpoint in endpoints() for route in routes_of(endpoint, backend)]
