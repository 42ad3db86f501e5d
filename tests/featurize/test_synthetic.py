"""The synthetic corpus: deterministic, learnable, honest in its phone times."""

import filecmp
import importlib.util
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from featurize.cmudict import read_cmudict
from featurize.corpora import grammar, synthetic
from featurize.corpora.grammar import draw_sentence, part_of, transcript
from featurize.corpora.scan import scan_corpus
from featurize.corpora.synthetic import MARKER_NAME, SyntheticConfig, synthesize_corpus
from featurize.corpora.synthetic_speakers import plan_speakers
from featurize.corpora.timit_speakers import CORE_TEST_SPEAKERS, DEV_SPEAKERS
from featurize.phones import CMUDICT_39, TIMIT_61, read_alignment
from featurize.stage import Location, PipelineError

SUBSETS = {
    "librispeech": ("train-synthetic", "dev-synthetic", "test-synthetic"),
    "timit": ("train", "dev", "test"),
}
RATE = 16_000
SHORT = SyntheticConfig(minutes=0.2, num_speakers=10)


def vocabulary():
    """Every word a sentence may use, upper case."""
    phrases = [text for group in grammar._PHRASES.values() for text in group]
    literal = " ".join((*grammar._SENTENCES, *phrases))
    words = set(grammar._SLOT.sub(" ", literal).replace(",", " ").split())
    for group in grammar._CLASSES.values():
        words.update(word for entry in group for word in entry.split())
    return {word.upper() for word in words}


def read_samples(path):
    return soundfile.read(path, dtype="int16")[0]


def listed(corpus: Path, layout):
    listing = scan_corpus(layout, Location.of(corpus / layout), SUBSETS[layout])
    assert listing.rejects == ()
    return listing


def test_the_vocabulary_is_in_cmudict_and_uses_all_its_phones():
    words = vocabulary()
    assert 300 <= len(words) <= 600
    pronunciations = read_cmudict()
    assert [word for word in words if word.lower() not in pronunciations] == []
    used = {p.rstrip("012") for word in words for p in pronunciations[word.lower()][0]}
    assert used == set(CMUDICT_39)


@settings(max_examples=50)
@given(st.integers(0, 2**31), st.sampled_from(["train", "dev", "test"]))
def test_sentences_belong_to_their_part_and_use_the_vocabulary(seed, part):
    sentence = draw_sentence(np.random.default_rng(seed), part)
    assert part_of(sentence) == part
    assert set(transcript(sentence).split()) <= vocabulary()
    assert sentence == draw_sentence(np.random.default_rng(seed), part)


@pytest.mark.parametrize("num_speakers", [10, 24, 40, 240])
def test_speakers_are_distinct_and_the_parts_have_both_sexes(num_speakers):
    speakers = plan_speakers(num_speakers, seed=3)
    assert len({(s.voice, s.rate_wpm, s.pitch) for s in speakers}) == num_speakers
    assert len({s.timit_id for s in speakers}) == num_speakers
    assert len({s.librispeech_id for s in speakers}) == num_speakers
    parts = Counter(s.part for s in speakers)
    assert parts["dev"] == parts["test"] == num_speakers // 10
    for speaker in speakers:
        assert (speaker.timit_id in DEV_SPEAKERS) == (speaker.part == "dev")
        assert (speaker.timit_id in CORE_TEST_SPEAKERS) == (speaker.part == "test")
    if num_speakers >= 20:
        assert {(s.part, s.sex) for s in speakers} == {
            (part, sex) for part in ("train", "dev", "test") for sex in "MF"
        }


@pytest.mark.parametrize("layout", ["librispeech", "timit"])
def test_each_layout_is_read_back_whole(synthetic_corpus, layout):
    entries = listed(synthetic_corpus, layout).entries
    seconds = sum(
        soundfile.info(synthetic_corpus / layout / entry.audio).duration for entry in entries
    )
    assert 80 < seconds < 160
    subset_speakers = {
        subset: {entry.speaker_id for entry in entries if entry.subset == subset}
        for subset in SUBSETS[layout]
    }
    assert [len(subset_speakers[subset]) for subset in SUBSETS[layout]] == [16, 2, 2]
    assert len(set.union(*subset_speakers.values())) == 20
    texts = {subset: {e.text for e in entries if e.subset == subset} for subset in SUBSETS[layout]}
    assert sum(map(len, texts.values())) == len(set.union(*texts.values()))


def test_both_layouts_hold_the_same_speech(synthetic_corpus):
    def speech(layout):
        return sorted(
            (
                entry.text,
                soundfile.read(synthetic_corpus / layout / entry.audio, dtype="int16")[0].tobytes(),
            )
            for entry in listed(synthetic_corpus, layout).entries
        )

    assert speech("librispeech") == speech("timit")


def test_alignments_cover_the_audio_and_silence_is_silent(synthetic_corpus):
    """Silences and closures are at the noise floor, vowels far above it: the times are right."""
    vowels = {"aa", "ae", "ah", "ao", "aw", "ay", "eh", "er", "ey", "iy", "ow", "oy", "uw"}
    silences = {"h#", "pau", "pcl", "tcl", "kcl"}
    loud, quiet, seen = [], [], Counter()
    for entry in listed(synthetic_corpus, "librispeech").entries:
        root = synthetic_corpus / "librispeech"
        samples, rate = soundfile.read(root / entry.audio)
        assert rate == RATE
        segments = read_alignment(Location.of(root / entry.alignment))
        assert segments[0].start_sample == 0
        assert segments[-1].end_sample == len(samples)
        assert {segments[0].phone, segments[-1].phone} == {"h#"}
        for before, after in pairwise(segments):
            assert before.end_sample == after.start_sample
        seen.update(segment.phone for segment in segments)
        for start, end, phone in segments:
            # Half a millisecond of the resampler's ringing lies on both sides of an onset.
            level = np.sqrt(np.mean(samples[start + 8 : end - 8] ** 2) + 1e-12)
            (loud if phone in vowels else quiet if phone in silences else []).append(level)
    assert np.percentile(quiet, 98) < 0.003  # the noise is at 0.001
    assert np.percentile(loud, 2) > 0.015
    assert set(seen) <= set(TIMIT_61)
    assert len(seen) >= 45
    assert seen["tcl"] > 0.8 * seen["t"]


