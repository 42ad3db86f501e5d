"""What a model costs, term by term, from its sizes and what its sites sent.

A *site* is a population whose outputs a matrix multiplies: the input (of a spiking model its
encoder), then every layer. A matrix term costs (outputs that count) x (fan-out); what counts
depends on what the site sends (``Signal``)::

    feed_forward_l = g H x (outputs of site l - 1)
    recurrent_l    = r H x (outputs of layer l, fed back)
    output         = O x (outputs of layer L)

Sums start from the folded bias: one addition per product. Padding never counts. The *audited* count
is that of the matrix terms' multiplications.

A model of one's own states its ``NetworkCost``, and every count follows from it.

Shape legend: H neurons of a layer, F values of the input, O outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from training.models.model_config import ModelConfig


def kept_weights(num_weights: int, density: float) -> int:
    """Weights of a matrix that a network of this ``weight_density`` keeps, at least one."""
    return max(1, round(density * num_weights))


Signal = Literal["dense", "levels", "binary"]
"""What a site sends: ``dense`` values, which all count; ``levels``, values of which those that
are not zero count; ``binary`` spikes, one constant or nothing, so that a matrix after them adds
and does not multiply."""


@dataclass(frozen=True)
class SiteCost:
    """Elementwise operations of a site, as its equations are written."""

    products: int = 0  # multiplications per neuron and frame
    sums: int = 0  # additions per neuron and frame
    event_products: int = 0  # multiplications per output that is not zero
    event_sums: int = 0  # additions per output that is not zero


@dataclass(frozen=True)
class NetworkCost:
    """All that the counts need to know of a model besides its sizes.

    Exponentials, divisions and comparisons count in no model; batch norm folds into the weights.
    """

    feed_rows: int  # g, rows of the input matrix per neuron
    back_rows: int  # r, rows of the recurrent matrix per neuron; 0 where there is none
    layer: SiteCost  # elementwise operations of a layer
    encoder: SiteCost = SiteCost()  # elementwise operations of the input site
    encoder_sends: Signal = "dense"  # what the input site sends
    layer_sends: Signal = "dense"  # what a layer sends, upwards and to itself
    has_self_connections: bool = True  # whether a neuron's output returns to the neuron itself
    # outputs of a dense matrix before the encoder, which then has so many neurons in place of F;
    # None for no such matrix
    projection_size: int | None = None
    # what the authors' script adds per neuron and layer; None for a model that the script does not
    # know, which gets its ``layer.products``
    published_elementwise: int | None = None


@dataclass(frozen=True)
class NetworkShape:
    """What the counts depend on."""

    config: ModelConfig  # the model and its size
    num_features: int  # F
    num_outputs: int  # O, the blank of CTC included

    @cached_property
    def cost(self) -> NetworkCost:
        """The model's own statement."""
        return self.config.spec.cost(self.config)

    @property
    def model(self) -> str:
        """Name of the kind of recogniser in the registry of models."""
        return self.config.model

    @property
    def num_layers(self) -> int:
        """L, the input site not among them."""
        return self.config.num_layers

    @property
    def hidden_size(self) -> int:
        """H, the same in every layer."""
        return self.config.hidden_size

    @property
    def is_event_based(self) -> bool:
        """Whether layers' outputs that are zero cost nothing."""
        return self.cost.layer_sends != "dense"

    @property
    def num_bits(self) -> int | None:
        """Bits of a spike; None for a model without quantisers."""
        return self.config.num_bits if self.config.spec.has_quantizers else None

    @property
    def weight_density(self) -> float:
        """Share of each matrix that is kept; 1 where nothing is pruned."""
        return 1.0 if self.config.weight_density is None else self.config.weight_density

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What every site sends, the input first."""
        return (self.cost.encoder_sends, *[self.cost.layer_sends] * self.num_layers)

    @property
    def site_sizes(self) -> tuple[int, ...]:
        """Neurons of the input site (F, or its projection) and of every layer (H)."""
        encoder = self.cost.projection_size or self.num_features
        return (encoder, *[self.hidden_size] * self.num_layers)

    @property
    def feed_fan_out(self) -> int:
        """Weights that one output reaches in the layer above: g H."""
        return self.cost.feed_rows * self.hidden_size

    @property
    def back_fan_out(self) -> int:
        """Weights that one output reaches in its own layer: r H, less its own where it has none."""
        others = self.hidden_size - (0 if self.cost.has_self_connections else 1)
        return self.cost.back_rows * others


@dataclass(frozen=True)
class Activity:
    """Outputs that count, summed over the valid frames of one or more utterances."""

    num_frames: int
    # per site, the input first: outputs sent on (those that are not zero, where the site sends
    # events)
    emitted: tuple[int, ...]
    fed_back: tuple[int, ...]  # per layer: outputs sent back to the layer itself one frame later
    # of a pruned network: weights that the outputs of each matrix term reached, in the order of
    # ``count_terms``; None where an output reaches its whole fan-out
    reached: tuple[int, ...] | None = None

    def __add__(self, other: "Activity") -> "Activity":
        reached = None
        if self.reached is not None and other.reached is not None:
            reached = tuple(a + b for a, b in zip(self.reached, other.reached, strict=True))
        return Activity(
            self.num_frames + other.num_frames,
            tuple(a + b for a, b in zip(self.emitted, other.emitted, strict=True)),
            tuple(a + b for a, b in zip(self.fed_back, other.fed_back, strict=True)),
            reached,
        )


def dense_activity(shape: NetworkShape, num_frames: int) -> Activity:
    """The activity of a model whose every output counts, the initial state's included."""
    emitted = tuple(size * num_frames for size in shape.site_sizes)
    return Activity(num_frames, emitted, emitted[1:])


