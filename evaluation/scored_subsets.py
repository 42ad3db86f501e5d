"""What error rates rest on: the utterances scored, those that are missing, those trained on."""

from collections import Counter
from collections.abc import Iterable, Sequence

from evaluation.metrics import ScoredSubset
from evaluation.scoring import EditCounts
from featurize.rejects import RejectCounts, read_reject_counts
from featurize.schema import FeaturizeManifest
from featurize.shards import read_columns
from featurize.stage import MANIFEST_NAME, Location, PipelineError, read_manifest
from training.manifest import TrainManifest


def scored_subsets(
    features: Location,
    manifest: FeaturizeManifest,
    subsets: Sequence[str],
    scored: Iterable[tuple[str, EditCounts]],
) -> dict[str, ScoredSubset]:
    """Account for every utterance of some subsets.

    Args:
        scored: subset and edits of symbols of each utterance that was scored.
    """
    num_scored: Counter[str] = Counter()
    num_without: Counter[str] = Counter()
    for subset, edits in scored:
        num_scored[subset] += 1
        num_without[subset] += edits.reference_length == 0
    left_out, is_known = _left_out(features, manifest)
    found = {}
    for subset in subsets:
        given = manifest.subsets[subset].num_utterances
        if num_scored[subset] != given:
            raise PipelineError(
                f"{num_scored[subset]} utterances of {subset} were scored, and {features} has "
                f"{given}; verify the features, and evaluate again with --force"
            )
        found[subset] = ScoredSubset(
            num_scored=given,
            left_out={reason: n for (of, reason), n in sorted(left_out.items()) if of == subset},
            is_known=is_known,
            num_without_reference=num_without[subset],
        )
    return found


def _left_out(features: Location, manifest: FeaturizeManifest) -> tuple[RejectCounts, bool]:
    """Rejects of the stages that made a feature set, and whether all of them could be asked."""
    own = read_reject_counts(features) if manifest.reject_counts else Counter()
    if manifest.aligned is None:
        return own, True
    before = Location.of(manifest.aligned.features)
    if not before.child(MANIFEST_NAME).exists():
        return own, False
    aligned = read_manifest(before, FeaturizeManifest)
    if aligned.fingerprint != manifest.upstream["features"]:
        return own, False
    earlier, is_known = _left_out(before, aligned)
    return own + earlier, is_known


def count_heard(
    model: TrainManifest, features: Location, manifest: FeaturizeManifest, subsets: tuple[str, ...]
) -> int | None:
    """Scored utterances that are also in the model's training split, by their names and lengths.

    None where the features that it was trained on are gone and cannot be asked.
    """
    if model.upstream.get("features") == manifest.fingerprint:
        source, trained_on = features, manifest
    else:
        source = Location.of(model.features)
        if not source.child(MANIFEST_NAME).exists():
            return None
        trained_on = read_manifest(source, FeaturizeManifest)
    heard = _names(source, trained_on, trained_on.splits.get("train", ()))
    return len(heard & _names(features, manifest, subsets))


def _names(
    features: Location, manifest: FeaturizeManifest, subsets: tuple[str, ...]
) -> set[tuple[str, int]]:
    columns = ["utterance_id", "num_samples"]
    tables = read_columns(features, manifest, subsets, columns)
    return {row for table in tables for row in zip(*table.to_pydict().values(), strict=True)}
