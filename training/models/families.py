"""The models that are built in, each with its configuration and its costs.

Elementwise costs are the products and sums of the models' equations as they are written
(``training.lif``), per neuron and frame; dropout is not there at inference.

    LIF sites of b bits: s V, a product, and V = R + drive, a sum, per neuron; Y = k / s, a product,
        and R = V - Y, a sum, per spike. No products for 1 bit (a comparison with the range) and
        none unquantised.
    conventional: tau I_{t-1}, a product; drive + tau I, a sum.
    v1, v2, v3: F I_{t-1} and (1 - F) C, 2 products; 1 - F and the sum, 2 sums.
    v3 with a residue leak: lambda (V - Y), a product per neuron of every site.
    LSTM: f c + i g and o tanh(c), 3 products; f c + i g, a sum.
    GRU: r (U h), (1 - z) n and z h, 3 products; W x + r (U h), 1 - z and the sum, 3 sums.
    Li-GRU: z h and (1 - z) c, 2 products; 1 - z and the sum, 2 sums.
    DeltaGRU: as GRU, and v - v^, a sum per value of every site.
    EGRU: as GRU, and c - theta, a sum per event. An event is c itself: no product.
    adLIF, RadLIF: beta w, a u, alpha (u - s) and (1 - alpha) (I - w), 4 products; beta w + a u,
        I - w and the sum, 3 sums; per spike b s added and u - s, 2 sums.

Networks are named by address, so that reading a recipe does not import torch.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from pydantic import Field

from training.constants import UNQUANTIZED_BITS
from training.models.counting import NetworkCost, Signal, SiteCost
from training.models.model_config import ModelConfig
from training.models.registry import ModelSpec

_DENSE = "training.models.dense:DenseNetwork"


class DeltaGruConfig(ModelConfig):
    """A DeltaGRU: thresholds below which a change is not told."""

    delta_threshold: float = Field(
        0.1, ge=0, description="Changes of a layer's output up to this are not told."
    )
    input_delta_threshold: float = Field(
        0.1, ge=0, description="The same for the features, in deviations where they are normalised."
    )


class EgruConfig(ModelConfig):
    """An EGRU: thresholds above which a cell is sent."""

    event_threshold: float = Field(
        0.3, gt=0, lt=1, description="Mean of the neurons' learned thresholds at first."
    )


def lif_cost(
    config: ModelConfig, rows: int, cell: SiteCost, *, has_feedback: bool, published: int
) -> NetworkCost:
    """The cost of a network of LIF sites, encoder included.

    Args:
        rows: drives of a neuron.
        cell: what makes the synaptic current.
        has_feedback: whether spikes return to their layer.
        published: what the authors' script adds per neuron and layer.
    """
    multiplies = int(config.num_bits not in (1, UNQUANTIZED_BITS))
    sends: Signal = "binary" if config.num_bits == 1 else "levels"
    return NetworkCost(
        feed_rows=rows,
        back_rows=rows if has_feedback else 0,
        layer=SiteCost(cell.products + multiplies, cell.sums + 1, multiplies, 1),
        encoder=SiteCost(multiplies, 1, multiplies, 1),
        encoder_sends=sends,
        layer_sends=sends,
        projection_size=config.projection_size,
        published_elementwise=published,
    )


def _leaky_cost(config: ModelConfig) -> NetworkCost:
    cost = _V2_COST(config)
    leaks = int(config.leaky.residue_leak)
    return replace(
        cost,
        layer=replace(cost.layer, products=cost.layer.products + leaks),
        encoder=replace(cost.encoder, products=cost.encoder.products + leaks),
    )


def _ligru_cost(config: ModelConfig) -> NetworkCost:
    return NetworkCost(2, 2, SiteCost(2, 2), projection_size=config.projection_size)


def _fixed(cost: NetworkCost) -> Callable[[ModelConfig], NetworkCost]:
    """The cost of a model that has the same terms in any configuration."""
    return lambda _: cost


def _lif(name: str, title: str, cost: Callable[[ModelConfig], NetworkCost]) -> ModelSpec:
    return ModelSpec(
        name,
        title,
        "training.models.spiking:SpikingNetwork",
        cost,
        is_event_based=True,
        has_quantizers=True,
        states_matrices=True,
        admits_projection=True,
        engine="evaluation.engine.scorer:event_scorer",
    )


_V1_COST = partial(lif_cost, rows=2, cell=SiteCost(2, 2), has_feedback=False, published=8)
_V2_COST = partial(_V1_COST, has_feedback=True)
CONVENTIONAL = _lif(
    "conventional",
    "conventional SNN",
    partial(lif_cost, rows=1, cell=SiteCost(1, 1), has_feedback=False, published=6),
)
V1 = _lif("v1", "SNN v1", _V1_COST)
V2 = _lif("v2", "SNN v2", _V2_COST)
V3 = replace(_lif("v3", "SNN v3", _leaky_cost), version=1)
LSTM = ModelSpec(
    "lstm",
    "LSTM",
    _DENSE,
    _fixed(NetworkCost(4, 4, SiteCost(3, 1), published_elementwise=12)),
    states_matrices=True,
)
GRU = ModelSpec(
    "gru",
    "GRU",
    _DENSE,
    _fixed(NetworkCost(3, 3, SiteCost(3, 3), published_elementwise=12)),
    states_matrices=True,
)
LIGRU = ModelSpec(
    "ligru",
    "Li-GRU",
    "training.models.ligru:LiGruNetwork",
    _ligru_cost,
    states_matrices=True,
    admits_projection=True,
)
DELTA_GRU = ModelSpec(
    "deltagru",
    "DeltaGRU",
    "training.models.delta_gru:DeltaGruNetwork",
    _fixed(
        NetworkCost(
            3, 3, SiteCost(3, 4), SiteCost(sums=1), encoder_sends="levels", layer_sends="levels"
        )
    ),
    config=DeltaGruConfig,
    is_event_based=True,
)
EGRU = ModelSpec(
    "egru",
    "EGRU",
    "training.models.egru:EgruNetwork",
    _fixed(NetworkCost(3, 3, SiteCost(3, 3, event_sums=1), layer_sends="levels")),
    config=EgruConfig,
    is_event_based=True,
)
_ADAPTIVE_COST = NetworkCost(1, 0, SiteCost(4, 3, event_sums=2), layer_sends="binary")
ADLIF = ModelSpec(
    "adlif",
    "adLIF",
    "training.models.adaptive_lif:AdlifNetwork",
    _fixed(_ADAPTIVE_COST),
    is_event_based=True,
)
RADLIF = ModelSpec(
    "radlif",
    "RadLIF",
    "training.models.adaptive_lif:RadlifNetwork",
    _fixed(replace(_ADAPTIVE_COST, back_rows=1, has_self_connections=False)),
    is_event_based=True,
)
