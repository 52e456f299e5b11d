"""Wires the registry."""

from headrace.api.monitor.v1.events_pb2 import RollbackRequested
from headrace.api.registry.v1.service_pb2_grpc import (
    add_PersonServiceServicer_to_server,
    add_RegistryServiceServicer_to_server,
)
from headrace.api.serving.v1.events_pb2 import EndpointCreated, RoutesChanged, VersionBlocked
from headrace_kit.app import Application
from headrace_kit.service import LogOwner
from headrace_registry.config import RegistrySettings
from headrace_registry.events import EVENT_TYPES
from headrace_registry.handlers import RollbackHandler, RoutesHandler
from headrace_registry.person_rpc import PersonServicer
from headrace_registry.persons import PERSON, PersonStore
from headrace_registry.rpc import RegistryServicer
from headrace_registry.store import MODEL, ModelStore


async def build(settings: RegistrySettings) -> Application:
    """The registry's process."""
    owner = await LogOwner.open("registry", settings, EVENT_TYPES, [MODEL, PERSON])
    rollbacks = RollbackHandler(owner.store)
    owner.consume("registry.rollback", ["monitor"], {RollbackRequested: rollbacks.handle})
    routes = RoutesHandler(owner.store)
    owner.consume(
        "registry.routes",
        ["serving"],
        {EndpointCreated: routes.handle, RoutesChanged: routes.handle, VersionBlocked: routes.handle},
    )
    servicer = RegistryServicer(owner.store, ModelStore(owner.database), owner.objects)
    persons = PersonServicer(owner.store, PersonStore(owner.database))
    return owner.application(
        [(add_RegistryServiceServicer_to_server, servicer), (add_PersonServiceServicer_to_server, persons)]
    )
