"""The training loop, free of any framework: one worker's part of it.

Every random draw is seeded by (seed, epoch, step), never carried, so that a resumed run equals
an uninterrupted one, and drawn for the global batch, so that any number of workers agrees.

Shape legend: T time, B batch, F features, O outputs.
"""

import itertools
import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import kaldialign
import torch
from torch import Tensor, nn
from torch.profiler import record_function

from featurize.stage import PipelineError
from training.batching import Batch
from training.budget import BudgetController
from training.checkpoint import CheckpointState, CheckpointStore
from training.collectives import all_sum, rank, world_size
from training.data import StepPart, TrainingData
from training.density import density_penalty
from training.distillation import Teacher
from training.learning_rate import next_learning_rate, step_learning_rate
from training.losses import ctc_loss_sum, frame_loss_sum, greedy_ctc_labels
from training.manifest import EpochMetrics, TrainProgress
from training.models.counting import NetworkShape
from training.models.network import NetworkOutput, SpeechNetwork
from training.models.reached import site_of, weights_reached
from training.train_config import TrainConfig
from training.weight_averaging import averaged
from training.weight_pruning import WeightPruner

logger = logging.getLogger(__name__)

MAX_SKIPPED_STEPS = 20
"""Steps of an epoch with an infinite gradient, after which training counts as diverged; half of its
steps where these are fewer."""
MAX_LOSS = 1e6
"""Nats per target above which training counts as diverged; huge weights may still give a number."""

ProgressCallback = Callable[[TrainProgress], None]


class Observers(NamedTuple):
    """Who is told how a training goes."""

    on_progress: ProgressCallback | None = None  # called on rank 0 after every step and epoch
    # called on every worker when an epoch's checkpoint stands
    on_epoch: Callable[[EpochMetrics], None] | None = None


def _sparsity_text(metrics: EpochMetrics) -> str:
    """Spike densities and cost of an epoch, for the log."""
    if not metrics.spike_density:
        return ""
    text = ", densities " + " / ".join(f"{share:.3f}" for share in metrics.spike_density)
    if metrics.multiplications_per_s is not None:
        text += f", {metrics.multiplications_per_s / 1e6:.2f} M multiplications/s"
    return text


def _diverged(epoch: int, what: str) -> PipelineError:
    return PipelineError(
        f"training diverged in epoch {epoch + 1} ({what}); lower train.optimizer.learning_rate, "
        "or begin with shorter sequences (train.curriculum)"
    )


@dataclass
class DevScores:
    """Results on the dev split, over all workers."""

    loss: float
    error: float
    spike_density: tuple[float, ...]
    # audited, of a pruned network; None where they follow from the density
    multiplications_per_frame: float | None = None


