"""Random feature sets with random damage: what training and evaluation take in, and leave out."""

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluation.config import EvaluateConfig
from evaluation.evaluate import evaluate
from evaluation.metrics import EvaluationMetrics
from featurize.rejects import Reject, write_rejects
from featurize.schema import (
    AlignmentInfo,
    FeatureRow,
    FeaturizeManifest,
    LabelInventory,
    SubsetInfo,
)
from featurize.shard_writer import pack_row, write_shard
from featurize.stage import Location, PipelineError, read_manifest
from featurize.stage.manifest import write_sealed
from tests.harness.tiny import HERE
from tests.training.conftest import planted_rows
from training.manifest import TrainManifest
from training.models.model_config import ModelConfig
from training.split_index import check_epochs, index_split
from training.train import train
from training.train_config import CurriculumStage, TrainConfig

DELAY, LONGEST = 3, 60
# What is done to an utterance, and why it is then not used: by CTC, and with frame targets.
DAMAGE: dict[str, tuple[str | None, str | None]] = {
    "sound": (None, None),
    "more labels than frames": ("too_many_labels", None),
    "long": ("longer_than_curriculum", None),
    "short": (None, "shorter_than_delay"),
    "nothing to find": (None, None),
}
SIZES = {"tr-a": (60, 160), "tr-b": (60, 160), "dv": (99, 130), "te": (2, 9)}
MANY = settings(
    max_examples=4,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def damaged(row: FeatureRow, damage: str) -> FeatureRow:
    if damage == "more labels than frames":
        return replace(row, labels=np.arange(len(row.features) + 1, dtype=np.int32) % 4)
    if damage == "nothing to find":
        return replace(row, labels=np.full(1, 4, np.int32))
    if damage == "long":
        frames = np.arange(LONGEST + 1) % len(row.features)
        return replace(row, features=row.features[frames], alignment=row.alignment[frames])
    if damage == "short":
        frames = slice(0, DELAY)
        return replace(
            row, features=row.features[frames], alignment=row.alignment[frames],
            labels=row.labels[row.labels < 4][:1],  # one that is scored
        )  # fmt: skip
    return row


def feature_set(
    base: Location, target: Location, rows: dict[str, list[FeatureRow]], shard_size: int
) -> FeaturizeManifest:
    """A finished set of these rows, by subset."""
    shards, subsets = [], {}
    for subset, of_subset in rows.items():
        subsets[subset] = SubsetInfo(
            num_utterances=len(of_subset), num_speakers=3, num_frames=0, hours=0.01
        )
        for start in range(0, len(of_subset), shard_size):
            packed = [pack_row(row, "float32") for row in of_subset[start : start + shard_size]]
            name = f"{subset}-{start}.parquet"
            shards.append(write_shard(target, name, subset, packed, 8))
    manifest = read_manifest(base, FeaturizeManifest).model_copy(
        update={
            "splits": {"train": ("tr-a", "tr-b"), "dev": ("dv",), "test": ("te",)},
            "subsets": subsets,
            "shards": tuple(shards),
            # The fifth symbol is as silence: it is not scored.
            "labels": LabelInventory(
                kind="alignment", symbols=tuple("abcde"), scored_as=(*"abcd", None)
            ),
        }
    )
    write_sealed(target, manifest)
    return manifest


def training(objective: str) -> TrainConfig:
    curriculum = (CurriculumStage(num_epochs=1, chunk_frames=20), CurriculumStage(
        num_epochs=1, chunk_frames=LONGEST))  # fmt: skip
    return TrainConfig(
        objective=objective, target_delay=DELAY if objective == "frame" else None,
        model=ModelConfig(model="gru", hidden_size=4, num_layers=1),
        curriculum=curriculum, batch_size=64,
    )  # fmt: skip


@st.composite
def damages(draw, most: int) -> dict[str, list[str]]:
    """For each subset what is done to each of its utterances, most of which stay sound."""
    found = {}
    for subset, sizes in {
        "tr-a": (60, 160),
        "tr-b": (60, 160),
        "dv": (99, 130),
        "te": (2, 9),
    }.items():
        bad = draw(st.lists(st.sampled_from(list(DAMAGE)), max_size=most))
        num_sound = draw(st.integers(*sizes))
        found[subset] = draw(st.permutations([*bad, *["sound"] * num_sound]))
    return found


def reasons(of_subset: list[str], objective: str, split: str) -> Counter[str]:
    column = 0 if objective == "ctc" else 1
    named = [DAMAGE[damage][column] for damage in of_subset]
    # Dev is scored on whole utterances, whatever the curriculum.
    waits = {"longer_than_curriculum"} if split == "dev" else set()
    return Counter(reason for reason in named if reason and reason not in waits)


def made(base: Location, folder: str, drawn: dict[str, list[str]], shard_size: int):
    rng = np.random.default_rng(len(drawn["tr-a"]))
    rows = {}
    for subset, each in drawn.items():
        planted = planted_rows(subset, 3 * len(each), rng)
        sound = [row for row in planted if len(row.features) > DELAY and row.labels.min() < 4]
        rows[subset] = [damaged(*pair) for pair in zip(sound, each, strict=False)]
    target = Location.of(Path(folder, "features"))
    return target, feature_set(base, target, rows, shard_size), rows


@given(drawn=damages(most=3), objective=st.sampled_from(["ctc", "frame"]), size=st.integers(7, 90))
@settings(MANY, max_examples=12)
def test_a_split_is_what_is_used_and_left_out(planted_features, drawn, objective, size) -> None:
    with tempfile.TemporaryDirectory() as folder:
        features, manifest, _ = made(planted_features, folder, drawn, size)
        for split in ("train", "dev"):
            expected = {s: reasons(drawn[s], objective, split) for s in manifest.splits[split]}
            left_out = sum(expected.values(), Counter())
            total = sum(len(drawn[subset]) for subset in expected)
            if left_out.total() > 0.01 * total:
                with pytest.raises(PipelineError) as refused:
                    index_split(features, manifest, split, training(objective))
                said = str(refused.value)
                assert f"{left_out.total()} of {total} utterances of {split}" in said
                remedies = {
                    "too_many_labels": "labels than CTC fits",
                    "longer_than_curriculum": "longer than chunk_frames",
                    "shorter_than_delay": "no more frames than target_delay",
                }
                assert all(f"{n} " in said and remedies[r] in said for r, n in left_out.items())
                continue
            use = index_split(features, manifest, split, training(objective)).use
            assert {s: Counter(one.left_out) for s, one in use.items()} == expected
            assert {s: one.num_utterances for s, one in use.items()} == {
                s: len(drawn[s]) for s in expected
            }


@given(data=st.data(), objective=st.sampled_from(["ctc", "frame"]))
@MANY
def test_training_and_evaluation_account_for_every_utterance(
    planted_features, data, objective
) -> None:
    drawn = data.draw(damages(most=1))
    # What the 1% of a split lets through is trained on; more is refused, as above.
    for split in (("tr-a", "tr-b"), ("dv",)):
        bad = sum((reasons(drawn[s], objective, split[0]) for s in split), Counter()).total()
        if bad > 0.01 * sum(len(drawn[s]) for s in split):
            for subset in split:
                drawn[subset] = ["sound"] * len(drawn[subset])
    with tempfile.TemporaryDirectory() as folder:
        features, manifest, rows = made(planted_features, folder, drawn, 40)
        rejects = data.draw(rejected())
        before = Location.of(Path(folder, "before"))
        features_of(before, features, manifest, rejects)
        runs = Location.of(Path(folder, "runs"))
        result = train(training(objective), features, runs, HERE)
        check_training(read_manifest(result.location, TrainManifest), drawn, rows, objective)
        config = EvaluateConfig(num_bootstrap=100, subsets=("te",), batch_size=4)
        evaluation = evaluate(config, [result.location], features, runs).location
        check_evaluation(evaluation, drawn["te"], objective, rejects)


@st.composite
def rejected(draw) -> dict[str, list[Reject]]:
    """What the stages before left out."""
    reasons_of = {"features": ["too_long", "missing_audio"], "aligned": ["too_short"]}
    return {
        stage: [
            Reject(f"{stage}-{n}", draw(st.sampled_from(["te", "tr-a"])), "", reason, "")
            for n, reason in enumerate(draw(st.lists(st.sampled_from(names), max_size=4)))
        ]
        for stage, names in reasons_of.items()
    }


def features_of(
    before: Location, aligned: Location, manifest: FeaturizeManifest, rejects: dict[str, list]
) -> None:
    """Make a set the alignment of another one, each with what it left out."""
    for target, stage, changes in (
        (before, "features", {"fingerprint": "before"}),
        (aligned, "aligned", {
            "upstream": {"features": "before"},
            "aligned": AlignmentInfo(
                features=before.uri, config={}, log_likelihood=0, silence_share=0, mean_phone_s=0
            ),
        }),
    ):  # fmt: skip
        counts = dict(Counter(str(reject.reason) for reject in rejects[stage]))
        write_rejects(target, rejects[stage])
        write_sealed(target, manifest.model_copy(update={"reject_counts": counts, **changes}))


def check_training(
    manifest: TrainManifest,
    drawn: dict[str, list[str]],
    rows: dict[str, list[FeatureRow]],
    objective: str,
) -> None:
    assert set(manifest.utterances) == {"tr-a", "tr-b", "dv"}
    for subset, use in manifest.utterances.items():
        split = "dev" if subset == "dv" else "train"
        assert Counter(use.left_out) == reasons(drawn[subset], objective, split)
        assert use.num_used + sum(use.left_out.values()) == use.num_utterances == len(drawn[subset])
    trained = [row for subset in ("tr-a", "tr-b") for row in rows[subset]]
    if objective == "ctc":
        trained = [row for row in trained if len(row.labels) <= len(row.features)]
    for metrics, longest in zip(manifest.metrics, (20, LONGEST), strict=True):
        takes = objective == "frame" or longest
        expected = [r for r in trained if takes is True or len(r.features) <= longest]
        assert metrics.num_utterances == len(expected)


def check_evaluation(
    evaluation: Location, drawn: list[str], objective: str, rejects: dict[str, list[Reject]]
) -> None:
    text = evaluation.child("metrics.json").read_bytes()
    metrics = EvaluationMetrics.model_validate_json(text)
    (model,) = metrics.models
    scored = metrics.utterances["te"]
    table = pq.read_table(evaluation.child("hypotheses.parquet").path)
    assert table.num_rows == model.num_utterances == scored.num_scored == len(drawn)
    assert scored.num_without_reference == drawn.count("nothing to find")
    assert model.num_too_short == (drawn.count("short") if objective == "frame" else 0)
    lost = [r for stage in rejects.values() for r in stage if r.subset == "te"]
    assert scored.is_known
    assert scored.left_out == dict(Counter(str(reject.reason) for reject in lost))
    page = evaluation.child("report.html").read_bytes().decode()
    assert ("left out before" in page) == bool(lost)


def test_an_epoch_that_has_not_seen_every_utterance_is_refused(planted_features, tmp_path) -> None:
    config = TrainConfig(
        model=ModelConfig(model="gru", hidden_size=4, num_layers=1),
        curriculum=(CurriculumStage(num_epochs=1),),
    )
    result = train(config, planted_features, Location.of(tmp_path), HERE)
    (epoch,) = read_manifest(result.location, TrainManifest).metrics
    manifest = read_manifest(planted_features, FeaturizeManifest)
    index = index_split(planted_features, manifest, "train", config)
    check_epochs(index, config, [epoch])
    lost = epoch.model_copy(update={"num_utterances": epoch.num_utterances - 1})
    with pytest.raises(PipelineError, match="trained on 41 utterances in place of 42"):
        check_epochs(index, config, [lost])
