"""Runs and models, with what they stand on, written to one file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import orjson
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.registry.v1 import resources_pb2 as models
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.bundles.container import OBJECTS, Writer
from headrace.client import Client
from headrace.errors import FailedPrecondition, read, rpc_errors
from headrace.packages.files import MANIFEST
from headrace.transfer import fetch

HEADER: Final = "key,step,time_us,value\n"
_LINES: Final = 10_000
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Exported:
    """What a file holds: names of its runs, logged models and models, its objects, and its manifest's SHA-256."""

    path: Path
    runs: list[str]
    logged_models: list[str]
    models: list[str]
    objects: int
    size_bytes: int
    sha256: str


def export_runs(client: Client, runs: Sequence[str], path: Path, *, tell: Tell = lambda _: None) -> Exported:
    """Writes runs with their experiments, the runs they are part of, their files and the logged models they name.

    Args:
        client: The platform.
        runs: Resource names, of one project.
        path: The file; never written over.
        tell: Called with the name of each thing as it is written.

    Raises:
        AlreadyExists: There is a file of that name.
        NotFound: There is no such run.
        TransferRefused: The store has other bytes than those of an artifact's digest.
    """
    with rpc_errors(), Writer(path) as writer:
        work = _Export(client, writer, tell)
        for run in runs:
            work.run(run)
        return work.finish(path)


def export_models(client: Client, names: Sequence[str], path: Path, *, tell: Tell = lambda _: None) -> Exported:
    """Writes registered models with every version's package, and the runs and logged models that made them.

    Arguments and errors are those of ``export_runs``; ``names`` are resource names of models.
    """
    with rpc_errors(), Writer(path) as writer:
        work = _Export(client, writer, tell)
        for name in names:
            work.model(name)
        return work.finish(path)


class _Export:
    def __init__(self, client: Client, writer: Writer, tell: Tell) -> None:
        self._client, self._writer, self._tell = client, writer, tell
        self._runs, self._logged, self._models = list[str](), list[str](), list[str]()
        self._experiments = set[str]()
        self._projects = set[str]()

    def run(self, name: str) -> None:
        """A run, and what it stands on."""
        if name in self._runs:
            return
        run = self._client.tracking.GetRun(service.GetRunRequest(name=name)).run
        if run.HasField("delete_time"):
            raise FailedPrecondition(f"{name} was put away: restore it first", field="run", reason="RUN_DELETED")
        self._runs.append(name)
        self._tell(name)
        self._message(name, run)
        if run.metrics:
            self._writer.text(f"{place_of(name)}/metrics.csv", self._metrics(run))
        self._artifacts(name, run.artifacts)
        self._experiment(run.experiment)
        if run.parent_run:
            self.run(run.parent_run)
        for link in (*run.model_inputs, *run.model_outputs):
            self._logged_model(link.model)

    def model(self, name: str) -> None:
        """A registered model with its versions and what made them."""
        if name in self._models:
            return
        model = self._client.registry.GetModel(registry.GetModelRequest(name=name)).model
        self._models.append(name)
        self._tell(name)
        self._message(name, model)
        for version in model.versions:
            if not version.HasField("delete_time"):
                self._version(version)

    def finish(self, path: Path) -> Exported:
        """Completes the file."""
        about = {"runs": self._runs, "logged_models": self._logged, "models": self._models}
        if len(self._projects) > 1:
            raise FailedPrecondition(f"a file holds one project, not {', '.join(sorted(self._projects))}")
        objects = self._writer.count(OBJECTS)
        sha256 = self._writer.finish(**about, project=next(iter(self._projects), ""))
        return Exported(
            path=path,
            runs=self._runs,
            logged_models=self._logged,
            models=self._models,
            objects=objects,
            size_bytes=path.stat().st_size,
            sha256=sha256,
        )

    def _version(self, version: models.Version) -> None:
        self._tell(version.name)
        stub = self._client.registry

        def url_of(wanted: ObjectRef) -> str:
            asked = registry.PresignArtifactRequest(version=version.name, sha256=wanted.sha256)
            return str(stub.PresignArtifact(asked).url)

        content = self._object(version.artifact, url_of, kept=version.artifact.media_type == MANIFEST)
        if version.HasField("reference_profile"):
            self._object(version.reference_profile, url_of)
        for listed in orjson.loads(content)["files"] if content else ():
            file = ObjectRef(sha256=listed["sha256"], size_bytes=listed["size_bytes"], uri=listed["uri"])
            self._object(file, url_of)
        # Whoever registered it may have named what never was here.
        if version.run and read(self._client.tracking.GetRun, service.GetRunRequest(name=version.run)) is not None:
            self.run(version.run)
        if version.logged_model:
            self._logged_model(version.logged_model)

    def _logged_model(self, name: str) -> None:
        if name in self._logged:
            return
        found = read(self._client.tracking.GetLoggedModel, service.GetLoggedModelRequest(name=name))
        if found is None:
            return
        model = found.model
        self._logged.append(name)
        self._tell(name)
        self._message(name, model)
        self._artifacts(name, model.artifacts)
        self._experiment(model.experiment)

    def _experiment(self, name: str) -> None:
        if name not in self._experiments:
            self._experiments.add(name)
            found = self._client.tracking.GetExperiment(service.GetExperimentRequest(name=name)).experiment
            self._message(name, found)

    def _artifacts(self, owner: str, artifacts: Iterable[resources.Artifact]) -> None:
        for each in artifacts:

            def url_of(_: ObjectRef, path: str = each.path) -> str:
                asked = service.PresignDownloadRequest(run=owner, path=path)
                return str(self._client.tracking.PresignDownload(asked).url)

            self._object(each.object, url_of)

    def _object(self, wanted: ObjectRef, url_of: Callable[[ObjectRef], str], *, kept: bool = False) -> bytes:
        """Adds bytes, once; returns them where they are to be kept."""
        content = bytearray()

        def fill(write: Callable[[bytes], object]) -> None:
            def both(chunk: bytes) -> None:
                write(chunk)
                if kept:
                    content.extend(chunk)

            fetch(url_of(wanted), wanted, both)

        if kept or f"{OBJECTS}{wanted.sha256}" not in self._writer:
            if f"{OBJECTS}{wanted.sha256}" in self._writer:
                fetch(url_of(wanted), wanted, content.extend)
            else:
                self._writer.blob(wanted.sha256, fill)
        return bytes(content)

    def _metrics(self, run: resources.Run) -> Iterator[bytes]:
        yield HEADER.encode()
        for key in sorted(run.metrics):
            asked = service.GetMetricHistoryRequest(run=run.name, key=key)
            found = self._client.tracking.GetMetricHistory(asked)
            quoted = '"' + key.replace('"', '""') + '"'
            lines = [
                f"{quoted},{step},{time_us},{value!r}\n"
                for step, time_us, value in zip(found.steps, found.times_us, found.values, strict=True)
            ]
            for begin in range(0, len(lines), _LINES):
                yield "".join(lines[begin : begin + _LINES]).encode()

    def _message(self, name: str, message: Message) -> None:
        self._projects.add(name.split("/")[1])
        plain = MessageToDict(message, preserving_proto_field_name=True)
        content = orjson.dumps(plain, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        self._writer.text(f"{place_of(name)}.json", iter([content]))


def place_of(name: str) -> str:
    """Where a resource stands in the file: its kind and its id, as far as a path may hold that."""
    _, _, kind, identity = name.split("/", 3)
    return f"{kind}/{quote(identity, safe=' ')}"
