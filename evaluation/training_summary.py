"""One training in plain words and one picture."""

from evaluation.learning_curves import error_name
from evaluation.plots import site_names
from training.manifest import TrainManifest


def training_lines(training: TrainManifest) -> list[str]:
    """What a training came to, in sentences, each from the numbers alone."""
    config, epochs = training.config, training.metrics
    title, name = config.model.spec.title, error_name(config)
    seconds = sum(epoch.seconds for epoch in epochs)
    took = f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"
    lines = [
        f"The {title} has {config.model.num_layers} layers of {config.model.hidden_size} neurons "
        f"and {training.num_parameters:,} parameters; {training.num_epochs} epochs took {took}.",
        f"The lowest dev {name} is {training.best_dev_error:.1%}, after epoch "
        f"{training.best_epoch + 1}; the weights of that epoch are kept.",
    ]
    best = epochs[training.best_epoch]
    if best.spike_density:
        sites = site_names(len(best.spike_density) - 1)
        shares = ", ".join(
            f"{site} {share:.1%}" for site, share in zip(sites, best.spike_density, strict=True)
        )
        lines.append(f"Share of neurons that fire in a frame then: {shares}.")
    if training.num_epochs > 1 and training.best_epoch == training.num_epochs - 1:
        lines.append("The last epoch was the best: longer training may help.")
    skipped = sum(epoch.num_skipped_steps for epoch in epochs)
    if skipped:
        lines.append(f"{skipped} steps were skipped, their gradient was not finite.")
    return lines
