"""Running a trained recogniser over a feature set, with bounded memory.

Shape legend: T time, B batch, O outputs.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.config import EvaluateConfig
from evaluation.engine.scorer import EventScorer
from evaluation.multiplications import measure_activity, pruned_matrices
from featurize.cmvn import Normaliser
from featurize.schema import CmvnStatistics, FeatureRow, FeaturizeManifest, LabelInventory
from featurize.stage import PipelineError, attribute_at
from training.batching import collate
from training.manifest import TrainManifest
from training.models.counting import Activity, NetworkShape
from training.trained_model import TrainedModel


def select_subsets(config: EvaluateConfig, features: FeaturizeManifest) -> tuple[str, ...]:
    """The corpus subsets that a configuration scores."""
    if config.subsets:
        unknown = sorted(set(config.subsets) - set(features.subsets))
        if unknown:
            raise PipelineError(
                f"subset {unknown[0]!r} is not in the feature set; it has "
                f"{', '.join(sorted(features.subsets))}"
            )
        chosen = config.subsets
    else:
        chosen = features.splits.get(config.split, ())
        if not chosen:
            usable = sorted(name for name, subsets in features.splits.items() if subsets)
            raise PipelineError(
                f"split={config.split} has no subsets in this feature set; use one of "
                f"{', '.join(usable)}, or name subsets"
            )
    if count_utterances(features, chosen) == 0:
        raise PipelineError(
            f"nothing to score: {', '.join(chosen)} holds no utterance; see rejects.parquet of "
            "the feature set"
        )
    return chosen


def count_utterances(features: FeaturizeManifest, subsets: Sequence[str]) -> int:
    """Utterances in the named subsets."""
    return sum(shard.num_utterances for shard in features.shards if shard.subset in set(subsets))


def check_compatible(model: TrainManifest, address: str, features: FeaturizeManifest) -> None:
    """Make sure that a model can read the features and means the same by its labels.

    It need not have been trained on this very feature set.
    """
    remedy = "evaluate it on features made with the configuration it was trained on"
    if model.num_features != features.num_features:
        raise PipelineError(
            f"model {address} reads {model.num_features} features a frame, the feature set has "
            f"{features.num_features}; {remedy}"
        )
    if not math.isclose(model.frame_shift_s, features.frame_shift_s, rel_tol=1e-6):
        raise PipelineError(
            f"model {address} was trained on frames {model.frame_shift_s} s apart, the feature "
            f"set has frames {features.frame_shift_s} s apart; {remedy}"
        )
    ours, theirs = model.labels, features.labels
    if not same_meaning(ours, theirs):
        raise PipelineError(
            f"model {address} was trained on {len(ours.symbols)} {ours.kind} symbols, the feature "
            f"set has {len(theirs.symbols)} {theirs.kind} symbols or other ones; {remedy}"
        )
    if model.cmvn.mode == "speaker" and features.cmvn.mode != "speaker":
        raise PipelineError(
            f"model {address} needs features normalised by speaker, the feature set has "
            f"cmvn={features.cmvn.mode}; {remedy}"
        )


def same_meaning(ours: LabelInventory, theirs: LabelInventory) -> bool:
    """Whether a model's label ids mean what a feature set's do.

    A model trained on an alignment may also put out symbols that are not scored (silence);
    features with phone labels lack them, and can be scored all the same.
    """
    if (ours.kind, ours.symbols) == (theirs.kind, theirs.symbols):
        return True
    shared = len(theirs.symbols)
    is_more_of_the_same = (
        (ours.kind, theirs.kind) == ("alignment", "phones")
        and ours.symbols[:shared] == theirs.symbols
        and ours.scored_as[:shared] == theirs.scored_as
    )
    return is_more_of_the_same and not any(ours.scored_as[shared:])


def choose_cmvn(model: TrainManifest, features: FeaturizeManifest) -> CmvnStatistics:
    """The statistics to normalise by: the model's, and in speaker mode the test speakers' own."""
    if model.cmvn.mode != "speaker":
        return model.cmvn
    return CmvnStatistics(
        mode="speaker",
        mean=model.cmvn.mean,
        std=model.cmvn.std,
        speaker_mean=features.cmvn.speaker_mean,
        speaker_std=features.cmvn.speaker_std,
    )


@dataclass(frozen=True)
class Recognition:
    """One utterance through a network, before decoding."""

    row: FeatureRow
    log_probs_TO: NDArray[np.float32]  # scores of its frames
    activity: Activity  # what its sites sent on


def network_shape(recogniser: TrainedModel) -> NetworkShape:
    """What the counts need to know of a recogniser."""
    network = recogniser.network
    return NetworkShape(network.config, network.num_features, network.num_outputs)


def check_weights(recogniser: TrainedModel, address: str) -> None:
    """Make sure that every weight is a number.

    A spiking network hides weights that are not: its neurons fall silent, its scores stay finite
    and its multiplications look few.
    """
    for name, value in recogniser.network.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise PipelineError(
                f"model {address}: {name} is not finite, its training diverged; train it again "
                "with a lower learning rate or with max_gradient_norm"
            )


def recognise(
    recogniser: TrainedModel, batches: Iterator[list[FeatureRow]], cmvn: CmvnStatistics
) -> Iterator[Recognition]:
    """Score every utterance and count its activity, in order.

    A model that has an event-driven engine runs in it, an utterance per core at a time.

    Args:
        batches: utterances; those of similar length together waste least.
    """
    config = recogniser.network.config
    matrices = pruned_matrices(recogniser.network)
    # The engine multiplies whole rows, and counts them.
    engine = config.spec.engine if matrices is None else None
    scorer: EventScorer | None = None if engine is None else attribute_at(engine)(recogniser)
    if scorer is not None:
        yield from _recognise_by_events(recogniser, scorer, batches, cmvn)
        return
    shape = network_shape(recogniser)
    for rows in batches:
        batch = collate(rows, cmvn)
        with torch.inference_mode():
            output = recogniser.network(batch.x_TBF, batch.lengths_B)
            activities = measure_activity(shape, output.site_outputs, batch.lengths_B, matrices)
        log_probs_BTO = output.log_probs_TBO.transpose(0, 1).numpy()
        for number, (row, activity) in enumerate(zip(rows, activities, strict=True)):
            named = slice(recogniser.target_delay, activity.num_frames)
            scores = np.ascontiguousarray(log_probs_BTO[number, named])
            yield _checked(Recognition(row, scores, activity), config.model)


def _recognise_by_events(
    recogniser: TrainedModel,
    scorer: EventScorer,
    batches: Iterator[list[FeatureRow]],
    cmvn: CmvnStatistics,
) -> Iterator[Recognition]:
    """A model through its event-driven engine, whose events are the network's own."""
    normalise = Normaliser(cmvn)
    for rows in batches:
        scored = scorer(normalise(row) for row in rows)
        for row, (log_probs_TO, activity) in zip(rows, scored, strict=True):
            recognition = Recognition(row, log_probs_TO[recogniser.target_delay :], activity)
            yield _checked(recognition, recogniser.network.config.model)


def _checked(recognition: Recognition, model: str) -> Recognition:
    if not np.isfinite(recognition.log_probs_TO).all():
        raise PipelineError(
            f"model {model} gives scores that are not finite for "
            f"{recognition.row.utterance_id}; its training diverged: train it again with a lower "
            "learning rate"
        )
    return recognition
