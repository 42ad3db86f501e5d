"""Writing a model to give away; see ``evaluation.published`` for what it is."""

from evaluation.chosen import evaluation_of, metrics_of_model, read_evaluation
from evaluation.engine.description import Precision
from evaluation.engine.engine_file import write_engine
from evaluation.engine_of_run import SearchChoice, engine_of_run
from evaluation.model_card import EvaluationOfModel, model_card
from evaluation.published import CARD_NAME, ENGINE_NAME
from featurize.stage import Location, PipelineError, read_checked, read_manifest, write_manifest
from training.manifest import TrainManifest


def publish(
    run: Location,
    out: Location,
    precision: Precision = "float32",
    evaluation: str | None = None,
    about: str = "",
) -> None:
    """Write a training run, its engine and its card to a folder.

    Addresses of the machine that made them are left out.

    Args:
        run: a finished training run, of a model that spikes.
        out: the folder; what an earlier call wrote there is replaced.
        precision: of the engine's weights.
        evaluation: whose search is taken and whose results stand in the card; the newest beside
            the run where None.
        about: what the author says of data, licence and limits, in Markdown, with or without
            YAML before it.
    """
    trained = read_manifest(run, TrainManifest)
    scored = evaluation_of(run, trained) if evaluation is None else Location.of(evaluation)
    if scored is None:
        raise PipelineError(
            f"no evaluation beside {run} chose its search and counted its errors, which its card "
            "states: run spikeline evaluate --model, or name one by --evaluation"
        )
    if out.exists() and out.children() and not out.child(ENGINE_NAME).exists():
        raise PipelineError(f"--out {out} holds something else; name a new folder")
    engine = engine_of_run(run.uri, precision, choice=SearchChoice(scored.uri))
    _, metrics = read_evaluation(scored)
    of_model = EvaluationOfModel(metrics, metrics_of_model(metrics, trained, scored))
    out.remove()
    for name in (trained.weights, trained.label_statistics):
        out.child(name).write_bytes(read_checked(run, trained, name))
    out.child(ENGINE_NAME).write_bytes(write_engine(engine))
    card = model_card(trained, engine.description, of_model, about)
    out.child(CARD_NAME).write_bytes(card.encode())
    stage = Location.of(trained.features)
    named = f"{stage.parent.name}/{stage.name}"
    write_manifest(out, trained.model_copy(update={"features": named, "checksums": {}}))
