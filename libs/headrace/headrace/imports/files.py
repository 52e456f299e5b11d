"""Files of an MLflow server, on their way to the object store."""

from __future__ import annotations

import mimetypes
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.tracking.v1.resources_pb2 import Artifact
from headrace.imports.server import File, MlflowServer, ServerError
from headrace.imports.target import Target
from headrace.transfer import upload_file


class Files:
    """Brings files over. For many threads."""

    def __init__(self, target: Target, server: MlflowServer) -> None:
        self._target, self._server, self._report = target, server, target.report

    def bring(
        self,
        what: str,
        listed: Callable[[], list[File]],
        held: Mapping[str, int],
        log: Callable[[Artifact], object],
    ) -> None:
        """Brings what is listed and not ``held`` (sizes in bytes, by path), and logs each file of ``what``."""
        try:
            files = listed()
        except ServerError as error:
            self._report.leave_out(f"files of {what}", str(error))
            return
        for file in files:
            name = f"{file.path!r} of {what}"
            if file.path not in held:
                self._bring(name, file, log)
            elif held[file.path] == file.size_bytes:
                self._report.find("files")
            else:
                self._report.leave_out(name, "is another file here, which stays")

    def moved(self, file: File) -> ObjectRef:
        """The bytes of a file, in the object store since. Raises ServerError, HeadraceError."""
        with tempfile.TemporaryDirectory(prefix="headrace-import-") as folder:
            path = Path(folder) / "content"
            self._server.fetch(file, path)
            media_type = mimetypes.guess_type(file.path)[0] or "application/octet-stream"
            stored = upload_file(self._target.client.tracking, self._target.parent, path, media_type=media_type)
        self._report.add("bytes of files", stored.size_bytes)
        return stored

    def _bring(self, name: str, file: File, log: Callable[[Artifact], object]) -> None:
        if self._target.dry_run:
            self._report.add("files")
            return
        try:
            artifact = Artifact(path=file.path, object=self.moved(file))
        except ServerError as error:
            self._report.leave_out(name, str(error))
            return
        self._target.attempt(name, "files", lambda: log(artifact))
