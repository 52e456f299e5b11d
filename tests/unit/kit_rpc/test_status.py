"""What an error looks like on the wire."""

from google.rpc import error_details_pb2

from headrace_kit.errors import InvalidArgument
from headrace_kit.rpc.status import rich_status


def field_of(error: InvalidArgument) -> str:
    info = error_details_pb2.ErrorInfo()
    assert rich_status(error).details[0].Unpack(info)
    return str(info.metadata["field"])


def test_a_path_with_a_key_too_long_to_tell_ends_before_the_key() -> None:
    assert field_of(InvalidArgument("no", field=f"trigger.match[{'k' * 400!r}]")) == "trigger.match"


def test_a_path_that_fits_is_told_whole() -> None:
    path = f"steps[3].inputs[{'k' * 200!r}]"
    assert field_of(InvalidArgument("no", field=path)) == path
