"""``make up``, what the UI sends, ``make down``: a real server, worker and runs."""

import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from featurize.stage import Location, PipelineError, process_start
from flows.report_link import REPORTS_ROOT, REPORTS_URL
from infra.local_stack import Stack, StateFolder, up
from infra.processes import StartedProcess
from tests.infra.conftest import (
    FinishedPipeline,
    RunningStack,
    local_stack,
    tiny,
)
from tests.infra.ray_nodes import free_port
from tests.infra.server_log import errors_in

# Long where the machine is busy: a server, a worker and the imports of each run.
pytestmark = [pytest.mark.integration]


def written(root: Path) -> dict[Path, int]:
    """Every file below, and when it was written."""
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def test_up_says_where_to_click(stack: RunningStack) -> None:
    assert f"Prefect is at {stack.ui_url}" in stack.printed
    for words in (
        "Quick run",
        "Custom run",
        "Retry",
        "Schedules",
        f"make down STATE={stack.state}",
        str(stack.runs),
    ):
        assert words in stack.printed


def test_forms_are_typed_described_and_filled(stack: RunningStack) -> None:
    deployment = stack.deployment("stage-train", "stage-train")
    fields = deployment["parameter_openapi_schema"]["properties"]
    assert fields["model"]["enum"][:3] == ["conventional", "v1", "v2"]
    assert (fields["size"]["type"], fields["size"]["minimum"]) == ("integer", 1)
    assert next(iter(fields)) == "features"
    assert all(field["description"] for field in fields.values())
    assert deployment["enforce_parameter_schema"] is True
    assert deployment["parameters"]["runs"] == str(stack.runs)
    assert deployment["description"]
    assert deployment["tags"] == ["stage"]


def test_one_form_has_every_setting(stack: RunningStack) -> None:
    deployment = stack.deployment("pipeline-with-every-setting", "pipeline-with-every-setting")
    schema = deployment["parameter_openapi_schema"]
    model = schema["definitions"]["ModelConfig"]["properties"]
    assert model["hidden_size"]["minimum"] == 1
    for definition in schema["definitions"].values():
        for field in definition["properties"].values():
            assert field.get("description") or "$ref" in field
    assert deployment["parameters"]["recipe"]["name"] == "demo"


def test_runs_that_train_wait_for_one_another(stack: RunningStack) -> None:
    queue = stack.call("GET", "/work_pools/spikeline/queues/training")
    assert queue["concurrency_limit"] == 1
    in_queue = {
        deployment["name"]
        for deployment in stack.call("POST", "/deployments/filter", {})
        if deployment["work_queue_name"] == "training"
    }
    assert {"demo", "pipeline-timit", "stage-train"} <= in_queue
    assert not {"stage-featurize", "stage-evaluate"} & in_queue


def test_a_pipeline_started_from_its_form_finishes_with_its_artifacts(
    stack: RunningStack, pipeline: FinishedPipeline
) -> None:
    assert pipeline.outcome["recipe"] == "demo"
    assert Path(pipeline.outcome["evaluation"]["location"], "report.html").is_file()
    artifacts = stack.artifacts(pipeline.run)
    message = stack.state_of(pipeline.run)["message"]
    assert "SNN v2" in message
    page = artifacts["overview"]["data"]
    report = re.search(r"\[Open the report\]\((http://127[^)]*)\)", page)
    assert report is not None
    with urllib.request.urlopen(report[1], timeout=1200) as answer:
        assert (
            answer.read()
            == Path(pipeline.outcome["evaluation"]["location"], "report.html").read_bytes()
        )
    assert {"features", "train-v2", "comparison", "summary", "evaluation"} <= set(artifacts)
    assert artifacts["train-v2-progress"]["data"] == 100.0
    assert "data:image/png;base64," in artifacts["summary"]["data"]
    assert {run["name"] for run in stack.subflows(pipeline.run)} == {
        *("featurize timit train dev test", "train v2 2x8 seed 0", "evaluate 1 model on test")
    }


