"""Metrics as TensorBoard reads them: an event file for each run."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featurize.stage import Location, PipelineError, TypedConfig

Settings = Mapping[str, str | int | float | bool]

_WHOLE = "whole"
"""A file beside the events of a run that lacks nothing."""


class TensorBoardTracker:
    """A folder of runs, by name."""

    def __init__(self, folder: Location) -> None:
        self._folder = folder

    def has(self, name: str) -> bool:
        """Whether a run is there, whole."""
        return self._folder.child(name, _WHOLE).exists()

    def run(self, name: str) -> "TensorBoardRun":
        """A new run; an older one of that name is removed."""
        return TensorBoardRun(self._folder.child(name))


class TensorBoardRun:
    """One run's event file, with the run's whole history; an older one there is replaced.

    An event file grows, and an S3 object cannot: there the file grows in a temporary folder and is
    copied whole at every flush.

    Args:
        folder: of this run alone.
    """

    def __init__(self, folder: Location) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise PipelineError(
                "tracker=tensorboard needs the packages of the tracking extra: "
                "pip install -c constraints.txt -e '.[tracking]'"
            ) from error
        folder.remove()
        self._folder = folder
        self._temporary = None if folder.is_local else tempfile.TemporaryDirectory()
        self._local = Path(self._temporary.name if self._temporary else folder.path)
        self._writer: Any = SummaryWriter(str(self._local))

    def configuration(self, config: TypedConfig) -> None:
        """Add what is trained, shown as it is written."""
        lines = config.model_dump_json(indent=1).splitlines()
        self._writer.add_text("configuration", "\n".join(f"    {line}" for line in lines))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add points to curves."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def result(self, settings: Settings, values: Mapping[str, float]) -> None:
        """Add results, and a row to the table of settings and results."""
        self.scalars(values, 0)
        self._writer.add_hparams(dict(settings), dict(values), run_name=".")

    def flush(self) -> None:
        """Make what was added visible."""
        self._writer.flush()
        if self._temporary is not None:
            for file in sorted(self._local.iterdir()):
                self._folder.child(file.name).write_bytes(file.read_bytes())

    def close(self, is_whole: bool) -> None:
        """Flush and stop, and say whether the run is whole."""
        self._writer.close()
        self.flush()
        if is_whole:
            self._folder.child(_WHOLE).write_bytes(b"")
        if self._temporary is not None:
            self._temporary.cleanup()
