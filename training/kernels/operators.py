"""The recurrences as operators of PyTorch: ``spikeline::scan`` and ``spikeline::gated``.

Registered through ``torch.library``, with shapes for tracing and gradients, so that autograd,
``torch.compile`` and autocast treat them as they treat built-in operators. An argument names
the implementation; what it keeps for the backward pass leaves the operator as extra outputs.

Shape legend: T time, B batch, H neurons.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from training.kernels.saved import ForwardResult, Saved
from training.quantizer import UNQUANTIZED_BITS, Quantizer

LANES = 8
Forward = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
NUM_DIFFERENTIABLE = 4


def _implementation(backend: str) -> ModuleType:
    if backend == "cpu":
        from training.kernels import cpu

        return cpu
    if backend == "triton":
        from training.kernels import triton_backend

        return triton_backend
    raise ValueError(f"backend={backend!r} has no fused kernels")


def _outputs(result: ForwardResult) -> Forward:
    return (*result[:6], *result.saved)


@torch.library.custom_op("spikeline::scan", mutates_args=())
def scan(
    drive: Tensor,
    decay: Tensor | None,
    lengths: Tensor,
    synaptic_current: Tensor,
    residue: Tensor,
    spikes: Tensor,
    range_M: Tensor,
    num_bits: int,
    threshold: int,
    save: bool,
    backend: str,
) -> Forward:
    """Encoder (no decay) or conventional layer over a sequence."""
    quantizer = Quantizer(range_M, num_bits, threshold)
    return _outputs(
        _implementation(backend).scan_forward(
            drive, decay, lengths, synaptic_current, residue, spikes, quantizer, save
        )
    )


@torch.library.custom_op("spikeline::gated", mutates_args=())
def gated(
    drive: Tensor,
    mask: Tensor | None,
    weight: Tensor | None,
    lengths: Tensor,
    synaptic_current: Tensor,
    residue: Tensor,
    spikes: Tensor,
    range_M: Tensor,
    num_bits: int,
    threshold: int,
    save: bool,
    backend: str,
) -> Forward:
    """Layer v1 (no weight) or v2 over a sequence; ``drive`` is (T, B, 2H), forget first."""
    quantizer = Quantizer(range_M, num_bits, threshold)
    return _outputs(
        _implementation(backend).gated_forward(
            drive, mask, weight, lengths, synaptic_current, residue, spikes, quantizer, save
        )
    )


def _fake_forward(
    drive: Tensor, save: bool, has_current: bool, has_gates: bool, backend: str
) -> Forward:
    num_frames, batch_size, num_neurons = drive.shape
    if has_gates:
        num_neurons = num_neurons // 2
    empty = 0

    def sequence(kept: bool) -> Tensor:
        shape = (num_frames, batch_size, num_neurons) if kept else (empty,)
        return drive.new_empty(shape, dtype=torch.float32)

    def state() -> Tensor:
        return drive.new_empty((batch_size, num_neurons), dtype=torch.float32)

    def scalar() -> Tensor:
        return drive.new_empty((), dtype=torch.float32)

    def bits(kept: bool) -> Tensor:
        # Triton keeps a byte per neuron, with both bits in it.
        num_bytes = (num_neurons + LANES - 1) // LANES if backend == "cpu" else num_neurons
        shape = (num_frames, batch_size, num_bytes) if kept else (empty,)
        return drive.new_empty(shape, dtype=torch.uint8)

    return (
        sequence(True),
        state(),
        state(),
        state(),
        scalar(),
        scalar(),
        sequence(save and has_current),
        bits(save),
        bits(save and has_gates and backend == "cpu"),
        sequence(save and has_gates),
    )


@scan.register_fake
def _(drive, decay, lengths, current, residue, spikes, range_M, num_bits, threshold, save, backend):  # type: ignore[no-untyped-def]
    return _fake_forward(drive, save, decay is not None, False, backend)


@gated.register_fake
def _(  # type: ignore[no-untyped-def]
    drive,
    mask,
    weight,
    lengths,
    current,
    residue,
    spikes,
    range_M,
    num_bits,
    threshold,
    save,
    backend,
):
    return _fake_forward(drive, save, True, True, backend)


@torch.library.custom_op("spikeline::scan_backward", mutates_args=())
def scan_backward(
    grad: Tensor,
    grad_current: Tensor,
    grad_residue: Tensor,
    grad_spikes: Tensor,
    decay: Tensor | None,
    lengths: Tensor,
    initial_current: Tensor,
    currents: Tensor,
    inside: Tensor,
    is_quantized: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of drive, decay and initial state (I, R, Y)."""
    empty = grad.new_empty(0)
    return tuple(
        _implementation(backend).scan_backward(
            grad,
            (grad_current, grad_residue, grad_spikes),
            decay,
            lengths,
            initial_current,
            Saved(currents, inside, empty, empty),
            is_quantized,
        )
    )


@scan_backward.register_fake
def _(grad, grad_current, grad_residue, grad_spikes, *others):  # type: ignore[no-untyped-def]
    state = (torch.empty_like(g) for g in (grad_current, grad_residue, grad_spikes))
    return (torch.empty_like(grad), grad.new_empty(grad.shape[2]), *state)


