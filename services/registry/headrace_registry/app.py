"""Wires the registry."""

from headrace.api.monitor.v1.events_pb2 import RollbackRequested
from headrace.api.registry.v1.service_pb2_grpc import (
    add_PersonServiceServicer_to_server,
    add_RegistryServiceServicer_to_server,
    add_SigningServiceServicer_to_server,
    add_WebhookServiceServicer_to_server,
)
from headrace.api.serving.v1.events_pb2 import EndpointCreated, RoutesChanged, VersionBlocked
from headrace_kit.app import Application
from headrace_kit.service import LogOwner
from headrace_kit.webhooks import Allowed, Sender
from headrace_registry.config import RegistrySettings
from headrace_registry.delivering import Courier, Patience, fan_out
from headrace_registry.events import EVENT_TYPES
from headrace_registry.handlers import RollbackHandler, RoutesHandler
from headrace_registry.person_rpc import PersonServicer
from headrace_registry.persons import PERSON, PersonStore
from headrace_registry.rpc import RegistryServicer
from headrace_registry.signing_rpc import SigningServicer
from headrace_registry.store import MODEL, ModelStore
from headrace_registry.webhook_rpc import WebhookServicer
from headrace_registry.webhooks import WEBHOOK
from headrace_registry.webhookstore import WebhookStore


async def build(settings: RegistrySettings) -> Application:
    """The registry's process."""
    owner = await LogOwner.open("registry", settings, EVENT_TYPES, [MODEL, PERSON, WEBHOOK])
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
    tables = WebhookStore(owner.database)
    sender = Sender(Allowed.parse(settings.webhook_allowed), timeout_s=settings.webhook_timeout_s)
    patience = Patience(settings.webhook_attempts, settings.webhook_backoff_s, settings.webhook_backoff_most_s)
    application = owner.application(
        [
            (add_RegistryServiceServicer_to_server, servicer),
            (add_SigningServiceServicer_to_server, SigningServicer(owner.store, owner.objects)),
            (add_PersonServiceServicer_to_server, persons),
            (add_WebhookServiceServicer_to_server, WebhookServicer(owner.store, tables, sender)),
        ]
    )
    application.tasks["webhook fan-out"] = fan_out(owner.store).run
    application.tasks["webhook courier"] = Courier(owner.store, tables, sender, patience).run
    return application
