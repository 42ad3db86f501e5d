"""The tasks' own logic, without the engine."""

import logging
import shutil
from pathlib import Path

import pytest

from featurize.featurize import featurize
from featurize.stage import FanOut, Location, PipelineError, worker_pool
from flows.featurize_flow import finish_features, make_one_shard, plan_features, publish_features
from flows.overrides import apply_overrides
from flows.recipes import RECIPES
from flows.retries import NUM_RETRIES, retry_io_errors
from flows.train_flow import train_model
from tests.harness import tiny


def test_plan_make_and_finish_are_the_stage(synthetic_corpus: Path, tmp_path: Path) -> None:
    recipe = apply_overrides(RECIPES["demo"], ["featurize.utterances_per_shard=8"])
    plan = plan_features.fn(recipe.featurize, str(synthetic_corpus / "timit"), str(tmp_path))
    with worker_pool(FanOut(kind="sequential")) as pool:
        results = [make_one_shard.fn(shard.number, shard, pool) for shard in plan.shards]
    manifest = finish_features.fn(plan, results)
    assert len(manifest.shards) == len(plan.shards) > 3
    assert sum(shard.num_utterances for shard in manifest.shards) == sum(
        len(shard.entries) for shard in plan.shards
    )
    assert manifest.fingerprint == plan.fingerprint
    assert not manifest.reject_counts


def test_a_corpus_with_a_lost_subset_is_refused(synthetic_corpus: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "corpus"
    shutil.copytree(synthetic_corpus / "timit", damaged)
    shutil.rmtree(damaged / "TEST")
    with pytest.raises(PipelineError, match="no TEST folder"):
        plan_features.fn(RECIPES["demo"].featurize, str(damaged), str(tmp_path / "runs"))


def test_words_that_the_lexicon_lacks_are_said(tmp_path: Path, monkeypatch, caplog) -> None:
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("A AH0\n")
    features = tiny.FEATURES.model_copy(update={"labels": "phones", "lexicon": str(lexicon)})
    corpus = Location.of(tiny.make_corpus(tmp_path / "corpus"))
    result = featurize(features, corpus, Location.of(tmp_path), fan_out=FanOut(kind="sequential"))
    for name in ("publish_link", "publish_table"):
        monkeypatch.setattr(f"flows.featurize_flow.{name}", lambda *_: None)
    with caplog.at_level(logging.WARNING, "flows.featurize_flow"):
        publish_features.fn(result)
    num_words = sum(tiny.SUBSETS.values()) - 1  # each of an utterance, one of which is rejected
    assert f"{num_words} words (" in caplog.text
    assert "are not in the lexicon" in caplog.text


@pytest.mark.parametrize("task", [plan_features, make_one_shard, finish_features, train_model])
def test_tasks_are_tried_again_after_io_errors_only(task) -> None:
    assert task.retries == NUM_RETRIES
    assert task.retry_condition_fn is retry_io_errors
