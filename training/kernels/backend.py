"""What every implementation of the recurrence offers, and how one is found by its name."""

import importlib
from typing import Protocol, cast

from torch import Tensor

from training.kernels.layer import Keep, Layer, LayerGradients, OutputGradients, Saved
from training.lif import RecurrenceOutput

_MODULES = {"reference": "reference", "cpu": "cpu", "triton": "triton_backend"}


class RecurrenceBackend(Protocol):
    """The two passes of a layer over a sequence; each backend is a module with these functions."""

    def forward(
        self, layer: Layer, drive_TBG: Tensor, keep: Keep
    ) -> tuple[RecurrenceOutput, Saved]:
        """Run the recurrence.

        Args:
            layer: everything but the drive, float32 on the backend's device.
            drive_TBG: float32; both drives of a gated layer, forget first.
        """

    def backward(
        self, layer: Layer, spikes_TBH: Tensor, saved: Saved, gradients: OutputGradients
    ) -> LayerGradients:
        """Differentiate ``forward``."""


def backend_named(name: str) -> RecurrenceBackend:
    """The backend of this name; numba and Triton are imported where they are used."""
    module = importlib.import_module(f"training.kernels.{_MODULES[name]}")
    return cast(RecurrenceBackend, module)
