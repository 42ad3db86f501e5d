"""Where training runs: an elastic range, other resources, and what is refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from torch.distributed.distributed_c10d import BackendConfig

from featurize.stage import Location, PipelineError
from training.models.model_config import ModelConfig
from training.train import train
from training.train_config import TrainConfig
from training.worker_config import WorkerConfig


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_workers": 2, "min_workers": 3}, "min_workers=3 exceeds num_workers=2"),
        ({"resources_per_worker": {"CPU": 2.0}}, "cpus_per_worker"),
        ({"resources_per_worker": {"gpu": 1.0}}, "use_gpu"),
        ({"resources_per_worker": {"trainer": 0.0}}, "above 0"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_remedy(
    settings: dict[str, object], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        WorkerConfig.model_validate(settings)


def test_ray_is_asked_for_a_range_and_for_everything_a_worker_needs() -> None:
    from training.ray_trainer import _num_workers, _resources_per_worker

    fixed = WorkerConfig(num_workers=4)
    assert _num_workers(fixed) == 4
    assert _resources_per_worker(fixed) == {"CPU": 1.0}
    elastic = WorkerConfig(
        num_workers=4, min_workers=2, use_gpu=True, resources_per_worker={"memory": 1e9}
    )
    assert _num_workers(elastic) == (2, 4)
    assert _resources_per_worker(elastic) == {"CPU": 1.0, "memory": 1e9, "GPU": 1.0}


def test_gpus_have_a_library_for_what_lies_on_the_cpu_as_well() -> None:
    """An epoch's sums do: NCCL alone would refuse them, after the epoch."""
    from training.ray_trainer import _backends

    for use_gpu, expected in ((True, {"cpu": "gloo", "cuda": "nccl"}), (False, {"cpu": "gloo"})):
        backends = BackendConfig(_backends(WorkerConfig(use_gpu=use_gpu)))
        assert expected.items() <= backends.get_device_backend_map().items()


def test_ranges_that_follow_one_workers_frames_are_not_trained_by_several(
    planted_features: Location, tmp_path: Path
) -> None:
    model = ModelConfig(model="v1", range_update="timestep")
    several = WorkerConfig(num_workers=2)
    with pytest.raises(PipelineError, match="num_workers=2; train with one"):
        train(TrainConfig(model=model), planted_features, Location.of(tmp_path), several)
