"""What is not known of the scored utterances is said, never taken for none."""

import pytest

from evaluation.claims import summary_lines
from evaluation.metrics import EvaluationMetrics
from evaluation.scored_subsets import count_heard, scored_subsets
from evaluation.scoring import EditCounts
from featurize.schema import AlignmentInfo, FeaturizeManifest
from featurize.stage import PipelineError, read_manifest
from tests.evaluation.test_headline import a_model, an_evaluation
from training.manifest import TrainManifest

EDITS = EditCounts(0, 0, 0, 1)


def test_what_was_scored_is_all_of_the_subset(write_features):
    features = write_features(num_utterances=3)
    manifest = read_manifest(features, FeaturizeManifest)
    (subset, *_) = manifest.subsets
    silent = EditCounts(0, 2, 0, 0)
    found = scored_subsets(features, manifest, [subset], [(subset, EDITS)] * 2 + [(subset, silent)])
    assert (found[subset].num_scored, found[subset].num_without_reference) == (3, 1)
    with pytest.raises(PipelineError, match=rf"2 utterances of {subset} were scored, .* has 3"):
        scored_subsets(features, manifest, [subset], [(subset, EDITS)] * 2)


def test_features_that_are_gone_leave_both_unknown(write_features, write_model, tmp_path):
    features = write_features()
    manifest = read_manifest(features, FeaturizeManifest)
    gone = AlignmentInfo(
        features=str(tmp_path / "gone"),
        config={},
        log_likelihood=0,
        silence_share=0,
        mean_phone_s=0,
    )
    (subset, *_) = manifest.subsets
    aligned = manifest.model_copy(update={"aligned": gone, "upstream": {"features": "x"}})
    scored = [(subset, EDITS)] * manifest.subsets[subset].num_utterances
    utterances = scored_subsets(features, aligned, [subset], scored)
    assert not utterances[subset].is_known
    model = read_manifest(write_model("gru"), TrainManifest)
    lost = {"features": str(tmp_path / "gone"), "upstream": {"features": "y"}}
    heard = count_heard(model.model_copy(update=lost), features, manifest, (subset,))
    assert heard is None
    one = a_model("gru", 0.4, 5.0).model_copy(update={"has_heard": heard})
    metrics: EvaluationMetrics = an_evaluation(one).model_copy(update={"utterances": utterances})
    text = " ".join(summary_lines(metrics))
    assert "Whether the GRU has heard these utterances is not known" in text
    assert "How many more an earlier stage left out is not known" in text
