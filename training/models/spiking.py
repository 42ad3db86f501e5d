"""The spiking recognisers: input encoder, LIF layers (``training.lif``), output.

Shape legend: T time, B batch, F input features, H neurons, N packed valid frames, O outputs.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training import recurrence
from training.lif import FiringRule, LifState, RecurrenceOutput
from training.models.batch_norm import FrameBatchNorm
from training.models.frames import ValidFrames
from training.models.leaky_site import site_for
from training.models.model_config import ModelConfig
from training.models.network import NetworkOutput, OutputLayer, SpeechNetwork, normalized_linear
from training.models.recomputed import recomputed
from training.models.site import QuantizerSite
from training.quantizer import RangeTracker
from training.spike_linear import spike_linear
from training.train_config import QuantizationScheduleConfig


def uniform_linear(num_inputs: int, num_outputs: int) -> nn.Linear:
    """A bias-free linear map, uniform in +-sqrt(3 / fan_in)."""
    linear = nn.Linear(num_inputs, num_outputs, bias=False)
    bound = math.sqrt(3.0 / num_inputs)
    nn.init.uniform_(linear.weight, -bound, bound)
    return linear


class LifLayer(nn.Module):
    """What the spiking layers share: BN(W X) on packed frames, and a quantiser site.

    Args:
        num_drives: rows of W per neuron: 1 conventional, 2 gated.
    """

    def __init__(self, num_inputs: int, num_drives: int, config: ModelConfig) -> None:
        super().__init__()
        self.hidden_size = config.hidden_size
        self.backend = config.backend
        self.recompute_frames = config.recompute_frames
        self.input_map = uniform_linear(num_inputs, num_drives * config.hidden_size)
        self.norm = FrameBatchNorm(num_drives * config.hidden_size)
        self.site = site_for(config, config.hidden_size)

    def forward(
        self, below_TBF: Tensor, frames: ValidFrames, state: LifState, mask_BH: Tensor | None
    ) -> RecurrenceOutput:
        """Advance the layer over a sequence; ``mask_BH`` is the dropout mask m, already scaled."""
        below_NF = frames.pack(below_TBF)
        if self.recompute_frames is not None and self.training:
            product_NG = spike_linear(below_NF, self.input_map.weight)
            return self._recomputed(product_NG, frames, state, mask_BH)
        drive_TBG = frames.unpack(normalized_linear(below_NF, self.input_map, self.norm))

        def run(firing: FiringRule, per_step: RangeTracker | None) -> RecurrenceOutput:
            return self.recur(drive_TBG, frames.lengths_B, state, mask_BH, firing, per_step)

        return self.site.run(run)

    def _recomputed(
        self, product_NG: Tensor, frames: ValidFrames, state: LifState, mask_BH: Tensor | None
    ) -> RecurrenceOutput:
        moments = self.norm.moments(product_NG)
        assert self.recompute_frames is not None
        chunk_frames = self.recompute_frames

        def run(firing: FiringRule, _: RangeTracker | None) -> RecurrenceOutput:
            def chunk(drive_TBG: Tensor, lengths_B: Tensor, before: LifState) -> RecurrenceOutput:
                return self.recur(drive_TBG, lengths_B, before, mask_BH, firing, None)

            weights = self.recurrence_parameters()
            return recomputed(
                product_NG, self.norm, moments, chunk, weights, frames, state, chunk_frames
            )

        return self.site.run(run)

    def recur(
        self,
        drive_TBG: Tensor,
        lengths_B: Tensor,
        state: LifState,
        mask_BH: Tensor | None,
        firing: FiringRule,
        per_step: RangeTracker | None,
    ) -> RecurrenceOutput:
        """The layer's recurrence, given ``BN(W X)``."""
        raise NotImplementedError

    def recurrence_parameters(self) -> list[Tensor]:
        """What ``recur`` learns."""
        raise NotImplementedError


class ConventionalLayer(LifLayer):
    """Conventional LIF: ``I_t = m * BN(W X_t) + tau * I_{t-1}``, tau learned in [0, 1]."""

    def __init__(self, num_inputs: int, config: ModelConfig) -> None:
        super().__init__(num_inputs, 1, config)
        self.decay = nn.Parameter(torch.ones(config.hidden_size))

    def recur(
        self,
        drive_TBG: Tensor,
        lengths_B: Tensor,
        state: LifState,
        mask_BH: Tensor | None,
        firing: FiringRule,
        per_step: RangeTracker | None,
    ) -> RecurrenceOutput:
        """``training.recurrence.conventional`` of the masked drive."""
        return recurrence.conventional(
            drive_TBG if mask_BH is None else drive_TBG * mask_BH,
            self.decay,
            lengths_B,
            state,
            firing,
            backend=self.backend,
            per_step_range=per_step,
        )

    def recurrence_parameters(self) -> list[Tensor]:
        """tau, which ``after_step`` keeps within its bounds."""
        return [self.decay]

    @torch.no_grad()
    def constrain(self) -> None:
        """Keep tau in [0, 1] (the authors' clamp never applies)."""
        self.decay.clamp_(0.0, 1.0)


