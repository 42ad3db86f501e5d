"""The engine of a training run: its weights, and its feature set's way of making frames.

Also the search for words that an evaluation made for it.
"""

from pydantic import ValidationError

from evaluation.engine.build import build_engine
from evaluation.engine.description import FrontEndConfig, Precision
from evaluation.engine.engine_file import EngineData
from evaluation.recognise import check_weights
from evaluation.word_decoding import load_word_search
from evaluation.word_search import WordSearch
from featurize.schema import FeaturizeManifest
from featurize.stage import Location, PipelineError, read_manifest
from training.manifest import TrainManifest
from training.trained_model import load_model

_FRONT_END_FIELDS = (
    "sample_rate_hz",
    "features",
    "num_bins",
    "num_ceps",
    "frame_length_s",
    "frame_shift_s",
    "deltas",
    "stack",
    "stride",
    "feature_dtype",
    "cmvn",
)


def engine_of_run(
    uri: str, precision: Precision = "float32", features: str | None = None
) -> EngineData:
    """Build an engine that listens to samples.

    Args:
        uri: a finished training run, local path or s3:// address.
        precision: of the weights.
        features: the feature set that says how frames are made; the one that the model was
            trained on where not given.

    Raises:
        PipelineError: when the run or its feature set is not there, or the model does not spike.
    """
    run = Location.of(uri)
    recogniser = load_model(run)
    check_weights(recogniser, uri)
    return build_engine(recogniser, precision, front_end_of(recogniser.manifest, uri, features))


def words_of_run(uri: str, evaluation: str) -> WordSearch:
    """The word search of a finished evaluation, with the weights that it chose for a model.

    Args:
        uri: the model's training run.
        evaluation: an evaluation of it that searched for words.

    Raises:
        PipelineError: when either is not there, or the evaluation has no words of this model.
    """
    return load_word_search(Location.of(evaluation), load_model(Location.of(uri)))


def front_end_of(model: TrainManifest, uri: str, features: str | None) -> FrontEndConfig:
    """How the frames that a model was trained on are made.

    Raises:
        PipelineError: when its feature set is gone, or is of another kind.
    """
    address = Location.of(features or model.features)
    try:
        made = read_manifest(address, FeaturizeManifest)
    except PipelineError as error:
        raise PipelineError(
            f"model {uri} was trained on {address}, which says how frames are made: {error}; "
            "name a feature set made with the same configuration by --features"
        ) from None
    fields = {name: made.config[name] for name in _FRONT_END_FIELDS if name in made.config}
    try:
        return FrontEndConfig.model_validate(
            fields | {"mean": model.cmvn.mean, "std": model.cmvn.std}
        )
    except ValidationError as error:
        reason = error.errors()[0]
        raise PipelineError(
            f"{address}: its configuration cannot serve an engine "
            f"({'.'.join(map(str, reason['loc']))}: {reason['msg']})"
        ) from None
