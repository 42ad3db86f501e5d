"""S3 consoles and sync tools put empty objects named ``FOLDER/`` among the files."""

import pytest

from featurize.corpora.listing import list_files
from featurize.featurize import featurize
from featurize.stage import FanOut, Location
from flows.integrity import inspect, stage_locations
from tests.harness.tiny import FEATURES, make_corpus


@pytest.fixture
def marked(s3_server, monkeypatch):
    """The server's listings, with the markers that it cannot keep: of the folder, and of one in it.

    The answers are S3's own, where such an object is a key like any other.
    """
    filesystem = Location.of(s3_server.uri).filesystem
    answer = filesystem._call_s3

    async def with_markers(method, *args, **kwargs):
        found = await answer(method, *args, **kwargs)
        prefix = kwargs.get("Prefix") or ""
        if method == "list_objects_v2" and prefix.endswith("/") and found.get("Contents"):
            names = (prefix,) if kwargs.get("Delimiter") else (prefix, f"{prefix}empty/")
            like = found["Contents"][0]
            found["Contents"] += [like | {"Key": name, "Size": 0} for name in names]
        return found

    monkeypatch.setattr(filesystem, "_call_s3", with_markers)
    return s3_server


def test_results_with_folder_markers_are_sound(marked, tmp_path):
    make_corpus(marked.folder / "marked-corpus")
    corpus, runs = (Location.of(f"{marked.uri}/marked-{name}") for name in ("corpus", "runs"))
    result = featurize(FEATURES, corpus, runs, fan_out=FanOut(kind="sequential"))
    local = featurize(
        FEATURES,
        Location.of(make_corpus(tmp_path / "corpus")),
        Location.of(tmp_path / "runs"),
        fan_out=FanOut(kind="sequential"),
    )
    assert set(result.location.files()) == set(local.location.files())
    assert stage_locations(runs) == [result.location]
    found = inspect(result.location)
    assert found.is_sound, found


def test_a_folder_is_no_child_of_itself(marked):
    top = Location.of(f"{marked.uri}/marked-listing")
    top.child("a.txt").write_bytes(b"a")
    assert top.children() == [top.child("a.txt")]
    assert [file.path for file in list_files(top.parent, top.name)] == ["marked-listing/a.txt"]
