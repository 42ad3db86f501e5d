"""How fast is a training step of ours beside LSTM, GRU and other spiking libraries?

``make bench-recurrence``. A step is forward, loss, backward and all parameter gradients, without
the optimiser, on the same input with the same number of threads, in one process. ``nn.LSTM`` and
``nn.GRU`` do less than our networks (no batch norm, no dropout), in their own favour. Spikes are
as dense as at initialisation, and again as sparse as in a trained model: every site's range is set
so that a tenth of its outputs is not zero.

Shape legend: T time, B batch, F input features, H neurons, O outputs, N = T B.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import typer
from torch import Tensor, nn

from tests.benchmarks.harness import (
    RecordOption,
    SmallOption,
    Step,
    forget_peak,
    markdown,
    peak_mib,
    publish,
    ratios,
    times_in_turns,
)
from tests.harness import training_process
from training import recurrence
from training.lif import FiringRule, LifState
from training.models.build import build_network
from training.models.model_config import ModelConfig
from training.models.network import SpeechNetwork
from training.models.site import QuantizerSite
from training.quantizer import RANGE_MOMENTUM, paper_quantizer

NUM_BISECTIONS = 14
TRAINED_DENSITY = 0.1


class Sizes(NamedTuple):
    """What is trained; the defaults are the paper's."""

    batch_size: int
    num_frames: int
    num_features: int = 40
    hidden_size: int = 550
    num_outputs: int = 1000
    num_layers: int = 2


class Case(NamedTuple):
    """One comparison of whole networks."""

    name: str
    sizes: Sizes
    models: tuple[str, ...]
    device: str = "cpu"
    with_reference: bool = False


class Dense(nn.Module):
    """``nn.LSTM`` or ``nn.GRU`` as they are, and a linear output."""

    def __init__(self, kind: Callable[..., nn.RNNBase], sizes: Sizes) -> None:
        super().__init__()
        self.recurrent = kind(sizes.num_features, sizes.hidden_size, sizes.num_layers)
        self.output = nn.Linear(sizes.hidden_size, sizes.num_outputs)

    def forward(self, x_TBF: Tensor) -> Tensor:
        return torch.log_softmax(self.output(self.recurrent(x_TBF)[0]), dim=-1)


def spiking_network(model: str, sizes: Sizes, backend: str = "auto") -> SpeechNetwork:
    config = ModelConfig(
        model=model,
        hidden_size=sizes.hidden_size,
        num_layers=sizes.num_layers,
        dropout=0,
        backend=backend,
    )
    return build_network(config, sizes.num_features, sizes.num_outputs)


def training_step(network: nn.Module, scores: Callable[[], Tensor], targets_N: Tensor) -> Step:
    def step() -> None:
        network.zero_grad(set_to_none=True)
        nn.functional.nll_loss(scores().flatten(0, 1), targets_N).backward()

    return step


def on_gpu(step: Step) -> Step:
    """As a training with ``workers.bfloat16``."""
    torch.backends.cuda.matmul.allow_tf32 = True

    def run() -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            step()

    return run


@torch.no_grad()
def densities(network: SpeechNetwork, x_TBF: Tensor) -> list[float]:
    """Share of non-zero outputs of the encoder and of every layer."""
    lengths_B = torch.full((x_TBF.shape[1],), x_TBF.shape[0], device=x_TBF.device)
    sites = network(x_TBF, lengths_B).site_outputs
    return [float((site != 0).float().mean()) for site in sites]


def set_density(network: SpeechNetwork, x_TBF: Tensor, density: float) -> None:
    """Choose every site's range so that it fires this densely, from the bottom up.

    A wider range has larger levels, hence fewer spikes: bisection on the range's logarithm.
    """
    densities(network, x_TBF)  # the first pass in training mode sets every range
    sites = [module for module in network.modules() if isinstance(module, QuantizerSite)]
    for number, site in enumerate(sites):
        start = float(site.tracker.range_M())
        low, high = start / 64, start * 64
        for _ in range(NUM_BISECTIONS):
            middle = (low * high) ** 0.5
            site.tracker.num_updates.fill_(1)
            site.tracker.minimum.zero_()
            site.tracker.maximum.fill_(middle * RANGE_MOMENTUM)
            too_dense = densities(network, x_TBF)[number] > density
            low, high = (middle, high) if too_dense else (low, middle)


