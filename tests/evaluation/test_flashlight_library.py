"""Where flashlight-text has no release, its absence is one line."""

import importlib.util

import pytest

from evaluation.config import BeamConfig
from evaluation.decoding import CtcBeam
from evaluation.language_model import LanguageModel
from featurize.stage import Location, PipelineError


@pytest.mark.parametrize(
    "search",
    [lambda: CtcBeam(3, BeamConfig()), lambda: LanguageModel(Location.of("absent.arpa"))],
    ids=["beam", "words"],
)
def test_a_search_without_the_library_is_refused_in_one_line(search, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PipelineError, match="lacks: install with Python"):
        search()
