"""What a request to the monitor may hold, and the defaults of what it leaves out."""

from __future__ import annotations

import math

from headrace.api.monitor.v1 import resources_pb2 as resources
from headrace.api.monitor.v1.resources_pb2 import MonitorConfig
from headrace_kit.errors import InvalidArgument
from headrace_kit.names import MODEL, require_text

DETECTORS = ("multiscale", "adwin", "page_hinkley")
DAY_S = 86_400
MAX_EVENT_S = 366 * DAY_S

_DEFAULTS: dict[str, object] = {
    "slot_s": 10,
    "lateness_s": 60,
    "minimum_samples": 30,
    "cooldown_s": DAY_S,
    "false_alarm_budget": 1.0,
    "error_detector": "multiscale",
    "drift_action": resources.DRIFT_ACTION_ALERT,
    "bad_version_factor": 1.5,
    "alias": "production",
    "consecutive_slots": 1,
}
_WHOLE = {
    "slot_s": (1, 604_800),
    "lateness_s": (1, MAX_EVENT_S),
    "minimum_samples": (1, 10**9),
    "cooldown_s": (1, MAX_EVENT_S),
    "consecutive_slots": (1, 1000),
}


def completed(config: MonitorConfig) -> MonitorConfig:
    """The settings with defaults where they are zero.

    Raises:
        InvalidArgument: a setting is out of its range; ``field`` names it.
    """
    whole = MonitorConfig()
    whole.CopyFrom(config)
    for name, default in _DEFAULTS.items():
        if not getattr(whole, name):
            setattr(whole, name, default)
    _check(whole)
    return whole


def _check(config: MonitorConfig) -> None:
    if config.task not in (resources.TASK_KIND_REGRESSION, resources.TASK_KIND_BINARY_CLASSIFICATION):
        raise InvalidArgument("say what the model predicts", field="config.task")
    require_text(config.prediction_column, field="config.prediction_column", least=1, most=250)
    for name, (least, most) in _WHOLE.items():
        if not least <= getattr(config, name) <= most:
            raise InvalidArgument(f"give {least} to {most}", field=f"config.{name}")
    if not (math.isfinite(config.false_alarm_budget) and 0 < config.false_alarm_budget <= 1000):
        raise InvalidArgument("give a number above 0, at most 1000", field="config.false_alarm_budget")
    if config.error_detector not in DETECTORS:
        raise InvalidArgument(f"give one of {', '.join(DETECTORS)}", field="config.error_detector")
    if not (math.isfinite(config.bad_version_factor) and 1 < config.bad_version_factor <= 1000):
        raise InvalidArgument("give a number above 1, at most 1000", field="config.bad_version_factor")
    if config.drift_action not in (resources.DRIFT_ACTION_ALERT, resources.DRIFT_ACTION_RETRAIN):
        raise InvalidArgument("give a known action", field="config.drift_action")
    if len(config.features) > 4096 or len(set(config.features)) != len(config.features):
        raise InvalidArgument("give at most 4096 features, each once", field="config.features")
    for index, feature in enumerate(config.features):
        require_text(feature, field=f"config.features[{index}]", most=250)
    require_text(config.alias, field="config.alias", most=100)
    if config.model:
        MODEL.parse(config.model, field="config.model")
