"""The baselines: unidirectional LSTM and GRU of the same depth, size, BN and dropout.

Each layer is ``torch.nn.LSTM`` or ``torch.nn.GRU`` itself, so that its fused kernels serve the
comparison. Batch norm stands on a layer's input, ``W BN(x)``, where the spiking models
have ``BN(W x)``: a fused layer has no place between its input product and its gates. Dropout is
one mask per layer and sequence on the layer's output.

Shape legend: T time, B batch, F input features, H neurons, O outputs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from training.models.batch_norm import FrameBatchNorm
from training.models.frames import ValidFrames
from training.models.model_config import ModelConfig
from training.models.network import NetworkOutput, OutputLayer, SpeechNetwork


class DenseLayer(nn.Module):
    """Batch norm and one LSTM or GRU layer."""

    def __init__(self, num_inputs: int, config: ModelConfig) -> None:
        super().__init__()
        self.norm = FrameBatchNorm(num_inputs)
        cell_type = nn.LSTM if config.model == "lstm" else nn.GRU
        self.cell: nn.RNNBase = cell_type(num_inputs, config.hidden_size)
        for name, parameter in self.cell.named_parameters():
            if name.startswith("weight_hh"):
                for gate in parameter.data.split(config.hidden_size):
                    nn.init.orthogonal_(gate)
            elif name.startswith("weight_ih"):
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)
        if config.model == "lstm":
            # Remember by default (Jozefowicz et al. 2015): the forget gate is the second quarter.
            bias = self.cell.get_parameter("bias_ih_l0")
            nn.init.ones_(bias.data[config.hidden_size : 2 * config.hidden_size])

    def forward(
        self, below_TBF: Tensor, frames: ValidFrames, state: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Advance over a sequence; returns (T, B, H), zero at padding, and the last states.

        A ragged batch in training has no states to return (an empty tuple): only packing would
        give them, and the backward pass of a packed sequence is quadratic in T, ten times
        slower at 400 frames.
        """
        x_TBF = frames.unpack(self.norm(frames.pack(below_TBF)))
        before = None
        if state is not None:
            before = (state[0], state[1]) if len(state) == 2 else state[0]
        if self.training and not frames.is_full:
            return self.cell(x_TBF, before)[0] * frames.mask_TB1, ()
        if frames.is_full:
            output, after = self.cell(x_TBF, before)
        else:
            output, after = self._ragged(x_TBF, frames, before)
        return output, after if isinstance(after, tuple) else (after,)

    def _ragged(
        self, x_TBF: Tensor, frames: ValidFrames, before: object
    ) -> tuple[Tensor, Tensor | tuple[Tensor, Tensor]]:
        """Packed by length, so that the returned states are those of the last valid frames."""
        # Packing refuses empty sequences: an empty one runs a frame, and is undone below.
        lengths = frames.lengths_B.clamp(min=1).cpu()
        packed = pack_padded_sequence(x_TBF, lengths, enforce_sorted=False)
        packed_output, after = self.cell(packed, before)
        output, _ = pad_packed_sequence(packed_output, total_length=frames.num_frames)
        output = output * frames.mask_TB1
        empty_1B1 = (frames.lengths_B == 0).view(1, -1, 1)
        if not bool(empty_1B1.any()):
            return output, after
        states = after if isinstance(after, tuple) else (after,)
        started = before if isinstance(before, tuple) else (before,) * len(states)
        kept = tuple(
            torch.where(empty_1B1, torch.zeros_like(a) if b is None else b, a)
            for a, b in zip(states, started, strict=True)
        )
        return output, (kept[0], kept[1]) if len(kept) == 2 else kept[0]


class DenseNetwork(SpeechNetwork):
    """A stack of LSTM or GRU layers with the shared output layer."""

    def __init__(self, config: ModelConfig, num_features: int, num_outputs: int) -> None:
        super().__init__(config, num_features, num_outputs)
        sizes = [num_features] + [config.hidden_size] * config.num_layers
        self.layers = nn.ModuleList(DenseLayer(size, config) for size in sizes[:-1])
        self.output = OutputLayer(config.hidden_size, num_outputs, reads_spikes=False)

    def matrices(self) -> dict[str, Tensor]:
        """See ``SpeechNetwork.matrices``."""
        cells = [layer.cell for layer in self.layers if isinstance(layer, DenseLayer)]
        numbered = list(enumerate(cells, start=1))
        feed = {f"feed_forward_{n}": cell.get_parameter("weight_ih_l0") for n, cell in numbered}
        back = {f"recurrent_{n}": cell.get_parameter("weight_hh_l0") for n, cell in numbered}
        return feed | back | {"output": self.output.linear.weight}

    def forward(
        self,
        x_TBF: Tensor,
        lengths_B: Tensor,
        state: tuple[tuple[Tensor, ...], ...] | None = None,
        dropout_masks: Sequence[Tensor] | None = None,
    ) -> NetworkOutput:
        """See ``SpeechNetwork.forward``; ``state`` holds (h,) or (h, c) per layer."""
        frames = ValidFrames(lengths_B, x_TBF.shape[0])
        outputs = [x_TBF if frames.is_full else torch.where(frames.mask_TB1, x_TBF, 0.0)]
        after = []
        for number, layer in enumerate(self.layers):
            before = state[number] if state is not None else None
            output, layer_state = layer(outputs[-1], frames, before)
            if dropout_masks is not None:
                output = output * dropout_masks[number]
            outputs.append(output)
            after.append(layer_state)
        return NetworkOutput(self.output(outputs[-1], frames), tuple(after), tuple(outputs))
