"""Where training runs: an elastic range, other resources, and what is refused."""

import pytest
from pydantic import ValidationError

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
