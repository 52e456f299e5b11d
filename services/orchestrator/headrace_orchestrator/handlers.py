"""What the orchestrator does when others' events arrive: triggers."""

from collections.abc import Iterator
from types import ModuleType

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from headrace.api.monitor.v1 import events_pb2 as monitor
from headrace.api.registry.v1 import events_pb2 as registry
from headrace.api.serving.v1 import events_pb2 as serving
from headrace.api.tracking.v1 import events_pb2 as tracking
from headrace_kit.consumer import Handler, ReceivedEvent
from headrace_orchestrator.leading import Leader

SOURCES = ("tracking", "registry", "serving", "monitor")
"""Whose events may start runs."""


def handlers(leader: Leader) -> dict[type[Message], Handler]:
    """The handler of every event of the sources: it starts the runs whose triggers match, once an event."""

    async def handle(event: ReceivedEvent) -> None:
        lead = await leader.lead()
        await lead.automation.handle(event)

    return dict.fromkeys(_event_types(tracking, registry, serving, monitor), handle)


def _event_types(*modules: ModuleType) -> Iterator[type[Message]]:
    for module in modules:
        descriptor: FileDescriptor = module.DESCRIPTOR
        for each in descriptor.message_types_by_name.values():
            yield GetMessageClass(each)
