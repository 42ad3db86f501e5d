"""Archives: what may not land outside does not; what is whole is unpacked once."""

import gzip
import io
import shutil
import tarfile

import pytest

from featurize.corpora.archive import MARKER_NAME, ExtractionLimits, extract_archive
from featurize.corpora.scan import scan_corpus
from featurize.stage import Location, PipelineError


def member(name, content=b"text", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def archive_of(path, *members, format=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w:gz", format=format) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return Location.of(path)


@pytest.fixture
def target(tmp_path):
    return Location.of(tmp_path / "target")


def extract_refused(tmp_path, target, archive, match, **options):
    with pytest.raises(PipelineError, match=match):
        extract_archive(archive, target, **options)
    assert not target.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


@pytest.mark.parametrize(
    "bad",
    [
        member("/etc/escaped"),
        member("../escaped"),
        member("a/../../escaped"),
        member("link", b"", type=tarfile.SYMTYPE, linkname="/etc"),
        member("link", b"", type=tarfile.LNKTYPE, linkname="good"),
        member("device", b"", type=tarfile.CHRTYPE),
        member("pipe", b"", type=tarfile.FIFOTYPE),
        member(MARKER_NAME),
        member("good"),
        member("good/below"),
    ],
    ids=lambda bad: bad[0].name + bad[0].type.decode() if isinstance(bad, tuple) else None,
)
def test_unsafe_members_end_the_extraction(tmp_path, target, bad):
    archive = archive_of(tmp_path / "a.tar.gz", member("good"), bad)
    extract_refused(tmp_path, target, archive, "not unpacked|cannot unpack")


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_huge_header_is_refused(tmp_path, target, format):
    archive = archive_of(tmp_path / "a.tar.gz", member("n" * 200_000), format=format)
    extract_refused(tmp_path, target, archive, "header of")


@pytest.mark.parametrize(
    "limits", [{"max_members": 2}, {"max_member_bytes": 99}, {"max_total_bytes": 250}]
)
def test_limits(tmp_path, target, limits):
    archive = archive_of(tmp_path / "a.tar.gz", *(member(f"f{i}", bytes(100)) for i in range(3)))
    extract_refused(tmp_path, target, archive, "over|exceeds", limits=ExtractionLimits(**limits))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "not-gzip", "no-members"])
def test_damaged_archives(tmp_path, target, damage):
    archive = archive_of(
        tmp_path / "a.tar.gz", *(member(f"f{i}", bytes(range(256)) * 40) for i in range(9))
    )
    content = bytearray((tmp_path / "a.tar.gz").read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    elif damage == "not-gzip":
        content = bytearray(b"<html>404</html>" * 100)
    else:
        content = bytearray(gzip.compress(bytes(10_240)))
    (tmp_path / "a.tar.gz").write_bytes(content)
    extract_refused(tmp_path, target, archive, "damaged|no files")


def test_an_archive_is_unpacked_once_and_again_when_it_changes(tmp_path, target):
    archive = archive_of(tmp_path / "a.tar.gz", member("x/one", b"1", mtime=1_000_000_000))
    marker = extract_archive(archive, target)
    assert marker.archive == "a.tar.gz"
    one = tmp_path / "target" / "x" / "one"
    assert one.read_bytes() == b"1"
    assert int(one.stat().st_mtime) == 1_000_000_000
    one.write_bytes(b"touched")
    assert extract_archive(archive, target) == marker
    assert one.read_bytes() == b"touched"
    archive_of(tmp_path / "a.tar.gz", member("x/two", bytes(5_000)), member("x/three", b"3"))
    extract_archive(archive, target)
    assert sorted(p.name for p in (tmp_path / "target" / "x").iterdir()) == ["three", "two"]


def test_an_occupied_target_is_left_alone(tmp_path, target):
    archive = archive_of(tmp_path / "a.tar.gz", member("x"))
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "precious").write_bytes(b"mine")
    with pytest.raises(PipelineError, match="something else"):
        extract_archive(archive, target)
    assert (tmp_path / "target" / "precious").read_bytes() == b"mine"


