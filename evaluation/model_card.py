"""The card of a published model: what it is, what it was trained on, how it errs, what it costs."""

from dataclasses import dataclass

import yaml

from evaluation.engine.description import EngineDescription
from evaluation.metrics import EvaluationMetrics, ModelMetrics
from evaluation.scoring import RATE_UNITS
from featurize.stage import PipelineError
from training.manifest import TrainManifest

_HEAD = {
    "library_name": "spikeline",
    "pipeline_tag": "automatic-speech-recognition",
    "tags": ["spiking-neural-network", "event-driven"],
}


@dataclass(frozen=True)
class EvaluationOfModel:
    """An evaluation and its part on one model."""

    metrics: EvaluationMetrics
    model: ModelMetrics


def model_card(
    trained: TrainManifest, engine: EngineDescription, scored: EvaluationOfModel, about: str
) -> str:
    """The card, Markdown with YAML before it as model hubs read it.

    Args:
        engine: of the published engine.
        scored: the evaluation whose results it states.
        about: the author's part, which goes below; YAML before it goes into the card's.
    """
    head, text = _parted(about)
    model = scored.model
    title = trained.config.model.spec.title
    lines = [
        f"---\n{yaml.safe_dump(_HEAD | head, sort_keys=False)}---",
        f"# {title}, {model.num_layers} x {model.hidden_size}",
        f"{engine.trained_on[:1].upper()}{engine.trained_on[1:]}.",
        "```\nspikeline transcribe --model FOLDER speech.flac\nspikeline serve --model FOLDER\n```",
        _network(trained, engine, model),
        _errors(scored),
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


def _errors(scored: EvaluationOfModel) -> str:
    rows = [
        f"| {RATE_UNITS[name]} errors | {rate.value:.1%} ({rate.low:.1%} to {rate.high:.1%}) |"
        for name, rate in scored.model.error_rates.known().items()
    ]
    model, words = scored.model, scored.metrics.word_model
    text = (
        f"## Errors\n\n{', '.join(scored.metrics.subsets)}: {model.num_utterances} utterances, "
        f"{model.num_frames * model.frame_shift_s / 60:.0f} minutes, by `spikeline evaluate` "
        f"(float32, 95% interval over utterances).\n\n| | |\n|---|---|\n" + "\n".join(rows)
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
