"""A model to give away: a folder of weights, an engine and a card; one comes with spikeline.

It is a training run's folder (``manifest.json``, weights, label statistics) in which the engine
file beside the weights says how frames are made and holds the searches, so that nothing else of
the runs folder is needed. ``evaluation.publish`` writes one. No import here needs torch.
"""

from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from featurize.stage import Location, PipelineError

if TYPE_CHECKING:
    from evaluation.engine.engine_file import EngineData

ENGINE_NAME, CARD_NAME = "model.spikes", "README.md"


def shipped_model() -> Location:
    """The model that comes with spikeline."""
    return Location.of(Path(__file__).parent / "pretrained")


def published_engine(run: Location) -> "EngineData | None":
    """The engine of a published model; None for any other training run."""
    file = run.child(ENGINE_NAME)
    return engine_at(file) if file.exists() else None


def engine_at(file: Location) -> "EngineData":
    """The engine of a file, local or on S3."""
    from evaluation.engine.engine_file import read_engine

    if file.is_local:
        return read_engine(file.path)
    with NamedTemporaryFile() as copy:
        copy.write(file.read_bytes())
        copy.flush()
        try:
            return read_engine(copy.name)
        except PipelineError as error:
            raise PipelineError(str(error).replace(copy.name, file.uri)) from None
