"""Manifests whose parts do not fit each other are refused where they are read."""

import pytest
from pydantic import ValidationError

from featurize.schema import CmvnStatistics, LabelInventory


@pytest.mark.parametrize(
    "change",
    [
        {"std": (1.0,)},
        {"std": (1.0, 0.0)},
        {"std": (1.0, float("inf"))},
        {"mean": (0.0, float("nan"))},
        {"speaker_mean": {"1": (0.0, 0.0)}},
        {"speaker_mean": {"1": (0.0,)}, "speaker_std": {"1": (1.0,)}},
    ],
)
def test_statistics_fit_each_other(change):
    sound = {"mode": "global", "mean": (0.0, 0.0), "std": (1.0, 1.0)}
    CmvnStatistics(**sound).check_num_features(2)
    with pytest.raises(ValidationError):
        CmvnStatistics(**(sound | change))
    with pytest.raises(ValueError, match="of 2 features instead of 3"):
        CmvnStatistics(**sound).check_num_features(3)


@pytest.mark.parametrize("change", [{"scored_as": ("a",)}, {"word_boundary": 2}])
def test_inventories_fit_each_other(change):
    sound = {"kind": "phones", "symbols": ("a", "b"), "scored_as": ("a", None)}
    LabelInventory(**sound)
    with pytest.raises(ValidationError):
        LabelInventory(**(sound | change))
