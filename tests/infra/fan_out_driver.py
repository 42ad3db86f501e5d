"""Aligns or evaluates on the cluster at RAY_ADDRESS; says how far it is on stdout, in JSON lines.

A program of its own: Ray takes its address and token once, at the start of a process.
"""

import json
import sys
import time

from evaluation.config import EvaluateConfig
from evaluation.evaluate import evaluate
from featurize.stage import FanOut, Location, ray_session
from training.align.align import align
from training.align.align_config import AlignConfig


def say(**said: object) -> None:
    print(json.dumps(said), flush=True)


def main() -> None:
    stage, config, features, runs, num_nodes, *models = sys.argv[1:]
    on_ray = FanOut(kind="ray")
    with ray_session() as ray:
        while sum(node["Alive"] for node in ray.nodes()) < int(num_nodes):
            time.sleep(0.2)
        places = (Location.of(features), Location.of(runs))
        if stage == "align":
            result = align(
                AlignConfig.model_validate_json(config),
                *places,
                fan_out=on_ray,
                on_progress=lambda p: say(step=p.step, done=p.num_done, all=p.num_all),
            )
        else:
            result = evaluate(
                EvaluateConfig.model_validate_json(config),
                [Location.of(model) for model in models],
                *places,
                fan_out=on_ray,
                progress=lambda p: say(step="scoring", done=p.num_done, all=p.num_utterances),
            )
        say(result=result.location.uri)


if __name__ == "__main__":
    main()
