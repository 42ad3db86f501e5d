"""The one entry point of the LIF recurrence; models call this and nothing below it.

Whatever the backend, the recurrence runs in float32: drives of another type, and autocast,
are converted on entry. Spikes and state come out in float32.

Shape legend: T time, B batch, H neurons.
"""

import functools
import importlib.util
import logging
import os

import torch
from torch import Tensor

from featurize.stage import PipelineError
from training.constants import Backend
from training.kernels import operators, reference
from training.kernels.layer import Keep, Layer, LayerWeights, Rows
from training.lif import FiringRule, LifState, RecurrenceOutput, saturate
from training.quantizer import RangeTracker

logger = logging.getLogger(__name__)


@functools.cache
def _log_choice(requested: str, chosen: str, device: str) -> None:
    logger.info("LIF recurrence: backend=%s on %s (asked for %s)", chosen, device, requested)


def _can_use_triton(device: torch.device) -> bool:
    is_interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    is_there = importlib.util.find_spec("triton") is not None
    return is_there and (device.type == "cuda" or is_interpreted)


def choose_backend(requested: Backend, device: torch.device, is_per_step: bool) -> Backend:
    """The backend that will run.

    Args:
        requested: as configured; ``auto`` takes the fastest that can do the work.
        is_per_step: whether the quantiser's range moves at every time step.
    """
    if is_per_step and requested not in ("auto", "reference"):
        raise PipelineError(
            f"backend={requested} keeps the quantiser's range constant over a sequence; "
            "range_update=timestep needs backend=reference (or auto)"
        )
    if requested == "cpu" and device.type != "cpu":
        raise PipelineError(f"backend=cpu cannot work on {device}; use backend=auto")
    if requested == "triton" and not _can_use_triton(device):
        raise PipelineError(
            f"backend=triton cannot work on {device}: it needs a CUDA device and the triton "
            "package (or TRITON_INTERPRET=1, for tests); use backend=auto"
        )
    chosen = requested
    if requested == "auto":
        chosen = "reference"
        if not is_per_step and device.type == "cpu":
            chosen = "cpu"
        elif not is_per_step and _can_use_triton(device):
            chosen = "triton"
    if not torch.compiler.is_compiling():
        _log_choice(requested, chosen, device.type)
    return chosen


def _require_shape(name: str, tensor: Tensor | None, *shape: int) -> None:
    if tensor is not None and tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected {shape}")


def _checked(layer: Layer, drive_TBG: Tensor) -> Layer:
    """The layer as the kernels take it: shapes checked, lengths int64, all else float32."""
    is_gated, rows, weights = layer.kind == "gated", layer.rows, layer.weights
    if drive_TBG.dim() != 3 or (is_gated and drive_TBG.shape[2] % 2):
        name, expected = ("drive_TBG", "(T, B, 2H)") if is_gated else ("drive_TBH", "(T, B, H)")
        raise ValueError(f"{name} has shape {tuple(drive_TBG.shape)}; expected {expected}")
    _, batch_size, num_drives = drive_TBG.shape
    num_neurons = num_drives // 2 if is_gated else num_drives
    _require_shape("lengths_B", rows.lengths_B, batch_size)
    for name, tensor in zip(LifState._fields, layer.state, strict=True):
        _require_shape(f"state.{name}", tensor, batch_size, num_neurons)
    _require_shape("dropout_mask_BH", rows.dropout_mask_BH, batch_size, num_neurons)
    _require_shape("decay_H", weights.decay_H, num_neurons)
    _require_shape("recurrent_weight_2HH", weights.recurrent_2HH, 2 * num_neurons, num_neurons)
    _require_shape("firing.residue_leak", weights.residue_leak_H, num_neurons)
    mask_BH = rows.dropout_mask_BH
    return layer._replace(
        rows=Rows(rows.lengths_B.long(), None if mask_BH is None else mask_BH.detach().float()),
        weights=LayerWeights(*(None if each is None else each.float() for each in weights)),
        # Steps saturate what they return; a state from elsewhere must not overflow their gradient.
        state=LifState(*(saturate(tensor.float()) for tensor in layer.state)),
    )


