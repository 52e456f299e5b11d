"""The run, as training code sees it. Every call writes to disk and returns; a thread of its own sends."""

import atexit
import hashlib
import mimetypes
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID, uuid4, uuid5

import grpc
import orjson
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import ArrayLike

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.tracking import media
from headrace.tracking.capture import Code
from headrace.tracking.datasets import describe_dataset
from headrace.tracking.evaluation import confusion_matrix, importances_json, importances_svg
from headrace.tracking.machine import Sampler
from headrace.tracking.output import Output
from headrace.tracking.points import PointEncoder, checked_key
from headrace.tracking.sender import Kind, Sender
from headrace.tracking.spool import Spool, keep_blob
from headrace.transfer import digest_file

MAX_POINTS = 1000
"""Points of one record."""
MAX_VALUE_LENGTH = 8000
_SHOWN_OF_LONG = 500


class Run:
    """A run under way. A context manager: it ends FINISHED, or FAILED with the error.

    Nothing here waits for the tracker: what is recorded goes to a spool on disk and is sent from a thread, in order and
    once; while the tracker is down it stays there. Calls may come from any thread. An offline run sends nothing: see
    ``sync``.
    """

    def __init__(
        self,
        name: str,
        *,
        spool: Spool,
        folder: Path,
        connect: Callable[[], grpc.Channel],
        flush_timeout_s: float,
        new_command_id: Callable[[], UUID] = uuid4,
        offline: bool = False,
    ) -> None:
        self.name = name
        """Resource name: ``projects/{project}/runs/{id}``."""
        self._spool, self._folder = spool, folder
        self._flush_timeout_s, self._offline = flush_timeout_s, offline
        self._new_command_id = new_command_id
        self._sender = Sender(spool, name, folder, connect)
        self._ended = False
        self._watchers: list[Sampler | Output] = []
        self._first_step = 0
        self._encoder = PointEncoder()
        self._auto_step: dict[str, int] = {}
        self._last_place: dict[str, tuple[int, float]] = {}
        atexit.register(self._abandon)

    @property
    def id(self) -> str:
        """The last part of the name, a UUID."""
        return self.name.rpartition("/")[2]

    def begin(self, request: service.StartRunRequest | service.ResumeRunRequest, code: Code | None) -> None:
        """Records the start; called once, by ``start_run``."""
        kind = Kind.RESUME_RUN
        if isinstance(request, service.StartRunRequest):
            kind = Kind.START_RUN
            self._first_step = request.fork_step + 1 if request.forked_from else 0
        self._record(kind, request)
        if code is not None and code.diff:
            self.log_bytes(
                code.diff, "code/uncommitted.diff", media_type="text/x-diff", kind=resources.ARTIFACT_KIND_DIFF
            )
        if not self._offline:
            self._sender.start()
            self._sender.wake()

    def watch_machine(self, interval_s: float) -> None:
        """Samples the machine every so many seconds until the run ends; called once, by ``start_run``. 0: never."""
        if interval_s > 0:
            self._watch(Sampler(self.log_metrics, interval_s=interval_s))

    def hear_output(self, *, descriptors: bool) -> None:
        """Keeps what is written to the standard streams until the run ends; called once, by ``start_run``."""
        self._watch(Output(self._log_output, descriptors=descriptors))

    def log_param(self, key: str, value: object) -> None:
        """Records one parameter."""
        self.log_params({key: value})

    def log_params(self, params: Mapping[str, object]) -> None:
        """Records parameters: texts as they are, anything else as JSON, which a search compares by its type.

        A parameter never changes.

        A mapping in it is taken apart: ``{"optimizer": {"lr": 1}}`` is ``optimizer.lr``. A value of more than 8000
        characters is stored whole as an artifact in ``params/``, and the parameter is its beginning with that path.
        """
        texts = {checked_key(key): self._fitting(_text(value)) for key, value in flattened(params)}
        if not texts:
            return
        self._record(Kind.LOG_PARAMS, service.LogParamsRequest(run=self.name, params=texts))

    def log_metric(
        self,
        key: str,
        value: float,
        step: int | None = None,
        *,
        context: Mapping[str, object] | None = None,
        x: Mapping[str, float] | None = None,
    ) -> None:
        """Records one value of a metric; without ``step`` the next one of the key; the rest as for ``log_metrics``."""
        self.log_metrics({key: value}, step, context=context, x=x)

    def log_metrics(
        self,
        metrics: Mapping[str, float],
        step: int | None = None,
        *,
        context: Mapping[str, object] | None = None,
        x: Mapping[str, float] | None = None,
    ) -> None:
        """Records values of several metrics at one step; NaN and infinities are kept.

        Each context is a metric of its own: ``loss`` with ``{"subset": "val"}`` is ``loss@subset=val``, and a search
        asks for it as ``metric.`loss@subset=val` < 1``. ``x`` tells where else the step is, such as
        ``{"epoch": 1.5, "tokens": 3e6}``: metrics themselves, of the same step, that any chart can have as its x axis.
        """
        now_ns = time.time_ns()
        suffix = _suffix(context) if context else ""
        when: dict[int, bytes] = {}
        points: list[bytes] = []
        for name, value in metrics.items():
            key = name + suffix if suffix else name
            at = self._auto_step.get(key, self._first_step) if step is None else step
            self._auto_step[key] = at + 1
            if at not in when:
                when[at] = self._encoder.when(at, now_ns)
            if x:
                points += self._places(x, at, when[at])
            points.append(self._encoder.point(key, float(value), when[at]))
        for first in range(0, len(points), MAX_POINTS):
            self._append(Kind.METRIC_POINTS, b"".join(points[first : first + MAX_POINTS]))

    def _places(self, x: Mapping[str, float], step: int, when: bytes) -> Iterator[bytes]:
        """Points that tell where a step is; those that were told last are left out."""
        for name, value in x.items():
            place = step, float(value)
            if self._last_place.get(name) != place:
                self._last_place[name] = place
                yield self._encoder.point(name, place[1], when)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Sets tags; a tag set to None is removed."""
        changed = {checked_key(key): _text(value) for key, value in tags.items() if value is not None}
        removed = [checked_key(key) for key, value in tags.items() if value is None]
        self._record(Kind.CHANGE_TAGS, service.ChangeTagsRequest(run=self.name, set=changed, removed=removed))

    def log_dataset(
        self, data: object, name: str, *, context: str = "training", source: str = "", description: str = ""
    ) -> str:
        """Records digest and schema of data (see ``describe_dataset``), not the data; returns the digest."""
        dataset = describe_dataset(data, name=name, context=context, source=source, description=description)
        self._record(Kind.LOG_DATASET, service.LogDatasetRequest(run=self.name, dataset=dataset))
        return dataset.digest

    def log_artifact(self, file: str | Path, path: str | None = None) -> ObjectRef:
        """Uploads a file, kept under ``path`` (default: its name); returns its digest and size."""
        source = Path(file)
        sha256, size = digest_file(source)
        media_type = mimetypes.guess_type(source.name)[0] or "application/octet-stream"
        keep_blob(self._folder, self.id, source, sha256)
        reference = ObjectRef(sha256=sha256, size_bytes=size, media_type=media_type)
        return self._log_object(reference, path or source.name, resources.ARTIFACT_KIND_UNSPECIFIED)

    def log_bytes(
        self,
        content: bytes,
        path: str,
        *,
        media_type: str = "application/octet-stream",
        kind: resources.ArtifactKind.ValueType = resources.ARTIFACT_KIND_UNSPECIFIED,
    ) -> ObjectRef:
        """Uploads bytes, kept under ``path``; returns their digest and size."""
        sha256 = _sha256(content)
        keep_blob(self._folder, self.id, content, sha256)
        return self._log_object(ObjectRef(sha256=sha256, size_bytes=len(content), media_type=media_type), path, kind)

    def log_model(self, content: bytes, path: str = "model.onnx") -> ObjectRef:
        """Uploads a model package; returns its digest and size, by which a version is registered."""
        return self.log_bytes(content, path, kind=resources.ARTIFACT_KIND_MODEL)

    def log_figure(self, figure: media.Figure | media.Plot | bytes, path: str) -> None:
        """Uploads a figure: of matplotlib (or with its ``savefig``), of plotly as ``.html`` or ``.json``, or bytes.

        Raises:
            TypeError: It is no figure.
            ValueError: It can not be stored in the form of the path's end.
        """
        content = media.figure_bytes(figure, path)
        suffix = ".html" if isinstance(figure, media.Plot) else ".png"
        kind = media.media_type_of(path if "." in path else path + suffix)
        self.log_bytes(content, path, media_type=kind, kind=resources.ARTIFACT_KIND_FIGURE)

    def log_image(self, image: media.Image | ArrayLike | bytes, path: str, *, step: int | None = None) -> None:
        """Uploads a picture: of Pillow, an array as PNG, or bytes; with a step to a path of its own.

        Args:
            image: An array is ``(height, width)`` or ``(height, width, 1 to 4)``, of integers 0 to 255 or reals 0 to 1.
            path: Where it is kept; with a step ``samples.png`` becomes ``samples/000000000010.png``.
            step: When it was seen.

        Raises:
            ValueError: An array has another shape or other values, or the path does not end in ``.png``.
        """
        kept = media.at_step(path, step)
        content, kind = media.image_bytes(image, path), media.media_type_of(path)
        self.log_bytes(content, kept, media_type=kind, kind=resources.ARTIFACT_KIND_FIGURE)

    def log_audio(
        self, audio: ArrayLike | bytes, path: str, *, sample_rate: int | None = None, step: int | None = None
    ) -> None:
        """Uploads a sound: samples as WAV, or bytes.

        Args:
            audio: Samples are ``(n,)`` or ``(n, channels)``, of reals -1 to 1 or of int16.
            path: Where it is kept; as for ``log_image``.
            sample_rate: Samples a second; needed for samples.
            step: When it was heard.

        Raises:
            ValueError: Samples have another shape or other values, the rate is missing, or the path does not end in
                ``.wav``.
        """
        content = media.audio_bytes(audio, sample_rate, path)
        self.log_bytes(content, media.at_step(path, step), media_type=media.media_type_of(path))

    def log_text(self, text: str, path: str) -> None:
        """Uploads a text, as UTF-8."""
        kind = media.media_type_of(path)
        shown = kind.startswith("text/") or kind == "application/json"
        self.log_bytes(text.encode(), path, media_type=kind if shown else "text/plain")

    def log_table(self, table: object, path: str) -> None:
        """Uploads a table as ``.csv`` or ``.tsv``: columns by name, or a data frame of pandas or polars.

        Raises:
            ValueError: Columns differ in length, or the path ends otherwise.
        """
        self.log_bytes(media.table_bytes(table, path), path, media_type=media.media_type_of(path))

    def log_confusion_matrix(
        self,
        true: ArrayLike,
        predicted: ArrayLike,
        *,
        labels: Sequence[object] | None = None,
        path: str = "confusion_matrix",
    ) -> None:
        """Uploads a confusion matrix as data (``.json``) and as a picture (``.svg``)."""
        matrix = confusion_matrix(true, predicted, labels)
        kind = resources.ARTIFACT_KIND_CONFUSION_MATRIX
        self.log_bytes(matrix.to_json(), f"{path}.json", media_type="application/json", kind=kind)
        self.log_figure(matrix.to_svg(), f"{path}.svg")

    def log_feature_importances(self, importances: Mapping[str, float], path: str = "feature_importances") -> None:
        """Uploads feature importances as data (``.json``) and as a picture (``.svg``)."""
        kind = resources.ARTIFACT_KIND_FEATURE_IMPORTANCES
        self.log_bytes(importances_json(importances), f"{path}.json", media_type="application/json", kind=kind)
        self.log_figure(importances_svg(importances), f"{path}.svg")

    def flush(self, timeout_s: float | None = None) -> bool:
        """Waits until the tracker acknowledged everything; False when it did not in time, and nothing is lost."""
        return self._sender.flush(self._flush_timeout_s if timeout_s is None else timeout_s)

    @property
    def rejected(self) -> int:
        """Records that the tracker refused for good; each was logged as a warning."""
        return self._sender.rejected

    def finish(self, status: resources.RunStatus.ValueType = resources.RUN_STATUS_FINISHED, error: str = "") -> bool:
        """Ends the run and waits a little for the tracker; False when something is still to be sent later."""
        if self._ended:
            return self._spool.is_sent
        self._stop_watching()
        request = service.FinishRunRequest(run=self.name, status=status, error=error[-8000:], end_time=_now())
        self._record(Kind.FINISH_RUN, request)
        self._ended = True
        sent = self.flush()
        self._sender.close()
        atexit.unregister(self._abandon)
        return sent

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        elif isinstance(error, KeyboardInterrupt):
            self.finish(resources.RUN_STATUS_KILLED, "interrupted")
        else:
            self.finish(resources.RUN_STATUS_FAILED, "".join(traceback.format_exception(error)))

    def _abandon(self) -> None:
        """The interpreter ends and nobody ended the run: what is spooled is sent later, and the run stays open."""
        self._stop_watching()
        self._sender.flush(self._flush_timeout_s)
        self._sender.close()

    def _watch(self, watcher: Sampler | Output) -> None:
        watcher.start()
        self._watchers.append(watcher)

    def _stop_watching(self) -> None:
        while self._watchers:
            self._watchers.pop().stop()

    def _log_output(self, chunks: Sequence[resources.OutputChunk]) -> None:
        self._append(Kind.OUTPUT, *(each.SerializeToString() for each in chunks))

    def _fitting(self, value: str) -> str:
        if len(value) <= MAX_VALUE_LENGTH:
            return value
        content = value.encode()
        path = f"params/{_sha256(content)}.txt"
        self.log_bytes(content, path, media_type="text/plain; charset=utf-8")
        return f"{value[:_SHOWN_OF_LONG]}\u2026 ({len(value)} characters, whole in {path})"

    def _log_object(self, reference: ObjectRef, path: str, kind: resources.ArtifactKind.ValueType) -> ObjectRef:
        artifact = resources.Artifact(path=path, object=reference, kind=kind)
        self._record(Kind.LOG_ARTIFACT, service.LogArtifactRequest(run=self.name, artifact=artifact))
        reference.uri = f"{self.name.split('/')[1]}/sha256/{reference.sha256[:2]}/{reference.sha256}"
        return reference

    def _record(self, kind: Kind, request: Message) -> None:
        # Every request recorded here has the field; the class of requests has no name of its own.
        request.command_id = str(self._new_command_id())  # type: ignore[attr-defined]
        self._append(kind, request.SerializeToString())
        self._sender.wake()

    def _append(self, kind: Kind, *payloads: bytes) -> None:
        if self._ended:
            raise RuntimeError(f"{self.name} has ended")
        self._spool.append(kind, *payloads)


def step_command_ids(run_id: str) -> Callable[[], UUID]:
    """Command ids that come out the same when a step is tried again: UUIDv5 of the run and a running number."""
    count = iter(range(1 << 62))
    return lambda: uuid5(UUID(run_id), f"command-{next(count)}")


def flattened(params: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Keys and values of a nested configuration; keys of inner mappings come after a dot, an empty one stays whole.

    Raises:
        ValueError: Two values would have one key.
    """
    seen: set[str] = set()
    for key, value in params.items():
        inner = dict(value) if isinstance(value, Mapping) else {}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - any keys
        found = flattened(inner, f"{prefix}{key}.") if inner else iter([(f"{prefix}{key}", value)])
        for name, each in found:
            if name in seen:
                raise ValueError(f"two values of the configuration have the key {name!r}")
            seen.add(name)
            yield name, each


def _suffix(context: Mapping[str, object]) -> str:
    """A context as part of a metric's key: sorted, so that the order in which it was written does not matter."""
    parts = sorted((str(key), str(value)) for key, value in context.items())
    for part in (part for pair in parts for part in pair):
        if not part or set(part) & set("@="):
            raise ValueError(f"a context is made of texts without @ and =, not {part!r}")
    return "".join(f"@{key}={value}" for key, value in parts)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return orjson.dumps(value, default=str, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS).decode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _now() -> Timestamp:
    stamp = Timestamp()
    stamp.GetCurrentTime()
    return stamp
