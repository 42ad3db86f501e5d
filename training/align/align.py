"""The align stage: a feature set with phone labels in, the same with frame targets out.

The result at ``runs/align/<fingerprint>`` is a feature set like any other: the same shards with
the alignment column filled, silence among the symbols, and a manifest that says which features it
came from. An utterance that cannot be aligned becomes a row of ``rejects.parquet``.
"""

import hashlib

from featurize.labels import lexicon_labeller
from featurize.schema import FeaturizeManifest
from featurize.stage import (
    FanOut,
    Location,
    StageResult,
    fingerprint,
    processes_of,
    read_manifest,
    run_stage,
)
from training.align.align_config import AlignConfig
from training.align.estimate import estimate
from training.align.job import AlignJob, OnProgress
from training.align.shards import forget, remember
from training.align.textgrids import textgrids_digest
from training.align.write import STAGE, check_aligned, write_aligned

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
    fan_out: FanOut | None = None,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> StageResult:
    """Align a feature set at ``runs/align/<fingerprint>``, or find it aligned.

    Args:
        features: a finished feature set with phone labels.
        fan_out: where shards are aligned: in processes or as Ray tasks, else in this process.

    Raises:
        PipelineError: when the features are unfinished or have no phone labels, their lexicon
            changed, a subset has no utterance left, or a split has lost more than its share.
    """
    manifest = read_manifest(features, FeaturizeManifest)
    job = AlignJob(config, features, manifest, lexicon_labeller(manifest), on_progress)
    name = align_fingerprint(config, manifest)

    def work(location: Location) -> FeaturizeManifest:
        model, states = (None, None) if config.textgrids is not None else estimate(job)
        try:
            remember(job)
            return write_aligned(job, location, name, model, states, processes_of(fan_out))
        finally:
            forget()

    result = run_stage(runs.child(STAGE, name), name, work, force=force)
    if result.skipped:
        check_aligned(config, result.location)
    return result
