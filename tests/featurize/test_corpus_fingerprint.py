import os
import shutil

import pytest

from featurize.featurize import plan_featurize
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.stage import Location

LIBRISPEECH = SplitsConfig(train=("train-synthetic",), dev=("dev-synthetic",))
TIMIT = SplitsConfig(train=("train",), dev=("dev",))


def _longer(file):
    file.write_bytes(file.read_bytes() + b" ")


def _later(file):
    # As many bytes as before; whole seconds of the time are what is compared.
    later = file.stat().st_mtime + 2
    os.utime(file, (later, later))


def _another_word(file):
    file.write_bytes(file.read_bytes().rstrip() + b" MORE\n")


def _no_first_speaker(file):
    lines = file.read_text().splitlines(True)
    at = next(number for number, line in enumerate(lines) if not line.startswith(";"))
    file.write_text("".join(lines[:at] + lines[at + 1 :]))


def _remove(file):
    file.unlink()


@pytest.mark.parametrize(
    ("layout", "labels", "pattern", "change"),
    [
        ("librispeech", "characters", "train-synthetic/**/*.flac", _longer),
        ("librispeech", "characters", "train-synthetic/**/*.flac", _later),
        ("librispeech", "characters", "train-synthetic/**/*.flac", _remove),
        ("librispeech", "characters", "dev-synthetic/**/*.trans.txt", _another_word),
        ("librispeech", "characters", "SPEAKERS.TXT", _no_first_speaker),
        ("librispeech", "alignment", "train-synthetic/**/*.PHN", _later),
        ("timit", "alignment", "TRAIN/**/*.WAV", _later),
        ("timit", "alignment", "TRAIN/**/*.PHN", _longer),
        ("timit", "alignment", "TRAIN/**/*.PHN", _remove),
        ("timit", "phones", "TRAIN/**/*.TXT", _another_word),
    ],
)
def test_whatever_is_read_of_a_corpus_names_the_features(
    synthetic_corpus, tmp_path, layout, labels, pattern, change
):
    shutil.copytree(synthetic_corpus / layout, tmp_path / layout)
    splits = TIMIT if layout == "timit" else LIBRISPEECH
    config = FeaturizeConfig(corpus=layout, labels=labels, splits=splits)

    def name():
        root, runs = Location.of(tmp_path / layout), Location.of(tmp_path / "runs")
        return plan_featurize(config, root, runs).fingerprint

    before = name()
    assert name() == before
    change(min((tmp_path / layout).glob(pattern)))
    assert name() != before
