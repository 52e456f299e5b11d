"""What the specification OpenLineage 2-0-2 asks of a run event, written down by hand."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

TYPES = {"START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"}


def require_run_event(event: dict[str, Any]) -> None:
    """Raises AssertionError when it is none."""
    assert event["eventType"] in TYPES
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    _require_uri(event["producer"])
    assert event["schemaURL"] == "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
    assert str(UUID(event["run"]["runId"])) == event["run"]["runId"]
    _require_facets(event["run"])
    _require_named(event["job"])
    kind = event["job"]["facets"]["jobType"]
    assert kind["processingType"] in {"BATCH", "STREAMING"}
    assert kind["integration"]
    parent = event["run"]["facets"].get("parent")
    if parent is not None:
        assert UUID(parent["run"]["runId"]).int
        assert parent["job"]["namespace"]
        assert parent["job"]["name"]
    for dataset in (*event["inputs"], *event["outputs"]):
        _require_named(dataset)
        if "version" in dataset["facets"]:
            assert dataset["facets"]["version"]["datasetVersion"]
        for field in dataset["facets"].get("schema", {}).get("fields", []):
            assert field["name"]


def _require_named(value: dict[str, Any]) -> None:
    assert isinstance(value["namespace"], str)
    assert value["namespace"]
    assert isinstance(value["name"], str)
    assert value["name"]
    _require_facets(value)


def _require_facets(value: dict[str, Any]) -> None:
    for facet in value.get("facets", {}).values():
        _require_uri(facet["_producer"])
        _require_uri(facet["_schemaURL"])


def _require_uri(text: str) -> None:
    assert urlsplit(text).scheme
    assert urlsplit(text).netloc
