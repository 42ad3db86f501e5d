"""How many multiplications and additions a recogniser needs, counted outside its forward pass.

One definition for spiking and dense models (DESIGN section 4). A matrix term costs (non-zero
presynaptic outputs) x (fan-out); a dense activation counts whole. Padding never counts. The
*audited* count is the sum of the matrix terms:

    feed_forward_l = g H x (outputs of site l - 1)
    recurrent_l    = r H x (outputs of layer l, fed back)
    output         = O x (outputs of layer L)

    projection     = P x F, of v3 with a projection, whose features are never zero

    g rows of W per neuron: conventional 1, v1, v2 and v3 2, GRU 3, LSTM 4
    r rows of U per neuron: g for v2, v3, GRU and LSTM, else there is no such term

with site 0 the input encoder (F neurons, or P with a projection; a dense model: the F features
themselves) and sites 1 to L the layers. Batch norm is an affine map at inference and folds into
the weights beside it; the products it would cost are not there.

**Feedback is exact.** Frame t of v2 multiplies by the layer's own output of frame t - 1: the
first frame has none, and the output of an utterance's last frame is never fed back. Per utterance
the recurrent count is therefore H r x (non-zeros of all frames but the last); the closed form with
means over all frames (``closed_form``) is larger by the last frames' share, about 1/T of it.

**Elementwise**, outside the audited count and published as its own term: the products of the
equations of DESIGN section 3 as they are written, per frame, with n the non-zeros of a site:

    every spiking site of N neurons: s V, N; Y = k / s, n.  None for 1 bit (a comparison with the
        range) and none unquantised.
    conventional: tau I_{t-1}, H per layer.
    v1, v2, v3: F I_{t-1} and (1 - F) C, 2 H per layer.  Dropout is not there at inference.
    v3 with a residue leak, every site of N neurons: lambda (V - Y), N. Its bound c M is a constant.
    LSTM: f c + i g and o tanh(c), 3 H per layer.
    GRU: r (U h), (1 - z) n and z h, 3 H per layer.

Exponentials, divisions and comparisons of sigmoid, tanh, softmax and clip count in no model.

**Additions**: one per product of a matrix term (sums start from the folded bias), and elementwise:

    every spiking site of N neurons: V = R + drive, N; R = V - Y, n.
    conventional: drive + tau I, H.   v1, v2, v3: 1 - F and the sum, 2 H.
    LSTM: f c + i g, H.               GRU: W x + r (U h), 1 - z and the sum, 3 H.

A **single-bit** spike is +-1 times a constant that folds into the weights: its matrix terms cost
additions and no multiplications.

Shape legend: T time, B batch, H neurons of a site, L layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.models.model_config import SPIKING_MODELS, ModelConfig, ModelName
from training.quantizer import UNQUANTIZED_BITS

ROWS_PER_NEURON: dict[ModelName, int] = {
    "conventional": 1,
    "v1": 2,
    "v2": 2,
    "v3": 2,
    "gru": 3,
    "lstm": 4,
}
FED_BACK_MODELS: tuple[ModelName, ...] = ("v2", "v3", "gru", "lstm")

# Elementwise products and sums of the cell itself, per neuron and frame.
_CELL_PRODUCTS: dict[ModelName, int] = {
    "conventional": 1,
    "v1": 2,
    "v2": 2,
    "v3": 2,
    "gru": 3,
    "lstm": 3,
}
_CELL_SUMS: dict[ModelName, int] = {
    "conventional": 1,
    "v1": 2,
    "v2": 2,
    "v3": 2,
    "gru": 3,
    "lstm": 1,
}

# What the authors' counting script adds per neuron and layer for elementwise operations.
_PUBLISHED_ELEMENTWISE: dict[ModelName, int] = {
    "conventional": 6,
    "v1": 8,
    "v2": 8,
    "v3": 8,
    "gru": 12,
    "lstm": 12,
}


@dataclass(frozen=True)
class NetworkShape:
    """What the counts depend on.

    Attributes:
        num_features: F.
        hidden_size: H.
        num_outputs: O, the blank of CTC included.
        num_bits: bits of a spike.
        projection_size: P, values of the projection before the encoder; 0 for none.
        leaks: whether residues leak, a product for each neuron and frame.
    """

    model: ModelName
    num_layers: int
    num_features: int
    hidden_size: int
    num_outputs: int
    num_bits: int
    projection_size: int = 0
    leaks: bool = False

    @classmethod
    def of(cls, config: ModelConfig, num_features: int, num_outputs: int) -> "NetworkShape":
        """The shape of a configured network."""
        return cls(
            config.model,
            config.num_layers,
            num_features,
            config.hidden_size,
            num_outputs,
            config.num_bits,
            config.projection_size or 0,
            config.model == "v3" and config.leaky.residue_leak != "none",
        )

    @property
    def is_spiking(self) -> bool:
        """Whether outputs that are zero cost nothing."""
        return self.model in SPIKING_MODELS

    @property
    def is_binary(self) -> bool:
        """Whether spikes are +-1, so that matrix terms cost additions only."""
        return self.is_spiking and self.num_bits == 1

    @property
    def site_sizes(self) -> tuple[int, ...]:
        """Neurons of the encoder (F, or P) and of every layer (H)."""
        return (self.projection_size or self.num_features, *[self.hidden_size] * self.num_layers)


@dataclass(frozen=True)
class Activity:
    """Outputs that cost something, summed over the valid frames of one or more utterances.

    Attributes:
        num_frames: valid frames.
        emitted: per site, encoder first: outputs sent on (non-zero ones of a spiking site).
        fed_back: per layer: outputs sent back to the layer itself one frame later.
    """

    num_frames: int
    emitted: tuple[int, ...]
    fed_back: tuple[int, ...]

    def __add__(self, other: "Activity") -> "Activity":
        return Activity(
            self.num_frames + other.num_frames,
            tuple(a + b for a, b in zip(self.emitted, other.emitted, strict=True)),
            tuple(a + b for a, b in zip(self.fed_back, other.fed_back, strict=True)),
        )


def dense_activity(shape: NetworkShape, num_frames: int) -> Activity:
    """The activity of a model whose every output counts, the initial state's included."""
    emitted = tuple(size * num_frames for size in shape.site_sizes)
    return Activity(num_frames, emitted, emitted[1:])


