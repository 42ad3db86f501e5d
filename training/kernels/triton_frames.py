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
from training.kernels.saved import Saved

CHUNK_FRAMES = 64
TILE_ROWS = 16
TILE_BLOCK = 32
TILE_DEPTH = 32
KEPT_GRAPHS = 8

lock = threading.Lock()


class FrameShape(NamedTuple):
    """All that a captured chunk depends on."""

    device: torch.device
    num_frames: int
    batch_size: int
    num_neurons: int
    has_mask: bool
    is_quantized: bool
    threshold: float
    save: bool
    precision: str


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


class ForwardFrames:
    """The forward pass of a chunk of frames, on buffers of its own."""

    def __init__(self, shape: FrameShape) -> None:
        self.shape = shape
        kept = shape.num_frames if shape.save else 0

        def frames(count: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(count, shape.batch_size, width, dtype=dtype, device=shape.device)

        def state() -> Tensor:
            return torch.zeros(shape.batch_size, shape.num_neurons, device=shape.device)

        num_neurons = shape.num_neurons
        self.drive = frames(shape.num_frames, 2 * num_neurons)
        self.spikes = frames(shape.num_frames, num_neurons)
        self.gates, self.currents = frames(kept, num_neurons), frames(kept, num_neurons)
        self.bits = frames(kept, num_neurons, torch.uint8)
        self.mask, self.before, self.current, self.residue = state(), state(), state(), state()
        self.low, self.high = state(), state()
        self.weight = torch.zeros(2 * num_neurons, num_neurons, device=shape.device)
        self.lengths = torch.zeros(shape.batch_size, dtype=torch.int64, device=shape.device)
        self.range_M = torch.ones((), device=shape.device)
        self.scale = torch.ones((), device=shape.device)
        self._replayed = _Replayed(self._launch, shape.device)

    def _launch(self) -> None:
        shape = self.shape
        for t in range(shape.num_frames):
            triton_kernels.gated_forward[tile_grid(shape.batch_size, shape.num_neurons)](
                self.drive,
                self.mask,
                self.weight,
                self.lengths,
                self.current,
                self.residue,
                self.spikes[t - 1] if t else self.before,
                self.spikes,
                self.gates,
                self.currents,
                self.bits,
                self.low,
                self.high,
                self.range_M,
                self.scale,
                shape.threshold,
                SATURATION,
                t,
                t + 1,
                shape.batch_size,
                shape.num_neurons,
                HAS_MASK=shape.has_mask,
                HAS_RECURRENCE=True,
                IS_QUANTIZED=shape.is_quantized,
                SAVE=shape.save,
                PRECISION=shape.precision,
                ROWS=TILE_ROWS,
                BLOCK=TILE_BLOCK,
                DEPTH=TILE_DEPTH,
            )

    def run(self, drive_TBG: Tensor, lengths_B: Tensor, spikes_TBH: Tensor, saved: Saved) -> None:
        """Fill ``spikes`` and ``saved``; state, weight and quantiser are in the buffers already."""
        count = self.shape.num_frames
        for start in range(0, drive_TBG.shape[0], count):
            times = slice(start, min(start + count, drive_TBG.shape[0]))
            size = times.stop - start
            self.drive[:size].copy_(drive_TBG[times])
            self.lengths.copy_(lengths_B - start)
            self._replayed()
            spikes_TBH[times].copy_(self.spikes[:size])
            self.before.copy_(self.spikes[size - 1])
            if self.shape.save:
                saved.gates[times].copy_(self.gates[:size])
                saved.currents[times].copy_(self.currents[:size])
                saved.inside[times].copy_(self.bits[:size])


class BackwardFrames:
    """The backward pass of a chunk of frames, on buffers of its own.

    ``grad_drive`` has one frame more than the chunk: the first of the chunk after it.
    """

    def __init__(self, shape: FrameShape) -> None:
        self.shape = shape

        def frames(count: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(count, shape.batch_size, width, dtype=dtype, device=shape.device)

        def state() -> Tensor:
            return torch.zeros(shape.batch_size, shape.num_neurons, device=shape.device)

        count, num_neurons = shape.num_frames, shape.num_neurons
        self.grad_spikes = frames(count, num_neurons)
        self.gates, self.currents = frames(count, num_neurons), frames(count, num_neurons)
        self.bits = frames(count, num_neurons, torch.uint8)
        self.grad_drive = frames(count + 1, 2 * num_neurons)
        self.mask, self.before, self.grad_last = state(), state(), state()
        self.grad_current, self.grad_residue = state(), state()
        self.weight = torch.zeros(2 * num_neurons, num_neurons, device=shape.device)
        self.lengths = torch.zeros(shape.batch_size, dtype=torch.int64, device=shape.device)
        self._replayed = _Replayed(self._launch, shape.device)

    def _launch(self) -> None:
        shape = self.shape
        for t in range(shape.num_frames - 1, -1, -1):
            triton_kernels.gated_backward[tile_grid(shape.batch_size, shape.num_neurons)](
                self.grad_spikes,
                self.mask,
                self.weight,
                self.lengths,
                self.before,
                self.gates,
                self.currents,
                self.bits,
                self.grad_last,
                self.grad_current,
                self.grad_residue,
                self.grad_drive,
                shape.num_frames + 1,
                t,
                t + 1,
                shape.batch_size,
                shape.num_neurons,
                HAS_MASK=shape.has_mask,
                HAS_RECURRENCE=True,
                IS_QUANTIZED=shape.is_quantized,
                PRECISION=shape.precision,
                ROWS=TILE_ROWS,
                BLOCK=TILE_BLOCK,
                DEPTH=TILE_DEPTH,
            )

    def run(
        self,
        grad_TBH: Tensor,
        lengths_B: Tensor,
        initial_current_BH: Tensor,
        saved: Saved,
        grad_drive_TBG: Tensor,
    ) -> None:
        """Fill ``grad_drive``; the final state's gradients and the weight are in the buffers."""
        count = self.shape.num_frames
        self.grad_drive[count].zero_()
        for start in reversed(range(0, grad_TBH.shape[0], count)):
            times = slice(start, min(start + count, grad_TBH.shape[0]))
            size = times.stop - start
            self.grad_spikes[:size].copy_(grad_TBH[times])
            self.gates[:size].copy_(saved.gates[times])
            self.currents[:size].copy_(saved.currents[times])
            self.bits[:size].copy_(saved.inside[times])
            self.before.copy_(saved.currents[start - 1] if start else initial_current_BH)
            self.lengths.copy_(lengths_B - start)
            self._replayed()
            grad_drive_TBG[times].copy_(self.grad_drive[:size])
            self.grad_drive[count].copy_(self.grad_drive[0])


@functools.lru_cache(KEPT_GRAPHS)
def forward_frames(shape: FrameShape) -> ForwardFrames:
    """The one of this shape; call and use it under ``lock``."""
    return ForwardFrames(shape)


@functools.lru_cache(KEPT_GRAPHS)
def backward_frames(shape: FrameShape) -> BackwardFrames:
    """The one of this shape; call and use it under ``lock``."""
    return BackwardFrames(shape)


def fill(buffers: ForwardFrames | BackwardFrames, **values: Any) -> None:
    """Copy tensors or numbers into the buffers of these names."""
    for name, value in values.items():
        buffer: Tensor = getattr(buffers, name)
        if isinstance(value, Tensor):
            buffer.copy_(value)
        else:
            buffer.fill_(value)
