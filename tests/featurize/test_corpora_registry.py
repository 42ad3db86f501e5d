"""A corpus reader of one's own: found by address or entry point, and read like a built-in one."""

import sys
import tarfile

import numpy as np
import pytest
import soundfile
from pydantic import ValidationError

from featurize.corpora.registry import READERS
from featurize.corpora.scan import scan_corpus, subsets_at
from featurize.featurize import featurize
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.schema import FeaturizeManifest
from featurize.stage import Location, PipelineError, read_manifest

READER = '''
from featurize.corpora.entry import CorpusEntry
from featurize.corpora.listing import list_files, make_listing
from featurize.corpora.registry import CorpusReader


def scan(root, subsets):
    """One folder per subset: NAME.wav, spoken by whom the name begins with, and NAME.txt."""
    files = {file.path: file for subset in subsets for file in list_files(root, subset)}
    entries = [
        CorpusEntry(
            path.split("/")[1][:-4],
            path.split("/")[1].split("-")[0],
            "none",
            path.split("/")[0],
            root.child(path[:-4] + ".txt").read_bytes().decode().strip(),
            path,
        )
        for path in files
        if path.endswith(".wav")
    ]
    return make_listing(root, entries, [], files)


def scored_subsets(folders):
    return tuple(sorted(child.name for folder in folders for child in folder.children()))


READER = CorpusReader("folders", scan, scored_subsets)
'''


@pytest.fixture
def own_reader(tmp_path, monkeypatch):
    (tmp_path / "folders_reader.py").write_text(READER)
    monkeypatch.syspath_prepend(tmp_path)
    yield "folders_reader:READER"
    sys.modules.pop("folders_reader", None)
    READERS._found.clear()


@pytest.fixture
def corpus(tmp_path):
    rng = np.random.default_rng(0)
    for subset in ("mine", "yours"):
        folder = tmp_path / "corpus" / subset
        folder.mkdir(parents=True)
        for name in ("ann-1", "ann-2", "bob-1"):
            soundfile.write(folder / f"{name}-{subset}.wav", rng.normal(0, 0.1, 8000), 16000)
            (folder / f"{name}-{subset}.txt").write_text("HELLO\n")
    return Location.of(tmp_path / "corpus")


def test_a_reader_of_ones_own_makes_a_feature_set(own_reader, corpus, tmp_path):
    config = FeaturizeConfig(
        corpus=own_reader,
        splits=SplitsConfig(train=("mine",), test=("yours",)),
        labels="characters",
    )
    result = featurize(config, corpus, Location.of(tmp_path / "runs"))
    manifest = read_manifest(result.location, FeaturizeManifest)
    assert {name: info.num_utterances for name, info in manifest.subsets.items()} == {
        "mine": 3,
        "yours": 3,
    }
    assert manifest.subsets["mine"].num_speakers == 2
    assert subsets_at(own_reader, corpus) == ("mine", "yours")


def test_a_reader_is_found_through_an_entry_point(own_reader, corpus, tmp_path):
    info = tmp_path / "their_corpora-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-corpora\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[spikeline.corpora]\nfolders = {own_reader}\n")
    vars(READERS).pop("installed", None)
    try:
        assert READERS.known() == (*READERS.built_in, "folders")
        assert len(scan_corpus("folders", corpus, ("mine",)).entries) == 3
        offered = FeaturizeConfig.model_json_schema()["properties"]["corpus"]["enum"]
        assert offered == [*READERS.built_in, "folders"]
    finally:
        vars(READERS).pop("installed", None)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("voxpopuli", "no corpus reader 'voxpopuli'; corpus readers: librispeech, timit"),
        ("subprocess:run", "of Python itself"),
        ("folders_reader:scan", "is a function, not a CorpusReader"),
    ],
)
def test_what_reads_no_corpus_is_refused_with_a_reason(own_reader, name, reason):
    with pytest.raises(PipelineError, match=reason):
        READERS.named(name)
    with pytest.raises(ValidationError, match=reason):
        FeaturizeConfig(corpus=name, splits=SplitsConfig(train=("a",)))


def test_a_corpus_that_comes_as_one_archive_is_refused_as_two(own_reader, tmp_path):
    folder = tmp_path / "archives"
    folder.mkdir()
    (tmp_path / "x.txt").write_text("x")
    for name in ("one", "two"):
        with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as archive:
            archive.add(tmp_path / "x.txt", f"{name}/x.txt")
    with pytest.raises(PipelineError, match="comes as one"):
        scan_corpus(own_reader, Location.of(folder), ("mine",))