def test_speech_begins_where_the_first_phone_does(synthetic_corpus):
    """Energy rises within 40 ms of the first phone's onset (a voiced stop begins softly)."""
    errors_s = []
    for entry in listed(synthetic_corpus, "librispeech").entries:
        root = synthetic_corpus / "librispeech"
        samples, _ = soundfile.read(root / entry.audio)
        onset = read_alignment(Location.of(root / entry.alignment))[1].start_sample
        envelope = np.convolve(np.abs(samples), np.ones(48) / 48, mode="same")
        assert envelope[: onset - 48].max() < 0.004
        heard = onset - 48 + int(np.argmax(envelope[onset - 48 :] > 0.006))
        errors_s.append((heard - onset) / RATE)
    assert abs(np.median(errors_s)) < 0.010
    assert np.mean(np.abs(errors_s) < 0.040) > 0.9


def test_words_lie_in_order_within_the_speech(synthetic_corpus):
    root = synthetic_corpus / "timit"
    for entry in listed(synthetic_corpus, "timit").entries:
        lines = (root / entry.audio).with_suffix(".WRD").read_text().splitlines()
        words = [(int(start), int(end), word) for start, end, word in map(str.split, lines)]
        assert [word.upper() for _, _, word in words] == entry.text.split()
        assert all(start < end for start, end, _ in words)
        assert all(a[1] <= b[0] for a, b in pairwise(words))


def files_of(root: Path):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_the_same_seed_gives_the_same_bytes_on_any_number_of_processes(tmp_path):
    config = SyntheticConfig(minutes=0.3, seed=11, num_speakers=10)
    for name, processes in (("one", 1), ("two", 2)):
        synthesize_corpus(tmp_path / name, config, num_processes=processes)
    names = files_of(tmp_path / "one")
    assert names == files_of(tmp_path / "two")
    _, differing, errors = filecmp.cmpfiles(tmp_path / "one", tmp_path / "two", names, False)
    assert (differing, errors) == ([], [])
    digests = {
        scan_corpus("librispeech", Location.of(tmp_path / name), SUBSETS["librispeech"]).digest
        for name in ("one", "two")
    }
    assert len(digests) == 1
    synthesize_corpus(tmp_path / "other", config.model_copy(update={"seed": 12}))
    assert files_of(tmp_path / "other") != names or not filecmp.cmp(
        tmp_path / "one" / names[0], tmp_path / "other" / names[0], shallow=False
    )


def test_a_finished_corpus_is_kept_and_others_are_not_overwritten(tmp_path):
    target = tmp_path / "corpus"
    progress = []
    first = synthesize_corpus(target, SHORT, progress=lambda *step: progress.append(step))
    assert progress == [(done, 10) for done in range(1, 11)]
    before = {name: (target / name).stat().st_ino for name in files_of(target)}
    assert synthesize_corpus(target, SHORT) == first
    assert {name: (target / name).stat().st_ino for name in files_of(target)} == before
    with pytest.raises(PipelineError, match=r'"minutes": 0\.2'):
        synthesize_corpus(target, SyntheticConfig(minutes=0.3, num_speakers=10))
    (target / MARKER_NAME).unlink()
    with pytest.raises(PipelineError, match="not a synthetic corpus"):
        synthesize_corpus(target, SHORT)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_a_failed_synthesis_leaves_nothing(tmp_path):
    def fail(done, total):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        synthesize_corpus(tmp_path / "corpus", SHORT, progress=fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options", [{"minutes": 0}, {"num_speakers": 3}, {"layout": "switchboard"}]
)
def test_wrong_settings_say_which(options):
    with pytest.raises(ValidationError, match=next(iter(options))):
        SyntheticConfig(**options)


def test_a_store_is_no_place_to_write_to():
    with pytest.raises(PipelineError, match="local folder"):
        synthesize_corpus("s3://bucket/x", SHORT)


def test_a_script_without_a_main_guard_can_synthesise(tmp_path):
    """The workers must not import the caller's main module."""
    script = tmp_path / "script.py"
    script.write_text(
        "from featurize.corpora.synthetic import SyntheticConfig, synthesize_corpus\n"
        "config = SyntheticConfig(minutes=0.1, num_speakers=10)\n"
        f"synthesize_corpus({str(tmp_path / 'corpus')!r}, config)\n"
    )
    subprocess.run([sys.executable, str(script)], check=True, timeout=1200, env=with_path())
    assert (tmp_path / "corpus" / MARKER_NAME).is_file()


def test_a_worker_that_fails_is_reported_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "_WORKER_MODULE", "featurize.corpora.no_such_module")
    with pytest.raises(RuntimeError, match="no_such_module"):
        synthesize_corpus(tmp_path / "corpus", SHORT)
    assert list(tmp_path.iterdir()) == []


def with_path():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def test_without_the_library_synthesis_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PipelineError, match=r"pip install 'spikeline\[synthesis\]'"):
        synthesize_corpus(tmp_path / "corpus", SHORT)
    assert not (tmp_path / "corpus").exists()