@dataclass
class TrainingLoop:
    """One worker's training."""

    network: SpeechNetwork  # the recogniser, on ``device``
    module: nn.Module  # what is called forward: the network, or its data-parallel wrapper
    config: TrainConfig
    data: TrainingData  # batches of the train and dev splits
    store: CheckpointStore  # where checkpoints go; rank 0 writes
    # where the network is
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    bfloat16: bool = False  # autocast (CUDA only)
    observers: Observers = field(default_factory=Observers)  # who is told
    teacher: Teacher | None = None  # what the network learns from beside the targets, on ``device``

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=self.config.optimizer.learning_rate,
            weight_decay=self.config.optimizer.weight_decay,
        )
        averaging = self.config.weight_averaging
        self.average = None if averaging is None else averaged(self.network, averaging)
        self.epochs: tuple[EpochMetrics, ...] = ()
        self.learning_rate = self.config.optimizer.learning_rate
        self.num_skipped_steps = 0
        self.budget = self._budget()
        self.pruner: WeightPruner | None = None  # from the first epoch on, if any

    def _budget(self) -> BudgetController | None:
        budget, network = self.config.budget, self.network
        if budget is None or not self.config.model.is_event_based:
            return None
        shape = NetworkShape(self.config.model, network.num_features, network.num_outputs)
        return BudgetController(budget, shape, 1.0 / self.data.manifest.frame_shift_s)

    def run(self) -> None:
        """Train from the newest complete checkpoint, if any, to the last epoch."""
        state = self.store.newest()
        if state is not None:
            self._resume(state)
        if (density := self.config.model.weight_density) is not None:
            self.pruner = WeightPruner(self.network, density)
        for epoch in range(len(self.epochs), self.config.num_epochs):
            metrics = self.run_epoch(epoch)
            self.learning_rate = next_learning_rate(
                self.config.optimizer, self.learning_rate, (*self.epochs, metrics)
            )
            self.epochs = (*self.epochs, metrics)
            if rank() == 0:
                self.store.save(
                    self.network, self.average, self.optimizer, self.learning_rate, self.epochs
                )
            self._tell(epoch, metrics.train_loss, 0, 0)
            if self.observers.on_epoch is not None:
                self.observers.on_epoch(metrics)
            logger.info(
                "epoch %d/%d: train loss %.3f, dev error %.2f%%, %.0f frames/s%s",
                epoch + 1,
                self.config.num_epochs,
                metrics.train_loss,
                100 * metrics.dev_error,
                metrics.frames_per_s,
                _sparsity_text(metrics),
            )

    def _resume(self, state: CheckpointState) -> None:
        logger.info("resuming after epoch %d", state.epoch + 1)
        self.store.restore(state, self.network, self.average, self.optimizer)
        self.epochs = state.epochs
        self.learning_rate = state.learning_rate

    def _tell(self, epoch: int, loss: float, step: int, num_steps: int) -> None:
        if self.observers.on_progress is not None and rank() == 0:
            self.observers.on_progress(
                TrainProgress(
                    epoch=epoch,
                    num_epochs=self.config.num_epochs,
                    step=step,
                    num_steps=num_steps,
                    loss=loss,
                    epochs=self.epochs,
                )
            )

    def _begin_epoch(self, epoch: int) -> None:
        if self.budget is not None:
            self.budget.resume(self.epochs)
        for network in self._networks():
            network.begin_epoch(self.config.quantization_schedule, epoch)
        self.network.train()

    def _networks(self) -> list[SpeechNetwork]:
        """The network, and its average where there is one."""
        return [self.network] if self.average is None else [self.network, self.average.module]

    def run_epoch(self, epoch: int) -> EpochMetrics:
        """Train one epoch and score the dev split."""
        started = time.monotonic()
        self._begin_epoch(epoch)
        self.num_skipped_steps = 0
        loss_sum = torch.zeros((), dtype=torch.float64)
        num_targets = num_frames = num_sequences = 0
        for step in self.data.train_steps(epoch):
            loss_sum += self.train_part(epoch, step)
            if not step.is_last:
                continue
            num_targets += step.num_targets
            num_frames += step.num_frames
            num_sequences += step.num_whole_utterances
            # Rank 0's share stands for the whole while the epoch runs.
            running_loss = float(loss_sum) * world_size() / num_targets
            self._tell(epoch, running_loss, step.number + 1, step.num_steps)
        train_loss = float(all_sum(loss_sum)) / num_targets
        self._check_converging(train_loss, epoch, step.num_steps)
        trained_s = time.monotonic() - started
        dev = self.score_dev()
        # A checkpoint holds finite numbers alone.
        if not math.isfinite(dev.loss):
            raise _diverged(epoch, f"loss on dev {dev.loss:.3g}")
        return EpochMetrics(
            epoch=epoch,
            train_loss=train_loss,
            dev_loss=dev.loss,
            dev_error=dev.error,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            frames_per_s=num_frames / trained_s,
            num_frames=num_frames,
            num_utterances=num_sequences,
            seconds=time.monotonic() - started,
            spike_density=dev.spike_density,
            num_skipped_steps=self.num_skipped_steps,
            spikes_as_configured=self.config.is_as_configured(epoch),
            **self._cost(dev),
        )

    def _cost(self, dev: DevScores) -> dict[str, float]:
        """What the metrics say of the budget."""
        if self.budget is None:
            return {}
        sizes = self.budget.shape.site_sizes
        spikes = [d * size for d, size in zip(dev.spike_density, sizes, strict=True)]
        cost = self.budget.cost_per_s(spikes)
        in_the_end = cost
        if self.pruner is not None and dev.multiplications_per_frame is not None:
            cost = dev.multiplications_per_frame * self.budget.frames_per_s
            # The aim knows the weights that are left in the end, of which there are fewer.
            in_the_end = cost * self.pruner.density / self.pruner.share_kept
        return {
            "multiplications_per_s": cost,
            "price_integral": self.budget.integral,
            "budget_excess": self.budget.measured_excess(in_the_end),
            "is_affordable": self.budget.is_affordable(cost),
        }

    def _check_converging(self, loss: float, epoch: int, num_steps: int) -> None:
        if self.num_skipped_steps:
            logger.warning(
                "epoch %d: %d steps skipped, their gradient was not finite",
                epoch + 1,
                self.num_skipped_steps,
            )
        # Written so that not-a-number counts as well.
        most = min(MAX_SKIPPED_STEPS, num_steps // 2)
        if not loss <= MAX_LOSS or self.num_skipped_steps > most:
            raise _diverged(
                epoch,
                f"loss {loss:.3g}, {self.num_skipped_steps} steps with a gradient that was not "
                "finite",
            )

    def train_part(self, epoch: int, step: StepPart) -> Tensor:
        """Add a part's gradients, and after the last part step; returns its loss sum, on the CPU.

        The parts' gradients add up to the whole batch's. The loss is this worker's.
        """
        batch = step.batch.to(self.device)
        generator = torch.Generator().manual_seed(
            (self.config.seed * 1_000_003 + epoch) * 1_000_003 + step.number
        )
        masks = self.network.sample_dropout(step.global_size, generator)
        local = None if masks is None else [self._local(mask, step) for mask in masks]
        if step.is_first:
            self.network.before_step()
            self.optimizer.zero_grad(set_to_none=True)
            self._set_learning_rate(epoch + step.number / step.num_steps)
        with self._synchronised(step.is_last):
            loss_sum = self._add_gradients(epoch, step, batch, local)
        if step.is_last:
            with record_function("optimizer"):
                self._apply_gradients(epoch, step)
        return loss_sum.detach().double().cpu()

    def _synchronised(self, is_last: bool) -> AbstractContextManager[None]:
        """Data-parallel workers exchange their gradients once, with the last part."""
        if is_last or not isinstance(self.module, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return cast(AbstractContextManager[None], self.module.no_sync())

    def _add_gradients(
        self, epoch: int, step: StepPart, batch: Batch, local: list[Tensor] | None
    ) -> Tensor:
        """Forward and backward; returns the loss sum."""
        with record_function("forward"):
            output = self._forward(self.module, batch, local)
        with record_function("loss"):
            loss_sum = self._loss_sum(output, batch)
            learnt_sum = loss_sum
            if self.teacher is not None:
                learnt_sum = self.teacher.mixed(loss_sum, output.log_probs_TBO, batch)
            objective = learnt_sum / step.num_targets
            if self.config.density is not None and self.config.model.is_event_based:
                objective = objective + step.frame_share * density_penalty(
                    output.site_outputs,
                    batch.lengths_B,
                    self.config.density,
                    are_ones=self.config.model.sends_ones,
                )
            if self.budget is not None:
                objective = objective + self.budget.penalty(
                    output.site_outputs,
                    batch.lengths_B,
                    epoch + step.number / step.num_steps,
                    step.frame_share,
                )
        with record_function("backward"):
            # Data-parallel averages gradients over workers; the objective is their sum.
            (objective * world_size()).backward()
        return loss_sum

    def _apply_gradients(self, epoch: int, step: StepPart) -> None:
        norm = nn.utils.clip_grad_norm_(
            self.network.parameters(), self.config.optimizer.max_gradient_norm or math.inf
        )
        if bool(torch.isfinite(norm)):
            self.optimizer.step()
            self.network.after_step()
            if self.average is not None:
                self.average.update_parameters(self.network)
            if self.pruner is not None:
                done = (epoch + (step.number + 1) / step.num_steps) / self.config.num_epochs
                self.pruner.after_step(step.number, done, self._networks()[1:])
        else:
            self.num_skipped_steps += 1

    def _local(self, mask: Tensor, step: StepPart) -> Tensor:
        """This worker's rows; the stand-in for an empty slice needs one row of anything."""
        rows = mask[step.local] if step.local.stop > step.local.start else mask[:1]
        return rows.to(self.device)

    def _set_learning_rate(self, epochs_done: float) -> None:
        rate = step_learning_rate(
            self.config.optimizer, self.learning_rate, epochs_done, self.config.num_epochs
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _forward(
        self, module: nn.Module, batch: Batch, masks: list[Tensor] | None
    ) -> NetworkOutput:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            output: NetworkOutput = module(batch.x_TBF, batch.lengths_B, None, masks)
        return output

    def _loss_sum(self, output: NetworkOutput, batch: Batch) -> Tensor:
        if self.config.objective == "ctc":
            return ctc_loss_sum(
                output.log_probs_TBO, batch.lengths_B, batch.labels_BL, batch.label_lengths_B
            )
        assert batch.alignment_TB is not None
        return frame_loss_sum(output.log_probs_TBO, batch.alignment_TB)

    @torch.no_grad()
    def score_dev(self) -> DevScores:
        """Loss, greedy error and spike density of the dev split, over all workers.

        Of the average of the weights, where there is one.
        """
        scored = self.module if self.average is None else self.average.module
        for network in self._networks():
            network.eval()
        num_sites = self.config.model.num_layers + 1
        sums = torch.zeros(6 + num_sites, dtype=torch.float64)
        widths = [1.0] * num_sites
        for step in self.data.dev_steps():
            batch = step.batch.to(self.device)
            output = self._forward(scored, batch, None)
            loss = self._loss_sum(output, batch).double()
            errors, named = self._errors(output, batch)
            targets = batch.label_lengths_B.sum() if self._is_ctc else named
            nonzeros = [torch.count_nonzero(sent) for sent in output.site_outputs]
            reached = self._reached(output, batch)
            found = [loss, targets, errors, named, batch.lengths_B.sum(), reached, *nonzeros]
            sums += torch.tensor([float(each) for each in found], dtype=torch.float64)
            widths = [float(sent.shape[2]) for sent in output.site_outputs]
        all_sum(sums)
        all_loss, all_targets, all_errors, all_named, all_frames, all_reached = sums[:6]
        density: tuple[float, ...] = ()
        if self.config.model.is_event_based:
            shares = (sums[6:] / all_frames / torch.tensor(widths)).tolist()
            density = tuple(float(share) for share in shares)
        return DevScores(
            float(all_loss / all_targets),
            float(all_errors / all_named),
            density,
            None if self.pruner is None else float(all_reached / all_frames),
        )

    def _reached(self, output: NetworkOutput, batch: Batch) -> int:
        """Multiplications of a pruned network with a budget; 0 where they are not asked for."""
        if self.pruner is None or self.budget is None:
            return 0
        shape, matrices = self.budget.shape, self._networks()[-1].matrices()
        sites = [site_of(term, shape) for term in matrices]
        multiplies = [site is None or shape.signals[site] != "binary" for site in sites]
        found = weights_reached(shape, output.site_outputs, batch.lengths_B, matrices)
        return sum(sum(itertools.compress(reached, multiplies)) for reached in found)

    @property
    def _is_ctc(self) -> bool:
        return self.config.objective == "ctc"

    def _errors(self, output: NetworkOutput, batch: Batch) -> tuple[int, int]:
        """Label errors of greedy CTC decoding, or wrong frames; and how many there could be."""
        if not self._is_ctc:
            assert batch.alignment_TB is not None
            real = batch.alignment_TB >= 0
            wrong = (output.log_probs_TBO.argmax(2) != batch.alignment_TB) & real
            return int(wrong.sum()), int(real.sum())
        errors = total = 0
        decoded = greedy_ctc_labels(output.log_probs_TBO, batch.lengths_B)
        for hypothesis, labels, length in zip(
            decoded, batch.labels_BL.tolist(), batch.label_lengths_B.tolist(), strict=True
        ):
            reference = [str(label) for label in labels[:length]]
            distance = kaldialign.edit_distance(reference, [str(label) for label in hypothesis])
            errors += int(distance["total"])
            total += length
        return errors, total
