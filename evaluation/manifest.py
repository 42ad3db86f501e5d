"""What a finished evaluation says of itself, and how far a running one is."""

from evaluation.config import EvaluateConfig
from featurize.stage import StageManifest, TypedConfig

EVALUATE_SCHEMA_VERSION = 1


class EvaluateProgress(TypedConfig):
    """How far a running evaluation is.

    Attributes:
        model: label of the model at work.
        model_number: its place, from 0.
        num_done: utterances it has recognised.
    """

    model: str
    model_number: int
    num_models: int
    num_done: int
    num_utterances: int


class EvaluateManifest(StageManifest):
    """The evaluation manifest.

    Attributes:
        features: address of the feature set.
        models: addresses of the training runs, in the order of the comparison.
        files: everything written beside the manifest.
    """

    config: EvaluateConfig
    features: str
    models: tuple[str, ...]
    subsets: tuple[str, ...]
    num_utterances: int
    files: tuple[str, ...]

    def own_names(self) -> frozenset[str]:
        """The files, and the folders of those that are in one."""
        return frozenset(file.split("/")[0] for file in self.files)
