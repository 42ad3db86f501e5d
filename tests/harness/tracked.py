"""What a tracker is told in tests: epochs of a training, metrics of an evaluation."""

from evaluation.metrics import EvaluationMetrics
from training.manifest import EpochMetrics, TrainProgress


class Manifest:
    """Stands for a training manifest: the tracker reads its epochs."""

    def __init__(self, num_epochs: int) -> None:
        self.metrics = epochs(num_epochs)


def epochs(number: int) -> tuple[EpochMetrics, ...]:
    return tuple(
        EpochMetrics(
            epoch=n,
            train_loss=2.0 - n,
            dev_loss=2.5 - n,
            dev_error=0.5 / (n + 1),
            learning_rate=1e-3,
            frames_per_s=1000.0,
            num_frames=10,
            num_utterances=1,
            seconds=1.0,
            spike_density=(0.5, 0.25, 0.125),
        )
        for n in range(number)
    )


def progress(finished: int) -> TrainProgress:
    return TrainProgress(
        epoch=finished, num_epochs=4, step=1, num_steps=2, loss=1.0, epochs=epochs(finished)
    )


def evaluation_metrics() -> EvaluationMetrics:
    saving = {"gru": 5.0, "lstm": None}
    model = {
        "model": "v2",
        "label": "v2",
        "run": "runs/training/x",
        "training_fingerprint": "x",
        "decoder": "greedy",
        "num_layers": 2,
        "hidden_size": 550,
        "num_bits": 6,
        "num_utterances": 1,
        "num_frames": 100,
        "frame_shift_s": 0.01,
        "error_rates": {"per": {"value": 0.25, "low": 0.2, "high": 0.3}},
        "parameters": {"total": 10, "recurrent_layers": 8},
        "spike_density": (0.5, 0.25, 0.125),
        "multiplications_per_frame": {
            "audited": 1000.0,
            "as_published": 1200.0,
            "terms": {},
            "audited_closed_form": 1001.0,
        },
        "additions_per_frame": 1100.0,
        "saving": saving,
        "saving_as_published": saving,
        "training_seconds": 1.0,
        "num_epochs": 4,
    }
    return EvaluationMetrics.model_validate(
        {
            "features": "f",
            "subsets": ("test",),
            "label_kind": "phones",
            "primary_rate": "per",
            "models": (model, model | {"model": "gru", "label": "gru", "num_bits": None}),
        }
    )
