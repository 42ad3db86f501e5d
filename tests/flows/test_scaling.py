"""Fits and projections by closed form, and the page that shows them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurize.stage import PipelineError
from flows.scaling.costs import (
    CORPORA,
    LIBRISPEECH,
    SHAPES,
    ClusterShape,
    Cost,
    Rates,
    SpeechCorpus,
    Workload,
    all_reduce_s,
    fit_cost,
    num_shards,
    parallel_efficiency,
    project,
    speakers_of_shard,
    step_efficiency,
)
from flows.scaling.limits import DRIVER_GIB, Pieces, find_limits
from flows.scaling.record import stage_seconds
from training.train_config import CurriculumStage


def line(fixed_s, per_unit_s):
    return Cost(fixed_s=fixed_s, per_unit_s=per_unit_s, worst_deviation=0.0)


RATES = Rates(
    scan_s_per_utterance=1e-4,
    shards=line(1.0, 4.0),
    shard_efficiency=0.8,
    gather_s_per_part=1e-5,
    task_run_s=0.01,
    estimate=line(2.0, 50.0),
    align=line(1.0, 8.0),
    epoch=line(0.0, 60.0),
    around_training_s=20.0,
    step=line(0.0, 0.05),
    num_parameters=1_000_000,
    index_s_per_utterance=1e-4,
    plan_s_per_utterance=1e-5,
    evaluate=line(10.0, 100.0),
)
WORK = Workload(
    utterances_per_shard=500,
    num_estimation_utterances=2000,
    curriculum=(
        CurriculumStage(num_epochs=2, chunk_frames=100),
        CurriculumStage(num_epochs=1, chunk_frames=None),
    ),
    batch_size=50,
    frame_shift_s=0.01,
    test_hours=5.0,
)
# A thousand hours of utterances of ten seconds.
CORPUS = SpeechCorpus(name="made up", hours=1000.0, num_utterances=360_000, num_speakers=1000)
SHAPE = ClusterShape(name="ten", num_nodes=5, cores_per_node=2, network_gbit_s=8.0)


@given(
    st.floats(0.01, 100),
    st.floats(0.01, 1000),
    st.lists(st.floats(0.01, 10), min_size=2, max_size=6, unique=True),
)
def test_times_on_a_line_give_the_line(fixed, slope, hours):
    if max(hours) < 1.5 * min(hours):
        hours = [*hours, 2.0 * max(hours)]
    found = fit_cost(hours, [fixed + slope * h for h in hours])
    assert found.at(1.0) == pytest.approx(fixed + slope, rel=1e-3)
    assert found.worst_deviation < 1e-3


def test_a_time_off_the_line_counts_by_its_share_of_the_time():
    # Through (1, 1), (2, 2) and (4, 4.4): relative distances say which line.
    found = fit_cost([1.0, 2.0, 4.0], [1.0, 2.0, 4.4])
    for fixed, slope in ((0.0, 1.0), (0.0, 1.1), (-0.1, 1.1), (0.1, 1.0)):
        other = line(fixed, slope)
        assert squares(found) <= squares(other) or fixed < 0
    assert 0.0 < found.worst_deviation < 0.1


def squares(cost):
    points = ((1.0, 1.0), (2.0, 2.0), (4.0, 4.4))
    return sum((cost.at(h) / s - 1.0) ** 2 for h, s in points)


def test_noise_makes_no_negative_cost():
    falling = fit_cost([1.0, 2.0], [2.0, 1.0])
    assert falling.per_unit_s == 0.0
    steep = fit_cost([1.0, 2.0], [1.0, 3.0])
    assert steep.fixed_s == 0.0
    assert steep.per_unit_s > 0.0
    with pytest.raises(PipelineError, match="two different amounts"):
        fit_cost([1.0, 1.0], [1.0, 2.0])


def test_efficiencies():
    assert parallel_efficiency(12.0, 4.0, 4) == pytest.approx(0.75)
    # A step without a fixed part is shared out for nothing; one of fixed parts alone not at all.
    assert step_efficiency(line(0.0, 0.05), 64, 16) == pytest.approx(1.0)
    assert step_efficiency(line(1.0, 0.0), 64, 16) == pytest.approx(1 / 16)
    # (1 + 64) / 64 over (1 + 4) / 4.
    assert step_efficiency(line(1.0, 1.0), 64, 16) == pytest.approx((65 / 64) / (5 / 4))


def test_a_ring_moves_twice_the_gradients_less_a_share():
    assert all_reduce_s(1_000_000, 1, 8.0) == 0.0
    # 2 x 3/4 x 4 MB at 1 GB/s.
    assert all_reduce_s(1_000_000, 4, 8.0) == pytest.approx(6e-3)


def test_speakers_of_a_shard():
    assert speakers_of_shard(1, 500) == pytest.approx(1.0)
    assert speakers_of_shard(1000, 1) == pytest.approx(1.0)
    # Two utterances, two speakers: one speaker half of the time.
    assert speakers_of_shard(2, 2) == pytest.approx(1.5)


def test_steps_of_a_curriculum():
    # 360 million frames; 50 x 100 a batch in two epochs, 50 x 1000 in one.
    assert WORK.num_steps(CORPUS) == pytest.approx(2 * 72_000 + 7_200)
    assert WORK.num_epochs == 3


def test_a_projection_by_hand():
    seconds = {
        (found.stage, found.part): found.seconds for found in project(RATES, WORK, CORPUS, SHAPE)
    }
    assert seconds["featurize", "scan, driver"] == pytest.approx(36.0)
    assert seconds["featurize", "shards, all cores"] == pytest.approx(1000 * 4 / (10 * 0.8))
    assert num_shards(WORK, CORPUS) == 720
    assert seconds["featurize", "Prefect, while shards are made"] == pytest.approx(7.2)
    gathered = 720 * speakers_of_shard(1000, 500) * 1e-5
    assert seconds["featurize", "gather, driver"] == pytest.approx(gathered)
    # 2000 utterances of ten seconds.
    assert seconds["align", "estimate, one process"] == pytest.approx(2 + 50 * 20_000 / 3600)
    assert seconds["align", "align and write, one process"] == pytest.approx(8000)
    # Ten workers, a step without a fixed part.
    assert seconds["train", "steps, a core a worker"] == pytest.approx(3 * 1000 * 60 / 10)
    reduced = (2 * 72_000 + 7_200) * 2 * 0.9 * 4e6 * 8 / 8e9
    assert seconds["train", "all-reduce, if nothing hides it"] == pytest.approx(reduced)
    assert seconds["train", "index and plans, every worker"] == pytest.approx(36 + 3 * 3.6)
    assert seconds["evaluate", "one process"] == pytest.approx(510)


def test_a_batch_bounds_the_workers_and_shards_the_makers():
    wide = ClusterShape(name="wide", num_nodes=100, cores_per_node=100, network_gbit_s=8.0)
    found = {(f.stage, f.part): f for f in project(RATES, WORK, CORPUS, wide)}
    assert "(50 workers" in found["train", "steps, a core a worker"].arithmetic
    assert "(720 workers" in found["featurize", "shards, all cores"].arithmetic


def test_parts_add_up_and_prefect_counts_where_it_is_longer():
    lines = project(RATES, WORK, CORPUS, SHAPE)
    totals = stage_seconds(lines)
    own = {f.part: f.seconds for f in lines if f.stage == "featurize"}
    beside = own.pop("Prefect, while shards are made")
    assert totals["featurize"] == pytest.approx(sum(own.values()))
    slow = RATES.model_copy(update={"task_run_s": 10.0})
    slower = stage_seconds(project(slow, WORK, CORPUS, SHAPE))
    made = own["shards, all cores"]
    assert slower["featurize"] == pytest.approx(sum(own.values()) - made + 1000 * beside)


def test_every_case_has_its_arithmetic():
    for corpus in CORPORA:
        for shape in SHAPES:
            lines = project(RATES, WORK, corpus, shape)
            assert [found.stage for found in lines] == sorted(
                (found.stage for found in lines),
                key=("featurize", "align", "train", "evaluate").index,
            )
            assert all(found.seconds > 0 for found in lines)
    assert LIBRISPEECH.utterance_s == pytest.approx(12.3, abs=0.05)


def test_bounds_are_where_the_costs_meet_them_nearest_first():
    pieces = Pieces(
        entry_bytes=1000, part_bytes=2000, index_bytes=500, manifest_bytes=400, row_group_size=8
    )
    limits = find_limits(RATES, WORK, pieces, CORPUS)
    assert [limit.hours for limit in limits] == sorted(limit.hours for limit in limits)
    hours = {limit.what.split(",")[0]: limit.hours for limit in limits}
    # 360 utterances an hour.
    assert hours["the plan's list of utterances"] == pytest.approx(DRIVER_GIB * 2**30 / 360_000)
    assert hours["aligning and writing"] == pytest.approx(86_400 / 8)
    # 0.72 shards an hour.
    assert hours["a Prefect task run for each shard"] == pytest.approx(86_400 / 0.0072)
    assert hours["scanning the corpus"] == pytest.approx(86_400 / 0.036)
    without = find_limits(RATES.model_copy(update={"task_run_s": None}), WORK, pieces, CORPUS)
    assert len(without) == len(limits) - 1