def test_a_number_that_may_be_left_out_begins_empty(stack: RunningStack) -> None:
    """A default of null would be sent for a field that nobody touched, and refused."""
    for name in ("demo", "stage-train"):
        flow = "pipeline" if name == "demo" else name
        fields = stack.deployment(flow, name)["parameter_openapi_schema"]["properties"]
        assert fields["size"]["type"] == "integer"
        assert [key for key, field in fields.items() if field.get("default", 0) is None] == []


def test_up_again_leaves_schedules_and_limits_as_people_made_them(stack: RunningStack) -> None:
    deployment = stack.deployment("pipeline", "demo")
    (schedule,) = deployment["schedules"]
    assert schedule["active"] is False
    place = f"/deployments/{deployment['id']}/schedules"
    yearly = {"cron": "0 5 1 1 *", "timezone": "Europe/Berlin"}
    changed = {"active": True, "parameters": {"epochs": 3}, "schedule": yearly}
    stack.call("PATCH", f"{place}/{schedule['id']}", changed)
    stack.call("POST", place, [{"schedule": yearly, "active": True, "parameters": {"size": 8}}])
    queue = "/work_pools/spikeline/queues/training"
    stack.call("PATCH", queue, {"concurrency_limit": 3})
    before, schedules = stack.record, stack.deployment("pipeline", "demo")["schedules"]
    assert len(schedules) == 2

    local_stack("up", stack.state, "--port", str(stack.port), "--runs", str(stack.runs))
    assert stack.record == before, "processes that ran were started again"
    assert stack.call("GET", queue)["concurrency_limit"] == 3
    assert stack.deployment("pipeline", "demo")["schedules"] == schedules

    own = next(found for found in schedules if found["id"] != schedule["id"])
    stack.call("DELETE", f"{place}/{own['id']}")
    unchanged = {"active": False, "parameters": {}, "schedule": schedule["schedule"]}
    stack.call("PATCH", f"{place}/{schedule['id']}", unchanged)
    stack.call("PATCH", queue, {"concurrency_limit": 1})
    assert stack.deployment("pipeline", "demo")["schedules"][0]["active"] is False


def test_up_removes_what_an_earlier_version_registered_and_nothing_of_a_persons(
    stack: RunningStack,
) -> None:
    flow = stack.deployment("pipeline", "demo")["flow_id"]
    for name in ("pipeline-of-yore", "my-own"):
        body = {"name": name, "flow_id": flow, "work_pool_name": "spikeline"}
        stack.call("POST", "/deployments/", body)
    known = "/variables/name/spikeline_deployments"
    names = stack.call("GET", known)["value"]
    stack.call("PATCH", known, {"value": [*names, "pipeline-of-yore"]})
    local_stack("up", stack.state, "--port", str(stack.port), "--runs", str(stack.runs))
    left = {d["name"] for d in stack.call("POST", "/deployments/filter", {})}
    assert left == {*names, "my-own"}
    stack.call("DELETE", f"/deployments/{stack.deployment('pipeline', 'my-own')['id']}")


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", "many"), ("size", 0), ("model", "transformer"), ("overrides", ["no assignment"])],
)
def test_a_bad_parameter_is_refused_before_a_run_exists(
    stack: RunningStack, field: str, value: object
) -> None:
    deployment = stack.deployment("stage-train", "stage-train")
    parameters = {**deployment["parameters"], "features": "nowhere", field: value}
    with pytest.raises(urllib.error.HTTPError) as refusal:
        stack.start(deployment, parameters)
    assert refusal.value.code in (409, 422)
    assert f"Validation failed for field '{field}" in refusal.value.read().decode()


def test_a_bad_override_ends_the_run_before_any_work_in_a_line(stack: RunningStack) -> None:
    parameters = tiny(stack.deployment("pipeline", "demo")["parameters"], "train.hiden_size=3")
    before = written(stack.runs)
    state = stack.finish(stack.start(stack.deployment("pipeline", "demo"), parameters))
    assert state["type"] == "FAILED"
    assert "overrides: train.hiden_size: no such key (did you mean" in state["message"]
    assert written(stack.runs) == before


