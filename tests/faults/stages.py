"""``python -m tests.faults.stages JSON``: run stages on the tiny corpus, as a process to be killed.

Ends with 0, or with the line that the command line would print on stderr and its exit code.
"""

import json
import sys
from typing import Any

from flows.failures import explain


def run_and_explain(specification: dict[str, Any]) -> int:
    """Run the stages named in the specification; the exit code."""
    try:
        run_stages(**specification)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
            return 130
        message, code = explain(error)
        print(message, file=sys.stderr)
        return code
    return 0


def run_stages(
    corpus: str,
    runs: str,
    stages: list[str],
    fan_out: str = "sequential",
    workers: int = 0,
    num_epochs: int | None = None,
    max_failures: int = 2,
    through_prefect: bool = False,
) -> None:
    """Featurize, train and evaluate below ``runs``, as far as named; 0 workers: in process."""
    from featurize.featurize import featurize
    from featurize.stage import FanOut, Location
    from tests.harness.tiny import EVALUATION, FEATURES, HERE, TRAINING
    from training.train_config import CurriculumStage
    from training.worker_config import WorkerConfig

    root = Location.of(runs)
    shards_at = FanOut(kind=fan_out, num_workers=2)  # type: ignore[arg-type]
    if through_prefect:
        from flows.featurize_flow import featurize_flow

        featurize_flow(FEATURES, corpus, runs, shards_at)
        return
    features = featurize(FEATURES, Location.of(corpus), root, fan_out=shards_at)
    if stages == ["featurize"]:
        return
    from training.train import train

    where = HERE
    if workers:
        where = WorkerConfig(
            num_workers=workers,
            cpus_per_worker=0.5,
            threads_per_worker=1,
            max_failures=max_failures,
        )
    training = TRAINING
    if num_epochs is not None:
        stage = CurriculumStage(num_epochs=num_epochs)
        training = TRAINING.model_copy(update={"curriculum": (stage,)})
    model = train(training, features.location, root, where)
    if "evaluate" in stages:
        from evaluation.evaluate import evaluate

        evaluate(EVALUATION, [model.location], features.location, root)


if __name__ == "__main__":
    sys.exit(run_and_explain(json.loads(sys.argv[1])))
