"""The Triton kernels against the reference: in Triton's interpreter, or on a GPU where one is.

The interpreter must be chosen before Triton is first imported, so without a GPU this file runs
itself once more in a process of its own.
"""

import os
import subprocess
import sys

import pytest
import torch

from featurize.stage import PipelineError
from training import recurrence
from training.lif import FiringRule, LifState
from training.quantizer import Quantizer, paper_quantizer

pytest.importorskip("triton")

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
CAN_RUN = IS_INTERPRETED or torch.cuda.is_available()
DEVICE = "cuda" if torch.cuda.is_available() and not IS_INTERPRETED else "cpu"
needs_triton = pytest.mark.skipif(not CAN_RUN, reason="runs in the interpreter's own process")


@pytest.mark.skipif(CAN_RUN, reason="this is the process that runs the kernels")
def test_kernels_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stdout[-4000:]
    assert " passed" in result.stdout


@pytest.mark.skipif(CAN_RUN, reason="Triton can run here")
def test_triton_without_a_gpu_is_refused_with_a_remedy():
    with pytest.raises(PipelineError, match="backend=auto"):
        recurrence.choose_backend("triton", torch.device("cpu"), False)


def run(kind, backend, quantizer, seed):
    # More than one tile of utterances, neurons and depth, the last ones partly filled.
    num_frames, batch_size, num_neurons = 4, 18, 70 if kind == "v2" else 35
    generator = torch.Generator().manual_seed(seed)

    def grid(*shape):
        # Numbers on a dyadic grid keep the sums of a product exact in any order.
        return (torch.randint(-64, 65, shape, generator=generator) / 32).to(DEVICE)

    state = [grid(batch_size, num_neurons).requires_grad_() for _ in range(3)]
    lengths = torch.randint(0, num_frames + 1, (batch_size,), generator=generator).to(DEVICE)
    range_M, threshold = quantizer.range_M.to(DEVICE), quantizer.threshold_levels.to(DEVICE)
    firing = FiringRule(quantizer._replace(range_M=range_M, threshold_levels=threshold))
    num_drives = 2 if kind in ("v1", "v2") else 1
    drive = grid(num_frames, batch_size, num_drives * num_neurons).requires_grad_()
    leaves = [drive, *state]
    if kind == "encoder":
        output = recurrence.encoder(drive, lengths, LifState(*state), firing, backend=backend)
    elif kind == "conventional":
        decay = torch.rand(num_neurons, generator=generator).to(DEVICE).requires_grad_()
        leaves.append(decay)
        output = recurrence.conventional(
            drive, decay, lengths, LifState(*state), firing, backend=backend
        )
    else:
        keep = torch.rand(batch_size, num_neurons, generator=generator) < 0.8
        mask = (keep / 0.8).to(DEVICE) if seed % 2 else None
        weight = None
        if kind == "v2":
            weight = (grid(2 * num_neurons, num_neurons) / 16).requires_grad_()
            leaves.append(weight)
        output = recurrence.gated(
            drive, mask, weight, lengths, LifState(*state), firing, backend=backend
        )
    outputs = (output.spikes_TBH, *output.state)
    cotangents = [grid(*o.shape) for o in outputs]
    sum((o * c).sum() for o, c in zip(outputs, cotangents, strict=True)).backward()
    return [*outputs, output.minimum, output.maximum], [leaf.grad for leaf in leaves]


@needs_triton
@pytest.mark.parametrize("chunk_frames", [1, 3, 4, 64])
def test_chunks_of_frames_hand_their_state_on(chunk_frames, monkeypatch):
    from training.kernels import triton_frames

    monkeypatch.setattr(triton_frames, "CHUNK_FRAMES", chunk_frames)
    quantizer = paper_quantizer(torch.tensor(4.1), 6, 3)
    expected, expected_gradients = run("v2", "reference", quantizer, 5)
    found, found_gradients = run("v2", "triton", quantizer, 5)
    for a, b in zip([*expected, *expected_gradients], [*found, *found_gradients], strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4 * float(a.abs().max()))