class GatedLayer(LifLayer):
    """Improved LIF v1, or v2 and v3 with recurrent weights ``[U_f; U_c]``."""

    def __init__(self, num_inputs: int, config: ModelConfig) -> None:
        super().__init__(num_inputs, 2, config)
        self.recurrent_weight: nn.Parameter | None = None
        if config.spec.cost(config).back_rows:
            weight = torch.empty(2 * config.hidden_size, config.hidden_size)
            nn.init.orthogonal_(weight, gain=math.sqrt(2.0))
            self.recurrent_weight = nn.Parameter(weight)

    def recur(
        self,
        drive_TBG: Tensor,
        lengths_B: Tensor,
        state: LifState,
        mask_BH: Tensor | None,
        firing: FiringRule,
        per_step: RangeTracker | None,
    ) -> RecurrenceOutput:
        """``training.recurrence.gated`` of both drives."""
        return recurrence.gated(
            drive_TBG,
            mask_BH,
            self.recurrent_weight,
            lengths_B,
            state,
            firing,
            backend=self.backend,
            per_step_range=per_step,
        )

    def recurrence_parameters(self) -> list[Tensor]:
        """``[U_f; U_c]``, where there is one."""
        return [] if self.recurrent_weight is None else [self.recurrent_weight]


class SpikingNetwork(SpeechNetwork):
    """Encoder, LIF layers and output of a spiking recogniser.

    The projection, where there is one, is ``BN(W_p x)`` with W_p (P, F), folded for inference
    as every other: P F products a frame, of features that are never zero.
    """

    def __init__(self, config: ModelConfig, num_features: int, num_outputs: int) -> None:
        super().__init__(config, num_features, num_outputs)
        self.num_encoded = config.projection_size or num_features
        self.encoder_site = site_for(config, self.num_encoded, is_encoder=True)
        self.site_sizes = [self.num_encoded] + [config.hidden_size] * config.num_layers
        layer_type = ConventionalLayer if config.model == "conventional" else GatedLayer
        self.layers = nn.ModuleList(layer_type(size, config) for size in self.site_sizes[:-1])
        self.output = OutputLayer(config.hidden_size, num_outputs)
        if config.projection_size is not None:
            self.projection = uniform_linear(num_features, config.projection_size)
            self.projection_norm = FrameBatchNorm(config.projection_size)

    def forward(
        self,
        x_TBF: Tensor,
        lengths_B: Tensor,
        state: tuple[tuple[Tensor, ...], ...] | None = None,
        dropout_masks: Sequence[Tensor] | None = None,
    ) -> NetworkOutput:
        """See ``SpeechNetwork.forward``; ``state`` holds a ``LifState`` per site."""
        frames = ValidFrames(lengths_B, x_TBF.shape[0])
        states = self._states(state, x_TBF)
        encoded = self.encode(x_TBF, frames, states[0])
        outputs, after = [encoded.spikes_TBH], [encoded.state]
        for number, layer in enumerate(self.layers):
            mask_BH = dropout_masks[number] if dropout_masks is not None else None
            result: RecurrenceOutput = layer(outputs[-1], frames, states[number + 1], mask_BH)
            outputs.append(result.spikes_TBH)
            after.append(result.state)
        return NetworkOutput(self.output(outputs[-1], frames), tuple(after), tuple(outputs))

    def matrices(self) -> dict[str, Tensor]:
        """See ``SpeechNetwork.matrices``."""
        layers = [layer for layer in self.layers if isinstance(layer, LifLayer)]
        found: dict[str, Tensor] = {}
        for number, layer in enumerate(layers, start=1):
            found[f"feed_forward_{number}"] = layer.input_map.weight
        for number, layer in enumerate(layers, start=1):
            if isinstance(layer, GatedLayer) and layer.recurrent_weight is not None:
                found[f"recurrent_{number}"] = layer.recurrent_weight
        found["output"] = self.output.linear.weight
        if self.config.projection_size is not None:
            found["projection"] = self.projection.weight
        return found

    def encode(self, x_TBF: Tensor, frames: ValidFrames, state: LifState) -> RecurrenceOutput:
        """The features, or their projection, as spikes."""
        if self.config.projection_size is not None:
            x_NF = frames.pack(x_TBF)
            x_TBF = frames.unpack(normalized_linear(x_NF, self.projection, self.projection_norm))

        def run(firing: FiringRule, per_step: RangeTracker | None) -> RecurrenceOutput:
            return recurrence.encoder(
                x_TBF,
                frames.lengths_B,
                state,
                firing,
                backend=self.config.backend,
                per_step_range=per_step,
            )

        return self.encoder_site.run(run)

    def _states(
        self, state: tuple[tuple[Tensor, ...], ...] | None, x_TBF: Tensor
    ) -> list[LifState]:
        if state is not None:
            return [LifState(*site) for site in state]
        return [LifState.zeros(x_TBF.shape[1], size, x_TBF.device) for size in self.site_sizes]

    def begin_epoch(self, schedule: QuantizationScheduleConfig | None, epoch: int) -> None:
        """Spike as the schedule wants it."""
        super().begin_epoch(schedule, epoch)
        if schedule is None:
            return
        for site in self._sites():
            site.begin_epoch(schedule, epoch)

    def _sites(self) -> list[QuantizerSite]:
        """The encoder's first; workers reduce their ranges in this order."""
        return [site for site in self.modules() if isinstance(site, QuantizerSite)]

    def before_step(self) -> None:
        """Forget the extremes of a step that was skipped."""
        for site in self._sites():
            site.pending = None

    def after_step(self) -> None:
        """Move every quantiser's range and keep the decays in [0, 1]."""
        for site in self._sites():
            site.apply_pending()
        for layer in self.layers:
            if isinstance(layer, ConventionalLayer):
                layer.constrain()
