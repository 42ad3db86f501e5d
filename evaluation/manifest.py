"""What a finished evaluation says of itself, and how far a running one is."""

from evaluation.config import EvaluateConfig
from featurize.stage import StageManifest, TypedConfig

EVALUATE_SCHEMA_VERSION = 1


class EvaluateProgress(TypedConfig):
    """How far a running evaluation is."""

    model: str  # label of the model at work
    model_number: int  # its place, from 0
    num_models: int
    num_done: int  # utterances it has recognised
    num_utterances: int


class EvaluateManifest(StageManifest):
    """The evaluation manifest."""

    config: EvaluateConfig
    features: str  # address of the feature set
    models: tuple[str, ...]  # addresses of the training runs, in the order of the comparison
    subsets: tuple[str, ...]
    num_utterances: int
    # whether the feature set has speech to choose a search's weights on; None of earlier versions
    has_dev: bool | None = None
    files: tuple[str, ...]  # everything written beside the manifest

    def own_names(self) -> frozenset[str]:
        """The files, and the folders of those that are in one."""
        return frozenset(file.split("/")[0] for file in self.files)
