"""Learning from a trained recogniser beside the frame targets.

With p the teacher's and q the student's distribution over outputs, softened by a temperature tau
(Hinton, Vinyals & Dean 2015, arXiv 1503.02531)::

    L = (1 - w) CE(target, q) + w tau^2 KL(p_tau || q_tau)        p_tau = softmax(log p / tau)

over the frames that have a target. The teacher hears the very frames of the batch, masked and cut
as they are, and shall name them with the same delay; it does not learn.

Shape legend: T time, B batch, O outputs.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from featurize.schema import FeaturizeManifest
from featurize.stage import Location, PipelineError
from training.batching import Batch
from training.losses import IGNORED_TARGET
from training.models.network import SpeechNetwork
from training.train_config import DistillationConfig, TrainConfig
from training.trained_model import load_model


def distillation_loss_sum(
    log_probs_TBO: Tensor, teacher_TBO: Tensor, alignment_TB: Tensor, temperature: float
) -> Tensor:
    """``tau^2 KL(p_tau || q_tau)``, summed over the frames with a target.

    Args:
        log_probs_TBO: the student's log-softmax scores.
        teacher_TBO: the teacher's, without gradient.
        alignment_TB: targets; ``-1`` where there is none.
        temperature: tau.
    """
    named_TB = alignment_TB != IGNORED_TARGET
    student_NO = F.log_softmax(log_probs_TBO[named_TB] / temperature, dim=1)
    teacher_NO = F.log_softmax(teacher_TBO[named_TB] / temperature, dim=1)
    divergence = F.kl_div(student_NO, teacher_NO, reduction="sum", log_target=True)
    return temperature**2 * divergence


@dataclass(frozen=True)
class Teacher:
    """A trained recogniser that a network learns from."""

    network: SpeechNetwork  # in evaluation mode, without gradients
    config: DistillationConfig  # weight and temperature

    @classmethod
    def load(
        cls, config: TrainConfig, run: Location, features: FeaturizeManifest, num_outputs: int
    ) -> "Teacher | None":
        """The teacher of a training, where it has one.

        Args:
            run: where the training goes; the teacher lies beside it.
            features: manifest of the student's features.
            num_outputs: O of the student.
        """
        if config.distillation is None:
            return None
        location = run.parent.child(config.distillation.teacher)
        trained = load_model(location)
        name = f"distillation.teacher={config.distillation.teacher}"
        if trained.manifest.config.objective != "frame":
            raise PipelineError(f"{name} was not trained on frame targets; name one that was")
        heard = (trained.network.num_features, trained.manifest.frame_shift_s)
        own = (features.num_features, features.frame_shift_s)
        if heard != own:
            raise PipelineError(
                f"{name} hears {heard[0]} features every {1000 * heard[1]:g} ms and the student "
                f"{own[0]} every {1000 * own[1]:g} ms; train both on the same features"
            )
        if trained.network.num_outputs != num_outputs:
            raise PipelineError(
                f"{name} has {trained.network.num_outputs} outputs and the student {num_outputs}; "
                "train both on the same targets"
            )
        meant = (trained.manifest.labels, trained.manifest.states)
        if meant != (features.labels, features.states):
            raise PipelineError(
                f"{name} has as many outputs as the student, which mean other symbols or states; "
                "train both on the same targets"
            )
        if trained.manifest.cmvn.mode != features.cmvn.mode:
            raise PipelineError(
                f"{name} hears features with cmvn={trained.manifest.cmvn.mode} and the student "
                f"with cmvn={features.cmvn.mode}; train both on the same features"
            )
        delay = trained.target_delay
        if delay != (config.target_delay or 0):
            raise PipelineError(
                f"{name} names a frame {delay} frames later and the student "
                f"{config.target_delay or 0}; "
                + (f"set target_delay={delay}" if delay else "unset target_delay")
            )
        trained.network.requires_grad_(False)
        return cls(trained.network, config.distillation)

    def to(self, device: torch.device) -> "Teacher":
        """On a device."""
        return Teacher(self.network.to(device).eval(), self.config)

    def mixed(self, loss_sum: Tensor, log_probs_TBO: Tensor, batch: Batch) -> Tensor:
        """``(1 - w)`` of the loss and w of the distance to the teacher, summed over frames.

        Args:
            loss_sum: cross-entropy with the targets, summed.
            batch: what was heard.
        """
        assert batch.alignment_TB is not None
        with torch.no_grad():
            heard = self.network(batch.x_TBF, batch.lengths_B).log_probs_TBO
        distance = distillation_loss_sum(
            log_probs_TBO, heard, batch.alignment_TB, self.config.temperature
        )
        return (1.0 - self.config.weight) * loss_sum + self.config.weight * distance
