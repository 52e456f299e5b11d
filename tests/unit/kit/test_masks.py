"""Masks pick fields of answers and name what a change is about."""

from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from headrace.api.monitor.v1.resources_pb2 import Monitor, MonitorConfig
from headrace_kit.errors import InvalidArgument
from headrace_kit.masks import MAX_PATHS, merged, picked


def monitor() -> Monitor:
    return Monitor(name="projects/p/monitors/m", endpoint="e", config=MonitorConfig(slot_s=60, features=["a", "b"]))


def test_an_empty_mask_means_everything() -> None:
    assert picked([monitor()], FieldMask(), kind=Monitor) == [monitor()]


def test_only_the_named_fields_are_left_and_the_original_stays() -> None:
    whole = monitor()

    [shown] = picked([whole], FieldMask(paths=["name", "config.slot_s"]), kind=Monitor)

    assert shown == Monitor(name="projects/p/monitors/m", config=MonitorConfig(slot_s=60))
    assert whole == monitor()


@pytest.mark.parametrize(
    "path", ["nmae", "config.nothing", "", "name.", "name.length", "config..slot_s", "*", "é" * 300]
)
def test_a_path_that_is_no_field_is_refused_by_name(path: str) -> None:
    with pytest.raises(InvalidArgument, match="is no field of Monitor") as refused:
        picked([], FieldMask(paths=["name", path]), kind=Monitor)

    assert refused.value.field == "read_mask"


def test_as_many_paths_as_the_limit_and_no_more() -> None:
    assert picked([], FieldMask(paths=["name"] * MAX_PATHS), kind=Monitor) == []
    with pytest.raises(InvalidArgument):
        picked([], FieldMask(paths=["name"] * (MAX_PATHS + 1)), kind=Monitor)


def test_a_change_replaces_the_named_fields_and_leaves_the_others() -> None:
    present = MonitorConfig(slot_s=60, cooldown_s=10, features=["a", "b"], alias="production")
    change = MonitorConfig(slot_s=1, cooldown_s=99, features=["c"])

    after = merged(present, change, FieldMask(paths=["cooldown_s", "features", "alias"]))

    assert after == MonitorConfig(slot_s=60, cooldown_s=99, features=["c"])
    assert present.alias == "production"


def test_a_change_without_a_mask_is_taken_whole() -> None:
    change = MonitorConfig(slot_s=1)

    assert merged(MonitorConfig(cooldown_s=5), change, FieldMask()) == change
