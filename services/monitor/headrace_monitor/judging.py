"""From closed slots to verdicts: pure, in order, the same for live decisions, restarts and back-tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headrace.api.monitor.v1.resources_pb2 import MonitorConfig, Verdict
from headrace_monitor.badversion import VersionJudge, lead_of
from headrace_monitor.detectors import VersionDetector
from headrace_monitor.layout import Layout
from headrace_monitor.slots import SlotCounts

LayoutOf = Callable[[str], Layout]


class Jury:
    """Judges the slots of one monitor under one configuration, from its first slot on.

    Drift is looked for in every version, and reported of the one that leads the slot: what the others do says nothing
    of what users get.

    Args:
        config: The settings.
        layout_of: Reference of a version; asked once a version.
    """

    def __init__(self, config: MonitorConfig, layout_of: LayoutOf) -> None:
        self._config = config
        self._layout_of = layout_of
        self._detectors: dict[str, VersionDetector] = {}
        self._judge = VersionJudge(config)

    def judge(self, start_us: int, versions: Mapping[str, SlotCounts]) -> Verdict | None:
        """The verdict on the next slot; None when nothing was found. ``alias_revision`` is left at 0."""
        lead = lead_of(versions)
        verdict = Verdict(model_version=lead)
        verdict.slot.FromMicroseconds(start_us)
        verdict.data_until.FromMicroseconds(start_us + self._config.slot_s * 1_000_000)
        found = False
        for version in sorted(versions):
            evidence = self._detector(version).update(start_us, versions[version])
            if evidence is not None and version == lead:
                verdict.findings.extend(evidence.findings)
                verdict.onset.FromMicroseconds(evidence.onset_us)
                found = True
        bad = self._judge.update(versions)
        if bad is not None:
            verdict.bad_version = bad[0]
            verdict.bad_version_finding.CopyFrom(bad[1])
            found = True
        return verdict if found else None

    def _detector(self, version: str) -> VersionDetector:
        if version not in self._detectors:
            layout = self._layout_of(version)
            self._detectors[version] = VersionDetector(layout, self._config)
            self._judge.reference_errors[version] = layout.profile.mean_error
        return self._detectors[version]
