"""Alignment and evaluation on one Ray node and on three, one taken away: the same bytes."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from evaluation.config import EvaluateConfig, ViterbiConfig
from evaluation.evaluate import evaluate
from featurize.featurize import featurize
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.stage import FanOut, Location
from tests.infra.ray_nodes import RayCluster, ray_cluster
from training.align.align import align
from training.align.align_config import AlignConfig
from training.models.model_config import ModelConfig
from training.train import train
from training.train_config import CurriculumStage, TrainConfig
from training.worker_config import WorkerConfig

pytestmark = [pytest.mark.integration, pytest.mark.cluster, pytest.mark.timeout(900)]

SPLITS = SplitsConfig(train=("train",), dev=("dev",), test=("test",))
ALIGN = AlignConfig(num_gaussian_rounds=6, num_mixtures=2)
EVALUATE = EvaluateConfig(
    batch_size=1, num_bootstrap=100, viterbi=ViterbiConfig(tune_max_utterances=4)
)
# Of a result's manifest and report, which tell the time and their own place.
NOT_COMPARED = ("manifest.json", "manifest-copy.json", "report.html")


@contextmanager
def nodes(folder: Path, num_nodes: int) -> Iterator[RayCluster]:
    temp = Path(tempfile.mkdtemp(prefix="sl-", dir="/tmp"))
    folder.mkdir()
    try:
        with ray_cluster(folder, temp, num_nodes) as cluster:
            yield cluster
    finally:
        shutil.rmtree(temp, ignore_errors=True)


@pytest.fixture(scope="module")
def features(synthetic_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Location:
    config = FeaturizeConfig(
        corpus="timit", splits=SPLITS, labels="phones", cmvn="speaker", utterances_per_shard=2
    )
    runs = Location.of(tmp_path_factory.mktemp("features"))
    corpus = Location.of(synthetic_corpus / "timit")
    return featurize(config, corpus, runs, fan_out=FanOut(kind="sequential")).location


@pytest.fixture(scope="module")
def aligned(features: Location, tmp_path_factory: pytest.TempPathFactory) -> Location:
    return align(ALIGN, features, Location.of(tmp_path_factory.mktemp("aligned"))).location


def on_ray(cluster: RayCluster, lost_during: str | None, *arguments: str) -> Location:
    """The result of a driver; its cluster loses a node when the step named has begun to end."""
    log = (cluster.folder / "driver.log").open("wb")
    num_nodes = len(cluster.nodes)
    stage, config, features, runs, *models = arguments
    driver = subprocess.Popen(
        [
            *(sys.executable, Path(__file__).with_name("fan_out_driver.py")),
            *(stage, config, features, runs, str(num_nodes), *models),
        ],
        stdout=subprocess.PIPE,
        stderr=log,
        env=cluster.environment,
        text=True,
    )
    left, result = None, None
    assert driver.stdout is not None
    for line in driver.stdout:
        try:
            said = json.loads(line)
        except ValueError:
            continue
        result = said.get("result", result)
        if lost_during and left is None and said.get("step") == lost_during and said["done"] >= 1:
            cluster.nodes[2].kill()
            left = said["all"] - said["done"]
    assert driver.wait() == 0, (cluster.folder / "driver.log").read_text()[-4000:]
    if lost_during:
        assert left is not None
        assert left > 2, "the node was not lost in the middle"
    assert result is not None
    return Location.of(result)


def content_of(location: Location) -> dict[str, bytes]:
    names = [name for name in location.files() if name not in NOT_COMPARED]
    return {name: location.child(*name.split("/")).read_bytes() for name in names}


def same_on_ray(folder: Path, lost_during: str, expected: Location, *arguments: str) -> None:
    """A stage on one node, and on three of which one is lost, gives the files of one process."""
    stage, config, features, *models = arguments
    for num_nodes, lost in ((1, None), (3, lost_during)):
        with nodes(folder / f"{num_nodes}-nodes", num_nodes) as cluster:
            runs = str(folder / f"runs-of-{num_nodes}")
            found = on_ray(cluster, lost, stage, config, features, runs, *models)
        assert content_of(found) == content_of(expected), f"{num_nodes} nodes"


def test_an_alignment_is_the_same_wherever_it_runs(
    features: Location, aligned: Location, tmp_path: Path
) -> None:
    same_on_ray(tmp_path, "aligning", aligned, "align", ALIGN.model_dump_json(), features.uri)


def test_an_evaluation_is_the_same_wherever_it_runs(aligned: Location, tmp_path: Path) -> None:
    config = TrainConfig(
        model=ModelConfig(model="v2", hidden_size=16, num_layers=1),
        objective="frame",
        curriculum=(CurriculumStage(num_epochs=2, chunk_frames=100),),
    )
    here = WorkerConfig(in_process=True, threads_per_worker=1)
    model = train(config, aligned, Location.of(tmp_path / "runs"), here).location
    alone = evaluate(EVALUATE, [model], aligned, Location.of(tmp_path / "alone")).location
    stage = ("evaluate", EVALUATE.model_dump_json(), aligned.uri, model.uri)
    same_on_ray(tmp_path, "scoring", alone, *stage)
