"""The real pipeline through a real Prefect server, on a little synthetic speech."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from rich.console import Console

from evaluation.comparison import escape_markdown
from evaluation.headline import headline
from evaluation.trained_on import trained_on
from featurize.stage import Location
from flows.cli import run
from flows.comparison import comparison_table, read_metrics
from flows.overrides import apply_overrides
from flows.pipeline_flow import PipelineOutcome, configured_pipeline_flow
from flows.recipes import RECIPES, Recipe

pytestmark = pytest.mark.integration

TINY = (
    "train.model.hidden_size=8",
    'train.curriculum=[{"num_epochs": 2, "chunk_frames": 100}]',
    "evaluate.num_bootstrap=100",
    "featurize.utterances_per_shard=8",
    "fan_out.num_workers=2",
    "workers.in_process=true",
)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return apply_overrides(RECIPES["demo"], TINY)


@pytest.fixture(scope="module")
def first(prefect_server: str, places, recipe: Recipe) -> PipelineOutcome:
    return configured_pipeline_flow(recipe, places.corpus, str(places.runs))


def stages(outcome: PipelineOutcome) -> dict[str, bool]:
    """Stage to whether it was found finished."""
    return {
        "features": outcome.features.skipped,
        **{name: model.skipped for name, model in outcome.models.items()},
        "evaluation": outcome.evaluation.skipped,
    }


def written(root: Path) -> dict[Path, int]:
    """Every file below, and when it was written."""
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def test_every_stage_runs_and_the_models_are_compared(first: PipelineOutcome) -> None:
    assert not any(stages(first).values())
    metrics = read_metrics(Location.of(first.evaluation.location))
    assert [model.model for model in metrics.models] == ["v2", "gru"]
    assert [model.run for model in metrics.models] == [m.location for m in first.models.values()]
    assert comparison_table(metrics).row_count == 2
    assert Path(first.evaluation.location, "report.html").is_file()


def test_a_model_says_on_what_it_was_trained(first: PipelineOutcome) -> None:
    said = trained_on(Location.of(first.models["v2"].location))
    assert re.match(
        r"the SNN v2 was trained on \d+ (seconds|minutes) of TIMIT, train \(\d+ speakers\)", said
    )


def test_artifacts_are_published(first: PipelineOutcome, prefect_server: str) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        newest = {"sort": "CREATED_DESC"}
        artifacts = client.request("POST", "/artifacts/filter", json=newest).json()
        flow_runs = client.request("POST", "/flow_runs/filter", json={}).json()
        task_runs = client.request("POST", "/task_runs/filter", json={}).json()
    (pipeline,) = (run for run in flow_runs if run["name"] == "demo v2 gru")
    # Other tests' runs are on this server too, and their artifacts have the same keys.
    began, ended = (datetime.fromisoformat(pipeline[f"{end}_time"]) for end in ("start", "end"))
    artifacts = [a for a in artifacts if began <= datetime.fromisoformat(a["created"]) <= ended]
    shard_runs = {run["name"] for run in task_runs if run["name"].startswith("shard-")}
    by_key = {artifact["key"]: artifact for artifact in artifacts if artifact["key"]}
    assert {"features", "features-subsets", "train-v2", "train-gru", "train-v2-epochs"} <= set(
        by_key
    )
    assert {"comparison", "summary", "evaluation"} <= set(by_key)
    assert {
        "plot-error-against-multiplications",
        "plot-multiplications-by-term",
        "plot-spike-density",
        "plot-learning-curves",
        "plot-spike-raster-v2",
        "train-v2-summary",
        "train-gru-summary",
        "overview",
    } <= set(by_key)
    for key, artifact in by_key.items():
        is_training = key.startswith("train-") and key.endswith("-summary")
        if key.startswith("plot-") or is_training or key == "overview":
            assert artifact["type"] == "markdown"
            assert "](data:image/png;base64," in artifact["data"]
            assert len(artifact["data"]) < 200_000
    page = by_key["overview"]["data"]
    stages = ("making features", "training v2", "training gru", "evaluating")
    assert re.findall(r"(?m)^\| (\w+(?: \w+)?) \| done \|", page) == list(stages)
    assert f"| v2 | made in this run | `{first.models['v2'].location}` |" in page
    sentence = headline(read_metrics(Location.of(first.evaluation.location))).sentence
    assert page.index(escape_markdown(sentence)) < page.index("## Stages"), "the result comes first"
    assert page.count("| 1/2 |") == 2
    assert f"{first.evaluation.location}/report.html" in page
    assert pipeline["state"]["message"] == sentence
    for key in ("featurize-progress", "train-v2-progress", "evaluate-test-progress"):
        assert by_key[key]["type"] == "progress"
        assert by_key[key]["data"] == 100.0
    made = by_key["featurize-progress"]["description"]
    assert re.fullmatch(
        r"(\d+)/\1 shards, \d+ utterances, 0\.\d\d hours of speech, 0 rejected", made
    )
    assert re.fullmatch(
        r"trained, dev error \d+\.\d% after epoch \d", by_key["train-v2-progress"]["description"]
    )
    epochs = json.loads(by_key["train-gru-epochs"]["data"])
    assert [row["epoch"] for row in epochs] == [1, 2]
    assert "data:image/png;base64," in by_key["summary"]["data"]
    names = {run["name"] for run in flow_runs}
    assert {"demo v2 gru", "train v2 2x8 seed 0", "evaluate 2 models on test"} <= names
    shards = list(Path(first.features.location).glob("shards/*.parquet"))
    assert len(shards) > 3
    assert shard_runs == {path.stem for path in shards}


def test_the_runs_carry_the_pipelines_log(first: PipelineOutcome, prefect_server: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=1200)
    messages, read = "", 0
    with get_client(sync_client=True) as client:
        # Other tests' runs are on this server too, and it gives 200 lines at a time.
        while True:
            page = client.request("POST", "/logs/filter", json={"limit": 200, "offset": read})
            lines = [log["message"] for log in page.json()]
            messages += " ".join(lines)
            read += len(lines)
            if not lines:
                break
    assert "epoch" in messages
    assert first.evaluation.location in messages


def test_again_nothing_is_done(
    first: PipelineOutcome, prefect_server: str, places, recipe: Recipe
) -> None:
    before = written(places.runs)
    again = configured_pipeline_flow(recipe, places.corpus, str(places.runs))
    assert again.did_nothing
    assert all(stages(again).values())
    assert again.models["v2"].location == first.models["v2"].location
    assert written(places.runs) == before


def test_a_deleted_training_alone_is_done_again(
    first: PipelineOutcome, prefect_server: str, places, recipe: Recipe
) -> None:
    lost = Path(first.models["gru"].location)
    before = {p: t for p, t in written(places.runs).items() if lost not in p.parents}
    shutil.rmtree(lost)
    again = configured_pipeline_flow(recipe, places.corpus, str(places.runs))
    done = stages(again)
    assert done.pop("gru") is False
    assert all(done.values())
    assert (lost / "manifest.json").is_file()
    after = {p: t for p, t in written(places.runs).items() if lost not in p.parents}
    assert after == before


def test_the_command_prints_one_object_and_finds_all_done(
    first: PipelineOutcome, prefect_server: str, places
) -> None:
    arguments = ["--recipe", "demo", "--corpus", places.corpus, "--runs", str(places.runs)]
    settings = [word for assignment in TINY for word in ("--set", assignment)]
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "pipeline", "--json", *arguments, *settings],
        capture_output=True,
        text=True,
        env={**os.environ, "PREFECT_API_URL": prefect_server},
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["did_nothing"] is True
    assert result["evaluation"]["location"] == first.evaluation.location
    assert [model["model"] for model in result["metrics"]["models"]] == ["v2", "gru"]
    assert "already" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_ends_on_the_table(
    first: PipelineOutcome,
    prefect_server: str,
    places,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    monkeypatch.setenv("COLUMNS", "80")
    models = [word for m in first.models.values() for word in ("--model", m.location)]
    arguments = ["--features", first.features.location, "--runs", str(places.runs)]
    settings = ["--set", "evaluate.num_bootstrap=100"]
    assert run(["evaluate", "--recipe", "demo", *models, *arguments, *settings]) == 0
    shown = capfd.readouterr().out
    assert "phone" in shown
    assert "multiplications than a GRU" in shown
    assert f"report: {first.evaluation.location}/report.html" in shown
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown


@pytest.mark.parametrize("with_words", [False, True])
def test_the_widest_table_fits_80_columns_uncut(first: PipelineOutcome, with_words: bool) -> None:
    metrics = read_metrics(Location.of(first.evaluation.location))
    narrow = metrics.models[0]
    if with_words:
        rates = narrow.error_rates.model_copy(update={"wer": narrow.error_rates.per})
        narrow = narrow.model_copy(update={"error_rates": rates})
    counts = narrow.multiplications_per_frame
    wide = narrow.model_copy(
        update={
            "label": "conventional",
            "multiplications_per_frame": counts.model_copy(
                update={"audited": 9_198_080.0, "as_published": 9_259_520.0}
            ),
            "saving": narrow.saving.model_copy(update={"gru": 25.44}),
            "parameters": narrow.parameters.model_copy(update={"total": 12_924_738}),
        }
    )
    console = Console(width=80, file=io.StringIO())
    console.print(comparison_table(metrics.model_copy(update={"models": (wide,)})))
    shown = console.file.getvalue()
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown
    assert "conventional" in shown
    assert "9,198,080" in shown
    long = wide.model_copy(
        update={"label": "v2-encoder_threshold=2-threshold=1-density.weight=7.0"}
    )
    console = Console(width=80, file=io.StringIO())
    console.print(comparison_table(metrics.model_copy(update={"models": (long,)})))
    shown = console.file.getvalue()
    assert "9,198,080" in shown
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown
