"""v2 on the GPU: one launch per frame, a chunk of frames at a time as one CUDA graph.

A frame of v2 needs all spikes of the frame before, so frames are launches of their own, and
each would cost the host more time than the GPU. A chunk of launches over buffers that stay
where they are is captured once per batch size and width, whatever the sequences' lengths, and
replayed for every chunk; tensors are copied in and out. Elsewhere than on CUDA (the
interpreter) the same launches run one by one.

The buffers serve one pass at a time: passes take turns, on the current stream.

Shape legend: T time, C frames of a chunk, B batch, H neurons, G = 2H.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from training.constants import SATURATION
from training.kernels import triton_kernels
from training.kernels.firing_gradients import FiringSums
from training.kernels.triton_layer import Firing, Kept, Membrane, MembraneGradients, Options, fill

CHUNK_FRAMES = 64
TILE_ROWS = 16
TILE_BLOCK = 32
TILE_DEPTH = 64
KEPT_GRAPHS = 8

lock = threading.Lock()


class FrameShape(NamedTuple):
    """All that a captured chunk depends on."""

    device: torch.device
    num_frames: int
    batch_size: int
    num_neurons: int
    has_mask: bool
    has_recurrence: bool
    save: bool
    options: Options
    precision: str

    def constants(self) -> dict[str, Any]:
        """What the kernels are compiled for."""
        return {
            **self.options.constants(),
            "HAS_MASK": self.has_mask,
            "HAS_RECURRENCE": self.has_recurrence,
            "PRECISION": self.precision,
            "ROWS": TILE_ROWS,
            "BLOCK": TILE_BLOCK,
            "DEPTH": TILE_DEPTH,
        }


class FrameInputs(NamedTuple):
    """What a pass of a gated layer reads."""

    sequence: Tensor  # both drives, or backwards the gradient of the spikes
    dropout_mask: Tensor  # m; any tensor where there is none
    weight: Tensor  # U; any tensor where there is none
    lengths: Tensor  # frames of every utterance
    before: Tensor  # Y before the first frame; backwards I before it
    firing: Firing


class FrameGradients(NamedTuple):
    """What a backward pass moves along beside the gradient of the drive."""

    membrane: MembraneGradients  # gradients of the state
    sums: FiringSums  # of the gradients of how the layer fires, (B, H) each, added to


class FrameOutputs(NamedTuple):
    """What a pass of a gated layer writes."""

    sequence: Tensor  # spikes, or backwards the gradient of both drives
    kept: Kept  # written forwards, read backwards


def tile_grid(batch_size: int, num_neurons: int) -> tuple[int, int]:
    """Programs of a launch."""
    return triton.cdiv(batch_size, TILE_ROWS), triton.cdiv(num_neurons, TILE_BLOCK)


def chunk_frames(num_frames: int, device: torch.device) -> int:
    """C: always the same on CUDA, so that one graph serves every length."""
    return CHUNK_FRAMES if device.type == "cuda" else min(CHUNK_FRAMES, num_frames)


def dot_precision() -> str:
    """How products are computed; PyTorch's own switch decides."""
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"


class _Replayed:
    """Launches that run as one CUDA graph, or one by one where there is no CUDA."""

    def __init__(self, launch: Callable[[], None], device: torch.device) -> None:
        self._launch = launch
        self._graph: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
            with torch.cuda.device(device):
                self._graph = self._captured()

    def _captured(self) -> torch.cuda.CUDAGraph:
        # Kernels are compiled and loaded on a side stream first: recording allows neither.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._launch()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._launch()
        return graph

    def __call__(self) -> None:
        if self._graph is None:
            self._launch()
        else:
            self._graph.replay()


def launch_forward(
    shape: FrameShape, inputs: FrameInputs, membrane: Membrane, outputs: FrameOutputs, times: range
) -> None:
    """Frames of v1 in one launch, or a single frame of v2."""
    triton_kernels.gated_forward[tile_grid(shape.batch_size, shape.num_neurons)](
        inputs.sequence,
        inputs.dropout_mask,
        inputs.weight,
        inputs.lengths,
        membrane,
        inputs.before,
        outputs.sequence,
        outputs.kept,
        inputs.firing,
        times.start,
        times.stop,
        shape.batch_size,
        shape.num_neurons,
        SAVE=shape.save,
        **shape.constants(),
    )


