"""The examples in the docstrings of what others call first are run, and say what comes of them."""

import doctest
from importlib import import_module

import pytest

MODULES = (
    "featurize.fbank",
    "featurize.frames",
    "featurize.stage.locations",
    "featurize.stage.run",
    "featurize.stage.typed_config",
    "training.lif",
    "training.losses",
    "training.models.build",
    "training.models.counting",
    "training.quantizer",
    "evaluation.scoring",
    "flows.overrides",
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_hold(name: str) -> None:
    results = doctest.testmod(import_module(name))
    assert results.attempted > 0
    assert results.failed == 0
