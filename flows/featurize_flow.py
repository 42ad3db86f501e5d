"""The featurization flow: a corpus in, a feature set out, one Prefect task per shard."""

import logging
from dataclasses import dataclass
from typing import TypeVar, cast

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from featurize.featurize import FeaturizePlan, check_finished, finish_featurize, plan_featurize
from featurize.featurize_config import FeaturizeConfig
from featurize.labels import missing_words
from featurize.make_shard import ShardResult, make_shard
from featurize.plan_shards import ShardPlan
from featurize.rejects import REJECTS_NAME
from featurize.schema import FeaturizeManifest
from featurize.stage import (
    FanOut,
    Location,
    StageResult,
    WorkerPool,
    read_manifest,
    run_stage,
    worker_pool,
)
from flows.artifacts import publish_link, publish_table
from flows.progress import FEATURIZING, stage_progress
from flows.retries import RETRIED, is_first_attempt
from flows.run_logging import send_logs_to_runs
from flows.run_names import run_name

_LOGGER = logging.getLogger(__name__)
send_logs_to_runs()


ValueT = TypeVar("ValueT")


def _name(config: FeaturizeConfig, **_: object) -> str:
    subsets = (*config.splits.train, *config.splits.dev, *config.splits.test)
    return f"featurize {config.corpus} {' '.join(subsets)}"


@flow(name="featurize", persist_result=False, flow_run_name=run_name(_name))
def featurize_flow(
    config: FeaturizeConfig,
    corpus: str,
    runs: str,
    fan_out: FanOut = FanOut(),  # noqa: B008 - frozen, and the UI form's default
    force: bool = False,
) -> StageResult:
    """Turn a corpus into feature shards, or find them made.

    Args:
        config: what to compute.
        corpus: root of the corpus, a path or ``s3://`` address.
        runs: root of all stages' results, a path or ``s3://`` address.
        fan_out: where the shards are made; never changes their content.
        force: do it again even if it is done.
    """
    plan = plan_features(config, corpus, runs)

    def work(_: Location) -> FeaturizeManifest:
        return finish_features(_unvisited(plan), _unvisited(make_shards(plan, fan_out)))

    result = run_stage(plan.location, plan.fingerprint, work, force=force and is_first_attempt())
    if result.skipped:
        check_finished(plan)
        with stage_progress(FEATURIZING, "featurize") as shown:
            shown.update(1.0, "already made")
    publish_features(result)
    return result


@task(name="plan", task_run_name="plan-{config.corpus}", **RETRIED)
def plan_features(config: FeaturizeConfig, corpus: str, runs: str) -> FeaturizePlan:
    """Scan the corpus and assign utterances to shards."""
    return plan_featurize(config, Location.of(corpus), Location.of(runs))


def make_shards(plan: FeaturizePlan, fan_out: FanOut) -> list[ShardResult]:
    """Make every shard, as many at once as the fan-out has workers; results in plan order."""
    num_shards = len(plan.shards)
    num_utterances = sum(len(shard.entries) for shard in plan.shards)
    _LOGGER.info(
        "%-12s %d utterances into %d shards: %s",
        "features",
        num_utterances,
        num_shards,
        plan.location,
    )
    with (
        stage_progress(FEATURIZING, "featurize") as shown,
        worker_pool(fan_out) as pool,
        _runner(pool.num_workers) as runner,
    ):
        futures: list[PrefectFuture[ShardResult]] = [
            runner.submit(
                make_one_shard,
                parameters={
                    "number": shard.number,
                    "shard": _unvisited(shard),
                    "pool": _unvisited(pool),
                },
            )
            for shard in plan.shards
        ]
        so_far = _SoFar(plan.config.sample_rate_hz, num_rejected=len(plan.rejects))
        for number, future in enumerate(as_completed(futures), start=1):
            so_far.add(future.result())
            shown.update(number / num_shards, f"{number}/{num_shards} shards", so_far.words)
        return [future.result() for future in futures]


@dataclass
class _SoFar:
    """What the finished shards hold together."""

    sample_rate_hz: int
    num_rejected: int
    num_utterances: int = 0
    num_samples: int = 0

    def add(self, result: ShardResult) -> None:
        self.num_utterances += 0 if result.shard is None else result.shard.num_utterances
        self.num_samples += result.num_samples
        self.num_rejected += len(result.rejects)

    @property
    def words(self) -> str:
        hours = self.num_samples / self.sample_rate_hz / 3600
        return (
            f"{self.num_utterances:,} utterances, {hours:.2f} hours of speech, "
            f"{self.num_rejected} rejected"
        )


def _unvisited(value: ValueT) -> ValueT:
    """Keep Prefect from walking a large argument in search of futures; the task gets the value."""
    return cast(ValueT, quote(value))


def _runner(num_workers: int) -> ThreadPoolTaskRunner[ShardResult]:
    return ThreadPoolTaskRunner(max_workers=num_workers)


@task(name="make-shard", task_run_name="shard-{number:05d}", **RETRIED)
def make_one_shard(number: int, shard: ShardPlan, pool: WorkerPool) -> ShardResult:
    """Make one shard on one of the pool's workers."""
    return pool.run(make_shard, shard)


@task(name="finish", **RETRIED)
def finish_features(plan: FeaturizePlan, results: list[ShardResult]) -> FeaturizeManifest:
    """Judge the rejects, gather the statistics, describe the feature set."""
    return finish_featurize(plan, results)


@task(name="publish-features", cache_policy=NO_CACHE)
def publish_features(result: StageResult) -> None:
    """Publish where the features are, counts by subset, and rejects by reason."""
    manifest = read_manifest(result.location, FeaturizeManifest)
    hours = sum(subset.hours for subset in manifest.subsets.values())
    utterances = sum(subset.num_utterances for subset in manifest.subsets.values())
    rejects = sum(manifest.reject_counts.values())
    said = f"{utterances} utterances, {hours:.2f} hours, {rejects} rejected"
    done = "already made" if result.skipped else "made"
    _LOGGER.info("%-12s %s, %s: %s", "features", done, said, result.location)
    if missing := missing_words(manifest.out_of_vocabulary):
        _LOGGER.warning("%s", missing)
    publish_link("features", result.location, said)
    publish_table(
        "features-subsets",
        [{"subset": n, **subset.model_dump()} for n, subset in manifest.subsets.items()],
        said,
    )
    if manifest.reject_counts:
        reasons = ", ".join(f"{reason} {n}" for reason, n in manifest.reject_counts.items())
        _LOGGER.warning("rejected %s; see %s", reasons, result.location.child(REJECTS_NAME))
        publish_table(
            "features-rejects",
            [{"reason": reason, "utterances": n} for reason, n in manifest.reject_counts.items()],
            f"{rejects} rejected utterances",
        )
