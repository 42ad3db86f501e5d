"""How many multiplications a recogniser needs, counted outside its forward pass from what it sent.

``training.models.counting`` has the terms, for spiking and dense models alike. Elementwise products
are outside the audited count and published as a term of their own.

**Feedback is exact.** Frame t of v2 multiplies by the layer's own output of frame t - 1: the
first frame has none, and the output of an utterance's last frame is never fed back. Per utterance
the recurrent count is therefore H r x (non-zeros of all frames but the last); the closed form with
means over all frames (``closed_form``) is larger by the last frames' share, about 1/T of it.

Shape legend: T time, B batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from training.models.counting import Activity, NetworkShape, closed_form
from training.models.model_config import ModelConfig
from training.models.network import SpeechNetwork
from training.models.reached import weights_reached


def pruned_matrices(network: SpeechNetwork) -> Mapping[str, Tensor] | None:
    """The matrices of a pruned network, of which only the weights that are there count, or None."""
    return network.matrices() if network.config.weight_density is not None else None


def measure_activity(
    shape: NetworkShape,
    site_outputs: Sequence[Tensor],
    lengths_B: Tensor,
    matrices: Mapping[str, Tensor] | None = None,
) -> list[Activity]:
    """Count what each utterance of a batch sent on.

    Args:
        site_outputs: ``NetworkOutput.site_outputs``, (T, B, size) per site, encoder first.
        lengths_B: valid frames of each utterance.
        matrices: ``pruned_matrices`` of the network, of which only the weights that are not zero
            count; None where all do.
    """
    assert len(site_outputs) == shape.num_layers + 1
    lengths = lengths_B.tolist()
    time_T1 = torch.arange(site_outputs[0].shape[0]).unsqueeze(1)
    emitted, fed_back = [], []
    for output_TBH, signal in zip(site_outputs, shape.signals, strict=True):
        if signal == "dense":
            # The initial state is multiplied as well, in place of the last frame's output.
            emitted.append([length * output_TBH.shape[2] for length in lengths])
            fed_back.append(emitted[-1])
            continue
        nonzeros_TB = torch.count_nonzero(output_TBH, dim=2)
        emitted.append((nonzeros_TB * (time_T1 < lengths_B)).sum(0).tolist())
        fed_back.append((nonzeros_TB * (time_T1 < lengths_B - 1)).sum(0).tolist())
    found = [
        Activity(length, tuple(of_site), tuple(back_of_site))
        for length, of_site, back_of_site in zip(
            lengths, zip(*emitted, strict=True), zip(*fed_back[1:], strict=True), strict=True
        )
    ]
    if matrices is None:
        return found
    reached = weights_reached(shape, site_outputs, lengths_B, matrices)
    return [replace(one, reached=of_one) for one, of_one in zip(found, reached, strict=True)]


def as_published(shape: NetworkShape, mean_nonzeros: Sequence[float]) -> float:
    """Multiplications per frame as the authors' script counts them, to compare with the paper.

    Dense and conventional models: the audited form plus 12 H (dense) or 6 H (conventional) per
    layer. v1 and v2: ``4 n H`` for the input n of every layer, which charges v1 for a
    recurrence it lacks and multiplies v2's by its input's non-zeros, plus 8 H per layer. Single
    bits make no difference to the script. A model that it does not know is counted as it counts
    most: the audited form, single bits too, and the cell's own products per neuron and layer. It
    knows no projection: where there is one, its F P products are added.

    Args:
        mean_nonzeros: n0 ... nL.
    """
    hidden, cost = shape.hidden_size, shape.cost
    of_neuron = cost.published_elementwise
    elementwise = (cost.layer.products if of_neuron is None else of_neuron) * hidden
    elementwise *= shape.num_layers
    below, top = sum(mean_nonzeros[:-1]), mean_nonzeros[-1]
    if shape.model in ("v1", "v2"):
        matrices = 4 * below * hidden
    else:
        matrices = below * shape.feed_fan_out + sum(mean_nonzeros[1:]) * shape.back_fan_out
    projection = shape.num_features * (cost.projection_size or 0)
    return projection + matrices + top * shape.num_outputs + elementwise


def mean_nonzeros(activity: Activity) -> tuple[float, ...]:
    """Outputs per frame that cost something, encoder first."""
    return tuple(count / max(1, activity.num_frames) for count in activity.emitted)


def same_size_dense(shape: NetworkShape, model: str) -> NetworkShape:
    """A dense model of the same features, layers, neurons and outputs."""
    config = ModelConfig(model=model, num_layers=shape.num_layers, hidden_size=shape.hidden_size)
    return NetworkShape(config, shape.num_features, shape.num_outputs)


def dense_cost(shape: NetworkShape, model: str) -> tuple[float, float]:
    """(audited, as published) multiplications per frame of a dense model of the same size."""
    dense = same_size_dense(shape, model)
    means = [float(size) for size in dense.site_sizes]
    return closed_form(dense, means), as_published(dense, means)
