"""The event-driven engine: a network that advances streams of frames, one call at a time.

Shape legend: T frames, F features, O outputs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.engine.counts import ExecutedCounts
from evaluation.engine.description import EngineDescription
from evaluation.engine.engine_file import EngineData
from evaluation.engine.kernels import CONVENTIONAL, GATED, Network, State, advance
from evaluation.engine.layout import lay_out, rows_at_once
from training.constants import SATURATION
from training.kernels.cpu_products import GATHER_WIDTH
from training.kernels.cpu_spike_linear import spikes_times_weight
from training.kernels.lanes import WIDE

Floats = NDArray[np.float32]


def firing_table(data: EngineData) -> Floats:
    """How every site fires, (L + 1, 4), as ``kernels.firing_of`` reads it."""
    range_M, scale, threshold, is_quantized = data.arrays["quantizers"].T
    is_v3 = data.description.v3 is not None
    # A learned threshold lies between two levels, and its last bit counts.
    levels = data.arrays["thresholds"] if is_v3 else threshold + np.float32(1.0)
    rows = (range_M, scale, levels, is_quantized)
    return np.ascontiguousarray(np.stack(rows, axis=1), np.float32)


def _projection(data: EngineData) -> Callable[[Floats], Floats]:
    """What makes the encoder's input of frames: nothing, or a learned map.

    Its sums are the training model's in evaluation, term by term.
    """
    if data.description.projection_size is None:
        return lambda features_TF: features_TF
    weight_FP, bias_P = data.arrays["projection"], data.arrays["projection_bias"]
    shape = weight_FP.shape
    padding = -shape[1] % GATHER_WIDTH
    tiles = np.pad(weight_FP, ((0, 0), (0, padding))).reshape(shape[0], -1, GATHER_WIDTH)
    packed = np.ascontiguousarray(tiles.transpose(1, 0, 2)).reshape(-1)
    multiply: Any = spikes_times_weight

    def project(features_TF: Floats) -> Floats:
        out = np.empty((len(features_TF), shape[1]), np.float32)
        multiply(features_TF.reshape(-1), 0, len(features_TF), shape, packed, out.reshape(-1))
        return out + bias_P

    return project


class Stream:
    """The state of one stream of frames: what every neuron carries, and what was counted.

    A stream belongs to one thread; any number of them share an engine.
    """

    def __init__(self, description: EngineDescription) -> None:
        layout = lay_out(description)
        num_sites = description.num_layers + 1
        self._description = description
        self.num_frames = 0
        self.state = State(
            current=np.zeros(layout.state_size, np.float32),
            residue=np.zeros(layout.state_size, np.float32),
            counts=np.zeros(num_sites, np.int64),
            indices=np.zeros(layout.list_size, np.int32),
            values=np.zeros(layout.list_size, np.float32),
            levels=np.zeros(layout.list_size, np.int16),
            rows_added=np.zeros(len(layout.matrices), np.int64),
            emitted=np.zeros(num_sites, np.int64),
            drives=np.zeros(layout.widest, np.float32),
            recurrent=np.zeros(layout.widest, np.float32),
            integer_sums=np.zeros(layout.widest, np.int32),
            scratch=np.zeros(WIDE, np.float32),
        )

    @property
    def executed(self) -> ExecutedCounts:
        """What has been executed since the stream began."""
        rows_added, emitted = self.state.rows_added, self.state.emitted
        return ExecutedCounts.of(self._description, self.num_frames, rows_added, emitted)

    def spikes(self, site: int) -> Floats:
        """The last frame's outputs of a site (0 the encoder), zeros included."""
        outputs = np.zeros(self._description.site_sizes[site], np.float32)
        self.write_spikes(site, outputs)
        return outputs

    def write_spikes(self, site: int, outputs: Floats) -> None:
        """Write the last frame's non-zero outputs of a site to their places."""
        first = sum(self._description.site_sizes[:site])
        listed = slice(first, first + int(self.state.counts[site]))
        outputs[self.state.indices[listed]] = self.state.values[listed]


class Engine:
    """A network ready to run; immutable.

    Args:
        data: what ``build_engine`` made or ``read_engine`` read; already checked.
    """

    def __init__(self, data: EngineData) -> None:
        self.description = data.description
        layout = data.layout
        description, arrays = data.description, data.arrays
        is_int8 = description.precision == "int8"
        no_floats = np.zeros(0, np.float32)
        self._network = Network(
            kind=CONVENTIONAL if description.model == "conventional" else GATED,
            is_binary=description.num_bits == 1,
            rows_at_once=rows_at_once(description.num_bits) if is_int8 else 0,
            saturation=np.float32(SATURATION),
            matrices=layout.matrix_table,
            sites=layout.sites,
            float_weights=no_floats if is_int8 else arrays["weights"],
            byte_weights=arrays["weights"] if is_int8 else np.zeros(0, np.int8),
            scales=arrays.get("scales", no_floats),
            biases=arrays["biases"],
            decays=arrays.get("decays", no_floats),
            leaks=arrays.get("leaks", no_floats),
            firing=firing_table(data),
        )
        self._project = _projection(data)

    def stream(self) -> Stream:
        """A new stream, before its first frame."""
        return Stream(self.description)

    def advance(self, features_TF: Floats, stream: Stream) -> Floats:
        """Advance a stream by some frames; any cutting of a stream gives the same result.

        Args:
            features_TF: normalised frames, finite.
            stream: state, changed in place.

        Returns:
            (T, O) scores before the softmax.

        Raises:
            ValueError: when the frames have another number of features than the network reads.
        """
        if features_TF.ndim != 2 or features_TF.shape[1] != self.description.num_features:
            raise ValueError(
                f"frames of shape {features_TF.shape}; the network reads "
                f"(T, {self.description.num_features})"
            )
        num_frames = features_TF.shape[0]
        encoded_TP = self._project(np.ascontiguousarray(features_TF, np.float32))
        width = int(self._network.matrices[-1, 1])
        scores = np.empty((num_frames, width), np.float32)
        step: Any = advance
        step(self._network, stream.state, encoded_TP.reshape(-1), num_frames, scores.reshape(-1))
        stream.num_frames += num_frames
        return scores[:, : self.description.num_outputs]


def log_softmax(scores_TO: Floats) -> Floats:
    """Log-probabilities of scores, (T, O)."""
    shifted = scores_TO - scores_TO.max(axis=1, keepdims=True)
    total = np.log(np.exp(shifted).sum(axis=1, keepdims=True, dtype=np.float32))
    result: Floats = shifted - total
    return result
