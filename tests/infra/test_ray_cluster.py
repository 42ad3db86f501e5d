"""Several Ray nodes, a driver that joins them with a token, and one that is taken away."""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from featurize.corpora.scan import scan_corpus
from featurize.schema import FeaturizeManifest
from featurize.stage import Location, read_manifest
from flows.overrides import apply_overrides
from flows.recipes import RECIPES, Recipe
from tests.infra.ray_nodes import RayCluster, ray_cluster
from training.checkpoint import CheckpointStore
from training.manifest import TrainManifest
from training.train import train
from training.worker_config import WorkerConfig

pytestmark = [pytest.mark.integration, pytest.mark.cluster]

NUM_EPOCHS = 12
NUM_NODES = 3


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory):
    temp = Path(tempfile.mkdtemp(prefix="sl-", dir="/tmp"))
    try:
        with ray_cluster(tmp_path_factory.mktemp("cluster"), temp, num_nodes=NUM_NODES) as nodes:
            yield nodes
    finally:
        shutil.rmtree(temp, ignore_errors=True)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return apply_overrides(
        RECIPES["demo"],
        [
            "models=v2",
            "train.model.hidden_size=16",
            f'train.curriculum=[{{"num_epochs": {NUM_EPOCHS}, "chunk_frames": 100}}]',
            "featurize.utterances_per_shard=4",
            "workers.num_workers=3",
            "workers.min_workers=1",
        ],
    )


def start_driver(cluster: RayCluster, recipe: Recipe, corpus: Path, runs: Path):
    driver = Path(__file__).with_name("cluster_driver.py")
    number = str(len(cluster.living))
    return subprocess.Popen(
        [sys.executable, driver, recipe.model_dump_json(), corpus, runs, number],
        stdout=subprocess.PIPE,
        stderr=(cluster.folder / "driver.log").open("wb"),
        env=cluster.environment,
        text=True,
    )


@pytest.mark.timeout(600)
def test_a_node_lost_in_training_costs_neither_utterances_nor_the_run(
    cluster: RayCluster, recipe: Recipe, synthetic_corpus: Path, tmp_path: Path
) -> None:
    corpus, runs = synthetic_corpus / "timit", tmp_path / "runs"
    driver = start_driver(cluster, recipe, corpus, runs)
    said: dict[str, object] = {}
    epochs_before, lost, sizes = 0, None, []
    assert driver.stdout is not None
    for line in driver.stdout:
        try:
            said |= json.loads(line)
        except ValueError:
            continue
        if "epoch" not in said or "model" in said:
            continue
        if lost is None and int(str(said["epoch"])) >= 3:
            sizes = [len(node.train_workers) for node in cluster.nodes]
            lost = cluster.nodes[NUM_NODES - 1]
            epochs_before = int(str(said["epoch"]))
            lost.kill()
    assert driver.wait() == 0, (cluster.folder / "driver.log").read_text()[-4000:]

    assert sizes == [1, 1, 1, 0], "training was not spread over the nodes"
    assert len(set(said["shard_nodes"])) == 3, "shards were not made on every node"

    features = read_manifest(Location.of(str(said["features"])), FeaturizeManifest)
    seen = Counter(
        utterance
        for shard in features.shards
        for utterance in pq.read_table(
            Path(str(said["features"]), shard.file), columns=["utterance_id"]
        )["utterance_id"].to_pylist()
    )
    listed = scan_corpus("timit", Location.of(corpus), recipe.featurize.splits.subsets)
    assert seen == Counter(entry.utterance_id for entry in listed.entries)

    trained = read_manifest(Location.of(str(said["model"])), TrainManifest)
    assert 3 <= epochs_before < NUM_EPOCHS
    assert [metrics.epoch for metrics in trained.metrics] == list(range(NUM_EPOCHS))

    undisturbed = train(
        recipe.models[0],
        Location.of(str(said["features"])),
        Location.of(tmp_path / "undisturbed"),
        WorkerConfig(in_process=True),
    )
    expected = read_manifest(undisturbed.location, TrainManifest)
    # One worker and three compute the same steps up to rounding, which spikes can amplify.
    for own, other in zip(trained.metrics, expected.metrics, strict=True):
        assert own.train_loss == pytest.approx(other.train_loss, rel=0.1)


