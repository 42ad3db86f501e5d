import shutil

import pyarrow.parquet as pq
import pytest

from featurize.featurize import featurize
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.stage import FanOut, Location

CONFIG = FeaturizeConfig(
    corpus="timit",
    labels="alignment",
    splits=SplitsConfig(train=("train",), dev=("dev",)),
    max_reject_share=0.5,
)
NINE_SECONDS = 9 * 16_000


def _cut(segments):
    return segments[:2]


def _drawn_out(segments):
    start, _, phone = segments[-1]
    return [*segments[:-1], (start, NINE_SECONDS, phone)]


def _twice_the_clock(segments):
    return [(2 * start, 2 * end, phone) for start, end, phone in segments]


def _as_timit_is(segments):
    start, end, phone = segments[-1]
    return [*segments[:-1], (start, end - min(200, end - start - 1), phone)]


@pytest.mark.parametrize("labels", ["alignment", "phones"])
@pytest.mark.parametrize(
    ("change", "is_rejected"),
    [(_cut, True), (_drawn_out, True), (_twice_the_clock, True), (_as_timit_is, False)],
)
def test_a_phn_is_held_against_its_audio(synthetic_corpus, tmp_path, change, is_rejected, labels):
    shutil.copytree(synthetic_corpus / "timit", tmp_path / "timit")
    files = (tmp_path / "timit" / "TRAIN").rglob("*.PHN")
    file = max(files, key=lambda path: (path.stat().st_size, path))
    fields = [line.split() for line in file.read_text().splitlines()]
    changed = change([(int(start), int(end), phone) for start, end, phone in fields])
    file.write_text("".join(f"{start} {end} {phone}\n" for start, end, phone in changed))
    config = CONFIG.model_copy(update={"labels": labels})
    corpus, runs = Location.of(tmp_path / "timit"), Location.of(tmp_path / "runs")
    result = featurize(config, corpus, runs, fan_out=FanOut(kind="sequential"))
    rejects = pq.read_table(result.location.child("rejects.parquet").path).to_pylist()
    name = f"{file.parent.name}_{file.stem}"
    assert [(row["utterance_id"], row["reason"]) for row in rejects] == (
        [(name, "bad_alignment")] if is_rejected else []
    )
    assert all("the .PHN ends at" in row["detail"] for row in rejects)
