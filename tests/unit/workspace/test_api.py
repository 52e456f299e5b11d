"""What every call has in common, and that each limit the protos tell is tried."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from google.protobuf import descriptor_pb2 as descriptors

from tests.support.limits import LIMITS

ROOT: Final = Path(__file__).resolve().parents[3]
BUF: Final = str(Path(sys.executable).with_name("buf"))
LIMIT: Final = re.compile(r"[Aa]t (most|least) \d|\d+ to -?\d+|up to \d|finite")
READS: Final = (
    "Get",
    "List",
    "Read",
    "Search",
    "Watch",
    "Follow",
    "Subscribe",
    "Check",
    "Presign",
    "StateAt",
    "PositionAt",
    "Prove",
)
UPLOADS: Final = {"BeginUpload", "CompleteUpload", "AbortUpload"}
"""They are about bytes in the object store, which a digest names: nothing of them is in the log."""
NUMBERED: Final = {"Work", "PublishPredictions", "PublishLabels", "RebuildReadModels", "TestWebhook", *UPLOADS}
"""Writes that carry tokens or numbers of their producer instead of the id of a command, or that say nothing new."""
WITHOUT_PAGES: Final = {
    "GetMetricHistory",
    "GetMetricHistories",
    "GetRunKeys",
    "GetRunGroups",
    "GetTraffic",
    "GetCounts",
    "GetArchiveStatus",
    "GetArchivedRange",
    "ReadStepLogs",
    "ReadOutput",
    "CheckPromotion",
    "CheckRollback",
    "ListConsumers",
    "ListVerifyingKeys",
    "GetTree",
    "ProveInclusion",
    "ProveConsistency",
}
"""Reads that answer with a bounded list: by a number of points or bytes asked for, or by what one entity can have."""
ELSEWHERE: Final = {
    # A step with a larger or unreadable output fails; the call is taken.
    ("WorkerService.Work", "results.output"),
    # Limits of one entry of a list, tried by whole entries.
    ("OrchestratorService.RegisterPipeline", "definition.steps.inputs."),
    ("RegistryService.SetGates", "gates.approvals.role"),
    ("TrackingService.LogMetrics", "series.values"),
    ("TrackingService.StreamMetrics", "series.values"),
    ("RegistryService.CheckPromotion", "gates.approvals.role"),
}
"""Limits that are kept by other means than a refused call."""


@dataclass(frozen=True, slots=True)
class Api:
    """The protos: what is told of each field, and the methods with their requests and responses."""

    messages: Mapping[str, descriptors.DescriptorProto]
    comments: Mapping[tuple[str, str], str]
    methods: Mapping[str, descriptors.MethodDescriptorProto]

    def fields(self, kind: str, at: str = "", above: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
        """Path and comment of each field of a message and of the messages in it."""
        for field in self.messages[kind].field:
            yield at + field.name, self.comments[kind, field.name]
            if field.type_name in self.messages and field.type_name not in above | {kind}:
                yield from self.fields(field.type_name, f"{at}{field.name}.", above | {kind})


@pytest.fixture(scope="module")
def api() -> Api:
    command = [BUF, "build", "-o", "-"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=50, check=True).stdout
    messages: dict[str, descriptors.DescriptorProto] = {}
    comments: dict[tuple[str, str], str] = {}
    methods: dict[str, descriptors.MethodDescriptorProto] = {}
    for file in descriptors.FileDescriptorSet.FromString(built).file:
        if not file.package.startswith("headrace."):
            continue
        told = {tuple(each.path): " ".join(each.leading_comments.split()) for each in file.source_code_info.location}
        for number, message in enumerate(file.message_type):
            kind = f".{file.package}.{message.name}"
            messages[kind] = message
            for index, field in enumerate(message.field):
                comments[kind, field.name] = told.get((4, number, 2, index), "")
        for service in file.service:
            methods |= {f"{file.package}.{service.name}.{each.name}": each for each in service.method}
    return Api(messages, comments, methods)


def test_every_limit_that_a_comment_tells_is_tried(api: Api) -> None:
    tried = {(each.method, each.field) for each in LIMITS}
    told = {
        (method, path)
        for method, found in api.methods.items()
        for path, comment in api.fields(found.input_type)
        if LIMIT.search(comment)
    }

    def is_tried(method: str, path: str) -> bool:
        return any(name == method and (at == path or at.startswith(f"{path}.")) for name, at in tried)

    def is_elsewhere(method: str, path: str) -> bool:
        return any(method.endswith(f".{name}") and path.startswith(at) for name, at in ELSEWHERE)

    assert len(told) > 100
    assert [each for each in sorted(told) if not is_tried(*each) and not is_elsewhere(*each)] == []


def test_every_write_has_the_id_of_a_command(api: Api) -> None:
    without = {
        each.name
        for each in api.methods.values()
        if not each.name.startswith(READS)
        and "command_id" not in {field.name for field in api.messages[each.input_type].field}
    }

    assert without == NUMBERED


def test_every_list_has_pages(api: Api) -> None:
    for each in api.methods.values():
        response = api.messages[each.output_type]
        lists = [field for field in response.field if field.label == descriptors.FieldDescriptorProto.LABEL_REPEATED]
        if not each.name.startswith(READS) or not lists or each.server_streaming or each.name in WITHOUT_PAGES:
            continue
        asked = {field.name for field in api.messages[each.input_type].field}
        answered = {field.name for field in response.field}
        assert "page_size" in asked, each.name
        assert asked & {"page_token", "from_position", "from_version", "from_size"}, each.name
        assert answered & {"next_page_token", "next_position", "next_version", "next_size"}, each.name
