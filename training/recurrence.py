"""The one entry point of the LIF recurrence; models call this and nothing below it.

Shape legend: T time, B batch, H neurons.
"""

from torch import Tensor

from training.kernels import reference
from training.lif import LifState
from training.quantizer import Quantizer, RangeTracker
from training.recurrence_types import Backend, RecurrenceOutput


def encoder(
    drive_TBH: Tensor,
    lengths_B: Tensor,
    state: LifState,
    quantizer: Quantizer,
    *,
    backend: Backend = "auto",
    per_step_range: RangeTracker | None = None,
) -> RecurrenceOutput:
    """Input encoder: ``V = R + x; Y = Q(V); R = V - Y`` over time.

    Args:
        drive_TBH: input frames.
        lengths_B: valid frames of each utterance, (B,) int64, 0 to T.
        state: state before the first frame.
        quantizer: range, bits, threshold.
        backend: which implementation; ``auto`` takes the fastest for the tensor's device.
        per_step_range: move this range at every time step (reference backend only).
    """
    return reference.encoder(drive_TBH, lengths_B, state, quantizer, per_step_range)


def conventional(
    drive_TBH: Tensor,
    decay_H: Tensor,
    lengths_B: Tensor,
    state: LifState,
    quantizer: Quantizer,
    *,
    backend: Backend = "auto",
    per_step_range: RangeTracker | None = None,
) -> RecurrenceOutput:
    """Conventional LIF layer: ``I_t = drive_t + tau I_{t-1}``, then firing.

    Args:
        drive_TBH: ``m * BN(W X)``, dropout already applied.
        decay_H: tau per neuron, in [0, 1].
        lengths_B: valid frames, (B,) int64.
        state: state before the first frame.
        quantizer: range, bits, threshold.
        backend: see ``encoder``.
        per_step_range: see ``encoder``.
    """
    return reference.conventional(drive_TBH, decay_H, lengths_B, state, quantizer, per_step_range)


def gated(
    forget_drive_TBH: Tensor,
    cell_drive_TBH: Tensor,
    dropout_mask_BH: Tensor | None,
    recurrent_weight_2HH: Tensor | None,
    lengths_B: Tensor,
    state: LifState,
    quantizer: Quantizer,
    *,
    backend: Backend = "auto",
    per_step_range: RangeTracker | None = None,
) -> RecurrenceOutput:
    """Improved LIF layer v1, or v2 with a recurrent weight; see ``training.lif.gated_step``.

    Args:
        forget_drive_TBH: ``BN(W_f X)``.
        cell_drive_TBH: ``BN(W_c X)``.
        dropout_mask_BH: m, one mask per layer and sequence, or None.
        recurrent_weight_2HH: ``[U_f; U_c]``, (2H, H), or None for v1.
        lengths_B: valid frames, (B,) int64.
        state: state before the first frame.
        quantizer: range, bits, threshold.
        backend: see ``encoder``.
        per_step_range: see ``encoder``.
    """
    return reference.gated(
        forget_drive_TBH,
        cell_drive_TBH,
        dropout_mask_BH,
        recurrent_weight_2HH,
        lengths_B,
        state,
        quantizer,
        per_step_range,
    )
