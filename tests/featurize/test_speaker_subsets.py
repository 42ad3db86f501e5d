"""Subsets by speaker, for corpora that come without the standard ones."""

import shutil

import pytest
from pydantic import ValidationError

from featurize.corpora.scan import scan_corpus
from featurize.corpora.speaker_subsets import SpeakerSubset
from featurize.featurize_config import FeaturizeConfig
from featurize.stage import Location, PipelineError


def subset(name, *speakers):
    return SpeakerSubset(name=name, speakers=speakers)


def test_timit_with_only_train_has_dev_speakers_by_setting(synthetic_corpus, tmp_path):
    shutil.copytree(synthetic_corpus / "timit", tmp_path / "corpus")
    shutil.rmtree(tmp_path / "corpus" / "TEST")
    root = Location.of(tmp_path / "corpus")
    whole = scan_corpus("timit", root, ["train"])
    speakers = sorted({entry.speaker_id for entry in whole.entries})
    listing = scan_corpus("timit", root, ["train", "dev"], [subset("dev", speakers[0])])
    found = {
        name: {e.speaker_id for e in listing.entries if e.subset == name}
        for name in ("train", "dev")
    }
    assert found == {"train": set(speakers[1:]), "dev": {speakers[0]}}
    assert len(listing.entries) == len(whole.entries)


def test_timit_speakers_on_no_standard_list_can_be_tested_on(synthetic_corpus):
    root = Location.of(synthetic_corpus / "timit")
    everyone = scan_corpus("timit", root, ["test-complete"]).entries
    speaker = everyone[0].speaker_id
    listing = scan_corpus("timit", root, ["train", "mine"], [subset("mine", speaker)])
    assert {e.speaker_id for e in listing.entries if e.subset == "mine"} == {speaker}
    # Speakers of TEST that nobody asked for stay out.
    train = scan_corpus("timit", root, ["train"]).entries
    assert {e.utterance_id for e in listing.entries if e.subset == "train"} == {
        e.utterance_id for e in train
    }


def test_librispeech_is_dealt_within_its_folders(synthetic_corpus):
    root = Location.of(synthetic_corpus / "librispeech")
    whole = scan_corpus("librispeech", root, ["train-synthetic"]).entries
    speaker = whole[0].speaker_id
    own = [subset("dev", speaker)]
    listing = scan_corpus("librispeech", root, ["train-synthetic", "dev"], own)
    assert len(listing.entries) == len(whole)
    assert {e.speaker_id for e in listing.entries if e.subset == "dev"} == {speaker}
    with pytest.raises(PipelineError, match="name such a folder"):
        scan_corpus("librispeech", root, ["dev"], own)


def test_a_speaker_who_is_not_there_is_named(synthetic_corpus):
    root = Location.of(synthetic_corpus / "timit")
    with pytest.raises(PipelineError, match="no utterance of speaker 'FXXX9'"):
        scan_corpus("timit", root, ["train", "dev"], [subset("dev", "FXXX9")])


@pytest.mark.parametrize(
    ("own", "match"),
    [
        ([{"name": "dev", "speakers": ["A"]}, {"name": "dev", "speakers": ["B"]}], "twice"),
        ([{"name": "dev", "speakers": ["A"]}, {"name": "t", "speakers": ["A"]}], "one subset"),
        ([{"name": "elsewhere", "speakers": ["A"]}], "no split uses"),
    ],
)
def test_mistakes_are_named(own, match):
    splits = {"train": ["train"], "dev": ["dev"], "test": ["t"]}
    with pytest.raises(ValidationError, match=match):
        FeaturizeConfig.model_validate({"splits": splits, "speaker_subsets": own})


def test_unused_they_leave_the_fingerprint_alone():
    config = FeaturizeConfig.model_validate({"splits": {"train": ["train"]}})
    assert "speaker_subsets" not in config.determining()
