"""The alignment flow: a feature set with phone labels in, one with frame targets out."""

import logging

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from featurize.rejects import REJECTS_NAME
from featurize.schema import FeaturizeManifest
from featurize.stage import FanOut, Location, StageResult, read_manifest
from flows.artifacts import publish_link, publish_table
from flows.progress import ALIGNING, stage_progress
from flows.retries import RETRIED, is_first_attempt
from flows.run_logging import send_logs_to_runs
from flows.run_names import run_name
from training.align.align import align
from training.align.align_config import AlignConfig

_LOGGER = logging.getLogger(__name__)
send_logs_to_runs()


def _name(config: AlignConfig, **_: object) -> str:
    return f"align {config.targets.kind}"


@flow(name="align", persist_result=False, flow_run_name=run_name(_name))
def align_flow(
    config: AlignConfig,
    features: str,
    runs: str,
    force: bool = False,
    fan_out: FanOut = FanOut(),  # noqa: B008 - frozen, and the UI form's default
) -> StageResult:
    """Align a feature set with its transcripts, or find it aligned.

    Args:
        config: how to align.
        features: address of a finished feature set with phone labels.
        runs: root of all stages' results, a path or ``s3://`` address.
        force: align again even if finished.
        fan_out: where shards are aligned; never changes the result.
    """
    result = align_features(config, features, runs, force, fan_out)
    publish_alignment(result)
    return result


@task(name="align-features", **RETRIED)
def align_features(
    config: AlignConfig, features: str, runs: str, force: bool, fan_out: FanOut
) -> StageResult:
    """Run the align stage."""
    with stage_progress(ALIGNING, "align") as shown:
        result = align(
            config,
            Location.of(features),
            Location.of(runs),
            fan_out=fan_out,
            force=force and is_first_attempt(),
            on_progress=shown.show_alignment,
        )
        shown.update(1.0, "already aligned" if result.skipped else "aligned")
    return result


@task(name="publish-alignment", cache_policy=NO_CACHE)
def publish_alignment(result: StageResult) -> None:
    """Publish where the aligned features are, and what the alignment looks like."""
    manifest = read_manifest(result.location, FeaturizeManifest)
    info = manifest.aligned
    assert info is not None
    utterances = sum(subset.num_utterances for subset in manifest.subsets.values())
    said = (
        f"{utterances} utterances, {info.silence_share:.0%} of the frames silent, "
        f"{1000 * info.mean_phone_s:.0f} ms a phone"
    )
    done = "already made" if result.skipped else "made"
    _LOGGER.info("%-12s %s, %s: %s", "alignment", done, said, result.location)
    rejects = sum(manifest.reject_counts.values())
    if rejects:
        reasons = ", ".join(f"{reason} {n}" for reason, n in manifest.reject_counts.items())
        _LOGGER.warning("rejected %s; see %s", reasons, result.location.child(REJECTS_NAME))
    if info.guessed:
        words = ", ".join(list(info.guessed)[:5])
        _LOGGER.info(
            "%d words are not in the lexicon and were guessed: %s", len(info.guessed), words
        )
    if info.poor:
        names = ", ".join(info.poor[:5])
        _LOGGER.warning("%d utterances are aligned poorly, and kept: %s", len(info.poor), names)
    publish_link("alignment", result.location, said)
    publish_table(
        "alignment-summary",
        [
            {
                "log likelihood a frame": info.log_likelihood,
                "silent frames": info.silence_share,
                "mean phone, s": info.mean_phone_s,
                "words guessed": len(info.guessed),
                "poorly aligned utterances": len(info.poor),
                "rejected utterances": rejects,
            }
        ],
        said,
    )
