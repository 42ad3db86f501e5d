"""What an evaluation chose for a model: its search belongs to a recogniser as its network does."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from evaluation.decoding import symbol_weights, word_weights
from evaluation.graph.search import GraphSearch
from evaluation.graph.store import STAGE as GRAPH_STAGE
from evaluation.graph.store import KeptGraph, read_graph
from evaluation.manifest import EvaluateManifest
from evaluation.metrics import EvaluationMetrics, ModelMetrics
from featurize.stage import (
    Location,
    PipelineError,
    condense,
    is_finished,
    read_checked,
    read_manifest,
)
from training.manifest import TrainManifest

logger = logging.getLogger(__name__)

EVALUATION_STAGE = "evaluation"


@dataclass(frozen=True, eq=False)
class ChosenSearches:
    """The searches of a recogniser."""

    evaluation: Location
    metrics: ModelMetrics  # what it says of the model
    # search for symbols; None where the best output of each frame is taken
    symbols: GraphSearch | None
    words: GraphSearch | None  # search for words; None where none was made


def read_evaluation(evaluation: Location) -> tuple[EvaluateManifest, EvaluationMetrics]:
    """A finished evaluation."""
    manifest = read_manifest(evaluation, EvaluateManifest)
    content = read_checked(evaluation, manifest, "metrics.json")
    try:
        return manifest, EvaluationMetrics.model_validate_json(content)
    except ValidationError as error:
        raise PipelineError(
            f"{evaluation.child('metrics.json')} is of another version ({condense(error)}); "
            "evaluate again with --force"
        ) from error


def metrics_of_model(
    metrics: EvaluationMetrics, model: TrainManifest, evaluation: Location
) -> ModelMetrics:
    """What an evaluation says of a model."""
    for found in metrics.models:
        if found.training_fingerprint == model.fingerprint:
            return found
    raise PipelineError(
        f"evaluation {evaluation} is not of model {model.fingerprint}; name one that scored it"
    )


def graph_of_evaluation(evaluation: Location, fingerprint: str) -> KeptGraph:
    """A graph that an evaluation searched in, which stands in the same runs folder.

    Of one that took the search of another evaluation it stands in that one's.
    """
    location = evaluation.parent.parent.child(GRAPH_STAGE, fingerprint)
    if not is_finished(location):
        search_of = read_manifest(evaluation, EvaluateManifest).config.search_of
        if search_of is not None:
            return graph_of_evaluation(Location.of(search_of), fingerprint)
        raise PipelineError(
            f"the search graph {location} of evaluation {evaluation} is gone; evaluate again with "
            "--force"
        )
    return read_graph(location)


def chosen_searches(evaluation: Location, model: TrainManifest) -> ChosenSearches:
    """The searches that an evaluation made for a model, with the weights that it chose."""
    _, metrics = read_evaluation(evaluation)
    own = metrics_of_model(metrics, model, evaluation)
    symbols = words = None
    if own.symbol_graph is not None and own.viterbi is not None:
        kept = graph_of_evaluation(evaluation, own.symbol_graph)
        symbols = GraphSearch(kept.graph, symbol_weights(own.viterbi, own.decoder))
    if own.word_graph is not None and own.words is not None:
        kept = graph_of_evaluation(evaluation, own.word_graph)
        words = GraphSearch(kept.graph, word_weights(own.words))
    return ChosenSearches(evaluation, own, symbols, words)


def evaluation_of(run: Location, model: TrainManifest) -> Location | None:
    """The evaluation beside a training run whose choices count: one that chose on dev.

    Of several the newest: one that searched for words before others, then one of the weights as
    they were trained. None where there is none.

    Args:
        run: the training run, ``runs/training/FINGERPRINT``.
    """
    return _newest(run, {model.fingerprint})


def evaluation_of_all(runs: Sequence[Location]) -> Location | None:
    """The same for several training runs, which it must have scored together."""
    fingerprints = {read_manifest(run, TrainManifest).fingerprint for run in runs}
    return _newest(runs[0], fingerprints)


def _newest(run: Location, models: set[str]) -> Location | None:
    found: list[tuple[tuple[bool, ...], str, str, Location]] = []
    unreadable: list[PipelineError] = []
    for place in run.parent.parent.child(EVALUATION_STAGE).children():
        if place.name.startswith(".") or not is_finished(place):
            continue
        try:
            manifest = read_manifest(place, EvaluateManifest)
        except PipelineError as error:  # of an earlier version, or damaged
            unreadable.append(error)
            continue
        if models <= set(manifest.upstream.values()) and _chose_on_dev(manifest):
            preference = (
                manifest.config.words is not None,
                manifest.config.weight_bits is None,
                manifest.has_dev is not None,
            )
            found.append((preference, manifest.created_at, place.name, place))
    if unreadable and not found:
        logger.warning(
            "%d evaluation%s beside %s cannot be read, so no search is taken from there: %s",
            len(unreadable),
            "s" if len(unreadable) > 1 else "",
            run,
            unreadable[0],
        )
    return max(found, key=lambda one: one[:3])[3] if found else None


def _chose_on_dev(manifest: EvaluateManifest) -> bool:
    """Whether an evaluation chose weights, in place of taking another's or those configured."""
    config = manifest.config
    words = config.words is not None and config.words.tune_on_dev
    could = manifest.has_dev is not False and config.search_of is None
    return could and (config.viterbi.tune_on_dev or words)
