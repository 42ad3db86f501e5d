import json

import pytest

from featurize.featurize import featurize
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.stage import Location
from flows.align_compare_command import timed_phones
from flows.cli import run

PHN = "0 1600 h#\n1600 3200 aa\n3200 4000 h#\n"
GRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 0.25
tiers? <exists>
size = 1
item []:
    item [1]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 0.25
        intervals: size = 2
        intervals [1]:
            xmin = 0.115
            xmax = 0.2
            text = "AA1"
        intervals [2]:
            xmin = 0.2
            xmax = 0.25
            text = ""
"""


@pytest.fixture
def folders(tmp_path):
    """The truth, as TIMIT names it, and a TextGrid of the same sentence."""
    (tmp_path / "truth/DR1/FAKS0").mkdir(parents=True)
    (tmp_path / "truth/DR1/FAKS0/sx1.phn").write_text(PHN)
    (tmp_path / "grids/x").mkdir(parents=True)
    (tmp_path / "grids/x/FAKS0_SX1.TextGrid").write_text(GRID)
    return tmp_path


def test_textgrids_against_phn(folders, capfd):
    arguments = ["align", "compare", str(folders / "grids"), str(folders / "truth")]
    assert run([*arguments, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["utterances"] == {"both": 1, "first": 0, "second": 0}
    assert found["boundaries"] == {"matched": 2, "first": 0, "second": 0}
    assert found["beside_silence"]["offset_ms"] == pytest.approx(7.5)
    assert run(arguments) == 0
    assert "| beside silence | 2 | 7.5 ms |" in capfd.readouterr().out


def test_a_folder_of_neither_is_a_mistake(folders, capfd):
    empty = folders / "empty"
    empty.mkdir()
    assert run(["align", "compare", str(empty), str(folders / "grids")]) == 2
    assert "neither an aligned feature set nor TextGrids" in capfd.readouterr().err


@pytest.mark.parametrize(("stack", "stride"), [(1, 1), (3, 3)])
def test_targets_read_off_the_truth_lie_within_half_a_row_of_it(
    synthetic_corpus, tmp_path, stack, stride
):
    config = FeaturizeConfig(
        corpus="timit",
        splits=SplitsConfig(train=("train",), dev=("dev",), test=("test",)),
        labels="alignment",
        num_bins=24,
        stack=stack,
        stride=stride,
        max_reject_share=1.0,
    )
    corpus = Location.of(synthetic_corpus / "timit")
    made = featurize(config, corpus, Location.of(tmp_path)).location
    ours, truth = timed_phones(made, 16000), timed_phones(corpus, 16000)
    assert ours.keys() <= truth.keys()
    half_s = 0.01 * stride / 2
    same = [name for name in ours if ours[name].names == truth[name].names]
    assert len(same) > (0.9 if stack == 1 else 0.0) * len(ours)
    for name in same:
        assert abs(ours[name].ends_s[:-1] - truth[name].ends_s[:-1]).max() <= half_s + 1e-3
