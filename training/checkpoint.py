"""Checkpoints as safetensors and JSON: never unpickled, visible only when complete.

``checkpoints/epoch-0007/`` holds ``network.safetensors``, ``optimizer.safetensors``, with weight
averaging ``average.safetensors`` and, written last, ``state.json`` with their checksums. The newest
and the best epoch are kept.
"""

import hashlib
import re
from dataclasses import dataclass

import torch
from pydantic import ValidationError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from featurize.errors import PipelineError
from featurize.locations import Location
from featurize.stage import read_manifest
from featurize.typed_config import TypedConfig
from training.manifest import EpochMetrics, TrainManifest
from training.models import SpeechNetwork, build_network
from training.weight_averaging import AverageNetwork, network_state

_EPOCH_DIRECTORY = re.compile(r"^epoch-(\d{4,})$")
_NETWORK, _OPTIMIZER, _STATE = "network.safetensors", "optimizer.safetensors", "state.json"
_AVERAGE = "average.safetensors"


class CheckpointState(TypedConfig):
    """What a checkpoint holds beside tensors.

    Attributes:
        epoch: the epoch it was written after, from 0.
        learning_rate: for the next epoch.
        epochs: metrics of all epochs so far.
        sha256: checksum of each tensor file.
    """

    epoch: int
    learning_rate: float
    epochs: tuple[EpochMetrics, ...]
    sha256: dict[str, str]

    @property
    def best_epoch(self) -> int:
        """The first epoch with the lowest dev error; one that spikes as configured, if any."""

        def rank(metrics: EpochMetrics) -> tuple[bool, float, int]:
            return (not metrics.spikes_as_configured, metrics.dev_error, metrics.epoch)

        return min(self.epochs, key=rank).epoch


def save_tensors(location: Location, tensors: dict[str, Tensor]) -> str:
    """Write a safetensors file; returns its SHA-256."""
    data = save_safetensors({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    location.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def load_tensors(location: Location, sha256: str) -> dict[str, Tensor]:
    """Read a safetensors file and check it.

    Raises:
        PipelineError: when it is missing or its checksum differs.
    """
    try:
        data = location.read_bytes()
    except FileNotFoundError:
        raise PipelineError(f"{location} is missing; train this model again") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise PipelineError(f"{location} is damaged (checksum differs); train this model again")
    return load_safetensors(data)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": torch.as_tensor(value)
        for number, values in state.items()
        for name, value in values.items()
    }


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    whole = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    whole["state"] = state
    optimizer.load_state_dict(whole)


class CheckpointStore:
    """The checkpoints of one training run.

    Args:
        run: the run's location; checkpoints lie in ``checkpoints/`` below it.
    """

    def __init__(self, run: Location) -> None:
        self.location = run.child("checkpoints")

    def directory(self, epoch: int) -> Location:
        """Where an epoch's checkpoint lies."""
        return self.location.child(f"epoch-{epoch:04d}")

    def save(
        self,
        network: SpeechNetwork,
        average: AverageNetwork | None,
        optimizer: torch.optim.Optimizer,
        learning_rate: float,
        epochs: tuple[EpochMetrics, ...],
    ) -> None:
        """Write the checkpoint of the last epoch, then drop what is neither newest nor best."""
        epoch = epochs[-1].epoch
        target = self.directory(epoch)
        sha256 = {
            _NETWORK: save_tensors(target.child(_NETWORK), network.state_dict()),
            _OPTIMIZER: save_tensors(target.child(_OPTIMIZER), _optimizer_tensors(optimizer)),
        }
        if average is not None:
            sha256[_AVERAGE] = save_tensors(target.child(_AVERAGE), average.state_dict())
        state = CheckpointState(
            epoch=epoch, learning_rate=learning_rate, epochs=epochs, sha256=sha256
        )
        target.child(_STATE).write_bytes(state.model_dump_json().encode())
        for number, directory in self._directories():
            if number < epoch and number != state.best_epoch:
                directory.child(_STATE).remove()
                directory.remove()

    def _directories(self) -> list[tuple[int, Location]]:
        found = [(_EPOCH_DIRECTORY.match(place.name), place) for place in self.location.children()]
        return sorted(
            ((int(match.group(1)), place) for match, place in found if match),
            key=lambda item: item[0],
        )

    def newest(self) -> CheckpointState | None:
        """The newest complete checkpoint's state; incomplete ones are passed over."""
        for _, directory in reversed(self._directories()):
            file = directory.child(_STATE)
            if not file.exists():
                continue
            try:
                return CheckpointState.model_validate_json(file.read_bytes())
            except ValidationError:
                raise PipelineError(
                    f"{file} is damaged; remove {directory} to resume from the epoch before"
                ) from None
        return None

    def restore(
        self,
        state: CheckpointState,
        network: SpeechNetwork,
        average: AverageNetwork | None,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Load a checkpoint's weights, their average and the optimiser's moments."""
        source = self.directory(state.epoch)
        load_weights(network, load_tensors(source.child(_NETWORK), state.sha256[_NETWORK]))
        tensors = load_tensors(source.child(_OPTIMIZER), state.sha256[_OPTIMIZER])
        _restore_optimizer(optimizer, tensors)
        if average is not None:
            load_weights(average, load_tensors(source.child(_AVERAGE), state.sha256[_AVERAGE]))

    def best_weights(self, state: CheckpointState) -> dict[str, Tensor]:
        """Weights of the best epoch so far: their average, where there is one."""
        source = self.directory(state.best_epoch)
        best = CheckpointState.model_validate_json(source.child(_STATE).read_bytes())
        if _AVERAGE in best.sha256:
            return network_state(load_tensors(source.child(_AVERAGE), best.sha256[_AVERAGE]))
        return load_tensors(source.child(_NETWORK), best.sha256[_NETWORK])


def load_weights(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put weights into a network of the same shape.

    Raises:
        PipelineError: when names or shapes differ.
    """
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise PipelineError(
            "the weights do not fit the configured network; they are of another version or "
            f"were exchanged: {str(error).splitlines()[-1].strip()}"
        ) from None


@dataclass(frozen=True)
class Recogniser:
    """A trained network ready for use.

    Attributes:
        network: in evaluation mode, on the CPU.
        manifest: how it was trained, its labels and normalisation.
        label_statistics: ``bigram_counts`` (S + 1, S + 1) and, for the frame objective,
            ``frame_counts`` (S,).
    """

    network: SpeechNetwork
    manifest: TrainManifest
    label_statistics: dict[str, Tensor]


def num_outputs(manifest_symbols: int, objective: str) -> int:
    """Scores per frame: one per symbol, and the blank for CTC."""
    return manifest_symbols + (1 if objective == "ctc" else 0)


def load_recogniser(location: Location) -> Recogniser:
    """Load a finished training run.

    Raises:
        PipelineError: when the run is unfinished, damaged or of another version.
    """
    manifest = read_manifest(location, TrainManifest)
    config = manifest.config
    outputs = num_outputs(len(manifest.labels.symbols), config.objective)
    network = build_network(config.model, manifest.num_features, outputs)
    weights = load_tensors(location.child(manifest.weights), manifest.weights_sha256)
    load_weights(network, weights)
    statistics = load_tensors(
        location.child(manifest.label_statistics), manifest.label_statistics_sha256
    )
    return Recogniser(network.eval(), manifest, statistics)
