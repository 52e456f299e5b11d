"""Checks of requests before anything is decided; each raises InvalidArgument with the path of the field."""

import math
import re
from collections.abc import Sequence

from headrace.api.registry.v1 import service_pb2 as service
from headrace.api.registry.v1.resources_pb2 import (
    MODEL_FORMAT_MLFLOW,
    Comparison,
    Gates,
    ModelFormat,
    Replay,
    ReplayMeasure,
    StandingApproval,
)
from headrace_kit.errors import InvalidArgument
from headrace_kit.names import ENDPOINT, MODEL, RUN, VERSION, NamePattern, parse_id, parse_label, require_text
from headrace_kit.validate import (
    require_dataset,
    require_enum,
    require_numbers,
    require_object,
    require_range,
    require_sha256,
    require_signature,
    require_size,
    require_texts,
    require_time,
)

FORMATS = {int(number): name for name, number in ModelFormat.items() if number}
MEASURES = {int(number): name for name, number in ReplayMeasure.items() if number}
COMPARISONS = {int(number): name for name, number in Comparison.items() if number}
MAX_CHECKS = 100
MAX_NUMBER = 10_000
MAX_REQUESTS = 1_000_000
MAX_AGE_S = 100 * 365 * 86400
LOGGED_MODEL = NamePattern("projects/{project}/loggedModels/{model}")
_ALIAS = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")


def check_create_version(request: service.CreateVersionRequest) -> None:
    """A version with its package, signature and data."""
    project = MODEL.parse(request.model, field="model")["project"]
    if request.run and RUN.parse(request.run, field="run")["project"] != project:
        raise InvalidArgument("the run is of another project", field="run")
    require_object(request.artifact, project=project, field="artifact")
    require_enum(request.format, field="format", names=FORMATS)
    if request.format != MODEL_FORMAT_MLFLOW or request.HasField("signature"):
        require_signature(request.signature, field="signature")
    require_size(request.datasets, field="datasets", most=100)
    for index, dataset in enumerate(request.datasets):
        require_dataset(dataset, field=f"datasets[{index}]")
    if request.HasField("reference_profile"):
        require_object(request.reference_profile, project=project, field="reference_profile")
    require_text(request.description, field="description", least=0, most=10000, lines=True)
    require_numbers(request.metrics, field="metrics", most=1000)
    require_texts(request.tags, field="tags", most=1000)
    if request.HasField("run_time"):
        require_time(request.run_time, field="run_time")
    require_text(request.source, field="source", least=0, most=2000)
    if request.logged_model and LOGGED_MODEL.parse(request.logged_model, field="logged_model")["project"] != project:
        raise InvalidArgument("the logged model is of another project", field="logged_model")


def check_create_model(request: service.CreateModelRequest) -> None:
    """A model with its description and tags."""
    MODEL.parse(request.name, field="name")
    if request.display_name:
        parse_label(request.display_name, field="display_name")
    require_text(request.description, field="description", least=0, most=10000, lines=True)
    require_texts(request.tags, field="tags", most=1000)


def check_rename(request: service.RenameModelRequest) -> str:
    """Another name for people; returns the project's id."""
    parse_label(request.display_name, field="display_name")
    return MODEL.parse(request.model, field="model")["project"]


def check_update(request: service.UpdateModelRequest | service.UpdateVersionRequest) -> None:
    """What is said about a model or a version."""
    require_text(request.description, field="description", least=0, most=10000, lines=True)
    require_texts(request.set, field="set", most=1000)
    require_size(request.removed, field="removed", most=1000)
    for index, key in enumerate(request.removed):
        require_text(key, field=f"removed[{index}]", most=250)


def check_card(request: service.WriteCardRequest) -> str:
    """A card of a model or a version; returns the model."""
    require_range(request.expected_revision, field="expected_revision", least=-1, most=1 << 60)
    require_text(request.card.markdown, field="card.markdown", least=0, most=20000, lines=True)
    for name in ("intended_use", "limits", "evaluation", "data"):
        require_text(getattr(request.card, name), field=f"card.{name}", least=0, most=4000, lines=True)
    if "/versions/" in request.name:
        return model_of(request.name, field="name")
    MODEL.parse(request.name, field="name")
    return request.name


def require_alias(alias: str, *, field: str) -> str:
    """A name that an alias may have; returns it."""
    if not _ALIAS.fullmatch(alias):
        message = "an alias is 1 to 100 letters, digits and . _ - with a letter or digit at both ends"
        raise InvalidArgument(message, field=field)
    return alias


def check_validation(request: service.RecordValidationRequest) -> str:
    """A result of a check; returns the model."""
    require_text(request.check, field="check", most=250)
    require_text(request.detail, field="detail", least=0, most=2000, lines=True)
    require_numbers(request.metrics, field="metrics", most=1000)
    if request.HasField("dataset"):
        require_dataset(request.dataset, field="dataset")
    if request.HasField("replay"):
        check_replay(request.replay, project=VERSION.parse(request.version, field="version")["project"])
    return model_of(request.version, field="version")


