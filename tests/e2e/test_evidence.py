"""The log as evidence on a running platform: signed, published, proved, verified; and found out after tampering."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from headrace.api.audit.v1 import service_pb2 as audit
from headrace.api.registry.v1 import service_pb2 as service
from headrace.connection import SERVICES
from headrace.verifier import checkpoints_in, keys_of
from tests.support.eventually import eventually
from tests.support.platform import Platform

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]


def headrace(platform: Platform, *arguments: str) -> tuple[int, str, str]:
    """The command line against the platform: exit status, standard output, standard error."""
    environment = {**os.environ, "HEADRACE_DATA": str(platform.folder), "COLUMNS": "200", "NO_COLOR": "1"}
    command = [str(Path(sys.executable).parent / "headrace"), "log", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def verdicts(platform: Platform, *arguments: str) -> dict[str, dict[str, Any]]:
    """What the command finds; nothing while there is nothing to compare with."""
    _, told, cause = headrace(platform, "verify", "--json", *arguments)
    if "holds no checkpoints" in cause:
        return {}
    assert cause == ""
    return {each["service"]: each for each in json.loads(told)}


@pytest.fixture(scope="module")
def event(platform: Platform) -> str:
    """Id of an event of the registry's."""
    name = f"projects/default/models/m-{uuid4().hex[:8]}"
    with platform.client() as client:
        client.registry.CreateModel(service.CreateModelRequest(command_id=str(uuid4()), name=name))
        request = audit.ReadStreamRequest(stream_id=name)
        [entry] = eventually(lambda: client.log("registry").ReadStream(request).entries, lambda found: len(found) == 1)
    return entry.event_id


def test_every_log_is_signed_and_agrees_with_what_kafka_has(platform: Platform, event: str) -> None:
    assert event
    covered = eventually(
        lambda: verdicts(platform, "--against", "topic"),
        lambda found: bool(found) and all(each["signed_to"] == each["last"] for each in found.values()),
        within_s=60,
    )

    assert set(covered) == set(SERVICES)
    assert all(each["sound"] for each in covered.values())
    registry = covered["registry"]
    assert registry["entries"] == registry["last"] >= 1
    assert registry["checkpoints"] >= 2  # the platform's own, and the same in the topic


def test_a_proof_of_an_event_is_checked_without_the_platform(platform: Platform, event: str, tmp_path: Path) -> None:
    proof, keys = tmp_path / "proof.json", tmp_path / "keys"
    with platform.client() as client:
        answer = client.log("registry").ListVerifyingKeys(audit.ListVerifyingKeysRequest())
    keys.write_text("\n".join(each.key for each in answer.keys))

    status, _, cause = headrace(platform, "prove", event, "--out", str(proof))
    assert (status, cause) == (0, "")
    program = Path(sys.modules[keys_of.__module__].__file__ or "")
    command = [sys.executable, "-I", "-S", str(program), str(proof), "--key", str(keys), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    found = json.loads(done.stdout)
    assert (done.returncode, found["proved"], found["event"]) == (0, True, event)
    assert found["type"] == "headrace.registry.v1.ModelCreated"
    assert found["by"] == "persons/operator"


def test_checkpoints_lie_in_the_object_store(platform: Platform, event: str) -> None:
    assert event
    folder = platform.folder / "s3" / "headrace" / "_checkpoints"

    found = eventually(lambda: checkpoints_in(folder) if folder.is_dir() else [], bool, within_s=60)

    assert {each.origin for each in found} <= {f"headrace/{name}" for name in SERVICES}
