"""The front from runs whose errors are written by hand."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from evaluation import front_plot
from evaluation.front import (
    FrontPoint,
    ScoredRun,
    best_dense_within,
    cheapest_dense_as_good,
    check_same_utterances,
    interval,
)
from evaluation.front_page import Missing, front_markdown, front_rates
from evaluation.front_plot import crop, draw_front
from evaluation.front_table import front_csv
from evaluation.metrics import (
    ErrorRates,
    ModelMetrics,
    MultiplicationCounts,
    ParameterCounts,
    Saving,
    WorkloadMetrics,
)
from evaluation.pareto import undominated
from featurize.stage import PipelineError
from training.manifest import TrainManifest
from training.models.model_config import ModelConfig
from training.train_config import TrainConfig

LENGTHS = np.full(40, 50)
SPEAKERS = tuple(f"speaker-{number % 4}" for number in range(40))


def scored(
    errors, cost_per_frame, frame_shift_s=0.01, density=(), words=None, speakers=SPEAKERS, seed=0
):
    """A run with so many errors on each of 40 utterances of 50 phones."""
    metrics = ModelMetrics(
        model="gru",
        label="gru",
        run="/runs/training/one",
        training_fingerprint="one",
        decoder="viterbi",
        num_layers=2,
        hidden_size=10,
        num_bits=None,
        num_utterances=40,
        num_frames=1000,
        frame_shift_s=frame_shift_s,
        error_rates=ErrorRates(),
        parameters=ParameterCounts(total=1234, recurrent_layers=1000),
        spike_density=density,
        multiplications_per_frame=MultiplicationCounts(
            audited=cost_per_frame,
            as_published=cost_per_frame,
            terms={},
            audited_closed_form=cost_per_frame,
        ),
        additions_per_frame=0.0,
        workload=WorkloadMetrics(
            multiplications_per_s=cost_per_frame / frame_shift_s,
            additions_per_s=2e6,
            weight_bytes_per_s=3e6,
            footprint_bytes=4_500_000,
            connection_sparsity=0.25,
            activation_sparsity=0.9,
            effective_macs=5e3,
            effective_acs=0.0,
            dense_operations=6e4,
            execution_rate_hz=1 / frame_shift_s,
            look_ahead_ms=30.0,
        ),
        saving=Saving(gru=1.0, lstm=1.0),
        saving_as_published=Saving(gru=1.0, lstm=1.0),
        training_seconds=1.0,
        num_epochs=1,
    )
    trained = TrainManifest.model_construct(
        config=TrainConfig(
            model=ModelConfig(model="gru"), objective="frame", target_delay=3, seed=seed
        )
    )
    counts = {"per": np.broadcast_to(np.asarray(errors), (40,)).copy()}
    lengths = {"per": LENGTHS}
    if words is not None:
        counts["wer"] = np.full(40, words)
        lengths["wer"] = np.full(40, 12)
    utterances = tuple(f"utterance-{number:02d}" for number in range(40))
    return ScoredRun(metrics, trained, utterances, speakers, counts, lengths)


def point(name, *runs, is_dense=True, family=None):
    return FrontPoint(name, family or name.split("-")[0], 5.0, is_dense, "size, 2 trials", runs)


def test_costs_are_by_the_second_whatever_the_frame():
    fine, coarse = scored(20, 500.0), scored(20, 1500.0, frame_shift_s=0.03)
    assert fine.multiplications_per_s == pytest.approx(coarse.multiplications_per_s)
    assert coarse.look_ahead_s == pytest.approx(0.09)


def test_seeds_count_by_their_mean():
    two = point("gru-a", scored(20, 400.0), scored(10, 600.0))
    assert two.multiplications_per_s == pytest.approx(50_000)
    assert two.rate("per") == pytest.approx(0.3)
    assert two.deviation("per") == pytest.approx(0.2 / np.sqrt(2))
    assert point("gru-b", scored(20, 400.0)).deviation("per") is None


def test_intervals_know_that_a_speakers_utterances_resemble_one_another():
    # all errors lie with one speaker of four: utterances alone make that look surer than it is
    errors = [40 if speaker == "speaker-0" else 0 for speaker in SPEAKERS]
    found = interval(point("gru-a", scored(errors, 1.0)), "per")
    assert found.by_utterance.value == found.by_speaker.value == pytest.approx(0.2)
    assert found.by_speaker.high - found.by_speaker.low > (
        1.5 * (found.by_utterance.high - found.by_utterance.low)
    )
    assert (found.by_speaker.low, found.by_speaker.high) == (0.0, pytest.approx(0.6))


def test_a_difference_is_paired():
    rng = np.random.default_rng(0)
    errors = rng.integers(5, 30, 40)
    better, worse = point("v3-a", scored(errors, 1.0)), point("gru-a", scored(errors + 1, 1.0))
    found = interval(better, "per", worse).by_utterance
    # one error more on each utterance of 50 phones: the same whichever utterances are drawn
    assert (found.value, found.low, found.high) == pytest.approx((-0.02, -0.02, -0.02))


def test_the_best_dense_model_may_cost_a_tenth_more_and_have_any_frame():
    sparse = point("v3-a", scored(15, 500.0, density=(0.5, 0.1, 0.1)), is_dense=False)
    points = [
        sparse,
        point("gru-small", scored(25, 300.0)),
        point("gru-coarse", scored(20, 1640.0, frame_shift_s=0.03)),
        point("gru-large", scored(10, 560.0)),
    ]
    cost = sparse.multiplications_per_s
    assert best_dense_within(points, cost, "per").name == "gru-coarse"
    assert best_dense_within(points, 1000.0, "per") is None
    assert cheapest_dense_as_good(points, sparse.rate("per"), "per").name == "gru-large"
    assert cheapest_dense_as_good(points, 0.1, "per") is None
    front = undominated(points, lambda p: p.place("per"))
    assert [p.name for p in front] == ["gru-small", "v3-a", "gru-large"]


def test_other_utterances_are_refused():
    other = scored(20, 1.0)
    moved = ScoredRun(
        other.metrics,
        other.trained,
        ("elsewhere", *other.utterances[1:]),
        other.speakers,
        other.errors,
        other.lengths,
    )
    with pytest.raises(PipelineError, match="other utterances"):
        check_same_utterances([point("gru-a", other), point("gru-b", moved)])


def test_references_may_differ_by_a_pronunciation():
    """20 errors of 50 phones and of 51, of each of 40 utterances, and once of 100."""
    first, longer = scored(20, 1.0), scored(20, 1.0)
    by_one = replace(longer, lengths={"per": LENGTHS + (np.arange(40) == 3)})
    one, other = point("gru-a", first), point("gru-b", by_one)
    check_same_utterances([one, other])
    difference = interval(one, "per", other).by_utterance.value
    assert difference == pytest.approx(one.rate("per") - other.rate("per"))
    assert difference == pytest.approx(800 / 2000 - 800 / 2001)
    assert "References have 2,000 to 2,001 symbols" in front_markdown([one, other], [], [])
    assert "References have" not in front_markdown([one], [], [])
    twice = point("gru-c", replace(longer, lengths={"per": 2 * LENGTHS}))
    with pytest.raises(PipelineError, match="other utterances"):
        check_same_utterances([one, twice])


def test_the_page_says_who_leads_what_is_missing_and_what_is_of_one_seed():
    points = [
        point(
            "v3-10ms-5M",
            *(scored(15 + s, 500.0, density=(0.5, 0.1, 0.1), words=5) for s in (0, 1)),
            is_dense=False,
        ),
        point("gru-30ms-5M", *(scored(20 + s, 1500.0, 0.03, words=6) for s in (0, 1))),
        point("lstm-10ms-25M", scored(14, 2500.0, words=4)),
    ]
    page = front_markdown(points, [Missing("v2-10ms-5M", (0, 2))], ["front_per.png"])
    assert "v3-10ms-5M (50 k/s, 31.0%)" in page
    assert "partial:** 2 trainings of 1 entries" in page
    assert "- Seeds 0, 2 of: v2-10ms-5M." in page
    assert "Of an entry with one seed nothing is claimed; several have v3-10ms-5M, gru-30" in page
    (lead,) = [line for line in page.splitlines() if line.startswith("| v3") and "-10.00" in line]
    assert "below gru-30ms-5M" in lead
    assert "lstm-10ms-25M, 250 k: 5.00x" in lead
    assert "size, 2 trials (1 entries)" in page
    assert front_rates(points) == ("per", "wer")
    measures = "| gru-30ms-5M | 4.50 MB | 90.0% | 25.0% | 5 k | 0 | 60 k | 33 | 3.0 MB | 2 M |"
    assert measures in page


def test_what_has_no_teacher_is_held_against_what_has_none():
    rng = np.random.default_rng(2)
    of_gru, of_v3 = rng.integers(10, 30, (2, 40))
    gru = point("gru-a", scored(of_gru, 500.0))
    taught = replace(point("gru-taught-a", scored(of_gru - 5, 500.0)), aids=frozenset({"teacher"}))
    v3 = point("v3-a", scored(of_v3, 500.0, density=(0.1,)), is_dense=False)
    pupil = replace(v3, name="v3-taught-a", aids=frozenset({"teacher"}))
    pruned = replace(v3, name="v3-pruned-a", aids=frozenset({"pruning"}))
    rows = front_markdown([gru, taught, v3, pupil, pruned], [], []).splitlines()
    assert any(row.startswith("| v3-a") and "| gru-a, " in row for row in rows)
    assert any(row.startswith("| v3-taught-a") and "| gru-taught-a, " in row for row in rows)
    assert any(row.startswith("| v3-pruned-a") and "| gru-a, " in row for row in rows)


def test_what_learnt_from_little_speech_is_not_held_against_what_learnt_from_more():
    rng = np.random.default_rng(4)
    of_gru, of_v3 = rng.integers(10, 30, (2, 40))
    little, more = frozenset({"a"}), frozenset({"a", "b"})
    gru = replace(point("gru-a", scored(of_gru, 500.0)), train_subsets=little)
    rich = replace(point("gru-ab", scored(of_gru - 5, 500.0)), train_subsets=more)
    v3 = point("v3-a", scored(of_v3, 500.0, density=(0.1,)), is_dense=False)
    spiking = [
        replace(v3, name=name, train_subsets=subsets)
        for name, subsets in (("v3-a", little), ("v3-ab", more))
    ]
    rows = front_markdown([gru, rich, *spiking], [], []).splitlines()
    assert any(row.startswith("| v3-a |") and "| gru-a, " in row for row in rows)
    assert any(row.startswith("| v3-ab |") and "| gru-ab, " in row for row in rows)


def test_the_table_for_programs_has_a_row_of_each_seed():
    two = point("gru-a", scored(20, 400.0, seed=0), scored(10, 600.0, seed=1))
    v3 = point("v3-a", scored(5, 500.0, density=(0.1, 0.25)), is_dense=False)
    rows = list(csv.DictReader(front_csv([two, v3]).splitlines()))
    assert [(row["entry"], row["seed"], row["per"]) for row in rows] == [
        ("gru-a", "0", "0.4"),
        ("gru-a", "1", "0.2"),
        ("v3-a", "0", "0.1"),
    ]
    assert [row["multiplications_per_s"] for row in rows] == ["40000", "60000", "50000"]
    assert [row["densities"] for row in rows] == ["", "", "0.1000 0.2500"]


def test_a_variant_is_held_against_its_original_and_not_drawn():
    rng = np.random.default_rng(3)
    errors = rng.integers(10, 30, 40)
    runs = [scored(errors + n, 500.0, density=(0.1,), seed=n) for n in (0, 3)]
    whole = point("v3-a", *runs, is_dense=False)
    bare = point("v3-no-leak-a", scored(errors + 5, 500.0, density=(0.1,)), is_dense=False)
    bare = replace(bare, family="v3-no-leak", variant_of="v3-a")
    page = front_markdown([whole, bare], [], [])
    (row,) = [line for line in page.splitlines() if "| v3-a, " in line]
    # five errors more on 50 phones than the first seed alone
    assert row.startswith("| v3-no-leak-a | 1 |")
    assert "+10.00 (+10.00 to +10.00)" in row
    assert "no-leak" not in draw_front([whole, bare], "per").alt
    # of another seed it is held against that one
    other = replace(bare, runs=(scored(errors + 5, 500.0, density=(0.1,), seed=3),))
    assert "+4.00 (+4.00 to +4.00)" in front_markdown([whole, other], [], [])
    stranger = replace(bare, runs=(scored(errors + 5, 500.0, density=(0.1,), seed=9),))
    assert "| v3-a, of other seeds alone |" in front_markdown([whole, stranger], [], [])
    assert "Parts left out" not in front_markdown([bare], [], [])


def test_an_undecided_difference_is_not_called_a_lead():
    rng = np.random.default_rng(1)
    points = [
        point("v3-a", scored(rng.integers(10, 30, 40), 500.0, density=(0.1,)), is_dense=False),
        point("gru-a", scored(rng.integers(10, 30, 40), 500.0)),
    ]
    page = front_markdown(points, [], [])
    assert "undecided" in page
    assert "partial" not in page


def test_the_plot_says_what_it_shows():
    points = [
        point("v3-a", scored(15, 500.0, density=(0.5,)), is_dense=False),
        point("gru-a", scored(25, 300.0)),
        point("egru-a", scored(22, 300.0), is_dense=False),
    ]
    plot = draw_front(points, "per")
    assert plot.name == "front_per"
    assert "v3: 30.0% at 50 k" in plot.alt
    assert "egru: 44.0% at 30 k" in plot.alt
    assert plot.png.startswith(b"\x89PNG")


def test_what_is_far_above_is_said_and_not_drawn():
    near = point("v3-a", scored(np.full(40, 10), 500.0, density=(0.1,)), is_dense=False)
    far = point("adlif-a", scored(np.full(40, 26), 500.0, density=(0.1,)), is_dense=False)
    dense = point("gru-a", scored(np.full(40, 20), 500.0))
    assert crop([near, dense], "per") == (None, "")
    assert crop([near, far], "per") == (None, "")
    top, said = crop([near, far, dense], "per")
    assert top == 1.25 * dense.rate("per")
    assert said == "above the picture: adlif 52.0% at 50 k"
    further = [
        replace(far, name=f"adlif-{n}", runs=(scored(np.full(40, n), 500.0, density=(0.1,)),))
        for n in range(27, 47)
    ]
    _, said = crop([near, far, *further, dense], "per")
    assert said == "above the picture: adlif 52.0% to 92.0%"


def test_long_words_in_the_picture_leave_the_axes_their_room(monkeypatch):
    dense = point("gru-a", scored(np.full(40, 10), 500.0))
    many = [
        point(f"{family}{n}-a", scored(np.full(40, 26 + n), 500.0, density=(0.1,)), is_dense=False)
        for n, family in enumerate(["conventional"] * 9)
    ]
    widths = []

    def measured(figure, *_):
        figure.canvas.draw()
        widths.append(figure.axes[0].get_position().width)

    monkeypatch.setattr(front_plot, "finish", measured)
    draw_front([dense], "per")
    draw_front([dense, *many], "per")
    assert widths[1] > 0.95 * widths[0]