class Epochs:
    """The epochs that a driver says are at work, as it says them."""

    def __init__(self, driver: "subprocess.Popen[str]") -> None:
        self.latest = -1
        threading.Thread(target=self._follow, args=(driver.stdout,), daemon=True).start()

    def _follow(self, lines) -> None:
        for line in lines:
            try:
                self.latest = json.loads(line).get("epoch", self.latest)
            except ValueError:
                continue


def wait_for_group(cluster: RayCluster, driver, sizes: list[int], before: set[int]) -> set[int]:
    """Wait for a group of training workers, none of them of an earlier group; their ids.

    Args:
        sizes: workers on each node, in the cluster's order.
    """
    deadline = time.monotonic() + 240
    while True:
        groups = [node.train_workers for node in cluster.nodes]
        pids = {pid for group in groups for pid in group}
        if [len(group) for group in groups] == sizes and not pids & before:
            return pids
        log = (cluster.folder / "driver.log").read_text()[-4000:]
        assert driver.poll() is None, log
        assert time.monotonic() < deadline, f"{groups}, not {sizes}\n{log}"
        time.sleep(0.1)


def wait_for_epoch(epochs: Epochs, driver, number: int) -> None:
    deadline = time.monotonic() + 240
    while epochs.latest < number:
        assert driver.poll() is None
        assert time.monotonic() < deadline, epochs.latest
        time.sleep(0.1)


@pytest.mark.timeout(900)
def test_a_group_shrinks_with_a_node_and_grows_back_when_one_returns(
    cluster: RayCluster, recipe: Recipe, synthetic_corpus: Path, tmp_path: Path
) -> None:
    training = recipe.models[0].model_dump()
    training["curriculum"] = [{"num_epochs": 5000, "chunk_frames": 100}]
    recipe = Recipe.model_validate(
        recipe.model_dump()
        | {"models": [training], "workers": {**recipe.workers.model_dump(), "resize_check_s": 3.0}}
    )
    corpus, runs = synthetic_corpus / "timit", tmp_path / "runs"
    # Nodes: the first, the second, one that is gone, the driver's; and now a new one.
    cluster.nodes[NUM_NODES - 1].kill()
    leaving = cluster.add_node("--address", cluster.address)
    driver = start_driver(cluster, recipe, corpus, runs)
    try:
        epochs = Epochs(driver)
        first = wait_for_group(cluster, driver, [1, 1, 0, 0, 1], set())
        wait_for_epoch(epochs, driver, 2)
        leaving.kill()
        second = wait_for_group(cluster, driver, [1, 1, 0, 0, 0], first)
        shrunk_at = epochs.latest
        wait_for_epoch(epochs, driver, shrunk_at + 2)
        cluster.add_node("--address", cluster.address)
        third = wait_for_group(cluster, driver, [1, 1, 0, 0, 0, 1], second)
        grown_at = epochs.latest
        wait_for_epoch(epochs, driver, grown_at + 2)
        print(f"three workers, two from epoch {shrunk_at}, three again from epoch {grown_at}")
    finally:
        driver.terminate()
        driver.wait(timeout=120)
    assert len(first) == len(third) == 3
    assert len(second) == 2
    (run,) = (checkpoints.parent for checkpoints in (runs / "training").glob("*/checkpoints"))
    state = CheckpointStore(Location.of(run)).newest()
    assert state is not None
    assert [metrics.epoch for metrics in state.epochs] == list(range(state.epoch + 1))
    assert state.epoch > grown_at
    assert state.epochs[-1].train_loss < state.epochs[0].train_loss
