import pytest

from evaluation.engine_of_run import front_end_of
from featurize.schema import IMPORT_STAGE, FeaturizeManifest
from featurize.stage import PipelineError, read_manifest
from featurize.stage.manifest import write_sealed
from training.manifest import TrainManifest


def test_features_of_kaldi_say_what_a_model_of_them_lacks(write_features, write_model):
    location = write_features()
    made = read_manifest(location, FeaturizeManifest)
    write_sealed(location, made.model_copy(update={"stage": IMPORT_STAGE}))
    model = read_manifest(write_model("v2"), TrainManifest)
    with pytest.raises(PipelineError, match=r"model m was trained on features that Kaldi made"):
        front_end_of(model, "m", location.uri)
