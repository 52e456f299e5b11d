"""Registered models of an MLflow server, written to a platform: versions, aliases, stages."""

from __future__ import annotations

from typing import Final

import orjson

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace.errors import HeadraceError
from headrace.imports.files import Files
from headrace.imports.server import V2, File, Json, MlflowServer, ServerError, integer, nested, objects, pairs, text
from headrace.imports.target import SOURCE_TAG, Target
from headrace.naming import run_uuid
from headrace.packages.files import MANIFEST
from headrace.transfer import upload_bytes

VERSION_TAG: Final = "headrace.imported_version"
"""Number that an imported version has on its server."""
_STAGES: Final = {"Production": "production", "Staging": "staging"}


class Models:
    """Imports registered models."""

    def __init__(self, target: Target, server: MlflowServer) -> None:
        self.target, self.server, self.report = target, server, target.report
        self._files = Files(target, server)

    def model(self, given: Json) -> None:
        """Imports a model with what it has. Raises ServerError, HeadraceError."""
        name = text(given, "name")
        resource, stub = f"{self.target.parent}/models/{name}", self.target.client.registry
        if "/" in name:
            self.report.leave_out(f"model {name!r}", "a model's name holds no slash here")
            return
        try:
            model = self.target.model(resource)
        except HeadraceError as error:
            self.report.leave_out(f"model {name!r}", str(error))
            return
        if model is None:
            request = service.CreateModelRequest(
                name=resource,
                description=text(given, "description"),
                tags={**pairs(given, "tags"), SOURCE_TAG: self.server.url},
                open_aliases=True,
            )
            if not self.target.attempt(f"model {name!r}", "", lambda: self.target.command(stub.CreateModel, request)):
                return
            model = resources.Model(name=resource) if self.target.dry_run else self.target.model(resource)
            if model is None:  # the command is one of before, and what it made is gone
                self.report.leave_out(f"model {name!r}", "was deleted here")
                return
            self.report.add("models")
        else:
            self.report.find("models")
        versions = self._versions(name)
        for each in versions:
            self._version(model, each)
        if not self.target.dry_run:
            model = self.target.model(resource) or model
        self._aliases(model, given, versions)

    def _versions(self, name: str) -> list[Json]:
        """Versions of a model, oldest first."""
        quoted = name.replace("'", "''")
        path = f"{V2}/model-versions/search"
        found = self.server.pages("GET", path, "model_versions", filter=f"name='{quoted}'")
        return sorted((each for each in found if text(each, "name") == name), key=lambda each: integer(each, "version"))

    def _version(self, model: resources.Model, given: Json) -> None:
        number, name, stub = integer(given, "version"), text(given, "name"), self.target.client.registry
        what = f"version {number} of model {name!r}"
        if (held := _imported(model, number)) is not None:
            if held.HasField("delete_time"):
                self.report.leave_out(what, "was deleted here")
            else:
                self.report.find("versions")
            return
        try:
            answer = self.server.get(f"{V2}/model-versions/get-download-uri", name=name, version=number)
            files = self._version_files(text(answer, "artifact_uri"), given)
        except ServerError as error:
            self.report.leave_out(what, str(error))
            return
        if not files:
            self.report.leave_out(what, "it has no files on the server")
            return
        if self.target.dry_run:
            self.report.add("versions")
            return
        package = upload_bytes(
            self.target.client.tracking, self.target.parent, self._manifest(files), media_type=MANIFEST
        )
        request = service.CreateVersionRequest(
            model=model.name,
            artifact=package,
            format=resources.MODEL_FORMAT_MLFLOW,
            description=text(given, "description"),
            tags={**pairs(given, "tags"), SOURCE_TAG: self.server.url, VERSION_TAG: str(number)},
            source=text(given, "source")[:2000],
        )
        if run := text(given, "run_id"):
            request.run = self.target.run_name(run_uuid(run))
        if (logged := text(given, "model_id")) or text(given, "source").startswith("models:/m-"):
            identity = logged or text(given, "source").removeprefix("models:/")
            request.logged_model = f"{self.target.parent}/loggedModels/{identity}"
        self.target.hold_numbers(model, number, request)
        made: list[resources.Version] = []
        if not self.target.attempt(
            what, "versions", lambda: made.append(self.target.command(stub.CreateVersion, request).version)
        ):
            return
        model.versions.append(made[0])
        if made[0].number != number:
            self.report.leave_out(f"the number of {what}", f"was taken: it is version {made[0].number} here")

    def _version_files(self, uri: str, given: Json) -> list[File]:
        """The files of a version: below its own place, or among those of the run it was made by."""
        run_id = text(given, "run_id")
        try:
            return self.server.files(uri)
        except ServerError:
            if not run_id:
                raise
            run = nested(self.server.get(f"{V2}/runs/get", run_id=run_id), "run")
            root = text(nested(run, "info"), "artifact_uri").rstrip("/")
            if not root or not uri.startswith(f"{root}/"):
                raise
            prefix = f"{uri.removeprefix(root).strip('/')}/"
            files = self.server.files(root, run_id=run_id)
            below = [each for each in files if each.path.startswith(prefix)]
            return [File(each.path.removeprefix(prefix), each.size_bytes, each.where) for each in below]

    def _manifest(self, files: list[File]) -> bytes:
        listed: list[dict[str, object]] = []
        for file in files:
            stored = self._files.moved(file)
            listed.append(
                {
                    "path": file.path,
                    "uri": stored.uri,
                    "sha256": stored.sha256,
                    "size_bytes": stored.size_bytes,
                    "media_type": stored.media_type,
                }
            )
        return orjson.dumps({"files": listed})

    def _aliases(self, model: resources.Model, given: Json, versions: list[Json]) -> None:
        wanted = [(text(each, "alias"), integer(each, "version")) for each in objects(given, "aliases")]
        staged: set[str] = set()
        for each in reversed(versions):
            alias = _STAGES.get(text(each, "current_stage"))
            if alias in staged:
                self.report.leave_out(
                    f"stage {text(each, 'current_stage')} of version {integer(each, 'version')} of model "
                    f"{text(given, 'name')!r}",
                    "a newer version is in it, and one alone can be",
                )
            elif alias is not None:
                staged.add(alias)
                wanted.append((alias, integer(each, "version")))
        for alias, number in wanted:
            self._alias(model, alias, number, text(given, "name"))
        for each in versions:
            version = _imported(model, integer(each, "version"))
            if (
                text(each, "current_stage") == "Archived"
                and version is not None
                and not version.HasField("delete_time")
            ):
                self._archive(version)

    def _alias(self, model: resources.Model, alias: str, number: int, name: str) -> None:
        what = f"alias {alias!r} of model {name!r}"
        version = _imported(model, number)
        if (version is None and not self.target.dry_run) or (version is not None and version.HasField("delete_time")):
            self.report.leave_out(what, f"version {number} is not here")
            return
        held = next((each for each in model.aliases if each.alias == alias), None)
        if version is not None and held is not None and held.version == version.number:
            self.report.find("aliases")
            return
        reason = f"imported from {self.server.url}"
        if held is not None and not (held.history and held.history[-1].reason == reason):
            self.report.leave_out(what, f"it points to version {held.version} here, and was moved by somebody")
            return
        revision = held.revision if held is not None else 0
        request = service.PromoteVersionRequest(
            version=version.name if version is not None else "",
            alias=alias,
            expected_revision=revision if held is not None else -1,
            reason=reason,
        )
        stub = self.target.client.registry
        self.target.attempt(
            what, "aliases", lambda: self.target.command(stub.PromoteVersion, request, salt=str(revision))
        )

    def _archive(self, version: resources.Version) -> None:
        if version.state == resources.VERSION_STATE_ARCHIVED:
            return
        request = service.ArchiveVersionRequest(version=version.name, reason=f"archived on {self.server.url}")
        stub = self.target.client.registry
        self.target.attempt(f"archiving {version.name}", "", lambda: self.target.command(stub.ArchiveVersion, request))


def _imported(model: resources.Model, number: int) -> resources.Version | None:
    """The version that has this number on its server."""
    return next((each for each in model.versions if each.tags.get(VERSION_TAG) == str(number)), None)