def test_the_servers_log_of_a_whole_pipeline_holds_no_error(
    stack: RunningStack, pipeline: FinishedPipeline
) -> None:
    assert errors_in((stack.state / "server.log").read_text()) == []


def test_an_error_in_the_servers_log_is_found() -> None:
    """As SQLAlchemy 2.1 wrote it under Prefect 3.8, whose schedules then made no runs."""
    log = (
        "09:00:00.100 | INFO    | prefect.server - fine\n"
        "09:00:01.100 | ERROR   | prefect.server.services.scheduler - Unexpected error\n"
        "Traceback (most recent call last):\n"
        "sqlalchemy.exc.InvalidRequestError: Can't evaluate bulk DML statement\n"
        "09:00:02.100 | INFO    | prefect.server - fine again\n"
    )
    (found,) = errors_in(log)
    assert "bulk DML" in found
    assert errors_in(log.replace("ERROR ", "INFO  ").replace("Traceback (most", "(most")) == []


def test_one_stage_runs_again_with_another_setting_and_leaves_the_rest_alone(
    stack: RunningStack, pipeline: FinishedPipeline
) -> None:
    before = written(stack.runs)
    deployment = stack.deployment("stage-train", "stage-train")
    parameters = {
        **deployment["parameters"],
        **{"features": pipeline.outcome["features"]["location"], "size": 8, "epochs": 2},
        "overrides": ["train.optimizer.learning_rate=1e-3", "workers.in_process=true"],
    }
    run = stack.start(deployment, parameters)
    stack.complete(run)

    after = written(stack.runs)
    assert {path: after[path] for path in before} == before
    added = {path.relative_to(stack.runs).parts[:2] for path in set(after) - set(before)}
    assert len(added) == 1
    ((stage, fingerprint),) = added
    assert stage == "training"
    assert fingerprint != pipeline.outcome["models"]["v2"]["fingerprint"]
    assert fingerprint in stack.artifacts(run)["train-v2"]["data"]


def test_down_where_nothing_is_up_says_so(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert "nothing to stop" in local_stack("down", state)


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(PipelineError, match=f"make up PORT={port + 1}"):
            up(StateFolder(tmp_path / "state"), port, "runs", "", 1)


def test_a_report_server_that_died_comes_back_where_the_worker_links_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, began = os.getpid(), int(process_start(os.getpid()))

    def alive(name: str) -> StartedProcess:
        return StartedProcess(name=name, pid=number, start_ticks=began, log="log")

    dead = alive("reports").model_copy(update={"start_ticks": began - 1})
    state, runs = StateFolder(tmp_path), Location.of(tmp_path / "runs").uri
    stack = Stack(
        port=4999,
        server=alive("server"),
        worker=alive("worker"),
        reports=dead,
        reports_port=41111,
        reports_root=runs,
    )
    state.write(stack)
    monkeypatch.setattr(StateFolder, "start", lambda self, name, *_: alive(name))
    monkeypatch.setattr("infra.local_stack._wait_for", lambda *_: None)
    monkeypatch.setattr("infra.register.register", lambda *_: None)
    for name in ("PREFECT_API_URL", "PREFECT_HOME", REPORTS_URL, REPORTS_ROOT):
        monkeypatch.setenv(name, "")
    assert up(state, 4999, runs, "", 1).reports_port == 41111
    state.write(stack)
    with pytest.raises(PipelineError, match="are being served"):
        up(state, 4999, str(tmp_path / "other"), "", 1)


def test_make_up_asks_no_proxy_for_this_machine(tmp_path: Path) -> None:
    """Whether the server is there is asked of 127.0.0.1 itself."""
    dead = f"http://127.0.0.1:{free_port()}"
    program = (
        "import sys, urllib.request\n"
        "from infra import local_stack\n"
        "sys.argv = ['up', 'down', '--state', sys.argv[1]]\n"
        "local_stack.main()\n"
        "print(urllib.request.proxy_bypass('127.0.0.1'))\n"
    )
    without = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**without, "http_proxy": dead, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] in ("1", "True")