def time_networks(case: Case, num_rounds: int, num_threads: int) -> list[dict[str, Any]]:
    """A row for each of our networks beside each dense one."""
    torch.manual_seed(0)
    torch.set_num_threads(num_threads)
    sizes, device = case.sizes, torch.device(case.device)
    x_TBF = torch.randn(sizes.num_frames, sizes.batch_size, sizes.num_features).to(device)
    num_targets = sizes.num_frames * sizes.batch_size
    targets_N = torch.randint(sizes.num_outputs, (num_targets,)).to(device)
    lengths_B = torch.full((sizes.batch_size,), sizes.num_frames, device=device)
    # Whole sequences: what a neuron without a gate integrates grows with time.
    sample = x_TBF[:, : max(1, sizes.batch_size // 8)]

    def step_of(network: SpeechNetwork) -> Step:
        return training_step(network, lambda: network(x_TBF, lengths_B).log_probs_TBO, targets_N)

    ours, spikes = {}, {}
    reference: dict[str, Step] = {}
    for model in case.models:
        for is_trained in (False, True):
            network = spiking_network(model, sizes).to(device)
            if is_trained:
                set_density(network, sample, TRAINED_DENSITY)
            name = f"{model}, {'trained' if is_trained else 'initial'}"
            spikes[name] = " / ".join(f"{share:.0%}" for share in densities(network, sample))
            ours[name] = step_of(network)
            if is_trained and case.with_reference:
                slow = spiking_network(model, sizes, "reference")
                slow.load_state_dict(network.state_dict())
                reference = {f"reference of {name}": step_of(slow)}
    peers = {}
    for kind in (nn.LSTM, nn.GRU):
        dense = Dense(kind, sizes).to(device)
        peers[f"nn.{kind.__name__}"] = training_step(dense, partial(dense, x_TBF), targets_N)
    peers |= reference
    steps = ours | peers
    if device.type == "cuda":
        steps = {name: on_gpu(step) for name, step in steps.items()}
    times = times_in_turns(steps, num_rounds, num_threads)
    rows = ratios(times, list(ours), list(peers))
    shown = f"{case.name}, B={sizes.batch_size}, T={sizes.num_frames}"
    return [{"Case": shown, "Spikes": spikes[row["Ours"]]} | row for row in rows]


def our_lif_step(drive_TBH: Tensor) -> Step:
    """The conventional recurrence alone, binary spikes, backward to the drive and the decay."""
    num_frames, batch_size, num_neurons = drive_TBH.shape
    decay_H = torch.full((num_neurons,), 0.9, requires_grad=True)
    state = LifState.zeros(batch_size, num_neurons, drive_TBH.device)
    lengths_B = torch.full((batch_size,), num_frames)
    firing = FiringRule(paper_quantizer(torch.tensor(1.0), num_bits=1, threshold=0))

    def step() -> None:
        drive_TBH.grad = decay_H.grad = None
        output = recurrence.conventional(drive_TBH, decay_H, lengths_B, state, firing)
        output.spikes_TBH.sum().backward()

    return step


def snntorch_step(drive_TBH: Tensor) -> Step:
    """snnTorch's ``Leaky`` over the same sequence."""
    import snntorch

    neuron = snntorch.Leaky(beta=0.9, learn_beta=True)

    def step() -> None:
        drive_TBH.grad = None
        neuron.zero_grad(set_to_none=True)
        membrane, spikes = neuron.init_leaky(), []
        for frame in drive_TBH:
            spike, membrane = neuron(frame, membrane)
            spikes.append(spike)
        torch.stack(spikes).sum().backward()

    return step


def spikingjelly_step(drive_TBH: Tensor) -> Step:
    """SpikingJelly's multi-step ``ParametricLIFNode`` over the same sequence."""
    from spikingjelly.activation_based import functional, neuron

    node = neuron.ParametricLIFNode(step_mode="m")

    def step() -> None:
        drive_TBH.grad = None
        node.zero_grad(set_to_none=True)
        functional.reset_net(node)
        node(drive_TBH).sum().backward()

    return step


def time_lif(sizes: Sizes, num_rounds: int, num_threads: int) -> list[dict[str, Any]]:
    """Ours beside other spiking libraries, one layer of leaky neurons with given input."""
    torch.manual_seed(0)
    shape = (sizes.num_frames, sizes.batch_size, sizes.hidden_size)
    drive_TBH = torch.randn(shape, requires_grad=True)
    steps = {"conventional": our_lif_step(drive_TBH)}
    steps |= {"snnTorch": snntorch_step(drive_TBH), "SpikingJelly": spikingjelly_step(drive_TBH)}
    return ratios(times_in_turns(steps, num_rounds, num_threads), list(steps)[:1], list(steps)[1:])


def measure_length(model: str, sizes: Sizes, num_threads: int) -> dict[str, Any]:
    """What a step adds to the peak of memory of this process, which must be fresh; and its time."""
    torch.set_num_threads(num_threads)
    torch.manual_seed(0)
    network = Dense(nn.LSTM, sizes) if model == "nn.LSTM" else spiking_network(model, sizes)

    def step_of(num_frames: int) -> Step:
        x_TBF = torch.randn(num_frames, sizes.batch_size, sizes.num_features)
        lengths_B = torch.full((sizes.batch_size,), num_frames)
        targets_N = torch.randint(sizes.num_outputs, (num_frames * sizes.batch_size,))

        def scores() -> Tensor:
            if model == "nn.LSTM":
                return network(x_TBF)
            return network(x_TBF, lengths_B).log_probs_TBO

        return training_step(network, scores, targets_N)

    step_of(8)()  # compiles, and starts the threads
    step = step_of(sizes.num_frames)
    forget_peak()
    before = peak_mib()
    step()
    added = peak_mib() - before
    seconds = times_in_turns({model: step}, 3, num_threads)[model].median()
    length = f"T={sizes.num_frames:,}"
    return {f"{length}: MiB": added, f"{length}: us a frame": 1e6 * seconds / sizes.num_frames}


def main(
    rounds: int = 10,
    threads: int = 2,
    models: str = "v2,v1,conventional",
    small: SmallOption = False,
    record: RecordOption = None,
) -> None:
    """Training steps of our networks and layers beside their peers."""
    names = tuple(models.split(","))
    cases = [
        Case("large", Sizes(64, 400), names),
        Case("small", Sizes(16, 200), names[:1], with_reference=True),
    ]
    if torch.cuda.is_available():
        cases.append(Case("GPU, bfloat16", Sizes(64, 800), names, device="cuda"))
    layer, long, lengths = Sizes(64, 200), Sizes(16, 0), (750, 1500, 3000)
    if small:
        toy = Sizes(4, 12, 10, 24, 7)
        cases = [case._replace(sizes=toy) for case in cases]
        layer, long, lengths, rounds = toy, toy, (16, 32), 2
    here = training_process.call
    networks = [row for case in cases for row in here(time_networks, case, rounds, threads)]
    lengths_of = []
    for model in (*names, "nn.LSTM"):
        row: dict[str, Any] = {"Model": model}
        for length in lengths:
            row |= here(measure_length, model, long._replace(num_frames=length), threads)
        lengths_of.append(row)
    publish(
        "Recurrences beside dense and spiking peers",
        [
            f"{threads} threads for all; F={cases[0].sizes.num_features}, "
            f"{cases[0].sizes.num_layers} layers, H={cases[0].sizes.hidden_size}, "
            f"O={cases[0].sizes.num_outputs}; {rounds} rounds in turns",
            "spikes: share of outputs that are not zero, encoder and layers",
        ],
        {
            "Time of a step": markdown(networks),
            "A layer of leaky neurons": markdown(here(time_lif, layer, rounds, threads)),
            f"Memory that a step adds, and time, by length (B={long.batch_size})": markdown(
                lengths_of
            ),
        },
        ("torch", "numba", "numpy", "snntorch", "spikingjelly"),
        record,
    )


if __name__ == "__main__":
    typer.run(main)
