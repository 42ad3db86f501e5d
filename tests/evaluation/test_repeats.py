import io
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from evaluation.claims import paper_claims, summary_lines
from evaluation.comparison import pareto_table, settings_table, summary_markdown
from evaluation.metrics import (
    ErrorRate,
    ErrorRates,
    EvaluationMetrics,
    ModelMetrics,
    MultiplicationCounts,
    ParameterCounts,
    RateDifference,
    Saving,
)
from evaluation.pareto import pareto_points
from evaluation.plots import Findings, draw_plots
from evaluation.repeats import setting_metrics, spread
from evaluation.report import render_report
from featurize.stage import read_manifest
from training.manifest import TrainManifest


def evaluation(*models, differences=()):
    return EvaluationMetrics(
        features="features",
        subsets=("test-mini",),
        label_kind="phones",
        primary_rate="per",
        models=models,
        settings=setting_metrics(models),
        differences=differences,
    )


def run(kind, value, *, setting=None, seed=0, cost=4e6):
    """One run whose GRU of the same size costs four million multiplications."""
    spiking = kind == "v2"
    saving = Saving(gru=4e6 / cost, lstm=5e6 / cost)
    return ModelMetrics(
        model=kind,
        label=f"{setting or kind}-seed={seed}",
        setting=setting or kind,
        seed=seed,
        run="runs/training",
        training_fingerprint="x",
        decoder="greedy",
        num_layers=2,
        hidden_size=550,
        num_bits=6 if spiking else None,
        num_utterances=100,
        num_frames=360_000,
        frame_shift_s=0.01,
        error_rates=ErrorRates(per=ErrorRate(value=value, low=value, high=value)),
        parameters=ParameterCounts(total=10, recurrent_layers=9),
        spike_density=(0.2, 0.1, 0.15) if spiking else (),
        multiplications_per_frame=MultiplicationCounts(
            audited=cost,
            as_published=cost,
            terms={"feed_forward_1": cost, "elementwise": 4000.0},
            audited_closed_form=cost,
        ),
        additions_per_frame=cost,
        saving=saving,
        saving_as_published=saving,
        training_seconds=60.0,
        num_epochs=4,
    )


@pytest.fixture
def seeded():
    return evaluation(
        run("v2", 0.20, seed=0, cost=400_000.0),
        run("v2", 0.23, seed=1, cost=500_000.0),
        run("lstm", 0.19, seed=0),
        run("lstm", 0.19, seed=1),
        run("gru", 0.18),
        differences=(
            RateDifference(
                model="v2", compared_with="lstm", rate="per", value=0.025, low=0.02, high=0.03
            ),
        ),
    )


def test_mean_and_sample_deviation():
    found = spread([0.1, 0.2, 0.6])
    assert found.mean == pytest.approx(0.3)
    assert found.deviation == pytest.approx(math.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert spread([0.4]).deviation is None


def test_a_setting_is_its_seeds(seeded):
    v2, lstm, gru = seeded.settings
    assert (v2.setting, v2.seeds, v2.labels) == ("v2", (0, 1), ("v2-seed=0", "v2-seed=1"))
    assert v2.per.mean == pytest.approx(0.215)
    assert v2.per.deviation == pytest.approx(0.03 / math.sqrt(2))
    assert v2.audited.mean == 450_000.0
    assert v2.saving_gru.mean == pytest.approx((10 + 8) / 2)
    assert v2.wer is None
    assert lstm.per.deviation == 0.0
    assert gru.per.deviation is None


def test_tables_show_mean_and_deviation(seeded):
    first, _, last = settings_table(seeded)
    assert first["Seeds"] == "2"
    assert first["PER"] == "21.50% ± 2.12"
    assert first["GRU/model"] == "9.00x ± 1.41"
    assert last["PER"] == "18.00%"
    text = summary_markdown(seeded)
    assert "Mean ± standard deviation over seeds" in text
    assert "### Every run" in text
    single = evaluation(run("v2", 0.2), run("gru", 0.1))
    assert settings_table(single) == pareto_table(single) == []
    assert "over seeds" not in summary_markdown(single)


def test_sentences_and_claims_are_about_the_mean(seeded):
    (line,) = (line for line in summary_lines(seeded) if "mean of" in line)
    assert line.startswith("The SNN v2 (mean of 2 seeds) needs 9.00 times fewer multiplications")
    claims = {claim.claim: claim for claim in paper_claims(seeded)}
    assert claims["multiplications, GRU over v2"].here == "9.00 as published, 9.00 audited"
    assert claims["v2 errs little more than an LSTM (points)"].verdict == "does not hold"


@pytest.fixture
def sweep():
    return evaluation(
        run("v2", 0.20, setting="v2-threshold=1", cost=500_000.0),
        run("v2", 0.21, setting="v2-threshold=3", cost=300_000.0),
        run("v2", 0.22, setting="v2-threshold=4", cost=350_000.0),
        run("v2", 0.30, setting="v2-threshold=9", cost=100_000.0),
        run("gru", 0.18),
    )


def test_the_front_is_what_no_setting_beats(sweep):
    on_front = {p.setting.setting: p.is_on_front for p in pareto_points(sweep)}
    assert on_front == {
        "v2-threshold=9": True,
        "v2-threshold=3": True,
        "v2-threshold=4": False,
        "v2-threshold=1": True,
        "gru": True,
    }
    assert [row["Setting"] for row in pareto_table(sweep)] == list(on_front)
    assert [row["Beaten by no other"] for row in pareto_table(sweep)][2] == ""


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=8))
def test_every_setting_is_on_the_front_or_beaten_by_one_that_is(plane):
    models = [
        run("v2", error / 10, setting=f"v2-{number}", cost=1000.0 * cost)
        for number, (cost, error) in enumerate(plane)
    ]
    points = pareto_points(evaluation(*models))
    front = [(p.multiplications, p.error) for p in points if p.is_on_front]
    assert front
    for point in points:
        here = (point.multiplications, point.error)
        beaten = any(f[0] <= here[0] and f[1] <= here[1] and f != here for f in front)
        assert beaten != point.is_on_front


def test_a_sweep_is_drawn(sweep, write_model):
    trained = read_manifest(write_model("v2"), TrainManifest)
    plots = draw_plots(Findings(sweep, {model.label: trained for model in sweep.models}))
    (front,) = (plot for plot in plots if plot.name == "pareto_front")
    assert imread(io.BytesIO(front.png)).shape[2] in (3, 4)
    assert "from the cheapest: v2-threshold=9 30.0% at 100 k; v2-threshold=3" in front.alt
    assert "v2-threshold=4" not in front.alt


def test_the_report_has_the_tables_that_apply(seeded, sweep, write_model):
    training = read_manifest(write_model("v2"), TrainManifest)

    def headings(metrics):
        trainings = {model.label: training for model in metrics.models}
        return re.findall("<h2>(.*?)</h2>", render_report(metrics, (), {}, trainings, "2026-11-25"))

    assert "Over seeds" in headings(seeded)
    assert "Settings" in headings(sweep)
    single = evaluation(run("v2", 0.2), run("gru", 0.1))
    assert not {"Over seeds", "Settings"} & set(headings(single))
