import numpy as np
import pytest

from featurize.schema import FeatureRow, FeaturizeManifest
from featurize.stage import Location, PipelineError, read_manifest
from training.align.outcome import AlignedLabels, Unaligned
from training.align.textgrids import TextGrids, textgrids_digest

SYMBOLS = ("AA", "T", "spn", "SIL")
AA, T, SPN, SIL = range(4)


def grid(intervals, tier="phones", end=None):
    """A TextGrid in the long form that the Montreal Forced Aligner writes."""
    end = intervals[-1][1] if end is None else end
    entries = "".join(
        f"        intervals [{n}]:\n            xmin = {start}\n            xmax = {stop}\n"
        f'            text = "{name}"\n'
        for n, (start, stop, name) in enumerate(intervals, 1)
    )
    return (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'
        f"xmin = 0\nxmax = {end}\ntiers? <exists>\nsize = 1\nitem []:\n    item [1]:\n"
        f'        class = "IntervalTier"\n        name = "{tier}"\n'
        f"        xmin = 0\n        xmax = {end}\n        intervals: size = {len(intervals)}\n"
        + entries
    )


SPOKEN = [(0.0, 0.05, ""), (0.05, 0.12, "AA1"), (0.12, 0.2, "T"), (0.2, 0.3, "sil")]


def row(num_rows=9, seconds=0.3):
    return FeatureRow(
        utterance_id="1-2-3",
        speaker_id="1",
        chapter_id="2",
        subset="s",
        text="AT",
        labels=np.array([AA, T], np.int32),
        num_samples=round(16000 * seconds),
        features=np.zeros((num_rows, 6), np.float32),
        alignment=None,
    )


@pytest.fixture
def read(planted_features, tmp_path):
    """Reads an utterance from a file's content, with rows of 3 frames of 10 ms, 3 apart."""
    manifest = read_manifest(planted_features, FeaturizeManifest).model_copy(
        update={
            "config": {"stack": 3, "stride": 3, "frame_length_s": 0.025},
            "frame_shift_s": 0.03,
        }
    )

    def read_content(content, utterance=None, name="deep/down/1-2-3.TextGrid", symbols=SYMBOLS):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        grids = TextGrids(Location.of(tmp_path), manifest, symbols, "SIL")
        return grids(utterance or row())

    return read_content


@pytest.mark.parametrize("tier", ["phones", "61-70968 - phones"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_rows_get_what_is_said_at_the_centre_of_their_middle_frame(read, tier, encoding):
    found = read(grid(SPOKEN, tier).encode(encoding))
    assert isinstance(found, AlignedLabels)
    assert found.labels_P.tolist() == [SIL, AA, T, SIL]
    # Centres at 22.5, 52.5, 82.5, 112.5, 142.5, 172.5, 202.5, ... ms.
    assert found.alignment_T.tolist() == [SIL, AA, AA, AA, T, T, SIL, SIL, SIL]


def test_holes_and_neighbouring_silences_are_one_silence(read):
    found = read(grid([(0.02, 0.06, "sp"), (0.06, 0.1, "T"), (0.1, 0.14, "T"), (0.2, 0.28, "AA0")]))
    assert found.labels_P.tolist() == [SIL, T, T, SIL, AA]
    # Past the end of the last interval, within the tolerated difference, it goes on.
    assert found.alignment_T.tolist() == [SIL, SIL, T, T, SIL, SIL, AA, AA, AA]


def test_noise_is_its_own_phone_where_there_is_one_and_else_silence(read):
    spoken = [(0.0, 0.1, "spn"), (0.1, 0.3, "AA2")]
    assert read(grid(spoken)).labels_P.tolist() == [SPN, AA]
    assert read(grid(spoken), symbols=("AA", "T", "SIL")).labels_P.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a TextGrid"),
        (b"\x00\xff\xfe garbage \x80", "not a TextGrid"),
        (grid(SPOKEN)[:200], "TextGrid|tier|empty"),
        (grid(SPOKEN, "words"), "0 tiers of phones"),
        (grid([(0.0, 0.1, "AA"), (0.05, 0.3, "T")]), "overlaps"),
        (grid([(0.0, 0.1, "AA"), (0.1, 0.1, "T"), (0.1, 0.3, "T")]), "interval|TextGrid"),
        (grid([(0.0, 0.3, "Q")]), "no phone of the feature set"),
        (grid([(0.0, 3.0, "AA")]), "lasts 3.00 s, the audio 0.30 s"),
        (grid([(0.0, "nan", "AA")], end=0.3), "interval|TextGrid"),
        (grid([(0.0, "1e999", "AA")], end=0.3), "interval|TextGrid"),
        (b" " * (4 * 2**20 + 1), "larger than"),
    ],
)
def test_whatever_is_wrong_with_a_file_is_its_utterances_reason(read, content, reason):
    found = read(content)
    assert isinstance(found, Unaligned)
    assert found.reason == "bad_alignment"
    assert any(part in found.detail for part in reason.split("|")), found.detail


def test_an_utterance_without_a_file_is_a_reject(read):
    found = read(grid(SPOKEN), name="other.TextGrid")
    assert (found.reason, found.detail) == ("missing_alignment", "no 1-2-3.TextGrid")


def test_a_folder_without_files_and_a_name_that_comes_twice_are_refused(read, tmp_path):
    with pytest.raises(PipelineError, match="no such folder"):
        textgrids_digest(Location.of(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(PipelineError, match=r"no .TextGrid files"):
        textgrids_digest(Location.of(tmp_path / "empty"))
    read(grid(SPOKEN))
    with pytest.raises(PipelineError, match="there twice"):
        read(grid(SPOKEN), name="1-2-3.TextGrid")


def test_the_digest_follows_names_and_contents(read, tmp_path):
    read(grid(SPOKEN))
    first = textgrids_digest(Location.of(tmp_path))
    read(grid(SPOKEN, end=0.31))
    second = textgrids_digest(Location.of(tmp_path))
    (tmp_path / "deep/down/1-2-3.TextGrid").rename(tmp_path / "deep/down/1-2-4.TextGrid")
    assert len({first, second, textgrids_digest(Location.of(tmp_path))}) == 3
