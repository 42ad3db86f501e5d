"""Peak memory of a training step, measured from outside: in a process of its own.

Shape legend: T time, B batch, F input features.
"""

import contextlib
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from pydantic import Field
from torch import nn

from featurize.stage import TypedConfig
from training import recurrence_peers as peers

MEMORY_MODELS = ("v2", "v1", "conventional", "nn.LSTM")


class MemoryRow(TypedConfig):
    """What a training step adds to the peak memory of a process."""

    model: str = Field(description="Our model, or nn.LSTM.")
    num_frames: int = Field(description="T.")
    batch_size: int = Field(description="B.")
    peak_mb: float = Field(description="Peak resident memory above that before the step, MB.")


def _reset_peak() -> None:
    """Forget earlier peaks (Linux), so that compiling or loading code hides nothing."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    """Peak resident memory; ``ru_maxrss`` of a child would include its parent's on Linux."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _measure(
    model: str,
    sizes: tuple[int, int, int],
    num_layers: int,
    batch_size: int,
    num_frames: int,
    num_threads: int,
) -> float:
    """Runs in the child: a short step first, so that code and pools are in place."""
    torch.set_num_threads(num_threads)
    torch.manual_seed(0)
    num_features, _, num_outputs = sizes
    network: nn.Module
    if model == "nn.LSTM":
        network = peers.DenseSpeech(nn.LSTM, sizes, num_layers)
    else:
        network = peers.spiking_network(model, sizes, num_layers, "auto")  # type: ignore[arg-type]

    def step(frames: int) -> None:
        x_TBF = torch.randn(frames, batch_size, num_features)
        lengths_B = torch.full((batch_size,), frames)
        targets_N = torch.randint(num_outputs, (frames * batch_size,))

        def scores() -> torch.Tensor:
            if model == "nn.LSTM":
                return network(x_TBF)  # type: ignore[no-any-return]
            return network(x_TBF, lengths_B).log_probs_TBO  # type: ignore[no-any-return]

        peers.training_step(network, scores, targets_N)()

    step(8)
    _reset_peak()
    before = _peak_bytes()
    step(num_frames)
    return (_peak_bytes() - before) / 1e6


def measure_memory(
    sizes: tuple[int, int, int],
    num_layers: int,
    batch_size: int,
    frame_counts: Sequence[int],
    num_threads: int,
) -> list[MemoryRow]:
    """Peak memory of a step of every model at every length, each in a fresh process.

    Args:
        sizes: F, H, O.
        num_layers: recurrent layers.
        batch_size: B.
        frame_counts: values of T.
        num_threads: compute threads.
    """
    context = multiprocessing.get_context("spawn")
    rows = []
    for model in MEMORY_MODELS:
        for num_frames in frame_counts:
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                arguments = (model, sizes, num_layers, batch_size, num_frames, num_threads)
                peak_mb = pool.submit(_measure, *arguments).result()
            rows.append(
                MemoryRow(
                    model=model, num_frames=num_frames, batch_size=batch_size, peak_mb=peak_mb
                )
            )
    return rows
