"""Loading a finished training run: its network, its manifest and its label statistics."""

from dataclasses import dataclass

import torch
from torch import Tensor

from featurize.stage import Location, read_manifest
from training.checkpoint import load_tensors, load_weights
from training.manifest import TrainManifest
from training.models.build import build_network, num_outputs
from training.models.network import SpeechNetwork


@dataclass(frozen=True)
class TrainedModel:
    """A trained network ready for use."""

    network: SpeechNetwork  # in evaluation mode, on the CPU
    manifest: TrainManifest  # how it was trained, its labels and normalisation
    # ``bigram_counts`` (S + 1, S + 1) and, for the frame objective, ``frame_counts`` of its targets
    label_statistics: dict[str, Tensor]

    @property
    def target_delay(self) -> int:
        """Frames after the one it names that the network has heard."""
        return self.manifest.config.target_delay or 0


def load_model(location: Location) -> TrainedModel:
    """Load a finished training run.

    Raises:
        PipelineError: when the run is unfinished, damaged or of another version.
    """
    manifest = read_manifest(location, TrainManifest)
    config = manifest.config
    outputs = num_outputs(len(manifest.labels.symbols), config.objective, manifest.states)
    weights = load_tensors(location.child(manifest.weights), manifest.weights_sha256)
    # The manifest may state any size: one without storage shows first whether the weights fit.
    with torch.device("meta"):
        claimed = build_network(config.model, manifest.num_features, outputs)
    load_weights(claimed, weights, assign=True)
    network = build_network(config.model, manifest.num_features, outputs)
    load_weights(network, weights)
    statistics = load_tensors(
        location.child(manifest.label_statistics), manifest.label_statistics_sha256
    )
    return TrainedModel(network.eval(), manifest, statistics)