@torch.library.custom_op("spikeline::gated_backward", mutates_args=())
def gated_backward(
    grad: Tensor,
    grad_current: Tensor,
    grad_residue: Tensor,
    grad_spikes: Tensor,
    mask: Tensor | None,
    weight: Tensor | None,
    lengths: Tensor,
    initial_current: Tensor,
    initial_spikes: Tensor,
    spikes: Tensor,
    currents: Tensor,
    inside: Tensor,
    positive: Tensor,
    gates: Tensor,
    is_quantized: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of both drives (T, B, 2H), weight and initial state (I, R, Y)."""
    return tuple(
        _implementation(backend).gated_backward(
            grad,
            (grad_current, grad_residue, grad_spikes),
            mask,
            weight,
            lengths,
            initial_current,
            initial_spikes,
            spikes,
            Saved(currents, inside, positive, gates),
            is_quantized,
        )
    )


@gated_backward.register_fake
def _(grad, grad_current, grad_residue, grad_spikes, mask, weight, *others):  # type: ignore[no-untyped-def]
    num_frames, batch_size, num_neurons = grad.shape
    state = (torch.empty_like(g) for g in (grad_current, grad_residue, grad_spikes))
    return (
        grad.new_empty((num_frames, batch_size, 2 * num_neurons)),
        grad.new_empty(0 if weight is None else tuple(weight.shape)),
        *state,
    )


def _materialized(gradients: tuple[Tensor | None, ...], like: tuple[Tensor, ...]) -> list[Tensor]:
    """Gradients of the differentiable outputs, zeros where nothing depends on one."""
    return [
        torch.zeros_like(output) if gradient is None else gradient
        for gradient, output in zip(gradients, like, strict=False)
    ]


def _keep_scan(ctx: Any, inputs: tuple[Any, ...], output: Forward) -> None:
    _, decay, lengths, current, _, _, _, ctx.num_bits, _, _, ctx.backend = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(decay, lengths, current, output[0], output[6], output[7])


def _differentiate_scan(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    decay, lengths, current, spikes, currents, inside = ctx.saved_tensors
    like = (spikes, current, current, current)
    drive, grad_decay, *state = scan_backward(
        *_materialized(gradients[:NUM_DIFFERENTIABLE], like),
        decay,
        lengths,
        current,
        currents,
        inside,
        ctx.num_bits != UNQUANTIZED_BITS,
        ctx.backend,
    )
    return drive, None if decay is None else grad_decay, None, *state, *[None] * 5


def _keep_gated(ctx: Any, inputs: tuple[Any, ...], output: Forward) -> None:
    _, mask, weight, lengths, current, _, initial_spikes = inputs[:7]
    ctx.num_bits, ctx.backend = inputs[8], inputs[11]
    ctx.set_materialize_grads(False)
    kept = (mask, weight, lengths, current, initial_spikes, output[0], *output[6:])
    ctx.save_for_backward(*kept)


def _differentiate_gated(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    mask, weight, lengths, current, initial_spikes, spikes, *saved = ctx.saved_tensors
    like = (spikes, current, current, current)
    drive, grad_weight, *state = gated_backward(
        *_materialized(gradients[:NUM_DIFFERENTIABLE], like),
        mask,
        weight,
        lengths,
        current,
        initial_spikes,
        spikes,
        *saved,
        ctx.num_bits != UNQUANTIZED_BITS,
        ctx.backend,
    )
    return drive, None, None if weight is None else grad_weight, None, *state, *[None] * 5


scan.register_autograd(_differentiate_scan, setup_context=_keep_scan)
gated.register_autograd(_differentiate_gated, setup_context=_keep_gated)


@torch.library.custom_op("spikeline::spike_linear", mutates_args=())
def spike_linear(spikes: Tensor, weight: Tensor) -> Tensor:
    """``Y W^T`` on the CPU, sparse where spikes are few."""
    from training.kernels import cpu_matrix

    return cpu_matrix.times_weight(spikes, weight)


@spike_linear.register_fake
def _(spikes: Tensor, weight: Tensor) -> Tensor:
    return spikes.new_empty((spikes.shape[0], weight.shape[0]))


@torch.library.custom_op("spikeline::spike_weight_gradient", mutates_args=())
def spike_weight_gradient(spikes: Tensor, grad: Tensor) -> Tensor:
    """``g^T Y`` on the CPU, sparse where spikes are few."""
    from training.kernels import cpu_matrix

    return cpu_matrix.weight_gradient(spikes, grad)


@spike_weight_gradient.register_fake
def _(spikes: Tensor, grad: Tensor) -> Tensor:
    return spikes.new_empty((grad.shape[1], spikes.shape[1]))


def _keep_linear(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate_linear(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    spikes, weight = ctx.saved_tensors
    needs_spikes, needs_weight = ctx.needs_input_grad
    with torch.autocast("cpu", enabled=False):
        grad_spikes = grad @ weight if needs_spikes else None
    return grad_spikes, spike_weight_gradient(spikes, grad) if needs_weight else None


spike_linear.register_autograd(_differentiate_linear, setup_context=_keep_linear)
