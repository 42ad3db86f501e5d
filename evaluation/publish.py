"""Writing a model to give away, with its card; see ``evaluation.published`` for what it is."""

import yaml

from evaluation.chosen import evaluation_of, metrics_of_model, read_evaluation
from evaluation.engine.description import EngineDescription, Precision
from evaluation.engine.engine_file import write_engine
from evaluation.engine_of_run import SearchChoice, engine_of_run
from evaluation.metrics import EvaluationMetrics, ModelMetrics
from evaluation.published import CARD_NAME, ENGINE_NAME
from evaluation.scoring import RATE_UNITS
from featurize.stage import (
    Location,
    PipelineError,
    is_finished,
    read_checked,
    read_manifest,
    write_manifest,
)
from training.manifest import TrainManifest

_HEAD = {
    "library_name": "spikeline",
    "pipeline_tag": "automatic-speech-recognition",
    "tags": ["spiking-neural-network", "event-driven"],
}


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
        out: the folder, new, empty or of an earlier call, whose files are replaced; what else was
            put there since is left alone, and has no checksum.
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
    is_in_the_way = not out.is_dir() or out.children()
    is_published = out.child(ENGINE_NAME).exists() and is_finished(out)
    if out.exists() and is_in_the_way and not is_published:
        raise PipelineError(
            f"--out {out} holds something else, or what an interrupted call left; name a new folder"
        )
    engine = engine_of_run(run.uri, precision, choice=SearchChoice(scored.uri))
    card = _card(trained, engine.description, scored, about)
    # The folder may be the model's own: all is read first, and none of it is ever missing.
    own = (trained.weights, trained.label_statistics)
    files = {name: read_checked(run, trained, name) for name in own}
    files |= {ENGINE_NAME: write_engine(engine), CARD_NAME: card.encode()}
    others = frozenset(out.files()) - files.keys() if is_published else frozenset()
    for name, content in files.items():
        out.child(name).write_bytes(content)
    stage = Location.of(trained.features)
    named = f"{stage.parent.name}/{stage.name}"
    write_manifest(out, trained.model_copy(update={"features": named, "checksums": {}}), others)


def _card(
    trained: TrainManifest, engine: EngineDescription, evaluation: Location, about: str
) -> str:
    """What the model is, what it was trained on, how it errs and what it costs.

    Markdown with YAML before it, as model hubs read it. The author's part goes below; YAML before
    that goes into the card's.
    """
    scored, metrics = read_evaluation(evaluation)
    model = metrics_of_model(metrics, trained, evaluation)
    bits = scored.config.weight_bits
    head, text = _parted(about)
    title = trained.config.model.spec.title
    lines = [
        f"---\n{yaml.safe_dump(_HEAD | head, sort_keys=False)}---",
        f"# {title}, {model.num_layers} x {model.hidden_size}",
        f"{engine.trained_on[:1].upper()}{engine.trained_on[1:]}.",
        "```\nspikeline transcribe --model FOLDER speech.flac\nspikeline serve --model FOLDER\n```",
        _network(trained, engine, model),
        _errors(metrics, model, "float32" if bits is None else f"weights of {bits} bits"),
        _costs(model),
        text.strip() or "Its author has stated neither licence nor limits.",
        f"Trained as `{trained.fingerprint}` with "
        + ", ".join(f"{name} {version}" for name, version in trained.versions.items())
        + ".",
    ]
    return "\n\n".join(lines) + "\n"


def _parted(about: str) -> tuple[dict[str, object], str]:
    if not about.startswith("---\n"):
        return {}, about
    head, is_closed, text = about.removeprefix("---\n").partition("\n---\n")
    try:
        fields = yaml.safe_load(head) if is_closed else None
    except yaml.YAMLError:
        fields = None
    if not isinstance(fields, dict):
        raise PipelineError(
            "--about: it begins with ---, and what follows up to the next --- is not YAML of lines "
            "NAME: VALUE; correct it, or leave it out"
        )
    return fields, text


def _network(trained: TrainManifest, engine: EngineDescription, model: ModelMetrics) -> str:
    delay_ms = 1000 * engine.target_delay * engine.frame_shift_s
    return (
        "## What it is\n\n"
        f"- {model.parameters.total:,} parameters (`{trained.weights}`, float32); the engine "
        f"file `model.spikes` has {engine.precision} weights and the searches\n"
        f"- {engine.num_features} features every {1000 * engine.frame_shift_s:.0f} ms, "
        f"{engine.num_outputs} outputs, spikes of {engine.num_bits} bits; it names a frame when "
        f"it has heard {delay_ms:.0f} ms more"
    )


def _errors(metrics: EvaluationMetrics, model: ModelMetrics, weights: str) -> str:
    rows = [
        f"| {RATE_UNITS[name]} errors | {rate.value:.1%} ({rate.low:.1%} to {rate.high:.1%}) |"
        for name, rate in model.error_rates.known().items()
    ]
    words = metrics.word_model
    text = (
        f"## Errors\n\n{', '.join(metrics.subsets)}: {model.num_utterances} utterances, "
        f"{model.num_frames * model.frame_shift_s / 60:.0f} minutes, by `spikeline evaluate` "
        f"({weights}, 95% interval over utterances).\n\n| | |\n|---|---|\n" + "\n".join(rows)
    )
    if words is not None:
        text += (
            f"\n\nWords by a search over {words.num_spelled:,} words and "
            f"{sum(words.num_ngrams[1:]):,} longer n-grams; {words.unknown_share:.1%} of the "
            f"words spoken there are not among them, and its perplexity is {words.perplexity:.0f}."
        )
    return text


def _costs(model: ModelMetrics) -> str:
    density = " / ".join(f"{share:.3f}" for share in model.spike_density)
    lines = [
        "## What it costs\n",
        f"- {model.audited_per_s / 1e6:.2f} million multiplications per second of speech (matrix "
        "terms, exact)",
        f"- share of outputs that are not zero, encoder first: {density}",
    ]
    if model.saving.gru is not None:
        lines.append(f"- a GRU of this size takes {model.saving.gru:.1f} times as many")
    return "\n".join(lines)