def measure_activity(
    shape: NetworkShape, site_outputs: Sequence[Tensor], lengths_B: Tensor
) -> list[Activity]:
    """Count what each utterance of a batch sent on.

    Args:
        shape: the network.
        site_outputs: ``NetworkOutput.site_outputs``, (T, B, size) per site, encoder first.
        lengths_B: valid frames of each utterance.
    """
    lengths = lengths_B.tolist()
    if not shape.is_spiking:
        return [dense_activity(shape, length) for length in lengths]
    assert len(site_outputs) == shape.num_layers + 1
    time_T1 = torch.arange(site_outputs[0].shape[0]).unsqueeze(1)
    emitted, fed_back = [], []
    for output_TBH in site_outputs:
        nonzeros_TB = torch.count_nonzero(output_TBH, dim=2)
        emitted.append((nonzeros_TB * (time_T1 < lengths_B)).sum(0).tolist())
        fed_back.append((nonzeros_TB * (time_T1 < lengths_B - 1)).sum(0).tolist())
    return [
        Activity(length, tuple(of_site), tuple(back_of_site))
        for length, of_site, back_of_site in zip(
            lengths, zip(*emitted, strict=True), zip(*fed_back[1:], strict=True), strict=True
        )
    ]


@dataclass(frozen=True)
class TermCount:
    """One term's exact cost over the frames of an ``Activity``.

    Attributes:
        term: ``feed_forward_1`` ... , ``recurrent_1`` ..., ``output``, ``projection`` or
            ``elementwise``.
        nonzeros: presynaptic outputs that count; 0 for elementwise.
        fan_out: products each of them costs; 0 for elementwise.
    """

    term: str
    nonzeros: int
    fan_out: int
    multiplications: int
    additions: int


def count_terms(shape: NetworkShape, activity: Activity) -> tuple[TermCount, ...]:
    """Itemise the exact cost; the matrix terms first, ``elementwise`` last.

    Args:
        shape: the network.
        activity: of one utterance, or summed over many.
    """
    rows = ROWS_PER_NEURON[shape.model] * shape.hidden_size

    def matrix(term: str, nonzeros: int, fan_out: int) -> TermCount:
        products = nonzeros * fan_out
        return TermCount(term, nonzeros, fan_out, 0 if shape.is_binary else products, products)

    terms = [
        matrix(f"feed_forward_{layer + 1}", activity.emitted[layer], rows)
        for layer in range(shape.num_layers)
    ]
    if shape.model in FED_BACK_MODELS:
        terms += [
            matrix(f"recurrent_{layer + 1}", activity.fed_back[layer], rows)
            for layer in range(shape.num_layers)
        ]
    terms.append(matrix("output", activity.emitted[-1], shape.num_outputs))
    if shape.projection_size:
        terms.append(_projection(shape, activity))
    terms.append(_elementwise(shape, activity))
    return tuple(terms)


