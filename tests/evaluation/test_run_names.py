import pytest

from evaluation.run_names import name_runs
from featurize.stage import PipelineError, read_manifest
from training.manifest import TrainManifest
from training.train_config import CurriculumStage, DensityConfig


@pytest.fixture
def runs(write_model):
    """Training manifests that differ as asked."""
    plain = read_manifest(write_model("v2"), TrainManifest)
    count = iter(range(100))

    def make(kind="v2", *, seed=0, threshold=3, **changes):
        model = plain.config.model.model_copy(update={"model": kind, "threshold": threshold})
        config = plain.config.model_copy(update={"model": model, "seed": seed} | changes)
        return plain.model_copy(update={"config": config, "fingerprint": f"{next(count):06d}ff"})

    return make


def labels(*models):
    return [name.label for name in name_runs(models)]


def settings(*models):
    return [name.setting for name in name_runs(models)]


def test_kinds_alone_are_their_own_names(runs):
    assert labels(runs("v2"), runs("lstm", seed=5)) == ["v2", "lstm"]


def test_seeds_are_runs_of_one_setting(runs):
    models = [runs(seed=0), runs(seed=2), runs("gru", seed=2)]
    assert labels(*models) == ["v2-seed=0", "v2-seed=2", "gru"]
    assert settings(*models) == ["v2", "v2", "gru"]


def test_settings_are_named_by_what_differs(runs):
    models = [
        runs(threshold=5, seed=0),
        runs(threshold=5, seed=1),
        runs(threshold=0, density=DensityConfig(weight=0.5)),
    ]
    assert labels(*models) == [
        "v2-threshold=5-seed=0",
        "v2-threshold=5-seed=1",
        "v2-threshold=0-density.weight=0.5",
    ]
    assert settings(*models)[:2] == ["v2-threshold=5"] * 2


def test_settings_of_spikes_do_not_set_dense_models_apart(runs):
    models = [
        runs("gru", seed=0, density=DensityConfig(weight=0.5)),
        runs("gru", seed=1, threshold=7),
    ]
    assert labels(*models) == ["gru-seed=0", "gru-seed=1"]
    assert settings(*models) == ["gru", "gru"]


def test_what_no_single_value_tells_apart_is_named_by_fingerprint(runs):
    models = [runs(), runs(curriculum=(CurriculumStage(num_epochs=3),))]
    assert labels(*models) == settings(*models) == ["v2-000000", "v2-000001"]


def test_seeds_on_other_features_are_no_repetition(runs):
    elsewhere = runs(seed=1).model_copy(update={"upstream": {"features": "others"}})
    models = [runs(seed=1), runs(seed=2), elsewhere]
    assert labels(*models) == ["v2-000001-seed=1", "v2-000001-seed=2", "v2-000000"]
    assert settings(*models) == ["v2-000001", "v2-000001", "v2-000000"]


def test_one_seed_by_two_versions_of_the_stage_is_told_apart_too(runs):
    assert labels(runs(), runs()) == ["v2-seed=0-000000", "v2-seed=0-000001"]


def test_one_run_twice_is_refused(runs):
    run = runs()
    with pytest.raises(PipelineError, match="given twice"):
        name_runs([run, run])
