"""``verify`` finds every kind of damage, ``repair`` redoes that and nothing else."""

import json
import shutil
from pathlib import Path

import pytest

from evaluation.evaluate import evaluate
from featurize.featurize import featurize
from featurize.schema import FeaturizeManifest
from featurize.stage import FanOut, Location, PipelineError, read_manifest
from featurize.stage.manifest import write_sealed
from flows.cli import run
from flows.comparison import read_metrics
from flows.integrity import inspect, repair, stage_locations
from tests.harness.tiny import EVALUATION, FEATURES, HERE, TRAINING, make_corpus
from training.train import train
from training.trained_model import load_model


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A corpus, and all three stages made from it: {stage: location}."""
    root = tmp_path_factory.mktemp("sound")
    corpus = Location.of(make_corpus(root / "corpus"))
    runs = Location.of(root / "runs")
    features = featurize(FEATURES, corpus, runs, fan_out=FanOut(kind="sequential")).location
    model = train(TRAINING, features, runs, HERE).location
    evaluation = evaluate(EVALUATION, [model], features, runs).location
    return {"featurize": features, "training": model, "evaluation": evaluation}


@pytest.fixture(params=["featurize", "training", "evaluation"])
def stage(request, finished):
    """One stage's location; put back as it was afterwards."""
    location = finished[request.param]
    kept = f"{location.path}-kept"
    shutil.copytree(location.path, kept)
    yield location
    shutil.rmtree(location.path, ignore_errors=True)
    shutil.move(kept, location.path)


def content_of(location):
    """Every file's bytes, but for what tells the time."""
    files = {name: location.child(name).read_bytes() for name in location.files()}
    return {n: c for n, c in files.items() if not n.startswith(("manifest", "report"))}


def flip(location, name):
    file = location.child(name)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(bytes(content))


def test_what_is_whole_is_sound(stage):
    inspection = inspect(stage)
    assert inspection.is_sound
    assert inspection.num_files == len(stage.files()) - 2
    assert repair(stage, HERE)[1] == inspection


def test_every_flipped_file_is_named_and_redone(stage):
    before = content_of(stage)
    # Last to first: weights before the checkpoint that they are taken from.
    for name in reversed(list(stage.files())):
        if not stage.child(name).exists():
            continue  # dropped with the rest of its checkpoint
        flip(stage, name)
        inspection = inspect(stage)
        assert [damage.file for damage in inspection.damage] == [name]
        found, after = repair(stage, HERE)
        assert after.is_sound, after
        assert name in [damage.file for damage in found.damage]
    after = content_of(stage)
    # A finished run needs no checkpoint, so a damaged one is dropped.
    assert after == {name: before[name] for name in after}
    assert all(name.startswith("checkpoints/") for name in set(before) - set(after))


def test_missing_files_and_leftovers(stage):
    before = content_of(stage)
    name = next(name for name in before if "/" not in name)
    stage.child(name).remove()
    stage.child("left", "over.txt").write_bytes(b"?")
    inspection = inspect(stage)
    assert [damage.file for damage in inspection.damage] == [name]
    assert inspection.leftovers == ("left/over.txt",)
    assert repair(stage, HERE)[1].is_sound
    assert content_of(stage) == before


def test_every_changed_value_of_a_manifest_is_noticed(stage):
    content = json.loads(stage.child("manifest.json").read_bytes())
    content["created_at"] = "2001-01-01T00:00:00+00:00"
    stage.child("manifest.json").write_bytes(json.dumps(content).encode())
    with pytest.raises(PipelineError, match=r"manifest.json is damaged.*spikeline repair"):
        read_manifest(stage, {"featurize": FeaturizeManifest}.get(content["stage"], _type(content)))
    stage.child("manifest-copy.json").write_bytes(b"{}")
    with pytest.raises(PipelineError, match=r"copy is damaged too.*--force"):
        repair(stage, HERE)


def _type(content):
    from flows.integrity import MANIFEST_TYPES

    return MANIFEST_TYPES[content["stage"]]


