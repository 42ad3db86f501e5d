"""Configuration of the experiment tracker; apart from it, because recipes must load at once."""

from typing import Literal

from pydantic import Field

from featurize.stage import Location, TypedConfig


class TrackingConfig(TypedConfig):
    """Where metrics go beside the results; never changes what is computed."""

    tracker: Literal["none", "tensorboard"] = Field(
        "none", description="Experiment tracker: none, or TensorBoard event files."
    )
    directory: str | None = Field(
        None,
        description="Folder that TensorBoard shows, a path or s3:// address; empty: tensorboard "
        "below the root of the results.",
    )

    def folder(self, runs: Location) -> Location:
        """Where the tracker's runs lie."""
        return runs.child("tensorboard") if self.directory is None else Location.of(self.directory)