def _projection(shape: NetworkShape, activity: Activity) -> TermCount:
    """The projection reads features, not spikes: all of them, and never one bit."""
    values = shape.num_features * activity.num_frames
    products = values * shape.projection_size
    return TermCount("projection", values, shape.projection_size, products, products)


def _elementwise(shape: NetworkShape, activity: Activity) -> TermCount:
    neurons = shape.num_layers * shape.hidden_size * activity.num_frames
    multiplications = _CELL_PRODUCTS[shape.model] * neurons
    additions = _CELL_SUMS[shape.model] * neurons
    if shape.is_spiking:
        fired = sum(activity.emitted)
        potentials = sum(shape.site_sizes) * activity.num_frames
        additions += potentials + fired
        if shape.num_bits not in (1, UNQUANTIZED_BITS):
            multiplications += potentials + fired
        if shape.leaks:
            multiplications += potentials
    return TermCount("elementwise", 0, 0, multiplications, additions)


def audited(terms: Sequence[TermCount]) -> int:
    """Multiplications of the matrix terms."""
    return sum(term.multiplications for term in terms if term.term != "elementwise")


def closed_form(shape: NetworkShape, mean_nonzeros: Sequence[float]) -> float:
    """Matrix multiplications per frame from mean non-zeros, DESIGN section 4's audited column.

    Two layers of v2: ``2 n0 H + 4 n1 H + 2 n2 H + n2 O``.

    Args:
        shape: the network.
        mean_nonzeros: n0 ... nL, mean outputs per frame that cost something.
    """
    if shape.is_binary:
        return 0.0
    rows = ROWS_PER_NEURON[shape.model] * shape.hidden_size
    fed_back = sum(mean_nonzeros[1:]) if shape.model in FED_BACK_MODELS else 0.0
    projected = float(shape.projection_size * shape.num_features)
    spikes = (sum(mean_nonzeros[:-1]) + fed_back) * rows + mean_nonzeros[-1] * shape.num_outputs
    return projected + spikes


def as_published(shape: NetworkShape, mean_nonzeros: Sequence[float]) -> float:
    """Multiplications per frame as the authors' script counts them, to compare with the paper.

    Dense and conventional models: the audited form plus 12 H (dense) or 6 H (conventional) per
    layer. v1 and v2: ``4 n H`` for the input n of every layer, which charges v1 for a
    recurrence it lacks and multiplies v2's by its input's non-zeros, plus 8 H per layer. Single
    bits make no difference to the script.

    Args:
        shape: the network.
        mean_nonzeros: n0 ... nL.
    """
    hidden = shape.hidden_size
    elementwise = _PUBLISHED_ELEMENTWISE[shape.model] * hidden * shape.num_layers
    below, top = sum(mean_nonzeros[:-1]), mean_nonzeros[-1]
    if shape.model in ("v1", "v2"):
        return 4 * below * hidden + top * shape.num_outputs + elementwise
    rows = ROWS_PER_NEURON[shape.model] * hidden
    fed_back = sum(mean_nonzeros[1:]) if shape.model in FED_BACK_MODELS else 0.0
    return (below + fed_back) * rows + top * shape.num_outputs + elementwise


def mean_nonzeros(activity: Activity) -> tuple[float, ...]:
    """Outputs per frame that cost something, encoder first."""
    return tuple(count / max(1, activity.num_frames) for count in activity.emitted)


def same_size_dense(shape: NetworkShape, model: ModelName) -> NetworkShape:
    """A dense model of the same features, layers, neurons and outputs."""
    return NetworkShape(
        model,
        shape.num_layers,
        shape.num_features,
        shape.hidden_size,
        shape.num_outputs,
        UNQUANTIZED_BITS,
    )


def dense_cost(shape: NetworkShape, model: ModelName) -> tuple[float, float]:
    """(audited, as published) multiplications per frame of a dense model of the same size."""
    dense = same_size_dense(shape, model)
    means = [float(size) for size in dense.site_sizes]
    return closed_form(dense, means), as_published(dense, means)