@needs_triton
@pytest.mark.parametrize("kind", ["encoder", "conventional", "v1", "v2"])
@pytest.mark.parametrize(
    ("num_bits", "threshold", "range_M", "seed"),
    [(6, 3, 0.77, 1), (6, 3, 4.1, 2), (1, 0, 4.1, 3), (32, 0, 4.1, 4)],
)
def test_triton_equals_reference(kind, num_bits, threshold, range_M, seed):
    quantizer = paper_quantizer(torch.tensor(range_M), num_bits, threshold)
    expected, expected_gradients = run(kind, "reference", quantizer, seed)
    found, found_gradients = run(kind, "triton", quantizer, seed)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5)
    for a, b in zip(expected_gradients, found_gradients, strict=True):
        if a is None:
            assert b is None or not b.any()
            continue
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4 * float(a.abs().max()))


LEAKY = [
    {"num_bits": 6, "leaks": True},
    {"num_bits": 4, "leaks": True},
    {"num_bits": 32, "leaks": True},
    {"num_bits": 6, "leaks": False},
]


def run_leaky(kind, backend, options):
    num_frames, batch_size, num_neurons = 5, 18, 70 if kind == "gated" else 35
    generator = torch.Generator().manual_seed(7)

    def grid(*shape):
        return (torch.randint(-64, 65, shape, generator=generator) / 32).to(DEVICE)

    state = [grid(batch_size, num_neurons).requires_grad_() for _ in range(3)]
    lengths = torch.randint(0, num_frames + 1, (batch_size,), generator=generator).to(DEVICE)
    drive = grid(num_frames, batch_size, (2 if kind == "gated" else 1) * num_neurons)
    weight = (grid(2 * num_neurons, num_neurons) / 16).requires_grad_()
    leak = (0.3 + 0.7 * torch.rand(num_neurons, generator=generator)).to(DEVICE).requires_grad_()
    range_M = torch.tensor(1.77, device=DEVICE, requires_grad=True)
    threshold = torch.tensor(2.3, device=DEVICE, requires_grad=True)
    quantizer = Quantizer(range_M, threshold, options["num_bits"])
    firing = FiringRule(quantizer, leak if options["leaks"] else None)
    leaves = [drive.requires_grad_(), *state, leak, range_M, threshold]
    if kind == "encoder":
        output = recurrence.encoder(drive, lengths, LifState(*state), firing, backend=backend)
    else:
        leaves.append(weight)
        mask = ((torch.rand(batch_size, num_neurons, generator=generator) < 0.8) / 0.8).to(DEVICE)
        output = recurrence.gated(
            drive, mask, weight, lengths, LifState(*state), firing, backend=backend
        )
    outputs = (output.spikes_TBH, *output.state)
    cotangents = [grid(*o.shape) for o in outputs]
    total = sum((o * c).sum() for o, c in zip(outputs, cotangents, strict=True))
    gradients = torch.autograd.grad(total, leaves, materialize_grads=True, allow_unused=True)
    return [*outputs, output.minimum, output.maximum], gradients


@needs_triton
@pytest.mark.parametrize("chunk_frames", [2])
@pytest.mark.parametrize("kind", ["encoder", "gated"])
@pytest.mark.parametrize("options", LEAKY)
def test_v3_in_triton_equals_the_reference(kind, options, chunk_frames, monkeypatch):
    from training.kernels import triton_frames

    monkeypatch.setattr(triton_frames, "CHUNK_FRAMES", chunk_frames)
    expected, expected_gradients = run_leaky(kind, "reference", options)
    found, gradients = run_leaky(kind, "triton", options)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5)
    for a, b in zip(expected_gradients, gradients, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4 * max(1.0, float(a.abs().max())))