def _will_differentiate(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _run(
    layer: Layer, drive_TBG: Tensor, requested: Backend, per_step_range: RangeTracker | None
) -> RecurrenceOutput:
    backend = choose_backend(requested, drive_TBG.device, per_step_range is not None)
    layer, drive_TBG = _checked(layer, drive_TBG), drive_TBG.float()
    if backend == "reference":
        with torch.autocast(drive_TBG.device.type, enabled=False):
            return reference.forward(layer, drive_TBG, Keep(False), per_step_range)[0]
    levels = layer.quantizer
    of_firing = (layer.weights.residue_leak_H, levels.range_M, levels.threshold_levels)
    keep = Keep(
        _will_differentiate(drive_TBG, *layer.weights, *layer.state, *of_firing),
        _will_differentiate(*of_firing),
    )
    spikes, current, residue, last, minimum, maximum, *_ = operators.layer(
        layer, drive_TBG, keep, backend
    )
    state = LifState(current, residue, last)
    return RecurrenceOutput(spikes, state, minimum.detach(), maximum.detach())


def encoder(
    drive_TBH: Tensor,
    lengths_B: Tensor,
    state: LifState,
    firing: FiringRule,
    *,
    backend: Backend = "auto",
    per_step_range: RangeTracker | None = None,
) -> RecurrenceOutput:
    """Input encoder: ``V = R + x; Y = Q(V); R = lambda (V - Y)`` over time.

    Args:
        drive_TBH: input frames, or a projection of them.
        lengths_B: valid frames of each utterance, (B,) int64, 0 to T.
        firing: quantiser and leak.
        backend: which implementation; ``auto`` takes the fastest for the tensor's device.
        per_step_range: move this range at every time step (reference backend only).

    Raises:
        ValueError: if shapes do not fit together.
        PipelineError: if the backend cannot do the work.
    """
    weights = LayerWeights(residue_leak_H=firing.residue_leak)
    layer = Layer("encoder", Rows(lengths_B, None), weights, state, firing.quantizer)
    return _run(layer, drive_TBH, backend, per_step_range)


def conventional(
    drive_TBH: Tensor,
    decay_H: Tensor,
    lengths_B: Tensor,
    state: LifState,
    firing: FiringRule,
    *,
    backend: Backend = "auto",
    per_step_range: RangeTracker | None = None,
) -> RecurrenceOutput:
    """Conventional LIF layer, ``I_t = drive_t + tau I_{t-1}`` and firing; the rest as ``encoder``.

    Args:
        drive_TBH: ``m * BN(W X)``, dropout already applied.
        decay_H: tau per neuron, in [0, 1].
    """
    weights = LayerWeights(decay_H=decay_H, residue_leak_H=firing.residue_leak)
    layer = Layer("conventional", Rows(lengths_B, None), weights, state, firing.quantizer)
    return _run(layer, drive_TBH, backend, per_step_range)


def gated(
    drive_TBG: Tensor,
    dropout_mask_BH: Tensor | None,
    recurrent_weight_2HH: Tensor | None,
    lengths_B: Tensor,
    state: LifState,
    firing: FiringRule,
    *,
    backend: Backend = "auto",
    per_step_range: RangeTracker | None = None,
) -> RecurrenceOutput:
    """LIF layer v1, v2 or v3, see ``training.lif.gated_step``; the rest as ``encoder``.

    Args:
        drive_TBG: ``BN(W_f X)`` and ``BN(W_c X)``, (T, B, 2H), forget first, as one linear map
            computes them.
        dropout_mask_BH: m, one mask per layer and sequence, or None; gets no gradient.
        recurrent_weight_2HH: ``[U_f; U_c]``, (2H, H), or None for v1.
        firing: quantiser, and of v3 its leak.
    """
    weights = LayerWeights(recurrent_2HH=recurrent_weight_2HH, residue_leak_H=firing.residue_leak)
    rows = Rows(lengths_B, dropout_mask_BH)
    layer = Layer("gated", rows, weights, state, firing.quantizer)
    return _run(layer, drive_TBG, backend, per_step_range)
