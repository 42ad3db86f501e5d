"""Register everything with a Prefect server: work pool, queue of trainings, deployments.

``python -m infra.register`` against the server that ``PREFECT_API_URL`` or the active profile
names. Repeating it brings the deployments up to date and leaves what people changed in the UI
(limit, schedule switched on) as it is.
"""

import os
import subprocess
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists

from featurize.stage import Location, PipelineError
from infra.prefect_api import POOL
from spikeline_start import module_command

TRAINING_QUEUE = "training"
PREFECT_FILE = Path(__file__).with_name("prefect.yaml")
RUNS_VARIABLE = "SPIKELINE_RUNS"
CORPUS_VARIABLE = "SPIKELINE_CORPUS"
TRAININGS_VARIABLE = "SPIKELINE_TRAININGS_AT_ONCE"
_DEPLOY_TIMEOUT_S = 300.0


def register(runs: str, corpus: str = "", num_trainings: int = 1) -> None:
    """Create what is missing and deploy every flow.

    Args:
        runs: root of all results that the forms propose.
        corpus: root of the corpus that the forms propose; empty for none.
        num_trainings: runs that train at once; a queue that stands already keeps its limit.

    Raises:
        PipelineError: with Prefect's own words, when the server refuses.
    """
    with get_client(sync_client=True) as client:
        _create_pool(client)
        _create_queue(client, num_trainings)
        switched_on = _active_schedules(client)
        _deploy({RUNS_VARIABLE: Location.of(runs).uri, CORPUS_VARIABLE: corpus})
        _switch_on(client, switched_on)


def _create_pool(client: SyncPrefectClient) -> None:
    try:
        client.create_work_pool(
            WorkPoolCreate(name=POOL, type="process", description="spikeline's runs")
        )
    except ObjectAlreadyExists:
        return


def _create_queue(client: SyncPrefectClient, num_trainings: int) -> None:
    # A limit by task tag would hold a killed run's slot for minutes; a queue counts runs by state.
    try:
        client.create_work_queue(
            TRAINING_QUEUE,
            work_pool_name=POOL,
            concurrency_limit=num_trainings,
            description="Runs that train: as many at once as the machine or cluster has room for.",
        )
    except ObjectAlreadyExists:
        return


def _active_schedules(client: SyncPrefectClient) -> set[tuple[UUID, str | None]]:
    """Deployment and slug of each schedule that is on."""
    return {
        (deployment.id, schedule.slug)
        for deployment in client.read_deployments()
        for schedule in deployment.schedules
        if schedule.active
    }


def _switch_on(client: SyncPrefectClient, wanted: set[tuple[UUID, str | None]]) -> None:
    """Switch on what was on before deploying switched it off."""
    for deployment in client.read_deployments():
        for schedule in deployment.schedules:
            if (deployment.id, schedule.slug) in wanted and not schedule.active:
                client.update_deployment_schedule(deployment.id, schedule.id, active=True)


def _deploy(placeholders: dict[str, str]) -> None:
    done = subprocess.run(
        [
            *module_command("prefect", "--no-prompt", "deploy", "--all"),
            *("--prefect-file", str(PREFECT_FILE)),
        ],
        env=os.environ | placeholders,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_DEPLOY_TIMEOUT_S,
    )
    # A deployment that fails does not change the command's exit code in every version.
    if done.returncode or "Traceback" in done.stdout:
        raise PipelineError(f"the deployments were not registered: {done.stdout.strip()[-2000:]}")


def main() -> None:
    """Register with settings from the environment."""
    runs = os.environ.get(RUNS_VARIABLE, "runs")
    corpus = os.environ.get(CORPUS_VARIABLE, "")
    register(runs, corpus, int(os.environ.get(TRAININGS_VARIABLE, "1")))


if __name__ == "__main__":
    main()
