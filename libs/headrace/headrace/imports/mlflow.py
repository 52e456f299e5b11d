"""From an MLflow server: experiments, runs, logged models, registered models with versions, aliases and stages."""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import chain
from typing import Final

from headrace.client import Client
from headrace.errors import InvalidArgument
from headrace.imports.models import Models
from headrace.imports.report import Progress, Report, Tell
from headrace.imports.runs import Runs, run_id_of
from headrace.imports.server import MODELS_PAGE, V2, Json, MlflowServer, ServerError, integer, nested, pairs, text
from headrace.imports.target import Target

WORKERS: Final = 8
"""Runs that are imported at once."""


def import_mlflow(
    client: Client,
    server: MlflowServer,
    *,
    project: str = "default",
    experiments: Sequence[str] = (),
    models: Sequence[str] = (),
    dry_run: bool = False,
    tell: Tell = lambda _: None,
) -> Report:
    """Brings everything over, or what is named.

    A repeat adds what is new since, and nothing twice: runs keep their ids, and what is there already is found by
    itself. Nothing that is here is changed or removed.

    Args:
        client: The platform.
        server: The MLflow server.
        project: Id of the project that takes it.
        experiments: Names or patterns (``nightly-*``) of experiments; with ``models`` empty, no models then.
        models: Names or patterns of registered models; with ``experiments`` empty, no experiments then.
        dry_run: Say what would be done; nothing is written, and no file is fetched.
        tell: Called with the progress, from any thread.

    Raises:
        ServerError: The server can not be reached.
        HeadraceError: The platform can not be reached, or does not let the caller in.
    """
    work = _Import(Target(client, project, Report(), dry_run=dry_run), server, tell)
    if experiments or not models:
        work.experiments(experiments)
    if models or not experiments:
        work.models(models)
    return work.report


class _Import:
    def __init__(self, target: Target, server: MlflowServer, tell: Tell) -> None:
        self.target, self.server, self.report = target, server, target.report
        self._runs, self._models = Runs(target, server), Models(target, server)
        self._tell, self._lock = tell, threading.Lock()
        self._done = self._total = 0

    def experiments(self, wanted: Sequence[str]) -> None:
        """Experiments with their runs and logged models."""
        found = list(self.server.pages("POST", f"{V2}/experiments/search", "experiments", view_type="ALL"))
        chosen = [each for each in found if _is_wanted(text(each, "name"), wanted)]
        for name in (name for name in wanted if not any(_is_wanted(text(each, "name"), [name]) for each in found)):
            self.report.leave_out(f"experiment {name!r}", "the server has none of that name")
        for each in sorted(chosen, key=lambda each: integer(each, "creation_time")):
            name = text(each, "name")
            if text(each, "lifecycle_stage") == "deleted":
                self.report.leave_out(f"experiment {name!r}", "it is deleted on the server")
                continue
            runs = self.server.pages(
                "POST", f"{V2}/runs/search", "runs", experiment_ids=[text(each, "experiment_id")], run_view_type="ALL"
            )
            try:
                here = self.target.experiment(name, pairs(each, "tags"))
            except InvalidArgument as error:
                self.report.leave_out(f"experiment {name!r}", str(error))
                continue
            self._all(runs, partial(self._runs.run, experiment=here), of="run", id_of=run_id_of)
            self._logged_models(text(each, "experiment_id"), here)

    def models(self, wanted: Sequence[str]) -> None:
        """Registered models with their versions."""
        path = f"{V2}/registered-models/search"
        found = list(self.server.pages("GET", path, "registered_models", size=MODELS_PAGE))
        for name in (name for name in wanted if not any(_is_wanted(text(each, "name"), [name]) for each in found)):
            self.report.leave_out(f"model {name!r}", "the server has none of that name")
        chosen = [each for each in found if _is_wanted(text(each, "name"), wanted)]
        self._all(iter(chosen), self._models.model, of="model", id_of=lambda each: text(each, "name"), workers=1)

    def _all(
        self,
        items: Iterator[Json],
        work: Callable[[Json], None],
        *,
        of: str,
        id_of: Callable[[Json], str],
        workers: int = WORKERS,
    ) -> None:
        """Works on items as their pages come, some at once; what the server fails to give is left out."""

        def one(item: Json) -> None:
            what = f"{of} {id_of(item)}"
            try:
                work(item)
            except ServerError as error:
                self.report.leave_out(what, f"{error}; import again to complete it")
            with self._lock:
                self._done += 1
                progress = Progress(what, self._done, self._total)
            self._tell(progress)

        with ThreadPoolExecutor(workers, thread_name_prefix="import") as pool:
            waiting: set[Future[None]] = set()
            try:
                for item in items:
                    with self._lock:
                        self._total += 1
                    waiting.add(pool.submit(one, item))
                    if len(waiting) >= 4 * workers:
                        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                        for each in done:
                            each.result()
                for each in waiting:
                    each.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _logged_models(self, experiment_id: str, experiment: str) -> None:
        path = f"{V2}/logged-models/search"
        found = self.server.pages("POST", path, "models", size=50, experiment_ids=[experiment_id])
        try:
            first = next(found, None)
        except ServerError as error:
            if error.status in (404, 405, 501):  # MLflow 2 knows no logged models
                return
            raise
        if first is None:
            return
        self._all(
            chain([first], found),
            partial(self._runs.logged_model, experiment=experiment),
            of="logged model",
            id_of=lambda each: text(nested(each, "info"), "model_id"),
        )


def _is_wanted(name: str, wanted: Sequence[str]) -> bool:
    return not wanted or any(fnmatch.fnmatchcase(name, each) for each in wanted)