@dataclass(frozen=True)
class TermCount:
    """One term's exact cost over the frames of an ``Activity``."""

    # ``feed_forward_1`` ... , ``recurrent_1`` ..., ``output``, ``projection`` or ``elementwise``.
    term: str
    nonzeros: int  # presynaptic outputs that count; 0 for elementwise
    fan_out: int  # weights that each of them reaches, pruned ones included; 0 for elementwise
    multiplications: int
    additions: int


def _matrix(term: str, nonzeros: int, fan_out: int, signal: Signal) -> TermCount:
    operations = nonzeros * fan_out
    return TermCount(term, nonzeros, fan_out, 0 if signal == "binary" else operations, operations)


def _reaching(term: TermCount, reached: int) -> TermCount:
    """The term in a pruned network, with the products of the weights that are there."""
    return replace(term, multiplications=reached if term.multiplications else 0, additions=reached)


def count_terms(shape: NetworkShape, activity: Activity) -> tuple[TermCount, ...]:
    """Itemise the exact cost; the matrix terms first, ``elementwise`` last.

    Args:
        activity: of one utterance, or summed over many.

    Example:
        A frame in which 10 inputs fire, then 4 and 5 neurons of the two layers of a v1:
        ``2 n0 H + 2 n1 H + n2 O``.

        >>> from training.models.model_config import ModelConfig
        >>> shape = NetworkShape(ModelConfig(model="v1", hidden_size=100), 40, 30)
        >>> audited(count_terms(shape, Activity(1, emitted=(10, 4, 5), fed_back=(0, 0))))
        2950
    """
    signals, layers = shape.signals, range(shape.num_layers)
    terms = [
        _matrix(
            f"feed_forward_{layer + 1}", activity.emitted[layer], shape.feed_fan_out, signals[layer]
        )
        for layer in layers
    ]
    if shape.cost.back_rows:
        terms += [
            _matrix(
                f"recurrent_{layer + 1}",
                activity.fed_back[layer],
                shape.back_fan_out,
                signals[layer + 1],
            )
            for layer in layers
        ]
    terms.append(_matrix("output", activity.emitted[-1], shape.num_outputs, signals[-1]))
    if shape.cost.projection_size is not None:
        read = shape.num_features * activity.num_frames
        terms.append(_matrix("projection", read, shape.cost.projection_size, "dense"))
    if activity.reached is not None:
        terms = [_reaching(*pair) for pair in zip(terms, activity.reached, strict=True)]
    terms.append(_elementwise(shape, activity))
    return tuple(terms)


def _elementwise(shape: NetworkShape, activity: Activity) -> TermCount:
    products = sums = 0
    costs = (shape.cost.encoder, *[shape.cost.layer] * shape.num_layers)
    for cost, size, sent in zip(costs, shape.site_sizes, activity.emitted, strict=True):
        neurons = size * activity.num_frames
        products += cost.products * neurons + cost.event_products * sent
        sums += cost.sums * neurons + cost.event_sums * sent
    return TermCount("elementwise", 0, 0, products, sums)


def matrix_terms(terms: Sequence[TermCount]) -> list[TermCount]:
    """All terms but the elementwise one."""
    return [term for term in terms if term.term != "elementwise"]


def audited(terms: Sequence[TermCount]) -> int:
    """Multiplications of the matrix terms."""
    return sum(term.multiplications for term in matrix_terms(terms))


def products_per_output(shape: NetworkShape) -> tuple[int, ...]:
    """Multiplications that one output of each site costs, the input first.

    What it costs above and, in a layer with feedback, in the layer itself one frame later; the
    projection, which is there whatever is sent, is not among them.
    """
    above = (*[shape.feed_fan_out] * shape.num_layers, shape.num_outputs)
    back = (0, *[shape.back_fan_out] * shape.num_layers)
    return tuple(
        0 if signal == "binary" else up + own
        for signal, up, own in zip(shape.signals, above, back, strict=True)
    )


def closed_form(shape: NetworkShape, mean_nonzeros: Sequence[float]) -> float:
    """The audited count per frame, from mean outputs.

    Two layers of v2: ``2 n0 H + 4 n1 H + 2 n2 H + n2 O``. Of a pruned network the share of weights
    that is kept: exact where every output counts, else as if all had the same number of weights.

    Args:
        mean_nonzeros: n0 ... nL, mean outputs per frame that count.
    """
    projection = shape.num_features * (shape.cost.projection_size or 0)
    sent = zip(mean_nonzeros, products_per_output(shape), strict=True)
    whole = projection + sum(mean * products for mean, products in sent)
    return shape.weight_density * whole
