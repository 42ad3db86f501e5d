import pytest
from pydantic import ValidationError

from evaluation.config import EvaluateConfig, ViterbiConfig, WordSearchConfig


@pytest.mark.parametrize("config", [EvaluateConfig, ViterbiConfig, WordSearchConfig])
def test_every_field_is_described(config):
    assert all(field.description for field in config.model_fields.values())


@pytest.mark.parametrize(
    "values",
    [
        {"decoder": "magic"},
        {"num_bootstrap": 0},
        {"subsets": ("a", "a")},
        {"viterbi": {"smoothing": 0}},
        {"words": {"beam": 0}},
        {"words": {"text": "a", "language_model": "b"}},
        {"unknown": 1},
    ],
)
def test_bad_values_are_refused(values):
    with pytest.raises(ValidationError) as raised:
        EvaluateConfig.model_validate(values)
    assert next(iter(values)) in str(raised.value)
