"""A file of runs and models, taken into a project: what is new of it, under its own ids where they are free."""

from __future__ import annotations

import csv
import io
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid5

import orjson
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.registry.v1 import resources_pb2 as models
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.bundles.container import OBJECTS, BundleDamaged, Reader
from headrace.bundles.writing import place_of
from headrace.client import Client
from headrace.errors import read
from headrace.imports.report import Progress, Report, Tell
from headrace.imports.target import SOURCE_TAG, Point, Target
from headrace.packages.files import MANIFEST
from headrace.transfer import upload_bytes, upload_file

ORIGIN_TAG: Final = "headrace.imported_as"
"""Name that something had where it was exported, and when it was made there: by this it is known again."""
ACTOR_TAG: Final = "headrace.imported_actor"
"""Who had recorded it, as the archive says."""
_MAX_TEXT: Final = 64 * 1024 * 1024


def import_bundle(
    client: Client, path: Path, *, project: str = "default", dry_run: bool = False, tell: Tell = lambda _: None
) -> Report:
    """Takes the runs, logged models and models of a file.

    Ids stay as they are where they are free; where another thing has one, an id is made of the file and the old id, and
    references within the file follow. Nothing that is here is changed; what came before is found again, so that a
    repeat, also of an import that was interrupted, adds only what is missing.

    What people said elsewhere (approvals, gates, checks) is not taken: a file is nobody's word. Aliases go through the
    gates of here.

    Args:
        client: The platform.
        path: The file.
        project: Id of the project that takes it.
        dry_run: Say what would be done; nothing is written.
        tell: Called with the progress.

    Raises:
        BundleDamaged: The file was changed or is made to harm; what was verified before may have been taken.
        HeadraceError: The platform can not be reached, or does not let the caller in.
    """
    report = Report()
    with Reader(path) as reader:
        target = Target(client, project, report, dry_run=dry_run)
        _Import(reader, target, tell).everything()
    return report


