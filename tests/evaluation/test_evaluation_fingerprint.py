import pytest

from evaluation.config import EvaluateConfig, WordSearchConfig
from evaluation.evaluate import evaluation_fingerprint
from featurize.schema import FeaturizeManifest
from featurize.stage import read_manifest
from training.manifest import TrainManifest


@pytest.mark.parametrize("kind", ["language_model", "text", "lexicon", "features"])
def test_every_file_of_a_word_search_names_the_evaluation(
    write_features, write_model, tmp_path, kind
):
    file = tmp_path / "file.txt"
    file.write_text("A K\n")
    of_features = str(file) if kind == "features" else None
    features = read_manifest(write_features(lexicon=of_features), FeaturizeManifest)
    trained = [read_manifest(write_model("v2"), TrainManifest)]
    words = WordSearchConfig() if of_features else WordSearchConfig(**{kind: str(file)})
    config = EvaluateConfig(words=words)
    before = evaluation_fingerprint(config, trained, features)
    assert evaluation_fingerprint(config, trained, features) == before
    file.write_text("A T\n")
    assert evaluation_fingerprint(config, trained, features) != before


def test_a_lexicon_that_is_not_read_names_nothing(write_features, write_model, tmp_path):
    own, other = tmp_path / "own.txt", tmp_path / "other.txt"
    for file in (own, other):
        file.write_text("A K\n")
    features = read_manifest(write_features(lexicon=str(own)), FeaturizeManifest)
    trained = [read_manifest(write_model("v2"), TrainManifest)]
    config = EvaluateConfig(words=WordSearchConfig(lexicon=str(other)))
    without = EvaluateConfig()
    before = [evaluation_fingerprint(c, trained, features) for c in (config, without)]
    own.write_text("A T\n")
    assert [evaluation_fingerprint(c, trained, features) for c in (config, without)] == before
