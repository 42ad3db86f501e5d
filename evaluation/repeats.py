"""Runs that differ in their seed alone, as one row: mean and spread."""

import statistics
from collections.abc import Iterable, Sequence

from evaluation.metrics import ModelMetrics, SettingMetrics, Spread
from evaluation.scoring import RATE_UNITS


def spread(values: Iterable[float]) -> Spread:
    """Mean and sample standard deviation (over n - 1; none for a single value)."""
    drawn = list(values)
    deviation = statistics.stdev(drawn) if len(drawn) > 1 else None
    return Spread(mean=statistics.fmean(drawn), deviation=deviation)


def setting_metrics(models: Sequence[ModelMetrics]) -> tuple[SettingMetrics, ...]:
    """One entry per setting, in the order in which settings first come."""
    settings = dict.fromkeys(model.setting_name for model in models)
    return tuple(
        _over_seeds([model for model in models if model.setting_name == setting])
        for setting in settings
    )


def _over_seeds(models: Sequence[ModelMetrics]) -> SettingMetrics:
    first = models[0]
    rates = {}
    for name in RATE_UNITS:
        found = [getattr(model.error_rates, name) for model in models]
        rates[name] = _spread_of_all([None if rate is None else rate.value for rate in found])
    return SettingMetrics(
        setting=first.setting_name,
        model=first.model,
        labels=tuple(model.label for model in models),
        seeds=tuple(model.seed for model in models),
        **rates,
        parameters=first.parameters,
        spike_density=tuple(
            spread(site) for site in zip(*(model.spike_density for model in models), strict=True)
        ),
        audited=spread(model.multiplications_per_frame.audited for model in models),
        multiplications_per_s=_spread_of_all(
            [None if m.workload is None else m.workload.multiplications_per_s for m in models]
        ),
        as_published=spread(model.multiplications_per_frame.as_published for model in models),
        saving_gru=_spread_of_all([model.saving.gru for model in models]),
        saving_lstm=_spread_of_all([model.saving.lstm for model in models]),
        saving_gru_as_published=_spread_of_all([model.saving_as_published.gru for model in models]),
    )


def _spread_of_all(values: Sequence[float | None]) -> Spread | None:
    """None where one of them is not known."""
    known = [value for value in values if value is not None]
    return spread(known) if len(known) == len(values) else None
