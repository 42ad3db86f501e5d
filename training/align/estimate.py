"""From a flat start to Gaussians and, where they are asked for, tied states."""

from collections.abc import Sequence

import numpy as np

from featurize.cmvn import Normaliser
from featurize.schema import THREE_STATE_SHIFT_S, StateInventory
from featurize.shards import read_numbered, shards_of
from featurize.stage import PipelineError
from training.align.flat_start import EstimationUtterance, GaussianModel, ViterbiTraining
from training.align.job import AlignJob, silent_symbols
from training.align.stacking import Stacking
from training.align.states import ContextStates, PhoneStates, phone_state_inventory
from training.align.tying import ContextStatistics, tie_states

MIN_CONTEXT_FRAMES = 60
"""Fewest frames of a state of phones in context, while aligning."""


def estimate(job: AlignJob) -> tuple[GaussianModel, StateInventory | None]:
    """Estimate Gaussians on the training utterances, from a flat start, and tie the states."""
    stacking, normalise = Stacking.of(job.manifest), Normaliser(job.manifest.cmvn)
    train = job.manifest.splits["train"]
    total = sum(shard.num_utterances for shard in shards_of(job.manifest, train))
    if not total:
        raise PipelineError(
            f"{job.features}: no utterance to learn the Gaussians from; name subsets in "
            "featurize.splits.train, or give the phones' times (align.textgrids)"
        )
    every = -(-total // job.config.num_estimation_utterances)
    rows = read_numbered(job.features, job.manifest, train, range(0, total, every))
    utterances = [
        EstimationUtterance(stacking.frames(normalise(row)).astype(np.float16), job.transcript(row))
        for row in rows
    ]
    num_symbols = len(job.labels.symbols)
    num_parts = 3 if stacking.frame_shift_s <= THREE_STATE_SHIFT_S else 1
    training = ViterbiTraining(
        utterances,
        num_symbols,
        PhoneStates(num_parts),
        job.min_silence_frames(stacking),
        job.config,
        lambda done, rounds: job.tell("estimating Gaussians", done, rounds),
    )
    model = training.run()
    if job.config.num_context_rounds:
        wanted = (
            model.sequence.states_per_phone,
            job.config.num_context_states,
            MIN_CONTEXT_FRAMES,
        )
        states = _tied(job, model, utterances, wanted)
        sequence = ContextStates(states, num_symbols)
        model = training.run_in_context(sequence, len(states.phones))
    return model, _tie(job, model, utterances)


def _tie(
    job: AlignJob, model: GaussianModel, utterances: Sequence[EstimationUtterance]
) -> StateInventory | None:
    """The configured targets; None for phones."""
    targets, num_symbols = job.config.targets, len(job.labels.symbols)
    num_parts = min(targets.states_per_phone, model.sequence.states_per_phone)
    if targets.kind == "phones":
        return None
    if targets.kind == "states":
        return phone_state_inventory(num_symbols, num_parts)
    return _tied(job, model, utterances, (num_parts, targets.num_senones, targets.min_frames))


def _tied(
    job: AlignJob,
    model: GaussianModel,
    utterances: Sequence[EstimationUtterance],
    wanted: tuple[int, int, int],
) -> StateInventory:
    """States of phones in context, tied by the current alignment."""
    job.tell("tying states", 0, 1)
    num_parts, num_states, min_frames = wanted
    own_parts = model.sequence.states_per_phone
    statistics = ContextStatistics(len(job.labels.symbols), model.projection.matrix_XD.shape[1])
    for utterance in utterances:
        found = utterance.alignment
        if found is not None:
            x_tD = model.project(utterance.wide_frames_tf)
            statistics.add(x_tD, found.phones_P, found.places_t, own_parts, num_parts)
    return tie_states(statistics, num_parts, num_states, min_frames, silent_symbols(job.labels))
