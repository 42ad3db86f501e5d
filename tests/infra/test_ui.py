"""What a person sees in a real browser: the deployment's form, and a run's artifacts."""

import json
import re
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.infra.browser import Browser, chromium
from tests.infra.conftest import FINAL, FinishedPipeline, RunningStack

# Long where the machine is busy: the first test waits for a server and a run.
pytestmark = [pytest.mark.integration, pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def one_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture
def browser(one_browser: Browser) -> Browser:
    """The browser, with nothing left of the test before."""
    one_browser.open("about:blank")
    one_browser.console_errors()
    return one_browser


def own_errors(browser: Browser) -> list[str]:
    """Errors in the console, save Prefect's own.

    Icons it lacks, its statistics' hosts, and that it asks for the task of what no task made.
    """
    harmless = (
        *("favicon", ".svg - Failed", "amplitude.com", "ERR_NAME_NOT_RESOLVED"),
        "/api/task_runs/filter - Failed",
    )
    return [e for e in browser.console_errors() if not any(word in e for word in harmless)]


def test_the_demos_form_is_short_described_and_filled(
    stack: RunningStack, browser: Browser, tmp_path: Path
) -> None:
    deployment = stack.deployment("pipeline", "demo")
    browser.open(f"{stack.ui_url}/v2/deployments/deployment/{deployment['id']}/run")
    text = browser.wait_for("recipe", "corpus", "epochs", "overrides", "Submit")
    assert "Neurons per recurrent layer, of every model." in text
    assert 'Property is type "None"' not in text
    assert browser.height <= 2
    browser.screenshot(tmp_path / "form.png")
    assert own_errors(browser) == []


def test_a_wrong_value_is_named_and_starts_no_run(
    stack: RunningStack, browser: Browser, tmp_path: Path
) -> None:
    deployment = stack.deployment("pipeline", "demo")
    browser.open(f"{stack.ui_url}/v2/deployments/deployment/{deployment['id']}/run")
    browser.wait_for("size", "Submit")
    browser.fill("Run Name", "a wrong size")
    browser.fill("size", "0")
    browser.click("Submit")
    # Said in a bubble at the field, which takes the keyboard.
    said = browser.run("return document.activeElement.validationMessage")
    assert said == "Value must be greater than or equal to 1."
    browser.screenshot(tmp_path / "wrong.png")
    assert runs_named(stack, "a wrong size") == []


def test_a_form_that_nobody_touched_starts_a_run(stack: RunningStack, browser: Browser) -> None:
    deployment = stack.deployment("pipeline", "demo")
    browser.open(f"{stack.ui_url}/v2/deployments/deployment/{deployment['id']}/run")
    browser.wait_for("size", "Submit")
    browser.fill("Run Name", "untouched")
    browser.click("Submit")
    browser.wait_for("untouched scheduled to start now")
    (run,) = runs_named(stack, "untouched")
    assert {"size", "epochs", "workers"}.isdisjoint(run["parameters"])
    stack.set_state(run["id"], "CANCELLED", "Cancelled", force=True)


def runs_named(stack: RunningStack, name: str) -> list[dict[str, Any]]:
    wanted = {"flow_runs": {"name": {"any_": [name]}}}
    return stack.call("POST", "/flow_runs/filter", wanted)


def test_a_run_is_started_from_the_form_and_watched_while_it_trains(
    stack: RunningStack, pipeline: FinishedPipeline, browser: Browser, tmp_path: Path
) -> None:
    """Filled as a person would; the run's page shows its training from the beginning."""
    deployment = stack.deployment("pipeline", "demo")
    tiny = {key: pipeline.parameters[key] for key in ("overrides", "models", "runs")}
    parameters = urllib.parse.quote(json.dumps(tiny))
    browser.open(
        f"{stack.ui_url}/v2/deployments/deployment/{deployment['id']}/run?parameters={parameters}"
    )
    browser.wait_for("epochs", "Submit")
    browser.wait_for_value(pipeline.parameters["overrides"][0])
    browser.fill("Run Name", "sixty epochs")
    browser.fill("size", "8")
    browser.fill("epochs", "60")
    browser.click("Submit")
    deadline = time.monotonic() + 120
    while not (found := runs_named(stack, "sixty epochs")):
        assert time.monotonic() < deadline, browser.text[-1000:]
        time.sleep(5)
        # What the page says when the server was too busy to answer: a person presses again.
        if "Unknown error while creating flow run" in browser.text:
            browser.click("Submit")
    run = found[0]["id"]
    assert found[0]["parameters"]["epochs"] == 60
    while not (below := [r for r in stack.subflows(run) if r["name"].startswith("train v2")]):
        assert stack.state_of(run)["type"] not in FINAL, stack.worker_log()
        time.sleep(0.2)
    assert len(below) == 1
    while not re.search(r"training v2 \| \S+ \d+% \|", overview(stack, run)):
        time.sleep(0.2)
    while "| 3/60 |" not in overview(stack, run):
        assert stack.state_of(run)["type"] not in FINAL, stack.worker_log()
        time.sleep(0.2)
    artifact = stack.artifacts(run)["overview"]["id"]
    browser.open(f"{stack.ui_url}/v2/artifacts/artifact/{artifact}")
    browser.wait_for("training v2", "2/60")
    assert pictures(browser) >= 1
    browser.screenshot(tmp_path / "training.png")
    assert runs_named(stack, "sixty epochs"), "the name that was typed is kept"
    stack.set_state(run, "CANCELLING", "Cancelling")
    assert stack.finish(run)["type"] == "CANCELLED"


def overview(stack: RunningStack, run: str) -> str:
    artifact = stack.artifacts(run).get("overview")
    return "" if artifact is None else str(artifact["data"])


def pictures(browser: Browser) -> int:
    """Pictures that are drawn, not icons."""
    found = browser.run(
        "return [...document.images].filter(i => i.src.startsWith('data:image/png')"
        " && i.naturalWidth > 200).length"
    )
    return int(found)


def wide_tables(browser: Browser) -> int:
    """Tables that reach out of the column they stand in, over what is beside it."""
    found = browser.run(
        "return [...document.querySelectorAll('table')].filter(t =>"
        " t.getBoundingClientRect().right > t.parentElement.getBoundingClientRect().right + 1"
        ").length"
    )
    return int(found)


def test_a_runs_page_leads_to_its_artifacts_with_pictures(
    stack: RunningStack, pipeline: FinishedPipeline, browser: Browser, tmp_path: Path
) -> None:
    """From the run's own page by clicks: its Artifacts, the summary, the pictures in it."""
    browser.open(f"{stack.ui_url}/v2/runs/flow-run/{pipeline.run}")
    browser.wait_for("Artifacts", "Subflow Runs")
    browser.screenshot(tmp_path / "run.png")
    browser.click("Artifacts")
    browser.wait_for("overview")
    browser.screenshot(tmp_path / "run-artifacts.png")
    browser.click("overview")
    browser.wait_for("Open the report", "Where the results are", "Flow Run")
    assert pictures(browser) >= 3
    browser.screenshot(tmp_path / "run-summary.png")
    assert wide_tables(browser) == 0
    assert own_errors(browser) == []
    link = browser.run(
        "return [...document.links].find(a => a.innerText == 'Open the report').href"
    )
    browser.open(link)
    browser.wait_for("v2")
    browser.screenshot(tmp_path / "report.png")


def test_a_stage_of_a_run_has_artifacts_with_pictures(
    stack: RunningStack, pipeline: FinishedPipeline, browser: Browser, tmp_path: Path
) -> None:
    browser.open(f"{stack.ui_url}/v2/runs/flow-run/{pipeline.run}?tab=SubflowRuns")
    browser.wait_for("featurize timit", "train v2", "evaluate 1 model on test")
    (evaluation,) = (
        r for r in stack.subflows(pipeline.run) if r["name"] == "evaluate 1 model on test"
    )
    browser.open(f"{stack.ui_url}/v2/runs/flow-run/{evaluation['id']}?tab=Artifacts")
    browser.wait_for("comparison", "summary")
    summary = stack.artifacts(pipeline.run)["summary"]
    browser.open(f"{stack.ui_url}/v2/artifacts/artifact/{summary['id']}")
    browser.wait_for("multiplications")
    assert pictures(browser) >= 3
    browser.screenshot(tmp_path / "summary.png")
    assert own_errors(browser) == []


def test_the_report_opens_from_disk_without_an_error(
    pipeline: FinishedPipeline, tmp_path: Path
) -> None:
    report = Path(pipeline.outcome["evaluation"]["location"], "report.html")
    # A browser of its own: what Prefect's pages asked for may fail when this page is open.
    with chromium(tmp_path) as browser:
        browser.open(f"file://{report}")
        browser.wait_for("v2")
        browser.screenshot(tmp_path / "report.png")
        assert browser.console_errors() == []