def test_readers_name_the_file_and_the_remedy(stage, tmp_path):
    names = {
        "featurize": "shards/shard-00000.parquet",
        "training": "weights.safetensors",
        "evaluation": "metrics.json",
    }
    name = names[stage.parent.name]
    flip(stage, name)
    readers = {
        "featurize": lambda: train(
            TRAINING.model_copy(update={"seed": 9}),
            stage,
            Location.of(tmp_path),
            HERE.model_copy(update={"verify_features": "full"}),
        ),
        "training": lambda: load_model(stage),
        "evaluation": lambda: read_metrics(stage),
    }
    with pytest.raises(PipelineError, match=rf"{name} .*spikeline repair {stage.path}"):
        readers[stage.parent.name]()


def test_weights_lost_with_their_checkpoints_are_trained_again(finished):
    location = finished["training"]
    before = content_of(location)
    for name in before:
        if name.startswith(("weights", "checkpoints")):
            flip(location, name)
    found, after = repair(location, HERE)
    assert len(found.damage) >= 4
    assert after.is_sound
    assert content_of(location)["weights.safetensors"] == before["weights.safetensors"]


def test_repair_refuses_another_corpus(finished, tmp_path):
    location = finished["featurize"]
    other = make_corpus(tmp_path / "other")
    (other / "dev-tiny" / "1" / "7" / "1-7.trans.txt").write_text("")
    flip(location, "shards/shard-00001.parquet")
    with pytest.raises(PipelineError, match=r"is not what .* was made from"):
        repair(location, HERE, Location.of(other))
    assert repair(location, HERE)[1].is_sound


def test_shards_of_an_earlier_version_lie_beside_the_manifest_and_are_read_and_redone(
    finished, tmp_path
):
    runs = finished["featurize"].parent.parent
    shutil.copytree(runs.path, tmp_path / "runs")
    location = Location.of(tmp_path / "runs").child("featurize", finished["featurize"].name)
    manifest = read_manifest(location, FeaturizeManifest)
    old = [shard.model_copy(update={"file": Path(shard.file).name}) for shard in manifest.shards]
    for shard in old:
        Path(location.child("shards", shard.file).path).rename(location.child(shard.file).path)
    Path(location.child("shards").path).rmdir()
    sums = {name.removeprefix("shards/"): found for name, found in manifest.checksums.items()}
    write_sealed(location, manifest.model_copy(update={"shards": tuple(old), "checksums": sums}))
    assert inspect(location).is_sound
    before = content_of(location)
    flip(location, "shard-00001.parquet")
    assert [damage.file for damage in inspect(location).damage] == ["shard-00001.parquet"]
    assert repair(location, HERE)[1].is_sound
    assert content_of(location) == before


def test_an_old_manifest_without_checksums_still_verifies_its_shards(finished):
    location = finished["featurize"]
    kept = location.child("manifest.json").read_bytes()
    content = json.loads(kept)
    for field in ("checksums", "manifest_sha256", "corpus"):
        del content[field]
    location.child("manifest.json").write_bytes(json.dumps(content).encode())
    try:
        inspection = inspect(location)
        assert inspection.is_sound
        assert inspection.num_files == len(content["shards"])
    finally:
        location.child("manifest.json").write_bytes(kept)


def test_the_commands(finished, capfd):
    runs = finished["featurize"].parent.parent
    assert len(stage_locations(runs)) == 3
    assert run(["verify", str(runs), "--json"]) == 0
    assert all(found["sound"] for found in json.loads(capfd.readouterr().out)["locations"])
    flip(finished["featurize"], "shards/shard-00002.parquet")
    assert run(["verify", str(runs)]) == 2
    said = capfd.readouterr()
    assert "shard-00002.parquet: its SHA-256 is not the manifest's" in said.out
    assert f"spikeline repair {finished['featurize']}" in said.err
    assert run(["repair", str(finished["featurize"])]) == 0
    assert "redone" in capfd.readouterr().out
    assert run(["verify", str(runs)]) == 0
    assert run(["verify", str(runs.child("nowhere"))]) == 2
    assert "is no runs folder" in capfd.readouterr().err
