from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluation.transcripts import read_transcripts
from featurize.copies import recorded_hours
from featurize.featurize import featurize
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.schema import FeaturizeManifest
from featurize.shards import iter_rows
from featurize.speed import play, recorded_samples
from featurize.stage import FanOut, Location, read_manifest

RATE = 16000


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_faster_tone_is_shorter_and_higher(factor):
    time_s = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * 440 * time_s).astype(np.float32)
    played = play(tone, factor)
    assert len(played) == int(np.ceil(RATE / factor))
    spectrum = np.abs(np.fft.rfft(played * np.hanning(len(played))))
    peak_hz = spectrum.argmax() * RATE / len(played)
    assert peak_hz == pytest.approx(440 * factor, abs=1.5)


def test_as_recorded_nothing_is_touched():
    samples = np.ones(5, np.float32)
    assert play(samples, 1.0) is samples
    assert recorded_samples(np.array([1, 2]), 1.0).tolist() == [1, 2]


def test_a_place_in_the_copy_is_found_in_the_recording():
    click = np.zeros(RATE, np.float32)
    click[8000] = 1.0
    copy = play(click, 0.8)
    assert recorded_samples(np.array([copy.argmax()]), 0.8).tolist() == [8000]


def corpus(root: Path) -> Location:
    for subset, speaker in (("train-tiny", "11"), ("dev-tiny", "21")):
        folder = root / subset / speaker / "1"
        folder.mkdir(parents=True)
        samples = 0.1 * np.random.default_rng(0).standard_normal(RATE)
        soundfile.write(folder / f"{speaker}-1-0000.flac", samples, RATE)
        (folder / f"{speaker}-1.trans.txt").write_text(f"{speaker}-1-0000 A CAT\n")
    (root / "SPEAKERS.TXT").write_text("11 | F | train-tiny | 1 | A\n21 | F | dev-tiny | 1 | B\n")
    return Location.of(root)


def test_training_utterances_alone_are_copied_under_ids_of_their_own(tmp_path):
    splits = SplitsConfig(train=("train-tiny",), dev=("dev-tiny",))
    root, runs = corpus(tmp_path / "LibriSpeech"), Location.of(tmp_path / "runs")

    def rows(**options):
        config = FeaturizeConfig(splits=splits, labels="phones", **options)
        location = featurize(config, root, runs, fan_out=FanOut(kind="sequential")).location
        manifest = read_manifest(location, FeaturizeManifest)
        found = iter_rows(location, manifest, ("train-tiny", "dev-tiny"))
        return location, manifest, {row.utterance_id: row for row in found}

    _, _, plain = rows()
    again, manifest, perturbed = rows(speed_factors=(0.9, 1.1))
    assert set(perturbed) == {"11-1-0000", "sp0.9-11-1-0000", "sp1.1-11-1-0000", "21-1-0000"}
    for name, row in plain.items():
        assert np.array_equal(perturbed[name].features, row.features)
    slow = perturbed["sp0.9-11-1-0000"]
    assert len(slow.features) == 1 + (int(np.ceil(RATE / 0.9)) - 400) // 160
    assert (slow.speaker_id, slow.text) == ("11", "A CAT")
    assert manifest.subsets["train-tiny"].num_utterances == 3
    assert manifest.subsets["train-tiny"].num_speakers == 1
    hours = [manifest.subsets["train-tiny"].hours]  # each utterance lasts a second
    assert recorded_hours(hours, manifest.config) == pytest.approx(1 / 3600, rel=1e-3)
    # copies say nothing new to a language model
    assert list(read_transcripts(again, manifest, ("train-tiny",))) == [("A", "CAT")]
    assert rows(speed_factors=(0.9,))[0].uri != again.uri


@pytest.mark.parametrize("factors", [(1.0,), (0.9, 0.9), (3.0,), (0.905,)])
def test_factors_that_make_no_sense_are_refused(factors):
    with pytest.raises(ValueError, match="speed_factors="):
        FeaturizeConfig(splits=SplitsConfig(train=("a",), dev=("b",)), speed_factors=factors)
