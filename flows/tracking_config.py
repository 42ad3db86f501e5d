"""Configuration of the experiment tracker; apart from it, because recipes must load at once."""

from typing import Literal

from pydantic import Field

from featurize.stage import Location, TypedConfig


class TrackingConfig(TypedConfig):
    """Where metrics go beside the results; never changes what is computed."""

    tracker: Literal["none", "tensorboard", "mlflow"] = Field(
        "none", description="Experiment tracker: none, TensorBoard event files, or MLflow."
    )
    directory: str | None = Field(
        None,
        description="Folder that TensorBoard shows, a path or s3:// address; empty: tensorboard "
        "below the root of the results.",
    )
    uri: str | None = Field(
        None,
        description="MLflow's store: a server (http://...) or a database (sqlite:///FILE); empty: "
        "MLFLOW_TRACKING_URI where it is set, else mlflow.db below the root of the results.",
    )

    def folder(self, runs: Location) -> Location:
        """Where TensorBoard's runs lie."""
        return runs.child("tensorboard") if self.directory is None else Location.of(self.directory)
