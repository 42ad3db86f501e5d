"""Which fields of a configuration name a result."""

from typing import Annotated

import pytest

from featurize.stage import InFingerprint, TypedConfig, fingerprint
from flows.recipes import RECIPES
from training.models.model_config import ModelConfig
from training.train_config import TrainConfig


class Part(TypedConfig):
    size: int = 1
    extra: int | None = None


class Whole(TypedConfig):
    part: Part = Part()
    parts: tuple[Part, ...] = ()
    threads: Annotated[int, InFingerprint.NEVER] = 1
    folder: Annotated[str | None, InFingerprint.EVEN_WHEN_OFF] = None


def test_what_is_off_or_only_says_how_names_nothing() -> None:
    assert Whole(threads=3).determining() == {"part": {"size": 1}, "folder": None}
    assert Whole(parts=(Part(extra=2), Part())).determining() == {
        "part": {"size": 1},
        "parts": [{"size": 1, "extra": 2}, {"size": 1}],
        "folder": None,
    }


def test_a_fingerprint_takes_what_determines() -> None:
    assert fingerprint({"config": Whole(threads=3)}) == fingerprint({"config": Whole()})
    assert fingerprint({"config": Whole(folder="a")}) != fingerprint({"config": Whole()})


def test_how_a_network_is_computed_does_not_name_it() -> None:
    plain, other = (
        TrainConfig(model=ModelConfig(**how))
        for how in ({}, {"backend": "reference", "recompute_frames": 30})
    )
    assert fingerprint({"config": plain}) == fingerprint({"config": other})


@pytest.mark.parametrize(
    ("recipe", "features", "alignment", "trainings"),
    [
        (
            "demo",
            "9dc4e05646ee8b98",
            None,
            (
                "1e4decec43a18fb4",
                "2b28c701cc9bd414",
            ),
        ),
        (
            "mini-librispeech",
            "f846e034d9c141f1",
            "a9b20076047eaa60",
            (
                "8e81c85bb828e4aa",
                "e6d76d566825a840",
                "e705fc0e1fca432c",
            ),
        ),
        (
            "librispeech-100h-paper",
            "a1c7e717e2bb9c2f",
            "23718ad658250107",
            (
                "82f1eec1061999a5",
                "4c4031775c7ee896",
                "391945e4e2d94494",
            ),
        ),
        (
            "timit-paper",
            "d874804056b4d19d",
            "23718ad658250107",
            (
                "82f1eec1061999a5",
                "4c4031775c7ee896",
                "391945e4e2d94494",
            ),
        ),
    ],
)
def test_results_made_by_earlier_versions_are_found(
    recipe: str, features: str, alignment: str | None, trainings: tuple[str, ...]
) -> None:
    """A new option is off by default and leaves these names as they are."""
    made = RECIPES[recipe]
    assert fingerprint({"c": made.featurize}) == features
    assert (made.align and fingerprint({"c": made.align})) == alignment
    assert tuple(fingerprint({"c": config}) for config in made.models[:3]) == trainings
