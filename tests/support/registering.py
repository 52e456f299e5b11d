"""A model and what is decided about it, without a server."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from google.protobuf.message import Message

from headrace.api.common.v1 import resources_pb2 as common
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace_kit.context import CommandContext
from headrace_kit.errors import FailedPrecondition, KitError
from headrace_registry import domain, references, rollbacks

MODEL = "projects/default/models/delay"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def by(actor: str, at: datetime = NOW) -> CommandContext:
    return CommandContext(command_id=uuid4(), actor=actor, now=at)


OPERATOR = by("persons/operator")


class Registry:
    """A model and what was decided about it."""

    def __init__(self) -> None:
        self.state: resources.Model | None = None
        self.decided: list[Message] = []

    @property
    def model(self) -> resources.Model:
        assert self.state is not None
        return self.state

    def apply(self, decide: Callable[[resources.Model | None], list[Message]]) -> list[Message]:
        new = decide(self.state)
        for event in new:
            self.state = domain.evolve(self.state, event)
        self.decided.extend(new)
        return new

    def create(self, *, actor: str, open_aliases: bool = True) -> None:
        command = service.CreateModelRequest(name=MODEL, open_aliases=open_aliases)
        self.apply(lambda state: domain.decide_create(state, command, by(actor)))

    def delete(self) -> None:
        self.apply(lambda state: domain.decide_delete_model(state, MODEL, NOW))

    def delete_version(self, version: str) -> list[Message]:
        return self.apply(lambda state: domain.decide_delete_version(state, version, NOW))

    def archive(self, version: str) -> list[Message]:
        command = service.ArchiveVersionRequest(version=version, reason="old")
        return self.apply(lambda state: domain.decide_archive(state, command))

    def routes(self, endpoint: str, *versions: int) -> list[Message]:
        return self.apply(lambda state: references.decide_noted(state, MODEL, endpoint=endpoint, versions=versions))

    def remove_alias(self, alias: str, *, actor: str, expected: int = -1, at: datetime = NOW) -> None:
        command = service.RemoveAliasRequest(model=MODEL, alias=alias, expected_revision=expected)
        self.apply(lambda state: domain.decide_remove_alias(state, command, by(actor, at)))

    def roll_back_to_time(self, moment: datetime, *, at: datetime, alias: str = "production") -> list[Message]:
        command = service.RollBackAliasRequest(model=MODEL, alias=alias, expected_revision=-1, reason="as it was")
        command.to_time.FromDatetime(moment)
        return self.apply(lambda state: rollbacks.decide(state, command, by("persons/operator", at)))

    def roll_back(self, to: int, *, alias: str = "production", actor: str = "persons/operator") -> list[Message]:
        command = service.RollBackAliasRequest(
            model=MODEL, alias=alias, version=to, expected_revision=-1, reason="worse"
        )
        return self.apply(lambda state: rollbacks.decide(state, command, by(actor)))

    def register(
        self,
        *,
        columns: tuple[str, ...] = ("a", "b"),
        author: str = "services/orchestrator",
        kind: resources.ModelFormat.ValueType = resources.MODEL_FORMAT_ONNX,
        metrics: Mapping[str, float] | None = None,
        run_time: datetime | None = None,
    ) -> str:
        tensor = common.TensorSpec(
            name="input", datatype=common.DATA_TYPE_FP32, shape=[-1, len(columns)], columns=columns
        )
        command = service.CreateVersionRequest(
            model=MODEL,
            create_model=True,
            run="projects/default/runs/r",
            artifact=common.ObjectRef(uri="default/sha256/aa/aa", sha256="a" * 64, size_bytes=1),
            format=kind,
            signature=common.Signature(inputs=[tensor]),
            datasets=[common.DatasetVersion(name="flights", digest="sha256:1")],
            metrics=named_values(metrics or {}),
        )
        if run_time is not None:
            command.run_time.FromDatetime(run_time)
        self.apply(lambda state: domain.decide_version(state, command, by(author)))
        return self.model.versions[-1].name

    def validate(
        self,
        version: str,
        check: str,
        *,
        passed: bool,
        metrics: Mapping[str, float] | None = None,
        digest: str = "",
    ) -> None:
        command = service.RecordValidationRequest(
            version=version, check=check, passed=passed, detail="measured", metrics=named_values(metrics or {})
        )
        if digest:
            command.dataset.name, command.dataset.digest = "held out", digest
        self.apply(lambda state: domain.decide_validation(state, command, by("services/orchestrator")))

    def review(
        self, version: str, *, approve: bool, actor: str = "persons/operator", roles: tuple[str, ...] = ()
    ) -> None:
        command = service.ReviewVersionRequest(version=version, approve=approve, reason="looked at it")
        self.apply(lambda state: domain.decide_review(state, command, by(actor), roles=roles))

    def consent(self, version: str, *, given: bool, actor: str) -> list[Message]:
        command = service.ConsentToFormatRequest(version=version, given=given, reason="we made it ourselves")
        return self.apply(lambda state: domain.decide_consent(state, command, by(actor)))

    def promote(
        self,
        version: str,
        *,
        alias: str = "production",
        actor: str = "persons/operator",
        expected: int = -1,
        at: datetime = NOW,
        override: bool = False,
        reason: str = "better",
        roles: tuple[str, ...] = ("operator",),
    ) -> list[Message]:
        command = service.PromoteVersionRequest(
            version=version, alias=alias, expected_revision=expected, reason=reason, override_gates=override
        )
        return self.apply(lambda state: domain.decide_promotion(state, command, by(actor, at), roles=roles))

    def promoted(self, at: datetime = NOW) -> str:
        version = self.register()
        self.review(version, approve=True)
        self.promote(version, at=at)
        return version

    def grant(
        self,
        *,
        checks: tuple[str, ...] = ("quality",),
        lasts: timedelta = timedelta(days=30),
        grantee: str = "services/serving",
        actor: str = "persons/operator",
    ) -> None:
        approval = resources.StandingApproval(
            id=f"of {actor}", alias="production", required_checks=checks, grantees=[grantee], reason="routine"
        )
        approval.expire_time.FromDatetime(NOW + lasts)
        command = service.GrantStandingApprovalRequest(model=MODEL, standing_approval=approval)
        self.apply(lambda state: domain.decide_grant(state, command, by(actor)))

    def set_gates(
        self,
        *,
        actor: str,
        alias: str = "production",
        checks: tuple[str, ...] = (),
        **more: Any,  # Any: fields of the message, of several types
    ) -> list[Message]:
        """Gates that ask for no approval, unless ``more`` says so: other fields of the gates."""
        return self.gates_as(resources.Gates(alias=alias, required_checks=checks, **more), actor=actor)

    def gates_as(self, gates: resources.Gates, *, actor: str) -> list[Message]:
        command = service.SetGatesRequest(model=MODEL, gates=gates)
        return self.apply(lambda state: domain.decide_gates(state, command, by(actor)))


def named_values(values: Mapping[str, float]) -> list[common.NamedValue]:
    return [common.NamedValue(name=name, value=value) for name, value in values.items()]


def unmet(error: KitError) -> set[str]:
    assert isinstance(error, FailedPrecondition)
    return {each.type for each in error.violations}