def check_replay(replay: Replay, *, project: str) -> None:
    """What came of a replay."""
    if ENDPOINT.parse(replay.endpoint, field="replay.endpoint")["project"] != project:
        raise InvalidArgument("the endpoint is of another project", field="replay.endpoint")
    require_range(replay.champion, field="replay.champion", least=1, most=MAX_NUMBER)
    require_range(replay.requests, field="replay.requests", least=1, most=MAX_REQUESTS)
    require_range(replay.rows, field="replay.rows", least=0, most=1 << 60)
    require_range(replay.errors, field="replay.errors", least=0, most=replay.requests)
    for name in ("max_difference", "mean_difference", "changed_share"):
        require_finite(getattr(replay, name), field=f"replay.{name}", least=0)
    if replay.changed_share > 1:
        raise InvalidArgument("a share is 1 at most", field="replay.changed_share")
    require_sha256(replay.digest, field="replay.digest")
    require_size(replay.ranges, field="replay.ranges", most=1000)


def check_gates(gates: Gates) -> None:
    """Gates of an alias."""
    require_alias(gates.alias, field="gates.alias")
    require_checks(gates.required_checks, field="gates.required_checks")
    require_size(gates.metrics, field="gates.metrics", most=MAX_CHECKS)
    for index, metric in enumerate(gates.metrics):
        at = f"gates.metrics[{index}]"
        require_text(metric.metric, field=f"{at}.metric", most=250)
        require_enum(metric.comparison, field=f"{at}.comparison", names=COMPARISONS)
        require_finite(metric.threshold, field=f"{at}.threshold")
        require_text(metric.check, field=f"{at}.check", least=0, most=250)
    require_size(gates.champion, field="gates.champion", most=MAX_CHECKS)
    for index, contest in enumerate(gates.champion):
        at = f"gates.champion[{index}]"
        require_text(contest.metric, field=f"{at}.metric", most=250)
        require_finite(contest.margin, field=f"{at}.margin", least=0)
        require_text(contest.check, field=f"{at}.check", least=0, most=250)
    require_range(gates.max_age_s, field="gates.max_age_s", least=0, most=MAX_AGE_S)
    require_range(gates.max_run_age_s, field="gates.max_run_age_s", least=0, most=MAX_AGE_S)
    if gates.HasField("replay"):
        require_range(gates.replay.max_age_s, field="gates.replay.max_age_s", least=0, most=MAX_AGE_S)
        require_finite(gates.replay.most, field="gates.replay.most", least=0)
        if gates.replay.measure:
            require_enum(gates.replay.measure, field="gates.replay.measure", names=MEASURES)
        require_range(gates.replay.requests, field="gates.replay.requests", least=1, most=MAX_REQUESTS)
    require_size(gates.approvals, field="gates.approvals", most=20)
    for index, wanted in enumerate(gates.approvals):
        at = f"gates.approvals[{index}]"
        require_range(wanted.count, field=f"{at}.count", least=1, most=100)
        require_text(wanted.role, field=f"{at}.role", least=0, most=250)


def check_asked_gates(request: service.CheckPromotionRequest, *, actor: str) -> Gates | None:
    """The gates that a question brings, as if ``actor`` had set them; None when it brings none."""
    if not request.HasField("gates"):
        return None
    asked = Gates()
    asked.CopyFrom(request.gates)
    asked.alias, asked.actor = request.alias, actor
    check_gates(asked)
    return asked


def require_finite(value: float, *, field: str, least: float = -math.inf) -> None:
    """A number that is one, and not below ``least``."""
    if not math.isfinite(value) or value < least:
        bound = "" if least == -math.inf else f", {least:g} or more"
        raise InvalidArgument(f"give a finite number{bound}", field=field)


def check_standing_approval(approval: StandingApproval) -> None:
    """A standing approval as a person grants it."""
    parse_id(approval.id, field="standing_approval.id")
    require_alias(approval.alias, field="standing_approval.alias")
    require_checks(approval.required_checks, field="standing_approval.required_checks")
    require_size(approval.grantees, field="standing_approval.grantees", least=1, most=100)
    for index, grantee in enumerate(approval.grantees):
        require_text(grantee, field=f"standing_approval.grantees[{index}]", most=250)
    require_reason(approval.reason, field="standing_approval.reason")
    require_time(approval.expire_time, field="standing_approval.expire_time")


def check_move(alias: str, expected_revision: int, reason: str, *, reason_needed: bool) -> None:
    """What a promotion and a rollback have in common."""
    require_alias(alias, field="alias")
    require_range(expected_revision, field="expected_revision", least=-1, most=1 << 60)
    require_text(reason, field="reason", least=int(reason_needed), most=2000, lines=True)


def check_target(request: service.RollBackAliasRequest | service.CheckRollbackRequest) -> None:
    """Where a rollback is to go."""
    require_range(request.version, field="version", least=0, most=MAX_NUMBER)
    if request.HasField("to_time"):
        require_time(request.to_time, field="to_time")


def require_reason(reason: str, *, field: str = "reason") -> None:
    """A reason, which must be given."""
    require_text(reason, field=field, most=2000, lines=True)


def require_checks(checks: Sequence[str], *, field: str) -> None:
    """Names of checks, each once."""
    require_size(checks, field=field, most=MAX_CHECKS)
    for index, check in enumerate(checks):
        require_text(check, field=f"{field}[{index}]", most=250)
        if check in list(checks)[:index]:
            raise InvalidArgument(f"{check!r} is there twice", field=f"{field}[{index}]")


def model_of(version: str, *, field: str) -> str:
    """The model of a version's resource name."""
    VERSION.parse(version, field=field)
    return version.rpartition("/versions/")[0]
