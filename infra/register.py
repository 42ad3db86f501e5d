"""Register everything with a Prefect server: work pool, queue of trainings, deployments.

``python -m infra.register`` against the server that ``PREFECT_API_URL`` or the active profile
names. Repeating it brings the deployments up to date, removes those that an earlier version
registered and this one has not, and leaves what people changed in the UI (limit, schedules) as it
is.
"""

import os
import subprocess
from pathlib import Path

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    DeploymentUpdate,
    VariableCreate,
    VariableUpdate,
    WorkPoolCreate,
)
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists

from featurize.stage import Location, PipelineError
from infra.prefect_api import POOL
from spikeline_start import module_command

TRAINING_QUEUE = "training"
PREFECT_FILE = Path(__file__).with_name("prefect.yaml")
RUNS_VARIABLE = "SPIKELINE_RUNS"
CORPUS_VARIABLE = "SPIKELINE_CORPUS"
TRAININGS_VARIABLE = "SPIKELINE_TRAININGS_AT_ONCE"
NIGHTLY = DeploymentScheduleCreate(
    schedule=CronSchedule(cron="0 3 * * *", timezone="UTC"), active=False, slug="nightly"
)
"""The demo's example of a schedule, off until a person switches it on."""
REGISTERED = "spikeline_deployments"
"""The variable of the server that names what was registered."""
_DEPLOY_TIMEOUT_S = 300.0


def register(runs: str, corpus: str = "", num_trainings: int = 1) -> None:
    """Create what is missing and deploy every flow.

    Args:
        runs: root of all results that the forms propose.
        corpus: root of the corpus that the forms propose; empty for none.
        num_trainings: runs that train at once; a queue that stands already keeps its limit.
    """
    with get_client(sync_client=True) as client:
        _create_pool(client)
        _create_queue(client, num_trainings)
        stood = {deployment.id for deployment in client.read_deployments()}
        _deploy({RUNS_VARIABLE: Location.of(runs).uri, CORPUS_VARIABLE: corpus})
        _remove_former(client)
        for deployment in client.read_deployments():
            if deployment.work_pool_name != POOL:
                continue  # another project's
            _leave_fields_empty(client, deployment)
            if deployment.name == "demo" and deployment.id not in stood:
                # Not in prefect.yaml: what stands there would replace a person's own schedules.
                client.create_deployment_schedules(deployment.id, [NIGHTLY])


def _create_pool(client: SyncPrefectClient) -> None:
    try:
        client.create_work_pool(
            WorkPoolCreate(
                name=POOL,
                type="process",
                description="Runs of spikeline's deployments, each a process",
            )
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


def _leave_fields_empty(client: SyncPrefectClient, deployment: DeploymentResponse) -> None:
    """Let a field that may be left out begin empty.

    Where a default of None stands in a form's schema, the UI sends null for a field that nobody
    touched, and the server refuses it as no number.
    """
    schema = deployment.parameter_openapi_schema or {}
    fields = schema.get("properties", {}).values()
    empty = [field for field in fields if "type" in field and field.get("default", 0) is None]
    for field in empty:
        del field["default"]
    if empty:
        client.update_deployment(deployment.id, DeploymentUpdate(parameter_openapi_schema=schema))


def _remove_former(client: SyncPrefectClient) -> None:
    """Delete what an earlier version registered and this one has not; a person's own stay."""
    wanted = yaml.safe_load(PREFECT_FILE.read_text())["deployments"]
    names = [deployment["name"] for deployment in wanted]
    before = client.read_variable_by_name(REGISTERED)
    if before is None:
        client.create_variable(VariableCreate(name=REGISTERED, value=names))
        return
    assert isinstance(before.value, list)
    former = set(before.value) - set(names)
    for deployment in client.read_deployments():
        if deployment.name in former and deployment.work_pool_name == POOL:
            client.delete_deployment(deployment.id)
    client.update_variable(VariableUpdate(name=REGISTERED, value=names))


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
