"""What a person sees in a real browser: the deployment's form, and a run's artifacts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.browser import Browser, chromium
from tests.infra.conftest import FinishedPipeline, RunningStack

# Long where the machine is busy: the first test waits for a server and a run.
pytestmark = [pytest.mark.integration, pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("browser")) as started:
        yield started


def own_errors(browser: Browser) -> list[str]:
    """Errors in the console, save Prefect's own: icons it lacks, its statistics' hosts."""
    harmless = ("favicon", ".svg - Failed", "amplitude.com", "ERR_NAME_NOT_RESOLVED")
    return [e for e in browser.console_errors() if not any(word in e for word in harmless)]


def test_the_form_shows_typed_described_filled_fields(
    stack: RunningStack, browser: Browser, tmp_path: Path
) -> None:
    deployment = stack.deployment("train", "train")
    browser.open(f"{stack.ui_url}/v2/deployments/deployment/{deployment['id']}/run")
    text = browser.wait_for("Hidden size", "Learning rate", "Number of workers")
    assert "Recurrence: a spiking model, LSTM or GRU." in text
    fields = browser.run(
        "return [...document.querySelectorAll('input, textarea')].map(i => [i.type, i.value])"
    )
    assert ["number", "128"] in fields
    assert str(stack.runs) in [value for _, value in fields] or str(stack.runs) in text
    browser.screenshot(tmp_path / "form.png")
    assert own_errors(browser) == []


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
    browser.wait_for("pipeline-summary", "pipeline-stages")
    browser.screenshot(tmp_path / "run-artifacts.png")
    browser.click("pipeline-summary")
    # The versions of this artifact, by the first digits of their ids.
    version = stack.artifacts(pipeline.run)["pipeline-summary"]["id"][:8]
    browser.wait_for(version)
    browser.click(version)
    browser.wait_for("fewer multiplications", "Flow Run")
    assert pictures(browser) >= 3
    browser.screenshot(tmp_path / "run-summary.png")
    assert wide_tables(browser) == 0
    assert own_errors(browser) == []


def test_a_stage_of_a_run_has_artifacts_with_pictures(
    stack: RunningStack, pipeline: FinishedPipeline, browser: Browser, tmp_path: Path
) -> None:
    browser.open(f"{stack.ui_url}/v2/runs/flow-run/{pipeline.run}?tab=SubflowRuns")
    browser.wait_for("featurize-timit", "train-v2", "evaluate-test")
    (evaluation,) = (r for r in stack.subflows(pipeline.run) if r["name"] == "evaluate-test")
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