class _Import:
    def __init__(self, reader: Reader, target: Target, tell: Tell) -> None:
        self._reader, self._target, self._report, self._tell = reader, target, target.report, tell
        self._source = f"archive {reader.sha256[:16]}"
        self._old = _project(reader.manifest)
        self._names = dict[str, str]()

    def everything(self) -> None:
        """Takes all that the manifest lists."""
        runs, logged, named = (self._listed(kind) for kind in ("runs", "logged_models", "models"))
        kept = {name: self._message(name, resources.Run()) for name in runs}
        steps = [
            *(partial(self._run, kept[name]) for name in reversed(runs)),  # those they are part of first
            *(partial(self._logged_model, name) for name in logged),
            *(partial(self._model, name) for name in named),
        ]
        for run in kept.values():
            self._name_run(run)
        for done, (name, step) in enumerate(zip([*reversed(runs), *logged, *named], steps, strict=True), start=1):
            step()
            self._tell(Progress(name, done, len(steps)))

    def _name_run(self, run: resources.Run) -> None:
        """Finds the id that a run has here: its own, unless another run has that."""
        name = self._moved(run.name)
        held = self._target.run(name)
        if held is not None and not _is_same(held, run):
            identity = uuid5(UUID(run.name.rpartition("/")[2]), self._source)
            self._report.leave_out(f"the id of {run.name}", f"another run has it: it is {identity} here")
            name = self._target.run_name(identity)
        self._names[run.name] = name

    def _run(self, given: resources.Run) -> None:
        name = self._names[given.name]
        held = self._target.run(name)
        tags = {
            **given.tags,
            SOURCE_TAG: given.tags.get(SOURCE_TAG, self._source),
            ORIGIN_TAG: _origin(given.name, given.start_time),
            ACTOR_TAG: given.actor,
        }
        if held is None:
            request = service.StartRunRequest(
                name=name,
                experiment=self._experiment(given.experiment),
                display_name=given.display_name,
                start_time=given.start_time,
                tags=tags,
                code=given.code,
                environment=given.environment,
                parent_run=self._renamed(given.parent_run),
                pipeline_run=self._renamed(given.pipeline_run),
            )
            held = self._target.start(request)
            if held is None:
                return
        elif ORIGIN_TAG not in held.tags:
            self._report.find("runs")  # where it came from: it is whole
            return
        else:
            self._report.find("runs")
        self._target.params(held, given.params)
        for dataset in given.datasets:
            if dataset in held.datasets:
                self._report.find("datasets")
                continue
            log = service.LogDatasetRequest(run=name, dataset=dataset)
            send = partial(self._target.command, self._target.client.tracking.LogDataset, log)
            self._target.attempt(f"dataset {dataset.name!r} of {given.name}", "datasets", send)
        self._metrics(held, given)
        stub = self._target.client.tracking
        self._artifacts(
            given.name,
            held.artifacts,
            given.artifacts,
            lambda artifact: self._target.command(
                stub.LogArtifact, service.LogArtifactRequest(run=name, artifact=artifact), salt=str(held.revision)
            ),
        )
        links = service.LinkModelsRequest(run=name)
        for field in ("model_inputs", "model_outputs"):
            for link in getattr(given, field):
                own = resources.ModelLink(model=self._renamed(link.model), step=link.step)
                if own not in getattr(held, field):
                    getattr(links, field.removeprefix("model_")).append(own)
        if links.inputs or links.outputs:
            self._target.attempt(
                f"logged models of {given.name}", "", partial(self._target.command, stub.LinkModels, links)
            )
        if given.status != resources.RUN_STATUS_RUNNING:
            finish = service.FinishRunRequest(run=name, status=given.status, end_time=given.end_time, error=given.error)
            self._target.finish(held, finish)

    def _metrics(self, held: resources.Run, given: resources.Run) -> None:
        if not given.metrics:
            return
        path = f"{place_of(given.name)}/metrics.csv"
        found: dict[str, list[Point]] = {}
        try:
            rows = csv.reader(io.StringIO(self._reader.text(path).decode(), newline=""), strict=True)
            next(rows, None)
            for key, step, time_us, value in rows:
                found.setdefault(key, []).append((int(step), int(time_us), float(value)))
        except (UnicodeDecodeError, ValueError, csv.Error) as error:
            raise BundleDamaged(f"{path!r} holds no points: {error}") from error
        for key, points in found.items():
            self._target.points(held, key, points)

    def _logged_model(self, name: str) -> None:
        given = self._message(name, resources.LoggedModel())
        own, stub = self._moved(name), self._target.client.tracking
        found = read(stub.GetLoggedModel, service.GetLoggedModelRequest(name=own))
        origin = _origin(given.name, given.create_time)
        if found is not None and not _is_origin(found.model.tags, origin, found.model, given):
            self._report.leave_out(name, "another logged model has its id")
            return
        if found is None:
            tags = {**given.tags, SOURCE_TAG: given.tags.get(SOURCE_TAG, self._source), ORIGIN_TAG: origin}
            request = service.CreateLoggedModelRequest(
                name=own,
                experiment=self._experiment(given.experiment),
                display_name=given.display_name,
                model_type=given.model_type,
                run=self._renamed(given.run),
                params=given.params,
                tags={**tags, ACTOR_TAG: given.creator},
            )
            create = partial(self._target.command, stub.CreateLoggedModel, request)
            if not self._target.attempt(name, "logged models", create):
                return
            held = resources.LoggedModel(name=own, status=resources.LOGGED_MODEL_STATUS_PENDING)
        else:
            held = found.model
            self._report.find("logged models")
            if ORIGIN_TAG not in held.tags:
                return
        metrics = [resources.ModelMetric.FromString(each.SerializeToString()) for each in given.metrics]
        for each in metrics:
            each.run = self._renamed(each.run)
        new = [each for each in metrics if each not in held.metrics]
        for begin in range(0, len(new), 1000):
            annotate = service.AnnotateLoggedModelRequest(model=own, metrics=new[begin : begin + 1000])
            send = partial(self._target.command, stub.AnnotateLoggedModel, annotate)
            self._target.attempt(f"metrics of {name}", "", send)
        self._artifacts(
            name,
            held.artifacts,
            given.artifacts,
            lambda artifact: self._target.command(
                stub.LogModelArtifact,
                service.LogModelArtifactRequest(model=own, artifact=artifact),
                salt=str(held.revision),
            ),
        )
        if given.status != resources.LOGGED_MODEL_STATUS_PENDING == held.status:
            finish = service.FinishLoggedModelRequest(model=own, status=given.status)
            self._target.attempt(
                f"the end of {name}", "", partial(self._target.command, stub.FinishLoggedModel, finish)
            )

    def _call(self, held: models.Model, given: models.Model) -> None:
        """Gives a model the name for people that it had, unless it had that here before."""
        called = given.display_name
        if called and called != given.name.rpartition("/")[2] and called not in (held.display_name, *held.former_names):
            rename = registry.RenameModelRequest(model=held.name, display_name=called)
            command = partial(self._target.command, self._target.client.registry.RenameModel, rename)
            self._target.attempt(f"the name {called!r} of {given.name}", "", command)

    def _model(self, name: str) -> None:
        given = self._message(name, models.Model())
        own, stub, origin = self._moved(name), self._target.client.registry, _origin(name, given.create_time)
        held = self._target.model(own)
        if held is not None and not _is_origin(held.tags, origin, held, given):
            self._report.leave_out(f"the name of {name}", f"another model has it: it is {own}-{self._source[-8:]} here")
            own = f"{own}-{self._source[-8:]}"
            held = self._target.model(own)
        if held is None:
            request = registry.CreateModelRequest(
                name=own,
                description=given.description,
                tags={**given.tags, SOURCE_TAG: given.tags.get(SOURCE_TAG, self._source), ORIGIN_TAG: origin},
                open_aliases=given.open_aliases,
            )
            if not self._target.attempt(name, "models", partial(self._target.command, stub.CreateModel, request)):
                return
            held = models.Model(name=own)
        else:
            self._report.find("models")
            if ORIGIN_TAG not in held.tags:
                return
        self._call(held, given)
        for version in given.versions:
            self._version(held, version)
        if not self._target.dry_run:
            held = self._target.model(own) or held
        for alias in given.aliases:
            self._alias(held, given, alias)
        if given.HasField("card") and not held.HasField("card"):
            self._card(own, given.card)
        for kind, count in (("gates", len(given.gates)), ("standing approvals", len(given.standing_approvals))):
            if count:
                self._report.leave_out(f"{count} {kind} of {name}", "a file is nobody's word: set them here")

    def _version(self, model: models.Model, given: models.Version) -> None:
        stub, origin = self._target.client.registry, _origin(given.name, given.create_time)
        if any(each.tags.get(ORIGIN_TAG) == origin for each in model.versions):
            if not given.HasField("delete_time"):
                self._report.find("versions")
            return
        if given.HasField("delete_time"):
            return
        if self._target.dry_run:
            self._report.add("versions")
            return
        request = registry.CreateVersionRequest(
            model=model.name,
            run=self._renamed(given.run),
            artifact=self._package(given.artifact),
            format=given.format,
            datasets=given.datasets,
            description=given.description,
            metrics=given.metrics,
            tags={
                **given.tags,
                SOURCE_TAG: given.tags.get(SOURCE_TAG, self._source),
                ORIGIN_TAG: origin,
                ACTOR_TAG: given.author,
            },
            source=given.source,
            logged_model=self._renamed(given.logged_model),
        )
        if given.signature.inputs:
            request.signature.CopyFrom(given.signature)
        if given.HasField("run_time"):
            request.run_time.CopyFrom(given.run_time)
        if given.HasField("reference_profile"):
            request.reference_profile.CopyFrom(self._stored(given.reference_profile))
        self._target.hold_numbers(model, given.number, request)
        made: list[models.Version] = []
        create = partial(self._target.command, stub.CreateVersion, request)
        if not self._target.attempt(given.name, "versions", lambda: made.append(create().version)):
            return
        model.versions.append(made[0])
        if made[0].number != given.number:
            self._report.leave_out(f"the number of {given.name}", f"was taken: it is version {made[0].number} here")
        if given.HasField("card"):
            self._card(made[0].name, given.card)
        said = len(given.approvals) + len(given.validations)
        if said:
            self._report.leave_out(f"{said} checks and approvals of {given.name}", "a file is nobody's word")

    def _alias(self, model: models.Model, given: models.Model, alias: models.Alias) -> None:
        what = f"alias {alias.alias!r} of {given.name}"
        origin = next(
            (_origin(each.name, each.create_time) for each in given.versions if each.number == alias.version), ""
        )
        version = next((each for each in model.versions if each.tags.get(ORIGIN_TAG) == origin), None)
        held = next((each for each in model.aliases if each.alias == alias.alias), None)
        if held is not None:
            if version is not None and held.version == version.number:
                self._report.find("aliases")
            else:
                self._report.leave_out(what, f"it points to version {held.version} here, which stays")
            return
        if version is None:
            if self._target.dry_run:
                self._report.add("aliases")
            return
        request = registry.PromoteVersionRequest(
            version=version.name, alias=alias.alias, expected_revision=-1, reason=f"imported from {self._source}"
        )
        stub = self._target.client.registry
        self._target.attempt(what, "aliases", partial(self._target.command, stub.PromoteVersion, request))

    def _card(self, name: str, card: models.ModelCard) -> None:
        request = registry.WriteCardRequest(name=name, expected_revision=0)
        for field in ("markdown", "intended_use", "limits", "evaluation", "data"):
            setattr(request.card, field, getattr(card, field))
        stub = self._target.client.registry
        self._target.attempt(f"the card of {name}", "cards", partial(self._target.command, stub.WriteCard, request))

    def _artifacts(self, owner: str, held: Any, given: Any, log: Any) -> None:  # noqa: ANN401 - repeated fields
        paths = {each.path: each.object.sha256 for each in held}
        for each in given:
            what = f"{each.path!r} of {owner}"
            if each.path in paths:
                if paths[each.path] == each.object.sha256:
                    self._report.find("files")
                else:
                    self._report.leave_out(what, "is another file here, which stays")
                continue
            if self._target.dry_run:
                self._report.add("files")
                continue
            artifact = resources.Artifact(path=each.path, kind=each.kind, object=self._stored(each.object))
            self._target.attempt(what, "files", partial(log, artifact))

    def _package(self, wanted: ObjectRef) -> ObjectRef:
        """A package with all its files; the manifest of one says where they lie here."""
        if wanted.media_type != MANIFEST:
            return self._stored(wanted)
        try:
            listed = orjson.loads(self._reader.text(f"{OBJECTS}{wanted.sha256}", most=_MAX_TEXT))["files"]
            for each in listed:
                file = ObjectRef(
                    sha256=each["sha256"], size_bytes=each["size_bytes"], media_type=each.get("media_type", "")
                )
                each["uri"] = self._stored(file).uri
        except (ValueError, KeyError, TypeError) as error:
            raise BundleDamaged("the manifest of a package can not be read") from error
        content = orjson.dumps({"files": listed})
        return upload_bytes(self._target.client.tracking, self._target.parent, content, media_type=MANIFEST)

    def _stored(self, wanted: ObjectRef) -> ObjectRef:
        """The bytes of a digest, in the object store since."""
        with self._reader.file(f"{OBJECTS}{wanted.sha256}") as path:
            stored = upload_file(self._target.client.tracking, self._target.parent, path, media_type=wanted.media_type)
        self._report.add("bytes of files", stored.size_bytes)
        return stored

    def _experiment(self, name: str) -> str:
        if name not in self._names:
            found = self._message(name, resources.Experiment())
            self._names[name] = self._target.experiment(found.display_name, found.tags)
        return self._names[name]

    def _renamed(self, name: str) -> str:
        """A reference as it is here: to what the file holds, or by the same id."""
        return self._names.get(name) or self._moved(name)

    def _moved(self, name: str) -> str:
        """The same id in the project that takes the file."""
        if not name:
            return ""
        rest = name.split("/", 2)
        if len(rest) != 3:
            raise BundleDamaged(f"{name[:200]!r} is no name of a resource")
        return f"{self._target.parent}/{rest[2]}"

    def _listed(self, kind: str) -> list[str]:
        found = self._reader.manifest.get(kind)
        if not isinstance(found, list) or not all(isinstance(each, str) and each.count("/") == 3 for each in found):
            raise BundleDamaged(f"its manifest lists no {kind}")
        return found

    def _message(self, name: str, empty: Any) -> Any:  # noqa: ANN401 - a message of the kind of ``empty``
        content = self._reader.text(f"{place_of(name)}.json", most=_MAX_TEXT)
        try:
            found: Message = ParseDict(orjson.loads(content), empty, ignore_unknown_fields=True)
        except (ParseError, ValueError) as error:
            raise BundleDamaged(f"{name[:200]!r} can not be read: {error}") from error
        if found.name != name:  # type: ignore[attr-defined] # every resource has one
            raise BundleDamaged(f"{name[:200]!r} names itself otherwise")
        return found


