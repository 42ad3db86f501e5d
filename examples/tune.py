"""Searches learning rate, budget and size with Ray Tune, over the training of `spikeline train`.

    python examples/tune.py --recipe mini-librispeech --set models=v2 --set train.density=null \
      --features runs/align/FP --runs runs --trials 20 --search train.model.hidden_size=128,256 \
      --search train.optimizer.learning_rate=3e-4..3e-3 \
      --search train.budget.multiplications_per_s=10e6,17e6

Trials run at RAY_ADDRESS, or on this machine. Each is a training like any other, at
`runs/training/FINGERPRINT`: found when it is finished, resumed when it was interrupted, ready to be
evaluated. Tune's own record is at `runs/tune`, where TensorBoard reads it too.
"""

from functools import partial
from typing import Annotated, Any

import ray
import typer
from ray import tune

from featurize.stage import Location, PipelineError, ray_session, read_manifest
from flows.overrides import apply_overrides
from flows.recipes import Recipe, recipe_named
from training.manifest import EpochMetrics, TrainManifest, TrainProgress
from training.train import train

ERROR = "dev_error"


def values_of(search: str) -> tuple[str, Any]:
    """`KEY=a,b,c` chooses one, `KEY=low..high` draws from an interval, evenly in the logarithm."""
    key, _, text = search.partition("=")
    if not key or not text:
        raise PipelineError(f"--search {search}: give KEY=a,b,c or KEY=LOW..HIGH")
    if ".." not in text:
        return key, tune.choice(text.split(","))
    try:
        low, high = map(float, text.split(".."))
    except ValueError:
        raise PipelineError(f"--search {search}: LOW..HIGH are two numbers") from None
    if not 0 < low < high:
        raise PipelineError(
            f"--search {search}: LOW and HIGH are drawn from in the logarithm; give 0 < LOW < HIGH"
        )
    return key, tune.loguniform(low, high)


def trial(settings: dict[str, Any], recipe: Recipe, features: str, runs: str) -> None:
    """One training; Tune sees each epoch as it ends."""
    chosen = apply_overrides(recipe, [f"{key}={value}" for key, value in settings.items()])
    (config,) = chosen.models
    epochs: list[EpochMetrics] = []

    def tell(finished: tuple[EpochMetrics, ...]) -> None:
        for metrics in finished[len(epochs) :]:
            epochs.append(metrics)
            tune.report(metrics.model_dump(mode="json"))

    def on_progress(progress: TrainProgress) -> None:
        # Workers of Ray Train report to Tune themselves (training.ray_trainer).
        if chosen.workers.in_process:
            tell(progress.epochs)

    result = train(
        config, Location.of(features), Location.of(runs), chosen.workers, on_progress=on_progress
    )
    if chosen.workers.in_process or result.skipped:
        tell(read_manifest(result.location, TrainManifest).metrics)


def error_of(result: tune.Result) -> float | None:
    """The dev error of the epoch that training keeps: the best of those within the budget.

    None where no epoch ended, or none within it.
    """
    epochs = result.metrics_dataframe
    if epochs is None or ERROR not in epochs:
        return None
    errors = epochs.loc[epochs["is_affordable"].astype(bool), ERROR]
    return float(errors.min()) if len(errors) else None


def search(
    recipe: Recipe, features: str, runs: Location, space: dict[str, Any], trials: int, seed: int
) -> tune.ResultGrid:
    """Run the trials, as many at once as the cluster has room for.

    Args:
        recipe: with one model; what is searched for is changed in it.
        features: a finished feature set, which every node can read.
        runs: root of all results, which every node can write.
        space: setting to what its value is drawn from.
        trials: how many.
        seed: of the draws; the same ones again find their trainings finished.
    """
    if len(recipe.models) != 1:
        raise PipelineError("the recipe has several models; choose one with --set models=NAME")
    workers = recipe.workers
    alone = workers.num_workers == 1 and not workers.use_gpu
    workers = workers.model_copy(update={"in_process": alone})
    recipe = recipe.model_copy(update={"workers": workers})
    # One worker trains in the trial's own process; several are started by Ray Train beside it.
    cpus = workers.cpus_per_worker if alone else 0.01  # Tune takes no trial without any
    room = ray.cluster_resources().get("CPU", 1.0)
    tuner = tune.Tuner(
        tune.with_resources(
            partial(trial, recipe=recipe, features=features, runs=runs.uri), {"CPU": cpus}
        ),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric=ERROR,
            mode="min",
            num_samples=trials,
            max_concurrent_trials=max(1, int(room / workers.cpus_per_worker / workers.num_workers)),
            search_alg=tune.search.BasicVariantGenerator(random_state=seed),
        ),
        run_config=tune.RunConfig(
            storage_path=runs.child("tune").path, storage_filesystem=runs.arrow(), verbose=1
        ),
    )
    return tuner.fit()


def main(
    recipe: Annotated[str, typer.Option(help="Name, or a YAML file.")],
    features: Annotated[str, typer.Option(help="A finished feature set, or alignment.")],
    runs: Annotated[str, typer.Option(help="Root of all results.")],
    searched: Annotated[list[str], typer.Option("--search", metavar="KEY=VALUES")],
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
    trials: int = 10,
    seed: int = 0,
) -> None:
    """Search, and say which settings came out best on dev."""
    try:
        chosen = apply_overrides(recipe_named(recipe), overrides or ())
        space = dict(values_of(one) for one in searched)
        with ray_session():
            # Trials work in folders of their own, where a relative address would mean another.
            found = search(
                chosen, Location.of(features).uri, Location.of(runs), space, trials, seed
            )
    except PipelineError as error:
        typer.echo(f"tune: {error}", err=True)
        raise typer.Exit(2) from None
    errors = [(error_of(result), result) for result in found]
    for error, result in sorted(errors, key=lambda e: 1e9 if e[0] is None else e[0]):
        reason = "failed" if result.error is not None else "over budget"
        shown = reason if error is None else f"{100 * error:.2f}%"
        typer.echo(f"{shown:>11}  " + "  ".join(f"{k}={v}" for k, v in result.config.items()))


if __name__ == "__main__":
    typer.run(main)
