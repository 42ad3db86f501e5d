"""What a recogniser costs in the field's own measures, per frame and per second of speech.

NeuroBench (Yik et al. 2025, *The neurobench framework for benchmarking neuromorphic computing
algorithms and systems*, Nature Communications 16, arXiv 2304.04640) names them; one *execution* of
the model is one frame here:

    footprint: bytes of all parameters and buffers; a matrix of rounded weights has so many bits a
        weight, and a step of its own for each row.
    connection sparsity: share of weights that are zero.
    activation sparsity: share of outputs that are not sent, over the sites that send events.
    effective MACs: products with an output that is not zero; effective ACs: where the output is a
        binary spike, which is added. Elementwise operations do not count.
    dense operations: what the same matrices would cost if every output counted.
    execution rate: frames per second.

Effective MACs are ``audited``, exactly. Weight bytes are what those operations fetch where nothing
is kept between frames: every counted output reads the weights that it reaches.
"""

from dataclasses import dataclass

import torch

from evaluation.metrics import WorkloadMetrics
from training.models.counting import (
    Activity,
    NetworkShape,
    audited,
    count_terms,
    dense_activity,
    matrix_terms,
)
from training.models.network import SpeechNetwork

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class StoredNetwork:
    """What a network takes up."""

    footprint_bytes: int  # of all parameters and buffers
    num_weights: int  # values of its matrices
    num_zero_weights: int  # those of them that are zero
    weight_bytes: float = _FLOAT_BYTES  # of one weight


def stored_network(network: SpeechNetwork, weight_bits: int | None = None) -> StoredNetwork:
    """Measure a network as it is stored.

    Args:
        network: on any device.
        weight_bits: bits to which its weights are rounded; None for float32.
    """
    tensors = [*network.parameters(), *network.buffers()]
    footprint = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    weight_bytes: float = _FLOAT_BYTES
    if weight_bits is not None:
        weight_bytes = weight_bits / 8
        for matrix in network.matrices().values():
            saved = (_FLOAT_BYTES - weight_bytes) * matrix.numel()
            footprint -= round(saved) - _FLOAT_BYTES * matrix.shape[0]
    matrices = [parameter for parameter in network.parameters() if parameter.dim() == 2]
    return StoredNetwork(
        footprint_bytes=footprint,
        num_weights=sum(matrix.numel() for matrix in matrices),
        num_zero_weights=sum(
            matrix.numel() - int(torch.count_nonzero(matrix)) for matrix in matrices
        ),
        weight_bytes=weight_bytes,
    )


def workload(
    shape: NetworkShape,
    activity: Activity,
    stored: StoredNetwork,
    frame_shift_s: float,
    target_delay: int,
) -> WorkloadMetrics:
    """The measures of one recogniser.

    Args:
        activity: summed over all utterances.
        stored: the network as it is stored.
        frame_shift_s: seconds between frames.
        target_delay: frames read after the one that is named.
    """
    frames = max(1, activity.num_frames)
    terms = count_terms(shape, activity)
    matrices = matrix_terms(terms)
    macs = audited(terms)
    operations = sum(term.additions for term in matrices)
    seconds = frames * frame_shift_s
    return WorkloadMetrics(
        multiplications_per_s=macs / seconds,
        additions_per_s=sum(term.additions for term in terms) / seconds,
        weight_bytes_per_s=stored.weight_bytes * operations / seconds,
        footprint_bytes=stored.footprint_bytes,
        connection_sparsity=stored.num_zero_weights / max(1, stored.num_weights),
        activation_sparsity=_activation_sparsity(shape, activity),
        effective_macs=macs / frames,
        effective_acs=(operations - macs) / frames,
        dense_operations=_dense_operations(shape),
        execution_rate_hz=1.0 / frame_shift_s,
        look_ahead_ms=1000.0 * target_delay * frame_shift_s,
    )


def _activation_sparsity(shape: NetworkShape, activity: Activity) -> float:
    sites = zip(shape.signals, shape.site_sizes, activity.emitted, strict=True)
    events = [(size, sent) for signal, size, sent in sites if signal != "dense"]
    if not events or activity.num_frames == 0:
        return 0.0
    possible = sum(size for size, _ in events) * activity.num_frames
    return 1.0 - sum(sent for _, sent in events) / possible


def _dense_operations(shape: NetworkShape) -> float:
    one_frame = count_terms(shape, dense_activity(shape, 1))
    return float(sum(term.additions for term in matrix_terms(one_frame)))
