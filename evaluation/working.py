"""Whether a recogniser works at all: no summary calls one better that does not.

Where nearly everything is deleted, or most symbols are wrong, a difference of error rates says
which of two recognisers is broken more, and nothing about accuracy.
"""

from evaluation.metrics import EvaluationMetrics, ModelMetrics

MOST_ERRORS = 0.60
"""Error rate above which a recogniser does not work."""

LEAST_OUTPUT = 0.2
"""Symbols put out over symbols spoken, below which a recogniser does not work."""


def works(model: ModelMetrics, metrics: EvaluationMetrics) -> bool:
    """Whether the model's setting recognises anything, by the mean over its seeds."""
    seeds = metrics.seeds_of(model)
    error = sum(metrics.primary(seed).value for seed in seeds) / len(seeds)
    outputs = [seed.output_share for seed in seeds if seed.output_share is not None]
    return error <= MOST_ERRORS and (not outputs or sum(outputs) / len(outputs) >= LEAST_OUTPUT)


def comparable(one: ModelMetrics, other: ModelMetrics, metrics: EvaluationMetrics) -> bool:
    """Whether a difference of the two says something: the better one works."""
    return works(min((one, other), key=lambda model: metrics.primary(model).value), metrics)


def failure_line(model: ModelMetrics, title: str, metrics: EvaluationMetrics) -> str:
    """That a recogniser does not work, how that shows, and what to do."""
    said = f"The {title} does not work: {metrics.primary(model).value:.0%} errors"
    if model.output_share is not None and model.output_share < 0.5:
        said += f", {model.output_share:.0%} as many symbols put out as were spoken"
    remedies = "Train it longer or on more speech"
    if model.viterbi is not None and not model.viterbi.tune_on_dev:
        remedies += " or tune its search on a dev split (evaluate.viterbi.tune_on_dev=true)"
    return f"{said}. {remedies}."
