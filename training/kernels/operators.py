"""The recurrences as an operator of PyTorch, ``spikeline::layer``; and products of spikes.

Registered through ``torch.library``, with shapes for tracing and gradients, so that autograd,
``torch.compile`` and autocast treat them as they treat built-in operators. An operator takes flat
arguments: ``training.kernels.layer`` turns a ``Layer`` into them and back, and the fields of its
named tuples are the schema. What a pass keeps for the backward pass leaves it as extra outputs.

Shape legend: T time, B batch, H neurons, G drives of a layer (H, or 2H where it is gated).
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast, get_type_hints

import torch
from torch import Tensor

from training.kernels.backend import backend_named
from training.kernels.layer import (
    FLAT_PARTS,
    NUM_FLAT,
    Keep,
    Layer,
    LayerWeights,
    OutputGradients,
    Rows,
    Saved,
    flattened,
    num_bit_bytes,
    unflattened,
)
from training.lif import LifState
from training.quantizer import Quantizer

R = TypeVar("R")

_library = torch.library.Library("spikeline", "DEF")
_TYPES = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    int: "int",
    bool: "bool",
}
NUM_STATES = len(LifState._fields)
# The weights, then range and threshold.
NUM_LEARNED = len(LayerWeights._fields) + 2
NUM_SAVED = len(Saved._fields)
# Outputs of a pass: spikes and state, which have gradients, extremes, and what is kept.
NUM_DIFFERENTIABLE = 1 + NUM_STATES
NUM_EXTREMES = 2


def _schema_of(*parts: Any) -> str:
    """Arguments of an operator: the fields of these named tuples."""
    fields = [field for part in parts for field in get_type_hints(part).items()]
    return ", ".join(f"{_TYPES[kind]} {name}" for name, kind in fields)


def _tensors(count: int, name: str | None = None) -> str:
    names = [f" {name}_{number}" if name else "" for number in range(count)]
    return ", ".join(f"Tensor{each}" for each in names)


def _operator(function: Callable[..., R], schema: str | None = None) -> Callable[..., R]:
    """Register as an operator for every device.

    ``torch.library.custom_op`` would do, but imports the whole compiler at the first call, two
    seconds that a process which only evaluates need not spend.
    """
    name = function.__name__.lstrip("_")
    schema = schema or torch.library.infer_schema(function, mutates_args=())
    _library.define(name + schema)
    _library.impl(name, function, "CompositeExplicitAutograd")
    return cast(Callable[..., R], getattr(torch.ops.spikeline, name).default)


def _shapes_of(name: str) -> Any:
    """Register a function that makes empty outputs of the right shapes, for tracing."""
    return torch.library.register_fake(f"spikeline::{name}", lib=_library)


def _layer(*arguments: Any) -> tuple[Tensor, ...]:
    """A layer over a sequence."""
    *flat, drive, for_backward, potentials, backend = arguments
    keep = Keep(for_backward, potentials)
    output, saved = backend_named(backend).forward(unflattened(flat), drive, keep)
    return (output.spikes_TBH, *output.state, output.minimum, output.maximum, *saved)


def _layer_backward(*arguments: Any) -> tuple[Tensor, ...]:
    """Gradients of the drive, the weights, range, threshold and the state; empty where none is."""
    *tensors, backend = arguments[NUM_FLAT:]
    spikes, saved = tensors[0], Saved(*tensors[1 : 1 + NUM_SAVED])
    grad_spikes, *grad_state = tensors[1 + NUM_SAVED :]
    found = backend_named(backend).backward(
        unflattened(arguments[:NUM_FLAT]),
        spikes,
        saved,
        OutputGradients(grad_spikes, LifState(*grad_state)),
    )
    learned = (*found.weights, found.range_M, found.threshold_levels)
    filled = (spikes.new_empty(0) if gradient is None else gradient for gradient in learned)
    return (found.drive_TBG, *filled, *found.state)


_LAYER = f"str kind, {_schema_of(*FLAT_PARTS)}"
_layer_operator = _operator(
    _layer,
    f"({_LAYER}, Tensor drive, {_schema_of(Keep)}, str backend) -> "
    f"({_tensors(NUM_DIFFERENTIABLE + NUM_EXTREMES + NUM_SAVED)})",
)
_layer_backward_operator = _operator(
    _layer_backward,
    f"({_LAYER}, Tensor output, {_tensors(NUM_SAVED, 'saved')}, "
    f"{_tensors(NUM_DIFFERENTIABLE, 'grad')}, str backend) -> "
    f"({_tensors(1 + NUM_LEARNED + NUM_STATES)})",
)


def layer(found: Layer, drive_TBG: Tensor, keep: Keep, backend: str) -> tuple[Tensor, ...]:
    """The operator: spikes, state (I, R, Y), extremes of V, and the fields of ``Saved``."""
    return _layer_operator(*flattened(found), drive_TBG, *keep, backend)


@_shapes_of("layer")  # type: ignore[untyped-decorator]
def _(*arguments: Any) -> tuple[Tensor, ...]:
    *flat, drive, save, potentials, backend = arguments
    kind, _, _, state, _ = unflattened(flat)
    num_frames, batch_size = drive.shape[:2]
    num_neurons = state.synaptic_current.shape[1]
    is_gated, is_triton = kind == "gated", backend == "triton"
    # Triton keeps a byte per neuron, with both bits in it.
    num_bytes = num_neurons if is_triton else num_bit_bytes(num_neurons)

    def sequence(is_wanted: bool, width: int, dtype: torch.dtype) -> Tensor:
        shape = (num_frames, batch_size, width) if is_wanted else (0,)
        return torch.empty(shape, dtype=dtype, device=drive.device)

    def floats(is_wanted: bool) -> Tensor:
        return sequence(is_wanted, num_neurons, torch.float32)

    def bits(is_wanted: bool) -> Tensor:
        return sequence(is_wanted, num_bytes, torch.uint8)

    saved = Saved(
        currents=floats(save and kind != "encoder"),
        inside=bits(save),
        positive=bits(save and is_gated and not is_triton),
        gates=floats(save and is_gated),
        potentials=floats(save and potentials),
        drive=drive.new_empty(0),
    )
    states = (torch.empty_like(tensor, dtype=torch.float32) for tensor in state)
    extremes = (drive.new_empty((), dtype=torch.float32) for _ in range(NUM_EXTREMES))
    return (floats(True), *states, *extremes, *saved)


@_shapes_of("layer_backward")  # type: ignore[untyped-decorator]
def _(*arguments: Any) -> tuple[Tensor, ...]:
    found = unflattened(arguments[:NUM_FLAT])
    spikes, saved = arguments[NUM_FLAT], Saved(*arguments[NUM_FLAT + 1 :][:NUM_SAVED])
    num_drives = spikes.shape[2] * (2 if found.kind == "gated" else 1)
    drive = spikes.new_empty((*spikes.shape[:2], num_drives))
    quantizer = found.quantizer
    levels = [
        torch.empty_like(learned) if len(saved.potentials) else None
        for learned in (quantizer.range_M, quantizer.threshold_levels)
    ]
    filled = (
        spikes.new_empty(0) if learned is None else torch.empty_like(learned)
        for learned in (*found.weights, *levels)
    )
    return (drive, *filled, *(torch.empty_like(tensor) for tensor in found.state))


def _keep_layer(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    flat, ctx.backend = inputs[:NUM_FLAT], inputs[-1]
    # Tensors are kept through autograd, which frees them and guards against changes in place.
    ctx.is_tensor = [isinstance(value, Tensor) for value in flat]
    ctx.others = [None if isinstance(value, Tensor) else value for value in flat]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(
        *(value for value in flat if isinstance(value, Tensor)),
        output[0],
        *output[NUM_DIFFERENTIABLE + NUM_EXTREMES :],
    )


def _differentiate_layer(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    kept = iter(ctx.saved_tensors)
    flat = [
        next(kept) if is_tensor else other
        for is_tensor, other in zip(ctx.is_tensor, ctx.others, strict=True)
    ]
    spikes, *saved = kept
    found = unflattened(flat)
    like = (spikes, *found.state)
    given = [
        torch.zeros_like(output) if gradient is None else gradient
        for gradient, output in zip(gradients, like, strict=False)
    ]
    drive, *others = _layer_backward_operator(*flat, spikes, *saved, *given, ctx.backend)
    # An empty gradient stands for none. One gradient for each argument, in the arguments' order: a
    # Layer whose fields are gradients.
    *weights, range_M, threshold_levels = (
        gradient if gradient.shape == learned.shape else None
        for gradient, learned in zip(others, _learned(found, spikes), strict=False)
    )
    nothing = cast(Any, None)
    of_layer = Layer(
        kind=nothing,
        rows=Rows(nothing, None),
        weights=LayerWeights(*weights),
        state=LifState(*others[NUM_LEARNED:]),
        quantizer=Quantizer(cast(Any, range_M), cast(Any, threshold_levels), nothing),
    )
    return (*flattened(of_layer), drive, None, None, None)


def _learned(found: Layer, like: Tensor) -> list[Tensor]:
    """Weights, range and threshold; a tensor of no gradient's shape for what is not there."""
    quantizer = found.quantizer
    learned = (*found.weights, quantizer.range_M, quantizer.threshold_levels)
    return [like if each is None else each for each in learned]


torch.library.register_autograd(
    "spikeline::layer", _differentiate_layer, setup_context=_keep_layer, lib=_library
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


for _name in ("layer_backward", "spike_weight_gradient", "spike_gradient"):
    torch.library.register_autograd(f"spikeline::{_name}", _refuse, lib=_library)
