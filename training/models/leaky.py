"""The recogniser of v3: an optional projection, the encoder, leaky gated layers, the output.

Shape legend: T time, B batch, F input features, P projected values, H neurons.
"""

from torch import Tensor

from training import recurrence
from training.lif import LeakyFiring, LifState
from training.models.batch_norm import FrameBatchNorm
from training.models.frames import ValidFrames
from training.models.leaky_site import LeakySite
from training.models.model_config import ModelConfig
from training.models.network import normalized_linear
from training.models.spiking import GatedLayer, SpikingNetwork, uniform_linear
from training.recurrence_types import RecurrenceOutput


class LeakyLayer(GatedLayer):
    """The layer of v3 (``training.lif.leaky_gated_step``)."""

    site: LeakySite

    def __init__(self, num_inputs: int, config: ModelConfig) -> None:
        super().__init__(num_inputs, config)
        self.site = LeakySite(config, config.hidden_size)

    def forward(
        self, below_TBF: Tensor, frames: ValidFrames, state: LifState, mask_BH: Tensor | None
    ) -> RecurrenceOutput:
        """Advance the layer over a sequence; ``mask_BH`` is the dropout mask m, already scaled."""
        below_NF = frames.pack(below_TBF)
        drive_TBG = frames.unpack(normalized_linear(below_NF, self.input_map, self.norm))
        weight = self.recurrent_weight
        assert weight is not None

        def run(firing: LeakyFiring) -> RecurrenceOutput:
            return recurrence.leaky_gated(
                drive_TBG, mask_BH, weight, frames.lengths_B, state, firing, backend=self.backend
            )

        return self.site.run_leaky(run)


class LeakyNetwork(SpikingNetwork):
    """v3.

    The projection, where there is one, is ``BN(W_p x)`` with W_p (P, F), folded for inference as
    every other: P F products a frame, of features that are never zero.

    Args:
        config: model, size, bits, thresholds and the options of v3.
    """

    encoder_site: LeakySite

    def __init__(self, config: ModelConfig, num_features: int, num_outputs: int) -> None:
        super().__init__(config, num_features, num_outputs)
        self.encoder_site = LeakySite(config, self.num_encoded, is_encoder=True)
        if config.projection_size is not None:
            self.projection = uniform_linear(num_features, config.projection_size)
            self.projection_norm = FrameBatchNorm(config.projection_size)

    def make_layer(self, num_inputs: int) -> LeakyLayer:
        """A layer of v3."""
        return LeakyLayer(num_inputs, self.config)

    def encode(self, x_TBF: Tensor, frames: ValidFrames, state: LifState) -> RecurrenceOutput:
        """The projected features as spikes."""
        if self.config.projection_size is not None:
            x_NF = frames.pack(x_TBF)
            x_TBF = frames.unpack(normalized_linear(x_NF, self.projection, self.projection_norm))

        def run(firing: LeakyFiring) -> RecurrenceOutput:
            return recurrence.leaky_encoder(
                x_TBF, frames.lengths_B, state, firing, backend=self.config.backend
            )

        return self.encoder_site.run_leaky(run)
