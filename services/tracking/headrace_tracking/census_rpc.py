"""Questions about many runs over gRPC: request -> checks -> query -> response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import grpc

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import View
from headrace.api.tracking.v1.service_pb2_grpc import TrackingServiceServicer
from headrace_kit.errors import InvalidArgument
from headrace_kit.names import EXPERIMENT, PROJECT, require_text
from headrace_kit.validate import require_enum, require_range, require_size
from headrace_tracking import requests
from headrace_tracking.census import MAX_GROUPS, Asked, Census
from headrace_tracking.filters import Subject, parse_filter, parse_order, type_of

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method
MAX_RUNS: Final = 1000
MAX_NUMBERS: Final = 50
DEFAULT_POINTS: Final = 1000


class CensusRpc(TrackingServiceServicer):
    """Answers questions about many runs.

    Args:
        census: The queries.
    """

    def __init__(self, census: Census) -> None:
        self._census = census

    async def GetMetricHistories(
        self, request: service.GetMetricHistoriesRequest, context: Context
    ) -> service.GetMetricHistoriesResponse:
        require_size(request.runs, field="runs", least=1, most=MAX_RUNS)
        for index, each in enumerate(request.runs):
            requests.check_run(each, field=f"runs[{index}]")
        require_text(request.key, field="key", most=250)
        require_text(request.x_key, field="x_key", least=0, most=250)
        require_range(request.max_points, field="max_points", least=0, most=200_000)
        requests.check_thinning(request.thinning)
        found = self._census.histories(
            request.runs,
            request.key,
            max_points=request.max_points or DEFAULT_POINTS,
            x_key=request.x_key,
            thinning=request.thinning,
        )
        return service.GetMetricHistoriesResponse(
            series=[
                service.MetricSeries(
                    run=run, steps=points.steps, times_us=points.times_us, values=points.values, x_values=beside
                )
                async for run, points, beside in found
            ]
        )

    async def GetRunKeys(self, request: service.GetRunKeysRequest, context: Context) -> service.GetRunKeysResponse:
        keys = await self._census.keys(
            _asked(request.parent, request.filter, experiments=request.experiments, view=request.view)
        )

        def told(counts: dict[str, int]) -> list[service.KeyCount]:
            return [service.KeyCount(key=key, run_count=count) for key, count in counts.items()]

        return service.GetRunKeysResponse(
            run_count=keys.runs, params=told({**keys.params}), metrics=told({**keys.metrics}), tags=told({**keys.tags})
        )

    async def GetRunGroups(
        self, request: service.GetRunGroupsRequest, context: Context
    ) -> service.GetRunGroupsResponse:
        require_text(request.group_by, field="group_by", most=300, least=0, lines=True)
        require_text(request.values, field="values", most=4000, least=0, lines=True)
        asked = _asked(request.parent, request.filter, experiments=request.experiments, view=request.view)
        by = [each.subject for each in parse_order(request.group_by, field="group_by")]
        if len(by) != 1:
            raise InvalidArgument("give one thing such as param.model or tag.team", field="group_by")
        numbers = _numbers(request.values)
        groups = await self._census.groups(asked, by[0], numbers)
        response = service.GetRunGroupsResponse(more=len(groups) > MAX_GROUPS)
        for each in groups[:MAX_GROUPS]:
            stats = [service.NumberStats(count=count, mean=mean, std=std) for count, mean, std in each.stats]
            group = response.groups.add(run_count=each.runs, stats=stats)
            if each.value is not None:
                group.value = each.value
        return response


def _asked(parent: str, text: str, *, experiments: Sequence[str], view: View.ValueType) -> Asked:
    project = PROJECT.parse(parent, field="parent")["project"]
    require_text(text, field="filter", least=0, most=4000, lines=True)
    require_size(experiments, field="experiments", most=1000)
    for each in experiments:
        EXPERIMENT.parse(each, field="experiments")
    require_enum(view, field="view", names=requests.VIEWS)
    return Asked(project, list(experiments), parse_filter(text), view)


def _numbers(text: str) -> list[Subject]:
    found = [each.subject for each in parse_order(text, field="values", most=MAX_NUMBERS)]
    for each in found:
        if type_of(each) not in ("number", "time"):
            raise InvalidArgument(f"{each.key!r} is no number; metrics, times and duration_s are", field="values")
    return found
