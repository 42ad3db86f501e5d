"""The interface of every recogniser, and the output layer they share.

Shape legend: T time, B batch, F input features, H neurons, O outputs.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.models.batch_norm import FrameBatchNorm
from training.models.frames import ValidFrames
from training.models.model_config import ModelConfig
from training.spike_linear import spike_linear
from training.train_config import QuantizationScheduleConfig

BLANK_BIAS = 4.0


class NetworkOutput(NamedTuple):
    """What a forward pass of any recogniser gives."""

    log_probs_TBO: Tensor  # log-softmax scores; arbitrary at padding frames
    # opaque recurrent state after each utterance's last frame, to be passed back in; LSTM and GRU
    # have none after a ragged batch in training
    state: tuple[tuple[Tensor, ...], ...]
    # what each site sends on, (T, B, H) each, zero at padding frames: the input encoder (for LSTM
    # and GRU the input itself), then every layer. Counting reads these.
    site_outputs: tuple[Tensor, ...]


def normalized_linear(
    below_NH: Tensor, linear: nn.Linear, norm: FrameBatchNorm, reads_spikes: bool = True
) -> Tensor:
    """``BN(W Y)``; in evaluation with the batch norm folded into the weight."""
    product = spike_linear if reads_spikes else torch.nn.functional.linear
    if norm.training:
        normalized: Tensor = norm(product(below_NH, linear.weight))
        return normalized
    weight, shift = norm.folded(linear.weight)
    return product(below_NH, weight) + shift


class OutputLayer(nn.Module):
    """``log_softmax(BN(W_o Y))``, W_o uniform in +-sqrt(0.01 / (H + O)).

    Args:
        reads_spikes: whether most of its inputs are zero.
    """

    def __init__(self, num_inputs: int, num_outputs: int, *, reads_spikes: bool = True) -> None:
        super().__init__()
        self.reads_spikes = reads_spikes
        self.linear = nn.Linear(num_inputs, num_outputs, bias=False)
        bound = math.sqrt(0.01 / (num_inputs + num_outputs))
        nn.init.uniform_(self.linear.weight, -bound, bound)
        self.norm = FrameBatchNorm(num_outputs)

    def forward(self, below_TBH: Tensor, frames: ValidFrames) -> Tensor:
        """Log-probabilities, (T, B, O); zero at padding frames."""
        below_NH = frames.pack(below_TBH)
        scores_NO = normalized_linear(below_NH, self.linear, self.norm, self.reads_spikes)
        return frames.unpack(torch.log_softmax(scores_NO.float(), dim=-1))


class SpeechNetwork(nn.Module):
    """A recogniser: feature frames in, log-probabilities of symbols out."""

    layers: nn.ModuleList  # the recurrent layers, with their normalisation
    output: OutputLayer

    def __init__(self, config: ModelConfig, num_features: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.num_features = num_features
        self.num_outputs = num_outputs

    def forward(
        self,
        x_TBF: Tensor,
        lengths_B: Tensor,
        state: tuple[tuple[Tensor, ...], ...] | None = None,
        dropout_masks: Sequence[Tensor] | None = None,
    ) -> NetworkOutput:
        """Score a padded batch; padding changes nothing.

        Args:
            x_TBF: normalised features, float32, any finite value at padding frames.
            lengths_B: valid frames, (B,) int64, 0 to T.
            state: ``NetworkOutput.state`` of the frames before, or None at the start.
            dropout_masks: one (B, H) mask per layer, already scaled; None for no dropout.
        """
        raise NotImplementedError

    def matrices(self) -> dict[str, Tensor]:
        """Every matrix by the term that it is counted in, (outputs, inputs), in that order.

        Of models with ``ModelSpec.states_matrices`` alone.
        """
        raise NotImplementedError

    def sample_dropout(self, batch_size: int, generator: torch.Generator) -> list[Tensor] | None:
        """Draw one mask per layer for a batch, ``Bernoulli(keep) / keep``; None without dropout.

        Args:
            batch_size: utterances of the global batch; a worker takes its rows of the result.
            generator: CPU generator seeded by the step, so that the masks do not depend on the
                number of workers.
        """
        keep = 1.0 - self.config.dropout
        if keep == 1.0:
            return None
        shape = (batch_size, self.config.hidden_size)
        return [
            torch.empty(shape).bernoulli_(keep, generator=generator).div_(keep)
            for _ in range(self.config.num_layers)
        ]

    @torch.no_grad()
    def favour_blank(self) -> None:
        """Begin CTC with about even odds of the blank, the last output.

        CTC first makes a network give the blank nearly everywhere. Learnt by every layer at once,
        through normalised scores, this drives the recurrence of v2 out of its range; with the
        blank in the output's bias from the start, training begins after that phase.
        """
        self.output.norm.bias[-1] = BLANK_BIAS

    def begin_epoch(self, schedule: QuantizationScheduleConfig | None, epoch: int) -> None:
        """What must happen before every epoch, counted from 0."""
        for module in self.modules():
            if isinstance(module, FrameBatchNorm):
                module.begin_epoch()

    def before_step(self) -> None:
        """What must happen before every optimiser step; nothing unless a model says so."""

    def after_step(self) -> None:
        """What must happen after every optimiser step; nothing unless a model says so."""

    def num_parameters(self) -> int:
        """All learned values."""
        return sum(p.numel() for p in self.parameters())

    def num_recurrent_parameters(self) -> int:
        """Learned values of the recurrent layers: their matrices, biases and normalisation."""
        return sum(p.numel() for p in self.layers.parameters())
