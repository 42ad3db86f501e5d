"""Learning from a teacher: the distance by hand, and a training that follows one."""

import math

import pytest
import torch

from featurize.schema import FeaturizeManifest
from featurize.stage import Location, PipelineError, read_manifest
from training.distillation import Teacher, distillation_loss_sum
from training.manifest import TrainManifest
from training.models.model_config import ModelConfig
from training.train import train, training_fingerprint
from training.train_config import (
    CurriculumStage,
    DistillationConfig,
    OptimizerConfig,
    TrainConfig,
)
from training.trained_model import load_model
from training.worker_config import WorkerConfig

HERE = WorkerConfig(in_process=True, threads_per_worker=1)


def test_the_distance_by_hand():
    # frame 1: p = (3/4, 1/4), q = (1/2, 1/2); frame 2 has no target and does not count
    student = torch.log(torch.tensor([[[0.5, 0.5]], [[0.9, 0.1]]])).requires_grad_()
    teacher = torch.log(torch.tensor([[[0.75, 0.25]], [[0.1, 0.9]]]))
    targets = torch.tensor([[0], [-1]])
    value = distillation_loss_sum(student, teacher, targets, 1.0)
    assert value.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-5)
    value.backward()
    assert student.grad[0, 0].tolist() == pytest.approx([-0.25, 0.25])
    assert not student.grad[1].any()


def test_a_temperature_softens_both_and_keeps_the_gradients_size():
    student = torch.log(torch.tensor([[[0.5, 0.5]]])).requires_grad_()
    teacher = torch.log(torch.tensor([[[0.8, 0.2]]]))
    # tau 2: p is proportional to the square roots, 2 : 1
    value = distillation_loss_sum(student, teacher, torch.tensor([[0]]), 2.0)
    assert value.item() == pytest.approx(
        4 * (2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)), rel=1e-5
    )
    value.backward()
    assert student.grad.flatten().tolist() == pytest.approx([-2 * (2 / 3 - 1 / 2), 1 / 3], rel=1e-4)


def frame_training(model="lstm", num_epochs=3, **changes):
    settings = {
        "model": ModelConfig(model=model, hidden_size=24, dropout=0.0),
        "objective": "frame",
        "curriculum": (CurriculumStage(num_epochs=num_epochs),),
        "batch_size": 10,
        "optimizer": OptimizerConfig(learning_rate=1e-2, constant_epochs=45),
    }
    return TrainConfig(**(settings | changes))


@pytest.fixture(scope="module")
def taught(planted_features, tmp_path_factory):
    """Root of results with a finished teacher, and its fingerprint."""
    root = Location.of(tmp_path_factory.mktemp("runs"))
    return root, train(frame_training(num_epochs=12), planted_features, root, HERE)


def test_a_student_follows_its_teacher_alone(planted_features, taught):
    """With a weight of 1 no target is seen, and the student learns nevertheless."""
    root, teacher = taught
    distillation = DistillationConfig(teacher=teacher.fingerprint, weight=1.0)
    config = frame_training("gru", num_epochs=12, distillation=distillation)
    student = read_manifest(train(config, planted_features, root, HERE).location, TrainManifest)
    untaught = student.metrics[0].dev_error
    assert student.best_dev_error < 0.7 * untaught
    assert (
        student.best_dev_error < 1.2 * read_manifest(teacher.location, TrainManifest).best_dev_error
    )


def test_the_teacher_names_the_result(planted_features, taught):
    _, teacher = taught
    manifest = read_manifest(planted_features, FeaturizeManifest)
    alone = training_fingerprint(frame_training(), manifest)
    assert alone == training_fingerprint(frame_training(distillation=None), manifest)
    with_teacher = DistillationConfig(teacher=teacher.fingerprint)
    assert alone != training_fingerprint(frame_training(distillation=with_teacher), manifest)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_delay": 2}, "the student 2; unset target_delay"),
        ({"distillation": DistillationConfig(teacher="0123")}, "0123"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(planted_features, taught, changes, message):
    root, teacher = taught
    settings = {"distillation": DistillationConfig(teacher=teacher.fingerprint)} | changes
    with pytest.raises(PipelineError, match=message):
        train(frame_training(**settings), planted_features, root, HERE)


def test_a_teacher_that_hears_other_features_is_refused(planted_features, taught):
    root, teacher = taught
    manifest = read_manifest(planted_features, FeaturizeManifest)
    config = frame_training(distillation=DistillationConfig(teacher=teacher.fingerprint))
    for change in ({"num_features": manifest.num_features + 1}, {"frame_shift_s": 0.03}):
        other = manifest.model_copy(update=change)
        with pytest.raises(PipelineError, match=r"hears \d+ features every .* ms and the student"):
            Teacher.load(config, root.child("training", "mine"), other, 3)


def test_a_teacher_whose_outputs_mean_something_else_is_refused(planted_features, taught):
    root, teacher = taught
    manifest = read_manifest(planted_features, FeaturizeManifest)
    config = frame_training(distillation=DistillationConfig(teacher=teacher.fingerprint))
    num_outputs = load_model(teacher.location).network.num_outputs
    mine = root.child("training", "mine")
    assert Teacher.load(config, mine, manifest, num_outputs) is not None
    symbols = manifest.labels.symbols
    turned = manifest.labels.model_copy(update={"symbols": (*symbols[1:], symbols[0])})
    mode = "speaker" if manifest.cmvn.mode == "none" else "none"
    for change, message in (
        ({"labels": turned}, "mean other symbols or states"),
        ({"cmvn": manifest.cmvn.model_copy(update={"mode": mode})}, f"student with cmvn={mode}"),
    ):
        other = manifest.model_copy(update=change)
        with pytest.raises(PipelineError, match=message):
            Teacher.load(config, mine, other, num_outputs)


def test_ctc_has_no_teacher():
    with pytest.raises(ValueError, match="distillation is for objective=frame"):
        frame_training(objective="ctc", distillation=DistillationConfig(teacher="0123"))
