"""Metrics as MLflow keeps them: a run in the experiment ``spikeline``, on a server or in a file.

Nothing but metrics, settings and tags is written: MLflow's artifacts are not used, so the package
``mlflow-skinny`` is enough, and a database of one file.
"""

import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from featurize.stage import Location, PipelineError, TypedConfig

EXPERIMENT = "spikeline"
DATABASE = "mlflow.db"
_NAME_TAG, _RUN_NAME = "spikeline.name", "mlflow.runName"
_AT_ONCE = 100
"""Settings that MLflow takes in one call."""

Settings = Mapping[str, str | int | float | bool]


def mlflow_uri(uri: str | None, runs: Location) -> str:
    """Address of the store."""
    given = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        return given
    if not runs.is_local:
        raise PipelineError(
            f"tracker=mlflow: a database cannot lie at {runs}; name a server or a local one by "
            "tracking.uri"
        )
    folder = Path(runs.path)
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / DATABASE}"


class MlflowTracker:
    """Runs of one store, by name."""

    def __init__(self, uri: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            import mlflow
        except ImportError as error:
            raise PipelineError(
                "tracker=mlflow needs the packages of the tracking extra: "
                "pip install -c constraints.txt -e '.[tracking]'"
            ) from error
        # It tells every step of making a database.
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client: Any = mlflow.MlflowClient(uri)
        found = self._client.get_experiment_by_name(EXPERIMENT)
        self._experiment = found.experiment_id if found else self._made()

    def _made(self) -> str:
        from mlflow.exceptions import MlflowException

        try:
            return str(self._client.create_experiment(EXPERIMENT))
        except MlflowException:  # another process has just made it
            return str(self._client.get_experiment_by_name(EXPERIMENT).experiment_id)

    def _found(self, name: str, status: str = "") -> list[Any]:
        wanted = f"tags.`{_NAME_TAG}` = '{name}'{status}"
        return list(self._client.search_runs([self._experiment], wanted))

    def has(self, name: str) -> bool:
        """Whether a run is there, whole."""
        return bool(self._found(name, " and attributes.status = 'FINISHED'"))

    def run(self, name: str) -> "MlflowRun":
        """A new run; older ones of that name are deleted."""
        for old in self._found(name):
            self._client.delete_run(old.info.run_id)
        tags = {_NAME_TAG: name, _RUN_NAME: name}
        made = self._client.create_run(self._experiment, tags=tags)
        return MlflowRun(self._client, made.info.run_id)


class MlflowRun:
    """One run."""

    def __init__(self, client: Any, run_id: str) -> None:
        self._client = client
        self._run_id = run_id

    def configuration(self, config: TypedConfig) -> None:
        """Add what is trained, each setting by its dotted path."""
        self._settings(dict(_flat(config.model_dump(mode="json"))))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add points to curves; what is not a number, such as of a first loss, is left out."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        metrics = [
            Metric(name, value, now_ms, step)
            for name, value in values.items()
            if math.isfinite(value)
        ]
        self._client.log_batch(self._run_id, metrics=metrics)

    def result(self, settings: Settings, values: Mapping[str, float]) -> None:
        """Add results and what tells the run apart."""
        self._settings(settings)
        self.scalars(values, 0)

    def _settings(self, settings: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(name, str(value)) for name, value in settings.items()]
        for start in range(0, len(params), _AT_ONCE):
            self._client.log_batch(self._run_id, params=params[start : start + _AT_ONCE])

    def flush(self) -> None:
        """Nothing waits: each call is written."""

    def close(self, is_whole: bool) -> None:
        """Say whether the run is whole."""
        self._client.set_terminated(self._run_id, "FINISHED" if is_whole else "FAILED")


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value
