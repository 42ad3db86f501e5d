"""Locations: what is no address is refused, links lead nowhere, killed writers leave nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from featurize.corpora import librispeech
from featurize.featurize import featurize
from featurize.stage import Location, PipelineError, held_lease, run_stage
from tests.harness.tiny import FEATURES, make_corpus

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("address", "match"),
    [
        ("file:///etc/passwd", "only local paths and s3"),
        ("FILE:///etc/passwd", "only local paths and s3"),
        ("https://host/x", "only local paths and s3"),
        ("s3://", "needs a bucket name"),
        ("s3://../x", "needs a bucket name"),
        ("s3://bucket/a/../../other", "no meaning"),
        ("s3://bucket/a/..", "no meaning"),
        ("/tmp/a\0b", "control characters"),
        ("runs\x1b[2J", "control characters"),
    ],
)
def test_what_is_no_address_is_refused(address, match):
    with pytest.raises(PipelineError, match=match):
        Location.of(address)


@pytest.mark.parametrize("address", ["s3://key:secret@bucket/x", "S3://key:secret@bucket"])
def test_credentials_in_an_address_are_refused_and_not_repeated(address):
    with pytest.raises(PipelineError, match="takes no credentials") as caught:
        Location.of(address)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("part", ["/etc", "..", "a/../../b", "a\0", "a\n", ""])
def test_no_child_lies_outside(part):
    with pytest.raises(PipelineError, match="does not lie below"):
        Location.of("/runs").child(part)


def test_a_link_in_a_result_is_refused_before_anything_is_written_through_it(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    location = Location.of(tmp_path / "runs" / "stage")
    Path(location.path).mkdir(parents=True)
    os.symlink(outside, Path(location.path, "checkpoints"))
    with pytest.raises(PipelineError, match="checkpoints is a symbolic link"):
        run_stage(location, "f", lambda place: pytest.fail("ran"))
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["1/7/1-7.trans.txt", "2/7/stolen.PHN", "3"])
def test_a_link_out_of_the_corpus_is_refused(tmp_path, name):
    corpus = make_corpus(tmp_path / "corpus")
    secret = tmp_path / "secret"
    secret.write_text("1-7-0001 SECRET WORDS\n")
    link = corpus / "train-tiny" / name
    link.unlink(missing_ok=True)
    link.symlink_to(secret if name != "3" else tmp_path)
    with pytest.raises(PipelineError, match="a link that leads out of the corpus"):
        librispeech.scan(Location.of(corpus), ["train-tiny"])


def test_links_within_a_corpus_and_to_it_are_followed(tmp_path):
    corpus = make_corpus(tmp_path / "corpus")
    transcript = corpus / "train-tiny" / "1" / "7" / "1-7.trans.txt"
    kept = corpus / "elsewhere.txt"
    transcript.rename(kept)
    transcript.symlink_to(kept)
    (tmp_path / "link").symlink_to(corpus)
    listing = librispeech.scan(Location.of(tmp_path / "link"), ["train-tiny"])
    assert len(listing.entries) == 8


WRITER = """
import os, signal, sys
from featurize.stage import Location
with Location(sys.argv[1]).open_write() as stream:
    stream.write(bytes(40 * 2**20))  # two parts of an upload
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("store", ["local", "s3"])
def test_what_a_killed_writer_leaves_is_invisible_and_removed(store, tmp_path, request):
    if store == "s3":
        server = request.getfixturevalue("s3_server")
        location = Location.of(f"{server.uri}/partial")
    else:
        location = Location.of(tmp_path / "result")
    file = location.child("folder", "data.bin")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    writer = subprocess.run([sys.executable, "-c", WRITER, file.uri], env=environment)
    assert writer.returncode == -signal.SIGKILL
    assert not file.exists()
    assert location.files() == {}
    assert len(_unfinished(location)) == 1
    location.remove_partial()
    assert _unfinished(location) == []


def _unfinished(location):
    if location.is_local:
        return list(Path(location.path).rglob("*.partial"))
    bucket, _, key = location.path.partition("/")
    answer = location.filesystem.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=key)
    return answer.get("Uploads", [])


def test_an_unusable_corpus_leaves_no_lease(tmp_path):
    corpus = Location.of(make_corpus(tmp_path / "corpus"))
    strict = FEATURES.model_copy(update={"max_reject_share": 0.0})
    with pytest.raises(PipelineError, match="more than max_reject_share"):
        featurize(strict, corpus, Location.of(tmp_path / "runs"))
    names = {path.name for path in (tmp_path / "runs" / "featurize").iterdir()}
    assert not any("lease" in name for name in names)


def test_the_client_follows_the_environment(monkeypatch):
    place = Location.of("s3://bucket/key")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    first = place.filesystem
    assert place.filesystem is first
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:2")
    assert place.filesystem is not first


@pytest.mark.parametrize(
    "typed", ["s3://bucket//runs", "s3://bucket/runs//", "s3://bucket///runs/"]
)
def test_empty_parts_of_an_address_are_left_out(typed):
    assert Location.of(typed) == Location.of("s3://bucket/runs")


def test_a_local_name_of_another_encoding_is_refused_in_words():
    with pytest.raises(PipelineError, match="not UTF-8; rename the folder"):
        Location.of("/tmp/caf\udce9")


def test_an_endpoint_with_a_path_is_refused(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000/bucket")
    with pytest.raises(PipelineError, match="bucket belongs into the s3:// address"):
        Location.of("s3://bucket/x").exists()


@pytest.mark.parametrize("name", ["run[1]", "run?", "run*"])
def test_what_is_removed_on_s3_is_no_pattern(s3_server, name):
    root = Location.of(f"{s3_server.uri}/patterns")
    other, own = root.child("run1", "a", "data"), root.child(name, "a", "data")
    beside = root.child(name, "ab", "data")
    for file in (other, own, beside):
        file.write_bytes(b"kept")
    own.parent.remove()
    assert beside.exists()
    beside.remove()
    assert not own.exists()
    assert other.read_bytes() == b"kept"
    own.parent.remove()
    with held_lease(own.parent.child("stage")):
        pass
    assert root.child(name).files() == {}


def test_what_others_remove_as_well_is_removed(tmp_path, monkeypatch):
    location = Location.of(tmp_path / "claim")
    location.write_bytes(b"")
    exists = Location.exists
    seen = iter([True, True])
    monkeypatch.setattr(Location, "exists", lambda self: next(seen, None) or exists(self))
    Path(location.path).unlink()
    location.remove()
    assert list(seen) == []


def test_what_is_written_again_and_again_is_not_removed_for_ever(tmp_path, monkeypatch):
    location = Location.of(tmp_path / "claim")
    monkeypatch.setattr(Location, "exists", lambda self: True)
    with pytest.raises(PipelineError, match="something else writes there"):
        location.remove()
