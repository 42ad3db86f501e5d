"""The recurrences as operators of PyTorch: ``spikeline::scan`` and ``spikeline::gated``.

Registered through ``torch.library``, with shapes for tracing and gradients, so that autograd,
``torch.compile`` and autocast treat them as they treat built-in operators. An argument names
the implementation; what it keeps for the backward pass leaves the operator as extra outputs.

Shape legend: T time, B batch, H neurons.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from training.constants import UNQUANTIZED_BITS
from training.kernels.saved import ForwardResult, Saved, num_bit_bytes
from training.quantizer import Quantizer

R = TypeVar("R")

_library = torch.library.Library("spikeline", "DEF")
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


def _operator(function: Callable[..., R]) -> Callable[..., R]:
    """Register as an operator for every device.

    ``torch.library.custom_op`` would do, but imports the whole compiler at the first call, two
    seconds that a process which only evaluates need not spend.
    """
    schema = torch.library.infer_schema(function, mutates_args=())
    _library.define(function.__name__ + schema)
    _library.impl(function.__name__, function, "CompositeExplicitAutograd")
    return cast(Callable[..., R], getattr(torch.ops.spikeline, function.__name__).default)


def _shapes_of(name: str) -> Any:
    """Register a function that makes empty outputs of the right shapes, for tracing."""
    return torch.library.register_fake(f"spikeline::{name}", lib=_library)


def _outputs(result: ForwardResult) -> Forward:
    return (*result[:6], *result.saved)


@_operator
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


@_operator
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
        num_bytes = num_bit_bytes(num_neurons) if backend == "cpu" else num_neurons
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


@_shapes_of("scan")
def _(drive, decay, lengths, current, residue, spikes, range_M, num_bits, threshold, save, backend):  # type: ignore[no-untyped-def]
    return _fake_forward(drive, save, decay is not None, False, backend)


@_shapes_of("gated")
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


@_operator
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


@_shapes_of("scan_backward")
def _(grad, grad_current, grad_residue, grad_spikes, *others):  # type: ignore[no-untyped-def]
    state = (torch.empty_like(g) for g in (grad_current, grad_residue, grad_spikes))
    return (torch.empty_like(grad), grad.new_empty(grad.shape[2]), *state)


@_operator
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


@_shapes_of("gated_backward")
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


torch.library.register_autograd(
    "spikeline::scan", _differentiate_scan, setup_context=_keep_scan, lib=_library
)
torch.library.register_autograd(
    "spikeline::gated", _differentiate_gated, setup_context=_keep_gated, lib=_library
)


@_operator
def spike_linear(spikes: Tensor, weight: Tensor, in_order: bool) -> Tensor:
    """``Y W^T`` on the CPU, sparse where spikes are few or their order matters."""
    from training.kernels import cpu_matrix

    return cpu_matrix.times_weight(spikes, weight, in_order)


@_shapes_of("spike_linear")  # type: ignore[untyped-decorator]
def _(spikes: Tensor, weight: Tensor, in_order: bool) -> Tensor:
    return spikes.new_empty((spikes.shape[0], weight.shape[0]))


@_operator
def spike_weight_gradient(spikes: Tensor, grad: Tensor) -> Tensor:
    """``g^T Y`` on the CPU, sparse where spikes are few."""
    from training.kernels import cpu_matrix

    return cpu_matrix.weight_gradient(spikes, grad)


@_shapes_of("spike_weight_gradient")  # type: ignore[untyped-decorator]
def _(spikes: Tensor, grad: Tensor) -> Tensor:
    return spikes.new_empty((grad.shape[1], spikes.shape[1]))


@_operator
def spike_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """``g W`` on the CPU, the gradient of the spikes: dense."""
    from training.kernels import cpu_matrix

    return cpu_matrix.dense_product(grad, weight)


@_shapes_of("spike_gradient")  # type: ignore[untyped-decorator]
def _(grad: Tensor, weight: Tensor) -> Tensor:
    return grad.new_empty((grad.shape[0], weight.shape[1]))


def _keep_linear(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _differentiate_linear(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    spikes, weight = ctx.saved_tensors
    needs_spikes, needs_weight, _ = ctx.needs_input_grad
    return (
        spike_gradient(grad, weight) if needs_spikes else None,
        spike_weight_gradient(spikes, grad) if needs_weight else None,
        None,
    )


torch.library.register_autograd(
    "spikeline::spike_linear", _differentiate_linear, setup_context=_keep_linear, lib=_library
)


def _refuse(ctx: Any, *gradients: Tensor | None) -> None:
    raise RuntimeError(
        "second derivatives of the LIF recurrence exist in backend=reference alone; choose it"
    )


for _name in ("scan_backward", "gated_backward", "spike_weight_gradient", "spike_gradient"):
    torch.library.register_autograd(f"spikeline::{_name}", _refuse, lib=_library)
