"""The align stage: a feature set with phone labels in, the same with frame targets out.

The result at ``runs/align/<fingerprint>`` is a feature set like any other: the same shards with
the alignment column filled, silence among the symbols, and a manifest that says which features it
came from. An utterance that cannot be aligned becomes a row of ``rejects.parquet``.
"""

import hashlib
from collections.abc import Iterator, Sequence

from featurize.cmvn import Normaliser
from featurize.labels import lexicon_labeller
from featurize.schema import FeatureRow, FeaturizeManifest, StateInventory
from featurize.stage import (
    Location,
    PipelineError,
    StageResult,
    fingerprint,
    read_manifest,
    run_stage,
)
from training.align.align_config import AlignConfig
from training.align.estimate import estimate
from training.align.flat_start import GaussianModel, in_order
from training.align.graph import Transcript, best_path, state_graph
from training.align.job import SILENCE, AlignJob, OnProgress
from training.align.outcome import AlignedLabels, Unaligned
from training.align.stacking import Stacking
from training.align.states import FrameTargets
from training.align.textgrids import TextGrids, textgrids_digest
from training.align.write import STAGE, Aligner, check_aligned, write_aligned

STAGE_VERSION = 2


def align_fingerprint(config: AlignConfig, features: FeaturizeManifest) -> str:
    """Name of an alignment: its configuration and its features."""
    parts = {"version": STAGE_VERSION, "config": config, "features": features.fingerprint}
    if config.textgrids is not None:
        parts["textgrids"] = textgrids_digest(Location.of(config.textgrids))
    lexicon = features.config.get("lexicon")
    if config.textgrids is None and lexicon is not None and Location.of(str(lexicon)).exists():
        # Their labels are of first pronunciations; the others are read here.
        content = Location.of(str(lexicon)).read_bytes()
        parts["lexicon"] = hashlib.sha256(content).hexdigest()
    return fingerprint(parts)


def align(
    config: AlignConfig,
    features: Location,
    runs: Location,
    *,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> StageResult:
    """Align a feature set at ``runs/align/<fingerprint>``, or find it aligned.

    Args:
        config: how to align.
        features: a finished feature set with phone labels.
        runs: root of all stages' results.
        force: align again even if finished.
        on_progress: called as the work goes on.

    Raises:
        PipelineError: when the features are unfinished or have no phone labels, their lexicon
            changed, a subset has no utterance left, or a split has lost more than its share.
    """
    manifest = read_manifest(features, FeaturizeManifest)
    job = AlignJob(config, features, manifest, lexicon_labeller(manifest), on_progress)
    name = align_fingerprint(config, manifest)

    def work(location: Location) -> FeaturizeManifest:
        if config.textgrids is not None:
            found = _by_textgrids(job, Location.of(config.textgrids))
            return write_aligned(job, location, name, found, None)
        model, states = estimate(job)
        return write_aligned(job, location, name, _by_scores(job, model, states), states)

    result = run_stage(runs.child(STAGE, name), name, work, force=force)
    if result.skipped:
        check_aligned(config, result.location)
    return result


def _by_textgrids(job: AlignJob, folder: Location) -> Aligner:
    """Take every utterance's phones and times from its TextGrid."""
    if job.labeller is None:
        raise PipelineError("align.textgrids is for phones from a lexicon, not TIMIT's own")
    grids = TextGrids(folder, job.manifest, job.labels.symbols, SILENCE)
    return lambda rows: map(grids, rows)


def _by_scores(job: AlignJob, model: GaussianModel, states: StateInventory | None) -> Aligner:
    """Finds the best path by Gaussians, and the frame targets on it."""
    stacking, normalise = Stacking.of(job.manifest), Normaliser(job.manifest.cmvn)
    targets, num_parts = (
        FrameTargets(states, len(job.labels.symbols)),
        model.sequence.states_per_phone,
    )
    min_silence_frames = job.min_silence_frames(stacking)

    def aligned(row: FeatureRow, transcript: Transcript) -> AlignedLabels | Unaligned:
        frames_tf = stacking.frames(normalise(row))
        graph = state_graph(transcript, model.sequence, min_silence_frames)
        found = best_path(model.scores(frames_tf, graph.used_U), graph)
        if found is None:
            detail = f"{len(frames_tf)} frames are too few for {row.labels.size} phones"
            return Unaligned("too_short", detail)
        targets_t = targets(found.phones_P, found.places_t, num_parts)
        return AlignedLabels(
            found.phones_P,
            targets_t[stacking.middle_frames(len(row.features))],
            found.score / len(frames_tf),
        )

    def align_rows(rows: Sequence[FeatureRow]) -> Iterator[AlignedLabels | Unaligned]:
        transcripts = [job.transcript(row) for row in rows]
        return in_order(aligned, rows, transcripts)

    return align_rows
