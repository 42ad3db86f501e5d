"""The engine of a training run: its weights, and its feature set's way of making frames.

Also the searches that an evaluation chose for it.
"""

import logging
from dataclasses import dataclass

from pydantic import ValidationError

from evaluation.chosen import chosen_searches, evaluation_of
from evaluation.config import ViterbiConfig
from evaluation.decoding import symbol_search
from evaluation.engine.build import EngineSearches, build_engine, spiking_network
from evaluation.engine.description import FrontEndConfig, Precision
from evaluation.engine.engine_file import EngineData
from evaluation.published import published_engine
from evaluation.recognise import check_weights
from evaluation.trained_on import trained_on
from featurize.schema import IMPORT_STAGE, FeaturizeManifest
from featurize.stage import Location, PipelineError, condense, read_manifest
from training.manifest import TrainManifest
from training.trained_model import TrainedModel, load_model

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchChoice:
    """Whose search an engine takes."""

    # address of the evaluation that chose it; None for the newest one beside the training run that
    # chose weights for it
    evaluation: str | None = None
    find_words: bool = True  # whether its search for words comes along


def engine_of_run(
    uri: str,
    precision: Precision = "float32",
    features: str | None = None,
    choice: SearchChoice = SearchChoice(),
) -> EngineData:
    """Build an engine that listens to samples: network, normalisation and search.

    Args:
        uri: a finished training run, local path or s3:// address.
        features: the feature set that says how frames are made; the one that the model was
            trained on where not given.
        choice: whose search it takes.
    """
    run = Location.of(uri)
    recogniser = load_model(run)
    spiking_network(recogniser)
    check_weights(recogniser, uri)
    front_end = front_end_of_run(run, recogniser.manifest, features)
    searches = searches_for(run, recogniser, choice)
    return build_engine(recogniser, precision, front_end, searches, trained_on(run))


def searches_for(run: Location, recogniser: TrainedModel, choice: SearchChoice) -> EngineSearches:
    """The searches that an evaluation chose for a model, or the defaults, which is said."""
    manifest = recogniser.manifest
    if choice.evaluation is None:
        evaluation = evaluation_of(run, manifest)
    else:
        evaluation = Location.of(choice.evaluation)
    if evaluation is None:
        logger.warning(
            "no evaluation beside %s chose weights for this model's search: the defaults stand "
            "in, and more errors are to be expected; evaluate it, or name an evaluation by "
            "--evaluation",
            run,
        )
        if manifest.config.objective == "ctc":
            return EngineSearches(None, None, "")
        return EngineSearches(symbol_search(recogniser, ViterbiConfig()), None, "")
    chosen = chosen_searches(evaluation, manifest)
    logger.info("the search is that of %s", evaluation)
    words = chosen.words if choice.find_words else None
    return EngineSearches(chosen.symbols, words, evaluation.name)


def front_end_of_run(
    run: Location, manifest: TrainManifest, features: str | None
) -> FrontEndConfig:
    """How the frames that a run's model was trained on are made; a published one says it itself."""
    engine = published_engine(run) if features is None else None
    if engine is not None and engine.description.front_end is not None:
        return engine.description.front_end
    return front_end_of(manifest, run.uri, features)


def front_end_of(model: TrainManifest, uri: str, features: str | None) -> FrontEndConfig:
    """How the frames that a model was trained on are made."""
    address = Location.of(features or model.features)
    try:
        made = read_manifest(address, FeaturizeManifest)
    except PipelineError as error:
        raise PipelineError(
            f"model {uri} was trained on {address}, which says how frames are made: {error}; "
            "name a feature set made with the same configuration by --features"
        ) from None
    if made.stage == IMPORT_STAGE:
        raise PipelineError(
            f"model {uri} was trained on features that Kaldi made ({address}), and how they are "
            "made from samples stands in Kaldi alone: evaluate it on imported features, or train "
            "on features of spikeline's own to transcribe and to export"
        )
    fields = {n: value for n, value in made.config.items() if n in FrontEndConfig.model_fields}
    try:
        return FrontEndConfig.model_validate(
            fields | {"mean": model.cmvn.mean, "std": model.cmvn.std}
        )
    except ValidationError as error:
        raise PipelineError(
            f"{address}: its configuration cannot serve an engine ({condense(error)})"
        ) from None