def launch_backward(
    shape: FrameShape,
    inputs: FrameInputs,
    gradients: FrameGradients,
    outputs: FrameOutputs,
    num_frames: int,
    times: range,
) -> None:
    """Frames of v1 backwards in one launch, or a single frame of v2 of ``num_frames``."""
    triton_kernels.gated_backward[tile_grid(shape.batch_size, shape.num_neurons)](
        inputs.sequence,
        inputs.dropout_mask,
        inputs.weight,
        inputs.lengths,
        inputs.before,
        outputs.kept,
        gradients.membrane,
        inputs.firing,
        gradients.sums,
        outputs.sequence,
        num_frames,
        times.start,
        times.stop,
        shape.batch_size,
        shape.num_neurons,
        **shape.constants(),
    )


class _Buffers:
    """Tensors of a chunk of frames that stay where they are."""

    def __init__(self, shape: FrameShape) -> None:
        self.shape = shape

    def frames(self, count: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
        shape = self.shape
        return torch.zeros(count, shape.batch_size, width, dtype=dtype, device=shape.device)

    def state(self) -> Tensor:
        return torch.zeros(self.shape.batch_size, self.shape.num_neurons, device=self.shape.device)

    def inputs(self, width: int, weight: Tensor) -> FrameInputs:
        shape = self.shape
        return FrameInputs(
            self.frames(shape.num_frames, width),
            self.state(),
            weight,
            torch.zeros(shape.batch_size, dtype=torch.int64, device=shape.device),
            self.state(),
            self.firing(),
        )

    def weight(self, num_rows: int, num_parts: int) -> Tensor:
        """Zeros where a weight of rows x parts of H columns is laid out.

        Rows and columns are whole tiles, so that a kernel's loads need no mask and are aligned,
        and neighbours in a row are neighbours in a tile: they are loaded together.
        """
        num_rows = triton.cdiv(num_rows, TILE_DEPTH) * TILE_DEPTH
        num_columns = triton.cdiv(self.shape.num_neurons, TILE_BLOCK) * TILE_BLOCK
        return torch.zeros(num_rows, num_parts, num_columns, device=self.shape.device)

    def firing(self) -> Firing:
        """Places of numbers; the saturation is one in the launches themselves."""
        scalars = torch.ones(len(Firing._fields) - 2, device=self.shape.device).unbind()
        leak = torch.ones(self.shape.num_neurons, device=self.shape.device)
        return Firing._make((*scalars, leak, SATURATION))

    def kept(self) -> Kept:
        count, width = self.shape.num_frames if self.shape.save else 0, self.shape.num_neurons
        potentials = self.frames(count if self.shape.options.has_potentials else 0, width)
        bits = self.frames(count, width, torch.uint8)
        return Kept(self.frames(count, width), self.frames(count, width), potentials, bits)


def _fill_parameters(shape: FrameShape, buffers: FrameInputs, inputs: FrameInputs) -> None:
    fill(buffers.firing, inputs.firing)
    if shape.has_mask:
        buffers.dropout_mask.copy_(inputs.dropout_mask)


class ForwardFrames:
    """The forward pass of a chunk of frames, on buffers of its own."""

    def __init__(self, shape: FrameShape) -> None:
        self.shape = shape
        buffers = _Buffers(shape)
        self.inputs = buffers.inputs(2 * shape.num_neurons, buffers.weight(shape.num_neurons, 2))
        spikes = buffers.frames(shape.num_frames, shape.num_neurons)
        self.outputs = FrameOutputs(spikes, buffers.kept())
        self.membrane = Membrane(*(buffers.state() for _ in Membrane._fields))
        self._replayed = _Replayed(self._launch, shape.device)

    def _launch(self) -> None:
        spikes = self.outputs.sequence
        for t in range(self.shape.num_frames):
            inputs = self.inputs._replace(before=spikes[t - 1]) if t else self.inputs
            times = range(t, t + 1)
            launch_forward(self.shape, inputs, self.membrane, self.outputs, times)

    def run(self, inputs: FrameInputs, membrane: Membrane, outputs: FrameOutputs) -> None:
        """A whole sequence: advance ``membrane``, fill ``outputs``."""
        fill(self.membrane, membrane)
        _fill_parameters(self.shape, self.inputs, inputs)
        num_neurons = self.shape.num_neurons
        to_drives = inputs.weight.unflatten(0, (2, num_neurons)).permute(2, 0, 1)
        self.inputs.weight[:num_neurons, :, :num_neurons].copy_(to_drives)
        self.inputs.before.copy_(inputs.before)
        count, num_frames = self.shape.num_frames, inputs.sequence.shape[0]
        for start in range(0, num_frames, count):
            times = slice(start, min(start + count, num_frames))
            size = times.stop - start
            self.inputs.sequence[:size].copy_(inputs.sequence[times])
            self.inputs.lengths.copy_(inputs.lengths - start)
            self._replayed()
            outputs.sequence[times].copy_(self.outputs.sequence[:size])
            self.inputs.before.copy_(self.outputs.sequence[size - 1])
            if self.shape.save:
                for kept, buffer in zip(outputs.kept, self.outputs.kept, strict=True):
                    if len(kept):
                        kept[times].copy_(buffer[:size])
        fill(membrane, self.membrane)


class BackwardFrames:
    """The backward pass of a chunk of frames, on buffers of its own.

    The gradient of the drive has one frame more than the chunk: the first of the chunk after it.
    """

    def __init__(self, shape: FrameShape) -> None:
        self.shape = shape
        buffers = _Buffers(shape)
        self.inputs = buffers.inputs(shape.num_neurons, buffers.weight(2 * shape.num_neurons, 1))
        grad_drive = buffers.frames(shape.num_frames + 1, 2 * shape.num_neurons)
        self.outputs = FrameOutputs(grad_drive, buffers.kept())
        membrane = MembraneGradients(*(buffers.state() for _ in MembraneGradients._fields))
        sums = FiringSums(*(buffers.state() for _ in FiringSums._fields))
        self.gradients = FrameGradients(membrane, sums)
        self._replayed = _Replayed(self._launch, shape.device)

    def _launch(self) -> None:
        count = self.shape.num_frames
        for t in range(count - 1, -1, -1):
            times = range(t, t + 1)
            launch_backward(self.shape, self.inputs, self.gradients, self.outputs, count + 1, times)

    def run(self, inputs: FrameInputs, gradients: FrameGradients, outputs: FrameOutputs) -> None:
        """A whole sequence: fill the gradient of the drive, move ``gradients`` to its start.

        ``inputs.before`` is I before the first frame, ``outputs.kept`` what the forward pass left.
        """
        fill(self.gradients.membrane, gradients.membrane)
        if self.shape.options.has_potentials:
            fill(self.gradients.sums, gradients.sums)
        _fill_parameters(self.shape, self.inputs, inputs)
        self.inputs.weight[: len(inputs.weight), 0, : self.shape.num_neurons].copy_(inputs.weight)
        count, grad_drive, kept = self.shape.num_frames, self.outputs.sequence, outputs.kept
        grad_drive[count].zero_()
        num_frames = inputs.sequence.shape[0]
        for start in reversed(range(0, num_frames, count)):
            times = slice(start, min(start + count, num_frames))
            size = times.stop - start
            self.inputs.sequence[:size].copy_(inputs.sequence[times])
            for buffer, of_pass in zip(self.outputs.kept, kept, strict=True):
                if len(of_pass):
                    buffer[:size].copy_(of_pass[times])
            self.inputs.before.copy_(kept.currents[start - 1] if start else inputs.before)
            self.inputs.lengths.copy_(inputs.lengths - start)
            self._replayed()
            outputs.sequence[times].copy_(grad_drive[:size])
            grad_drive[count].copy_(grad_drive[0])
        fill(gradients.membrane[1:], self.gradients.membrane[1:])
        if self.shape.options.has_potentials:
            fill(gradients.sums, self.gradients.sums)


@functools.lru_cache(KEPT_GRAPHS)
def forward_frames(shape: FrameShape) -> ForwardFrames:
    """The one of this shape; call and use it under ``lock``."""
    return ForwardFrames(shape)


@functools.lru_cache(KEPT_GRAPHS)
def backward_frames(shape: FrameShape) -> BackwardFrames:
    """The one of this shape; call and use it under ``lock``."""
    return BackwardFrames(shape)
