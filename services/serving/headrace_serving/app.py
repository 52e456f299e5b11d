"""Wires serving."""

from concurrent.futures import ThreadPoolExecutor

from headrace.api.monitor.v1.events_pb2 import RollbackRequested
from headrace.api.registry.v1.events_pb2 import VersionPromoted, VersionRolledBack
from headrace.api.serving.v1.service_pb2_grpc import add_ServingServiceServicer_to_server
from headrace.inference.grpc_service_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from headrace_kit.app import Application
from headrace_kit.eventstore import Fence
from headrace_kit.lease import Leadership
from headrace_kit.service import LogOwner
from headrace_serving import metrics
from headrace_serving.config import ServingSettings
from headrace_serving.endpoints import Endpoints
from headrace_serving.events import EVENT_TYPES
from headrace_serving.following import Follower, Reconciler
from headrace_serving.handlers import AliasHandler, RollbackHandler
from headrace_serving.inference import Inference
from headrace_serving.inference_rpc import InferenceServicer
from headrace_serving.loader import ModelLoader
from headrace_serving.registry import Registry
from headrace_serving.rest import Rest, RestServer
from headrace_serving.rollout import RolloutDriver
from headrace_serving.router import Router
from headrace_serving.rpc import ServingServicer
from headrace_serving.store import ENDPOINT, EndpointStore
from headrace_serving.telemetry import PredictionLog


async def build(settings: ServingSettings) -> Application:
    """Serving's process; every endpoint that can be loaded is, before it is ready."""
    owner = await LogOwner.open("serving", settings, EVENT_TYPES, [ENDPOINT])
    threads = ThreadPoolExecutor(settings.serving_threads, thread_name_prefix="inference")
    registry = Registry(owner.peer("registry"))
    store = EndpointStore(owner.database)
    loader = ModelLoader(registry, store, owner.objects, folder=settings.data / "packages", threads=threads)
    router = Router(loader)
    commands = Endpoints(owner.store, router)
    log = PredictionLog(
        settings.kafka_bootstrap, ledger=settings.data / "telemetry.ledger", queue_rows=settings.telemetry_queue_rows
    )
    inference = Inference(router, log, most=settings.serving_in_flight)

    owner.consume("serving.rollback", ["monitor"], {RollbackRequested: RollbackHandler(commands).handle})
    follow = AliasHandler(commands, store).handle
    owner.consume("serving.alias", ["registry"], {VersionPromoted: follow, VersionRolledBack: follow})
    follower = Follower(owner.store, store, commands, router)
    await follower.load_all()

    application = owner.application(
        [
            (add_ServingServiceServicer_to_server, ServingServicer(commands, store, router, registry, log)),
            (add_GRPCInferenceServiceServicer_to_server, InferenceServicer(inference, router)),
        ]
    )
    rest = RestServer(
        Rest(inference, router, owner.tokens).application(), listen=settings.http_listen, drain_s=settings.drain_s
    )
    driver = RolloutDriver(owner.store, store, commands, router, registry)
    leadership = Leadership(owner.database, "rollouts")

    async def lead(_fence: Fence) -> None:
        await driver.run()

    def refresh() -> None:
        for outcome in ("offered", "acknowledged", "dropped", "failed"):
            metrics.TELEMETRY_ROWS.labels(outcome).set(getattr(log.counts, outcome))

    application.tasks |= {
        "rest": rest.run,
        "follower": follower.run,
        "reconciler": Reconciler(store, commands, registry).run,
        "rollouts": lambda: leadership.run(lead),
    }
    application.refresh.append(refresh)
    application.close.insert(0, log.stop)
    return application
