"""Alignment and evaluation on three Ray nodes, one taken away in the middle: the same bytes."""

import json
import shutil
import subprocess
import sys
import tempfile
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


@pytest.fixture
def cluster(tmp_path: Path):
    temp = Path(tempfile.mkdtemp(prefix="sl-", dir="/tmp"))
    try:
        with ray_cluster(tmp_path, temp, num_nodes=3) as nodes:
            yield nodes
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


def disturbed(cluster: RayCluster, step: str, *arguments: str) -> Location:
    """The result of a driver whose cluster loses a node when the step has begun to end."""
    log = (cluster.folder / "driver.log").open("wb")
    driver = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("fan_out_driver.py"), *arguments],
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
        if left is None and said.get("step") == step and said["done"] >= 1:
            cluster.nodes[2].kill()
            left = said["all"] - said["done"]
    assert driver.wait() == 0, (cluster.folder / "driver.log").read_text()[-4000:]
    assert left is not None
    assert left > 2, "the node was not lost in the middle"
    assert result is not None
    return Location.of(result)


def content_of(location: Location) -> dict[str, bytes]:
    names = [name for name in location.files() if name not in NOT_COMPARED]
    return {name: location.child(*name.split("/")).read_bytes() for name in names}


def test_an_alignment_survives_a_node_and_is_the_same(
    cluster: RayCluster, features: Location, aligned: Location, tmp_path: Path
) -> None:
    found = disturbed(
        cluster,
        "aligning",
        *("align", ALIGN.model_dump_json(), features.uri, str(tmp_path / "runs"), "4"),
    )
    assert content_of(found) == content_of(aligned)


def test_an_evaluation_survives_a_node_and_is_the_same(
    cluster: RayCluster, aligned: Location, tmp_path: Path
) -> None:
    config = TrainConfig(
        model=ModelConfig(model="v2", hidden_size=16, num_layers=1),
        objective="frame",
        curriculum=(CurriculumStage(num_epochs=2, chunk_frames=100),),
    )
    here = WorkerConfig(in_process=True, threads_per_worker=1)
    runs = Location.of(tmp_path / "runs")
    model = train(config, aligned, runs, here).location
    undisturbed = evaluate(EVALUATE, [model], aligned, Location.of(tmp_path / "alone"))
    found = disturbed(
        cluster,
        "scoring",
        *("evaluate", EVALUATE.model_dump_json(), aligned.uri, runs.uri, "4", model.uri),
    )
    assert content_of(found) == content_of(undisturbed.location)