@needs_triton
@pytest.mark.parametrize("kind", ["conventional", "gated"])
def test_operators_pass_opcheck(kind):
    from training.kernels import operators
    from training.kernels.layer import Layer, LayerWeights, Rows, flattened

    state = [torch.randn(3, 5, device=DEVICE, requires_grad=True) for _ in range(3)]
    drive = torch.randn(4, 3, 10, device=DEVICE, requires_grad=True)
    weights = LayerWeights(recurrent_2HH=torch.randn(10, 5, device=DEVICE, requires_grad=True))
    if kind == "conventional":
        drive = torch.randn(4, 3, 5, device=DEVICE, requires_grad=True)
        weights = LayerWeights(decay_H=torch.rand(5, device=DEVICE, requires_grad=True))
    rows = Rows(torch.tensor([4, 0, 2], device=DEVICE), None)
    quantizer = paper_quantizer(torch.tensor(2.0, device=DEVICE), 6, 3)
    layer = Layer(kind, rows, weights, LifState(*state), quantizer)
    # Tracing with fake tensors; compiled execution needs Triton itself, not its interpreter.
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor")
    arguments = (*flattened(layer), drive, True, False, "triton")
    torch.library.opcheck(operators._layer_operator, arguments, test_utils=utilities)


def _signature(name):
    """The types of a kernel's arguments; named tuples are those of ``triton_layer``."""
    from training.kernels.firing_gradients import FiringSums
    from training.kernels.triton_layer import Firing, Kept, Membrane, MembraneGradients

    membrane = Membrane(*["*fp32"] * 4)
    kept = Kept("*fp32", "*fp32", "*fp32", "*u8")
    firing = Firing(*["*fp32"] * 4, "fp32")
    sums = FiringSums(*["*fp32"] * 3)
    gradients = MembraneGradients(*["*fp32"] * 3)
    records = {"membrane": membrane, "kept": kept, "firing": firing, "grad_membrane": gradients}
    records["sums"] = sums
    integers = ("num_frames", "num_neurons", "batch_size", "first", "last")
    types = {**dict.fromkeys(integers, "i32"), "lengths": "*i64", **records}
    return {argument: types.get(argument, "*fp32") for argument in name.arg_names}


@pytest.mark.skipif(IS_INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("scan_forward", {"HAS_CURRENT": True, "SAVE": True}),
        ("scan_backward", {"HAS_CURRENT": True}),
        ("gated_forward", {"HAS_RECURRENCE": False, "SAVE": True}),
        ("gated_forward", {"HAS_RECURRENCE": True, "SAVE": True}),
        ("gated_backward", {"HAS_RECURRENCE": False}),
        ("gated_backward", {"HAS_RECURRENCE": True}),
    ],
)
def test_compiles_to_machine_code_of_gpus_that_are_not_here(name, options, capability):
    """Triton's own compiler and ptxas need no GPU; the interpreter checks neither of them."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from training.kernels import triton_frames, triton_kernels

    names = ("IS_QUANTIZED", "HAS_LEAK", "HAS_POTENTIALS")
    constants = {**dict.fromkeys(names, True), **options}
    if name.startswith("gated"):
        constants |= {"HAS_MASK": True, "PRECISION": "ieee", "num_neurons": 550}
        constants |= {"ROWS": triton_frames.TILE_ROWS, "BLOCK": triton_frames.TILE_BLOCK}
        constants |= {"DEPTH": triton_frames.TILE_DEPTH}
    else:
        constants |= {"BLOCK": 128}
    kernel = getattr(triton_kernels, name)
    signature = {**_signature(kernel), **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(kernel, signature, constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert len(compiled.asm["cubin"]) > 1000
    assert "local_depot" not in compiled.asm["ptx"]


@pytest.mark.skipif(IS_INTERPRETED, reason="the interpreter has no launcher")
def test_the_launcher_takes_named_tuples():
    """As it would on a GPU: their tensors become pointers, their numbers scalars."""
    from triton._C.libtriton import native_specialize_impl
    from triton.backends.nvidia.compiler import CUDABackend

    from training.kernels.layer import Layer, LayerWeights, Rows
    from training.kernels.triton_layer import Firing, firing_of

    state = LifState.zeros(1, 4, torch.device("cpu"))
    rows = Rows(torch.tensor([1]), None)
    layer = Layer("encoder", rows, LayerWeights(), state, paper_quantizer(torch.tensor(2.0), 6, 3))
    kinds, _ = native_specialize_impl(CUDABackend, firing_of(layer), False, True, True)
    assert kinds == Firing(*["*fp32"] * 4, "fp32")
