"""Featurizes and trains on the cluster at RAY_ADDRESS; says each step on stdout, in JSON lines.

A program of its own: Ray takes its address and token once, at the start of a process.
"""

import json
import sys
import time

from featurize.featurize import finish_featurize, plan_featurize
from featurize.make_shard import ShardResult, make_shard
from featurize.plan_shards import ShardPlan
from featurize.stage import FanOut, Location, ray_session, run_fan_out, run_stage
from flows.recipes import Recipe
from training.manifest import TrainProgress
from training.train import train


def say(**said: object) -> None:
    print(json.dumps(said), flush=True)


def make_shard_somewhere(shard: ShardPlan) -> tuple[str, ShardResult]:
    """Make a shard, and name the node that did."""
    import ray

    return ray.get_runtime_context().get_node_id(), make_shard(shard)


def wait_for_nodes(ray, number: int) -> None:
    while sum(node["Alive"] for node in ray.nodes()) < number:
        time.sleep(0.2)


def main() -> None:
    recipe = Recipe.model_validate_json(sys.argv[1])
    corpus, runs, num_nodes = Location.of(sys.argv[2]), Location.of(sys.argv[3]), int(sys.argv[4])
    with ray_session() as ray:
        wait_for_nodes(ray, num_nodes)
        plan = plan_featurize(recipe.featurize, corpus, runs)

        def work(_):
            made = run_fan_out(make_shard_somewhere, plan.shards, FanOut(kind="ray"))
            say(shard_nodes=[node for node, _ in made])
            return finish_featurize(plan, [result for _, result in made])

        features = run_stage(plan.location, plan.fingerprint, work)
        say(features=features.location.uri)

        def on_progress(progress: TrainProgress) -> None:
            say(epoch=progress.epoch, step=progress.step)

        trained = train(
            recipe.models[0], features.location, runs, recipe.workers, on_progress=on_progress
        )
        say(model=trained.location.uri)


if __name__ == "__main__":
    main()
