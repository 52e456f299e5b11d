"""Wires the orchestrator."""

from datetime import UTC, datetime

from headrace.api.orchestrator.v1.service_pb2_grpc import (
    add_OrchestratorServiceServicer_to_server,
    add_WorkerServiceServicer_to_server,
)
from headrace_kit.app import Application
from headrace_kit.service import LogOwner
from headrace_orchestrator.config import OrchestratorSettings
from headrace_orchestrator.events import EVENT_TYPES
from headrace_orchestrator.handlers import SOURCES, handlers
from headrace_orchestrator.leading import Leader
from headrace_orchestrator.localworker import LocalWorker
from headrace_orchestrator.logs import StepLogs
from headrace_orchestrator.outputs import Outputs
from headrace_orchestrator.rpc import OrchestratorServicer
from headrace_orchestrator.store import PIPELINE, RUN, OrchestratorStore
from headrace_orchestrator.worker_rpc import WorkerServicer


async def build(settings: OrchestratorSettings) -> Application:
    """The orchestrator's process."""
    owner = await LogOwner.open("orchestrator", settings, EVENT_TYPES, [PIPELINE, RUN])
    outputs = Outputs(owner.objects)
    leader = Leader(
        owner.database,
        owner.store,
        outputs,
        lease_s=settings.orchestrator_lease_s,
        now=lambda: datetime.now(UTC),
    )
    owner.consume("orchestrator.triggers", SOURCES, handlers(leader))
    logs = StepLogs(settings.data / "logs")
    orchestrator = OrchestratorServicer(
        leader, owner.store, OrchestratorStore(owner.database), outputs=outputs, logs=logs
    )
    application = owner.application(
        [
            (add_OrchestratorServiceServicer_to_server, orchestrator),
            (add_WorkerServiceServicer_to_server, WorkerServicer(leader, logs)),
        ]
    )
    application.tasks["scheduler"] = leader.run
    if settings.orchestrator_local_workers:
        application.tasks["local worker"] = LocalWorker(settings, leader).run
    application.checks.append(leader.check)
    return application
