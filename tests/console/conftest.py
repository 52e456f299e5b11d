"""The real console over the real services, and a real browser in front of it."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

import headrace
from headrace.api.common.v1.resources_pb2 import DatasetVersion, DataType, Signature, TensorSpec
from headrace.api.monitor.v1 import resources_pb2 as monitors
from headrace.api.monitor.v1.service_pb2 import CreateMonitorRequest
from headrace.api.orchestrator.v1 import resources_pb2 as pipelines
from headrace.api.orchestrator.v1.service_pb2 import RegisterPipelineRequest, StartPipelineRunRequest
from headrace.api.registry.v1.resources_pb2 import MODEL_FORMAT_ONNX, ModelFormat
from headrace.api.registry.v1.service_pb2 import CreateVersionRequest, RecordValidationRequest
from headrace.api.serving.v1.service_pb2 import CreateEndpointRequest
from headrace.connection import find
from headrace_local.background import BackgroundStack
from headrace_local.stack import Stack
from headrace_local.testing import temporary_folder
from tests.support.needs import chromium

PARENT = "projects/default"
HOSTILE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
"""A name that would act if it were ever taken for markup."""
STEPS = {"read": (), "train": ("read",), "check": ("read",), "register": ("train", "check")}
POINTS = 10_000
WITHIN_S = 60
"""How long a page may take on a busy machine."""

expect.set_options(timeout=WITHIN_S * 1000)


def command_id() -> str:
    return str(uuid4())


@dataclass(slots=True)
class Console:
    """A running platform, its console, and what was recorded in it before the tests."""

    stack: BackgroundStack
    data: Path
    runs: list[str] = field(default_factory=list[str])
    pipeline_run: str = ""

    @property
    def url(self) -> str:
        return self.stack.addresses.gateway_url

    def link(self) -> str:
        """A one-time link, good for once."""
        return self.stack.stack.console_link()

    def operator(self) -> headrace.Client:
        return headrace.connect(find(self.data))

    def service(self) -> headrace.Client:
        """A client in the name of the orchestrator, whose work the operator may approve."""
        token = (self.data / "secrets" / "orchestrator.token").read_text()
        return headrace.connect(dataclasses.replace(find(self.data), token=token))

    def version_by_a_service(self, model: str, form: ModelFormat.ValueType = MODEL_FORMAT_ONNX) -> str:
        """Registers a version that somebody else than the operator made; returns its number."""
        with headrace.start_run("delays") as run:
            package = run.log_model(b"a model package of " + model.encode())
        with self.service() as client:
            created = client.registry.CreateVersion(
                CreateVersionRequest(
                    command_id=command_id(),
                    model=f"{PARENT}/models/{model}",
                    create_model=True,
                    run=f"{PARENT}/runs/{run.id}",
                    artifact=package,
                    format=form,
                    signature=Signature(
                        inputs=[
                            TensorSpec(name="x", datatype=DataType.DATA_TYPE_FP32, shape=[-1, 1], columns=["hour"])
                        ],
                        outputs=[TensorSpec(name="delay", datatype=DataType.DATA_TYPE_FP32, shape=[-1, 1])],
                    ),
                    datasets=[DatasetVersion(name="flights", digest="sha256:" + "ab" * 32, rows=100)],
                )
            ).version
            check = RecordValidationRequest(
                command_id=command_id(), version=created.name, check="quality", passed=True, detail="low enough"
            )
            client.registry.RecordValidation(check)
        return str(created.number)


@pytest.fixture(scope="session")
def console() -> Iterator[Console]:
    """All services, with something of every kind recorded."""
    with temporary_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_DATA", str(folder / "data"))
        patch.setenv("HEADRACE_WEBHOOK_ALLOWED", "127.0.0.0/8")  # receivers of tests listen on loopback
        patch.setenv("HEADRACE_WEBHOOK_ATTEMPTS", "2")
        patch.setenv("HEADRACE_WEBHOOK_BACKOFF_S", "1")
        stack = BackgroundStack(Stack(folder / "data"))
        stack.start()
        try:
            running = Console(stack, folder / "data")
            _record(running)
            yield running
        finally:
            stack.stop()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Chromium that asks nobody for anything."""
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=chromium(), args=[*flags, "--disable-sync", "--disable-default-apps"]
        )
        yield launched
        await launched.close()


@pytest.fixture
async def context(browser: Browser, console: Console) -> AsyncIterator[BrowserContext]:
    """A browser's profile that has entered."""
    opened = await browser.new_context(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(WITHIN_S * 1000)
    page = await opened.new_page()
    await page.goto(console.link())
    await page.close()
    yield opened
    await opened.close()


@pytest.fixture
async def page(context: BrowserContext) -> Page:
    """A page of a browser that has entered."""
    return await context.new_page()


def _record(console: Console) -> None:
    for depth in (4, 6):
        with headrace.start_run("delays") as run:
            run.log_params({"depth": depth})
            for step in range(POINTS):
                run.log_metric("val/error", 30 / (step + depth), step=step)
            run.log_bytes(b'{"a": 1}', "notes.json", media_type="application/json")
            run.log_feature_importances({"hour": 0.7, "distance": 0.3})
        console.runs.append(run.id)
    with headrace.start_run("delays") as run:
        run.log_params({"name": HOSTILE})
        run.set_tags({HOSTILE[:20]: HOSTILE})
        run.log_bytes(
            f"<svg xmlns='http://www.w3.org/2000/svg'>{HOSTILE}</svg>".encode(), "bad.svg", media_type="image/svg+xml"
        )
        run.log_bytes(HOSTILE.encode(), "bad.html", media_type="text/html")
    console.runs.append(run.id)
    console.version_by_a_service("delays")
    with console.operator() as client:
        client.serving.CreateEndpoint(
            CreateEndpointRequest(
                command_id=command_id(),
                name=f"{PARENT}/endpoints/delays",
                model=f"{PARENT}/models/delays",
                alias="production",
            )
        )
        client.monitor.CreateMonitor(
            CreateMonitorRequest(
                command_id=command_id(), name=f"{PARENT}/monitors/delays", endpoint="delays", config=_monitor_config()
            )
        )
        console.pipeline_run = _run_a_pipeline(client)


def _monitor_config() -> monitors.MonitorConfig:
    return monitors.MonitorConfig(
        task=monitors.TASK_KIND_REGRESSION,
        prediction_column="delay",
        slot_s=3600,
        lateness_s=3600,
        minimum_samples=10,
        cooldown_s=3600,
        false_alarm_budget=1,
        bad_version_factor=1.5,
        alias="production",
        model=f"{PARENT}/models/delays",
        consecutive_slots=2,
    )


def _run_a_pipeline(client: headrace.Client) -> str:
    steps = [
        pipelines.StepDefinition(
            id=name,
            function="builtins:dict",
            inputs=[pipelines.StepInput(argument=each, step=each) for each in needs]
            or [pipelines.StepInput(argument="month", parameter="month")],
        )
        for name, needs in STEPS.items()
    ]
    definition = pipelines.PipelineDefinition(
        entrypoint="examples:retrain",
        source_digest="0" * 64,
        steps=steps,
        parameters=[pipelines.ParameterDefinition(name="month", type="int", default_json="2")],
    )
    name = f"{PARENT}/pipelines/retrain"
    client.orchestrator.RegisterPipeline(
        RegisterPipelineRequest(command_id=command_id(), name=name, definition=definition)
    )
    started = client.orchestrator.StartPipelineRun(StartPipelineRunRequest(command_id=command_id(), pipeline=name))
    return started.run.name.rpartition("/")[2]
