"""Checkpoints as safetensors and JSON: never unpickled, visible only when complete.

``checkpoints/epoch-0007/`` holds ``network.safetensors``, ``optimizer.safetensors``, with weight
averaging ``average.safetensors`` and, written last, ``state.json`` with their checksums. The newest
and the best epoch are kept.
"""

import hashlib
import re

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from featurize.stage import Location, PipelineError, TypedConfig, check_token, is_finished
from training.manifest import CHECKPOINTS_NAME, EpochMetrics
from training.models.network import SpeechNetwork
from training.weight_averaging import AverageNetwork, network_state

_EPOCH_DIRECTORY = re.compile(r"^epoch-(\d{4,})$")
_NETWORK, _OPTIMIZER, _STATE = "network.safetensors", "optimizer.safetensors", "state.json"
_AVERAGE = "average.safetensors"
# The state of AdamW for each parameter, and whether it has the parameter's shape.
_MOMENTS = {"step": False, "exp_avg": True, "exp_avg_sq": True}
_MAX_STATE_BYTES = 64 * 2**20
_ABOUT_AS_CHEAP = 0.1
"""Share by which epochs beyond the budget may cost more than the cheapest and still be the best."""


class CheckpointState(TypedConfig):
    """What a checkpoint holds beside tensors."""

    epoch: int  # the epoch it was written after, from 0
    learning_rate: float  # for the next epoch
    epochs: tuple[EpochMetrics, ...]  # metrics of all epochs so far
    sha256: dict[str, str]  # checksum of each tensor file

    @property
    def best_epoch(self) -> int:
        """The first epoch with the lowest dev error; one that spikes as configured, if any.

        With a budget it is one within the budget or, where none is, one that costs about as little
        as the cheapest.
        """
        eligible = [e for e in self.epochs if e.spikes_as_configured] or self.epochs
        affordable = [e for e in eligible if e.is_affordable]
        if not affordable:
            costs = [e.multiplications_per_s or 0.0 for e in eligible]
            most = min(costs) * (1.0 + _ABOUT_AS_CHEAP)
            affordable = [e for e, cost in zip(eligible, costs, strict=True) if cost <= most]
        return min(affordable, key=lambda e: (e.dev_error, e.epoch)).epoch


def save_tensors(location: Location, tensors: dict[str, Tensor]) -> str:
    """Write a safetensors file; returns its SHA-256."""
    data = save_safetensors({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    location.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def load_tensors(location: Location, sha256: str) -> dict[str, Tensor]:
    """Read a safetensors file and check it."""
    try:
        data = location.read_bytes()
    except FileNotFoundError:
        raise _unusable(location, "is missing") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise _unusable(location, "is damaged (checksum differs)")
    try:
        return load_safetensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise _unusable(location, f"is no safetensors file ({error})") from error


def _unusable(location: Location, problem: str) -> PipelineError:
    place = location.parent
    is_checkpoint = _EPOCH_DIRECTORY.match(place.name) is not None
    run = place.parent.parent if is_checkpoint else place
    if is_checkpoint and not is_finished(run):
        remedy = f"remove {place.parent}, and train this model again"
    else:
        remedy = f"redo what is broken with: spikeline repair {run}, or train this model again"
    return PipelineError(f"{location} {problem}; {remedy}")


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": torch.as_tensor(value)
        for number, values in state.items()
        for name, value in values.items()
    }


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put moments back; a parameter that never had a gradient has none.

    Raises:
        ValueError: when they are not the moments of these parameters.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    whole = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    for index, moments in state.items():
        if not 0 <= index < len(parameters) or moments.keys() != _MOMENTS.keys():
            raise ValueError(f"moments of parameter {index} are not Adam's")
        for name, is_shaped in _MOMENTS.items():
            expected = parameters[index].shape if is_shaped else torch.Size()
            if moments[name].shape != expected or not moments[name].is_floating_point():
                raise ValueError(f"{name} of parameter {index} has another shape")
    whole["state"] = state
    optimizer.load_state_dict(whole)


class CheckpointStore:
    """The checkpoints of one training run.

    Args:
        run: the run's location; checkpoints lie in ``checkpoints/`` below it.
        lease_token: of the lease on the run, looked up before each save; None for none.
    """

    def __init__(self, run: Location, lease_token: str | None = None) -> None:
        self.location = run.child(CHECKPOINTS_NAME)
        self._run = run
        self._lease_token = lease_token

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
        """Write the checkpoint of the last epoch, then drop what is neither newest nor best.

        Raises:
            PipelineError: when another run has taken over, as happens to workers that outlive
                their driver.
        """
        if self._lease_token is not None:
            check_token(self._run, self._lease_token)
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
        self.tidy(state)

    def tidy(self, state: CheckpointState) -> None:
        """Drop every checkpoint that is neither the given, newest one nor the best."""
        for number, directory in self._directories():
            if number < state.epoch and number != state.best_epoch:
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
            return _read_state(file)
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
        try:
            _restore_optimizer(optimizer, tensors)
        except (ValueError, KeyError) as error:
            raise _unusable(source.child(_OPTIMIZER), f"is of another network ({error})") from error
        if average is not None:
            if _AVERAGE not in state.sha256:
                raise _unusable(source.child(_STATE), "does not name the averaged weights")
            load_weights(average, load_tensors(source.child(_AVERAGE), state.sha256[_AVERAGE]))

    def weights_of(self, epoch: int) -> dict[str, Tensor]:
        """Weights after an epoch that is kept, as the best is; their average where there is one."""
        source = self.directory(epoch)
        state = _read_state(source.child(_STATE))
        if _AVERAGE in state.sha256:
            return network_state(load_tensors(source.child(_AVERAGE), state.sha256[_AVERAGE]))
        return load_tensors(source.child(_NETWORK), state.sha256[_NETWORK])


def _read_state(file: Location) -> CheckpointState:
    """A checkpoint's ``state.json``, with an epoch for each that it claims."""
    problem = "is too large to be a checkpoint's state"
    try:
        if file.filesystem.size(file.path) <= _MAX_STATE_BYTES:
            state = CheckpointState.model_validate_json(file.read_bytes())
            names_both = {_NETWORK, _OPTIMIZER} <= set(state.sha256)
            # Counted on what is there: the last epoch may be any number.
            has_all = [m.epoch for m in state.epochs] == list(range(len(state.epochs)))
            if names_both and has_all and 0 <= state.epoch == len(state.epochs) - 1:
                return state
            problem = "does not name its files or epochs"
    except (ValidationError, FileNotFoundError) as error:
        problem = "is missing" if isinstance(error, FileNotFoundError) else "is damaged"
    raise _unusable(file, problem)


def load_weights(network: nn.Module, tensors: dict[str, Tensor], assign: bool = False) -> None:
    """Put weights into a network of the same shape.

    Args:
        tensors: by the names of its state.
        assign: make them its own tensors, as one without storage needs.
    """
    try:
        network.load_state_dict(tensors, assign=assign)
    except RuntimeError as error:
        raise PipelineError(
            "the weights do not fit the configured network; they are of another version or "
            f"were exchanged: {str(error).splitlines()[-1].strip()}"
        ) from None