def test_missing_archive_and_remote_target(tmp_path, target):
    with pytest.raises(PipelineError, match="no archive"):
        extract_archive(Location.of(tmp_path / "none.tar.gz"), target)
    with pytest.raises(PipelineError, match="local folder"):
        extract_archive(Location.of(tmp_path / "none.tar.gz"), Location.of("s3://bucket/x"))


def packed(source, path, *names):
    """Pack some children of a LibriSpeech root as the distributed archives do."""
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            tar.add(source / name, f"LibriSpeech/{name}")


def test_a_corpus_is_read_from_its_archive(synthetic_corpus, tmp_path):
    subsets = ("train-synthetic", "dev-synthetic")
    source = synthetic_corpus / "librispeech"
    path = tmp_path / "corpus.tar.gz"
    packed(source, path, "SPEAKERS.TXT", *subsets)
    plain = scan_corpus("librispeech", Location.of(source), subsets)
    for root in (path, tmp_path):  # the archive itself, and the folder that holds it
        listing = scan_corpus("librispeech", Location.of(root), subsets)
        assert [(e.utterance_id, e.text) for e in listing.entries] == [
            (e.utterance_id, e.text) for e in plain.entries
        ]
        for entry in listing.entries:
            assert listing.root.child(entry.audio).exists()
            assert listing.root.child(entry.alignment).exists()


def test_files_beside_archives_are_passed_over_by_name(synthetic_corpus, tmp_path, caplog):
    source = synthetic_corpus / "librispeech"
    packed(source, tmp_path / "one.tar.gz", "SPEAKERS.TXT", "train-synthetic")
    (tmp_path / "md5sum.txt").write_text("0  one.tar.gz\n")
    (tmp_path / "two.tar.gz.part").write_bytes(b"half")
    listing = scan_corpus("librispeech", Location.of(tmp_path), ["train-synthetic"])
    assert listing.entries
    assert "passed over: md5sum.txt, two.tar.gz.part" in caplog.text


def test_an_unpacked_corpus_is_read_where_its_archive_still_lies(synthetic_corpus, tmp_path):
    root = tmp_path / "corpus"
    shutil.copytree(synthetic_corpus / "librispeech", root)
    (root / "train-synthetic.tar.gz").write_bytes(b"not even an archive")
    assert scan_corpus("librispeech", Location.of(root), ["train-synthetic"]).entries


def test_a_subset_that_is_dealt_over_two_archives_is_not_lost_in_part(synthetic_corpus, tmp_path):
    source = synthetic_corpus / "librispeech"
    for number in (1, 2):
        packed(source, tmp_path / f"part{number}.tar.gz", "SPEAKERS.TXT", "train-synthetic")
    packed(source, tmp_path / "dev.tar.gz", "SPEAKERS.TXT", "dev-synthetic")
    with pytest.raises(PipelineError, match=r"'train-synthetic' is in two archives"):
        scan_corpus("librispeech", Location.of(tmp_path), ["train-synthetic"])
    assert scan_corpus("librispeech", Location.of(tmp_path), ["dev-synthetic"]).entries


def test_several_archives_are_one_corpus(synthetic_corpus, tmp_path):
    source = synthetic_corpus / "librispeech"
    for subset in ("train-synthetic", "dev-synthetic"):
        packed(source, tmp_path / f"{subset}.tar.gz", "SPEAKERS.TXT", subset)
    listing = scan_corpus(
        "librispeech", Location.of(tmp_path), ["train-synthetic", "dev-synthetic"]
    )
    assert {entry.subset for entry in listing.entries} == {"train-synthetic", "dev-synthetic"}
    assert all(listing.root.child(entry.audio).exists() for entry in listing.entries)
    with pytest.raises(PipelineError, match=r"no subset 'other'.*dev-synthetic, train-synthetic"):
        scan_corpus("librispeech", Location.of(tmp_path), ["other"])
    shutil.rmtree(tmp_path / "extracted")
    again = scan_corpus("librispeech", Location.of(tmp_path), ["train-synthetic", "dev-synthetic"])
    assert again.digest == listing.digest
