"""The scaling benchmark on a corpus of a minute, in this process, and its page."""

import numpy as np
import pytest

from evaluation.config import EvaluateConfig
from featurize.config import FeaturizeConfig, SplitsConfig
from featurize.stage import Location, PipelineError
from flows.recipes import RECIPES
from flows.scaling.benchmark import bench_scaling
from flows.scaling.costs import Workload
from flows.scaling.footprint import (
    epoch_plan,
    made_up_index,
    read_share,
    speaker_part,
    traced_bytes,
)
from flows.scaling.parts import leading
from flows.scaling.process_memory import peak_mib, watched_peaks
from flows.scaling.record import scaling_page
from flows.scaling.result import ScaledStages, ScalingConfig
from flows.scaling.setup import pick_subsets, scaling_setup
from training.align.config import AlignConfig
from training.batch_plan import worker_slice
from training.models.model_config import ModelConfig
from training.train_config import CurriculumStage, TrainConfig

SPLITS = SplitsConfig(train=("train-synthetic",), dev=("dev-synthetic",), test=("test-synthetic",))
STAGES = ScaledStages(
    featurize=FeaturizeConfig(splits=SPLITS, labels="phones", utterances_per_shard=2),
    align=AlignConfig(num_gaussian_rounds=2, num_mixtures=1, num_estimation_utterances=8),
    train=TrainConfig(
        model=ModelConfig(model="v2", hidden_size=8, num_layers=1),
        objective="frame",
        curriculum=(CurriculumStage(num_epochs=1, chunk_frames=50),),
        batch_size=8,
    ),
    evaluate=EvaluateConfig(num_bootstrap=100, time_curve=False),
)
WORK = Workload(
    utterances_per_shard=512,
    num_estimation_utterances=2000,
    curriculum=STAGES.train.curriculum,
    batch_size=8,
    frame_shift_s=0.01,
)
CONFIG = ScalingConfig(
    factors=(1, 2),
    workers=(1,),
    num_epochs=2,
    num_passes=1,
    step_sequences=(1, 4),
    step_frames=20,
    num_planned=200,
    use_ray=False,
)


@pytest.mark.integration
def test_every_stage_is_measured_and_said(synthetic_corpus):
    corpus = Location.of(synthetic_corpus / "librispeech")
    result = bench_scaling(
        STAGES, WORK, corpus, CONFIG, corpus_name="a minute", task_run_time=lambda number: 0.01
    )
    stages = {row.stage for row in result.measurements}
    assert len(stages) == 5
    for stage in stages:
        rows = [row for row in result.measurements if row.stage == stage]
        assert len(rows) == 2
        assert all(row.seconds > 0 and row.driver_mib > 10 for row in rows)
        assert rows[1].hours >= rows[0].hours > 0
    assert result.rates.task_run_s == 0.01
    assert set(result.steps) == {1, 4}
    assert 0 < result.footprint.entry_bytes < 10_000
    page = scaling_page(result, ["x", "bench", "scaling"])
    for words in (
        "spikeline bench scaling",
        "a minute",
        "60,000 h on sixty-four-32",
        "breaks first",
    ):
        assert words in page
    assert result.limits[0].what in page


def test_peaks_are_of_the_stretch_they_are_asked_for():
    with watched_peaks() as large:
        kept = np.ones(80 * 2**17)
        del kept
    with watched_peaks() as small:
        pass
    assert large.own_mib - small.own_mib > 40
    assert small.worker_mib == 0.0
    assert peak_mib(2**22 + 1) == 0.0


def test_parts_keep_their_share_and_at_least_one():
    assert leading(range(8), 1, 8) == range(1)
    assert leading(range(8), 4, 8) == range(4)
    assert leading(range(3), 1, 8) == range(1)
    assert leading(range(8), 0, 8) == range(1)


def test_bytes_are_those_of_what_is_kept():
    assert traced_bytes(lambda: bytearray(10**6)) == pytest.approx(10**6, rel=0.01)
    few, many = speaker_part(1), speaker_part(100)
    # Two tuples of F boxed floats: 8 bytes of reference and 24 of number each.
    assert (many.num_bytes - few.num_bytes) / 99 == pytest.approx(64, rel=0.1)


def test_one_worker_reads_everything_and_many_their_own_sequences():
    index = made_up_index(64, 16, 4)
    assert len({(row.shard, row.row_group) for row in index}) == 16
    assert [row.shard for row in index] == [number // 16 for number in range(64)]
    plan = epoch_plan(index, 8, None, 64)
    assert read_share(index, plan, 1) == 1.0
    groups = [
        {
            (index[s.row].shard, index[s.row].row_group)
            for b in plan
            for s in b[worker_slice(8, r, 8)]
        }
        for r in range(8)
    ]
    assert read_share(index, plan, 8) == sum(len(own) for own in groups) / 8 / 16


def test_subsets_are_the_recipes_or_those_of_the_corpus(synthetic_corpus, tmp_path):
    recipe = RECIPES["librispeech-100h"]
    found = pick_subsets(recipe, Location.of(synthetic_corpus / "librispeech"))
    assert found == SPLITS
    for name in ("train-clean-100", "train-clean-360", "dev-clean", "test-clean"):
        (tmp_path / name).mkdir()
    assert pick_subsets(recipe, Location.of(tmp_path)) == recipe.featurize.splits
    (tmp_path / "dev-clean").rmdir()
    with pytest.raises(PipelineError, match="no subset for dev"):
        pick_subsets(recipe, Location.of(tmp_path))


def test_a_recipe_gives_its_stages_and_what_is_projected():
    setup = scaling_setup(RECIPES["librispeech-100h"], SPLITS, ["num_epochs=2"])
    assert setup.config.num_epochs == 2
    assert setup.stages.train.model.hidden_size == 550
    assert setup.stages.featurize.utterances_per_shard == 8
    assert setup.work.utterances_per_shard == 512
    assert setup.work.num_epochs == 24
    with pytest.raises(PipelineError, match="has no align stage"):
        scaling_setup(RECIPES["demo"], SPLITS, [])
    aligning = RECIPES["mini-librispeech-sweep"]
    with pytest.raises(PipelineError, match="no lstm; set model to one of v2, gru"):
        scaling_setup(aligning, SPLITS, ["model=lstm"])