def _project(manifest: dict[str, Any]) -> str:
    return str(manifest.get("project", ""))


def _origin(name: str, made: Any) -> str:  # noqa: ANN401 - a Timestamp
    return f"{name} {made.ToJsonString()}"


def _is_same(held: resources.Run, given: resources.Run) -> bool:
    """Whether a run is the one of the file: taken from it before, or the very run that was exported, or its copy."""
    origin = _origin(given.name, given.start_time)
    if ORIGIN_TAG in held.tags:
        return held.tags[ORIGIN_TAG] == origin or held.tags[ORIGIN_TAG] == given.tags.get(ORIGIN_TAG)
    copied = given.tags.get(ORIGIN_TAG) == _origin(held.name, held.start_time)
    return copied or (held.start_time == given.start_time and held.actor == given.actor)


def _is_origin(tags: Any, origin: str, held: Any, given: Any) -> bool:  # noqa: ANN401 - models of either kind
    """The same of a model or a logged model."""
    if ORIGIN_TAG in tags:
        return bool(tags[ORIGIN_TAG] == origin or tags[ORIGIN_TAG] == given.tags.get(ORIGIN_TAG))
    copied = given.tags.get(ORIGIN_TAG) == _origin(held.name, held.create_time)
    return bool(copied or held.create_time == given.create_time)
