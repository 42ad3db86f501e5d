"""The align stage: a feature set with phone labels in, the same with frame targets out.

The result at ``runs/align/<fingerprint>`` is a feature set like any other: the same shards with
the alignment column filled, silence among the symbols, and a manifest that says which features it
came from. An utterance that cannot be aligned becomes a row of ``rejects.parquet``.
"""

from collections.abc import Callable, Iterator, Sequence

from featurize.labels import word_phones
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
from training.align.forced import align_utterance
from training.align.job import SILENCE, AlignJob, AlignProgress, OnProgress
from training.align.outcome import AlignedLabels, Unaligned
from training.align.scorers import NetworkScorer, Scorer
from training.align.states import FrameTargets
from training.align.textgrids import TextGrids, textgrids_digest
from training.align.write import STAGE, Aligner, check_aligned, write_aligned
from training.manifest import TrainProgress
from training.train import train
from training.worker_config import WorkerConfig

STAGE_VERSION = 1
_BATCH_SIZE = 16


def align_fingerprint(config: AlignConfig, features: FeaturizeManifest) -> str:
    """Name of an alignment: its configuration and its features."""
    parts = {"version": STAGE_VERSION, "config": config, "features": features.fingerprint}
    if config.textgrids is not None:
        parts["textgrids"] = textgrids_digest(Location.of(config.textgrids))
    return fingerprint(parts)


def align(
    config: AlignConfig,
    features: Location,
    runs: Location,
    workers: WorkerConfig,
    *,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> StageResult:
    """Align a feature set at ``runs/align/<fingerprint>``, or find it aligned.

    Each network round builds on the finished alignment of the round before, and on a network
    trained on that: both are results of their own, found when they are there.

    Args:
        config: how to align.
        features: a finished feature set with phone labels.
        runs: root of all stages' results.
        workers: where the networks are trained.
        force: align again even if finished.
        on_progress: called as the work goes on.

    Raises:
        PipelineError: when the features are unfinished or have no phone labels, their lexicon
            changed, a subset has no utterance left, or a split has lost more than its share.
    """
    manifest = read_manifest(features, FeaturizeManifest)
    words = word_phones(manifest)
    job = AlignJob(config, features, manifest, words, on_progress)
    name = align_fingerprint(config, manifest)

    def work(location: Location) -> FeaturizeManifest:
        if config.textgrids is not None:
            found = _by_textgrids(job, Location.of(config.textgrids))
            return write_aligned(job, location, name, found, None)
        scorer, states = _scorer(job, runs, workers)
        return write_aligned(job, location, name, _by_scores(job, scorer, states), states)

    result = run_stage(runs.child(STAGE, name), name, work, force=force)
    if result.skipped:
        check_aligned(config, result.location)
    return result


def _scorer(
    job: AlignJob, runs: Location, workers: WorkerConfig
) -> tuple[Scorer, StateInventory | None]:
    """What scores the frames, Gaussians or a network, and the states that it scores."""
    config = job.config
    if not config.num_network_rounds:
        return estimate(job)
    before = config.model_copy(update={"num_network_rounds": config.num_network_rounds - 1})
    aligned = align(before, job.features, runs, workers, on_progress=job.on_progress)
    trained = train(
        config.network, aligned.location, runs, workers, on_progress=_told(job.on_progress)
    )
    states = read_manifest(aligned.location, FeaturizeManifest).states
    return NetworkScorer.of(trained.location), states


def _told(on_progress: OnProgress | None) -> Callable[[TrainProgress], None] | None:
    if on_progress is None:
        return None

    def tell(progress: TrainProgress) -> None:
        step = f"training a network, epoch {progress.epoch + 1} of {progress.num_epochs}"
        on_progress(AlignProgress(step=step, num_done=progress.step, num_all=progress.num_steps))

    return tell


def _by_textgrids(job: AlignJob, folder: Location) -> Aligner:
    """Take every utterance's phones and times from its TextGrid."""
    if job.words is None:
        raise PipelineError("align.textgrids is for phones from a lexicon, not TIMIT's own")
    grids = TextGrids(folder, job.manifest, job.labels.symbols, SILENCE)
    return lambda rows: map(grids, rows)


def _by_scores(job: AlignJob, scorer: Scorer, states: StateInventory | None) -> Aligner:
    """Finds the best path by a scorer, and the frame targets on it."""
    targets = FrameTargets(states, len(job.labels.symbols))
    stacking, num_parts = scorer.stacking, scorer.sequence.states_per_phone

    def align_rows(rows: Sequence[FeatureRow]) -> Iterator[AlignedLabels | Unaligned]:
        # Rows of similar length stand together, so that batches pad little.
        batches = (rows[i : i + _BATCH_SIZE] for i in range(0, len(rows), _BATCH_SIZE))
        scores = (scored for batch in batches for scored in scorer(batch))
        for row, scores_tS in zip(rows, scores, strict=True):
            found = align_utterance(
                scores_tS,
                job.transcript(row),
                scorer.sequence,
                job.min_silence_frames(stacking),
            )
            if found is None:
                detail = f"{len(scores_tS)} frames are too few for {row.labels.size} phones"
                yield Unaligned("too_short", detail)
                continue
            targets_t = targets(found.phones_P, found.places_t, num_parts)
            yield AlignedLabels(
                found.phones_P,
                targets_t[stacking.middle_frames(len(row.features))],
                found.score / len(scores_tS),
            )

    return align_rows
