"""What a person reads in a form."""

from evaluation.config import EvaluateConfig
from featurize.featurize_config import FeaturizeConfig
from training.models.model_config import ModelConfig
from training.train_config import SpecAugmentConfig


def test_fields_and_models_have_titles_for_people() -> None:
    features = FeaturizeConfig.model_json_schema()["properties"]
    assert features["frame_shift_s"]["title"] == "Frame shift (s)"
    assert features["sample_rate_hz"]["title"] == "Sample rate (Hz)"
    assert features["seed"]["title"] == "Seed"
    assert ModelConfig.model_json_schema()["properties"]["num_layers"]["title"] == (
        "Number of layers"
    )
    assert SpecAugmentConfig.model_json_schema()["title"] == "Spec augment"
    assert EvaluateConfig.model_json_schema()["title"] == "Evaluate"
