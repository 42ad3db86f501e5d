"""How fast is the event-driven engine beside dense networks, at which density of spikes?

``make bench-event-driven [MODEL=runs/training/FP]``. One process, one thread, one frame at a time,
all in turns. A trained model is timed on frames of its test speech; the engine is also timed at
chosen densities (``tests.benchmarks.forced_density``), which needs no model. Dense networks are of
the engine's size, or of ``--peer-layers`` and ``--peer-hidden``: such a network makes as many
errors as the model, if one chooses it so. Their weights are random, which a dense step does not
notice.

Start-up and memory are of processes of their own, which import no PyTorch.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import typer

from evaluation.engine.build import build_engine
from evaluation.engine.engine import Engine
from evaluation.engine.engine_file import EngineData, write_engine
from evaluation.multiplications import dense_cost
from evaluation.recognise import choose_cmvn
from featurize.cmvn import Normaliser
from featurize.schema import FeaturizeManifest
from featurize.shards import iter_rows
from featurize.stage import Location, read_manifest
from tests.benchmarks.dense_peers import Frame, dense_peers
from tests.benchmarks.forced_density import EngineSize, ForcedStep, forced_data, forced_step
from tests.benchmarks.harness import (
    RecordOption,
    SmallOption,
    Step,
    markdown,
    publish,
    ratios,
    times_in_turns,
)
from training.models.counting import NetworkShape
from training.models.model_config import ModelConfig
from training.trained_model import load_model

DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0)
PRECISIONS = ("float32", "int8")

_FIRST_FRAME = """
import sys
import numpy as np
from evaluation.engine.engine import Engine
from evaluation.engine.engine_file import read_engine

def run(path, num_frames):
    engine = Engine(read_engine(path))
    stream = engine.stream()
    noise = np.random.default_rng(0).standard_normal((num_frames, engine.description.num_features))
    engine.advance(noise.astype(np.float32), stream)

run(sys.argv[1], 1)
assert "torch" not in sys.modules
"""
_MEMORY = (
    _FIRST_FRAME
    + """
def peak_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

before = peak_kib()
for _ in range(10):
    run(sys.argv[2], 50)
print(before, peak_kib())
"""
)


def stepping(advance: Callable[[Frame], object], frames: Sequence[Frame]) -> Step:
    def step() -> None:
        for frame in frames:
            advance(frame)

    return step


def dense_products(size: EngineSize, name: str) -> float:
    """Multiplications per frame of a dense peer, by the evaluation's own count."""
    kind = "lstm" if name.endswith("LSTM") else "gru"
    features, hidden, layers, outputs = size
    config = ModelConfig(model=kind, num_layers=layers, hidden_size=hidden)
    return dense_cost(NetworkShape(config, features, outputs), kind)[0]


def frames_of_test_speech(model: Any, number: int) -> list[Frame]:
    """Normalised frames of test speech, (1, F) each."""
    place = Location.of(model.manifest.features)
    features = read_manifest(place, FeaturizeManifest)
    normalise = Normaliser(choose_cmvn(model.manifest, features))
    found: list[Frame] = []
    for row in iter_rows(place, features, features.splits["test"]):
        x_TF = normalise(row)
        found.extend(x_TF[n : n + 1] for n in range(len(x_TF)))
        if len(found) >= number:
            break
    return found[:number]


def time_model(
    data: dict[str, EngineData],
    frames: list[Frame],
    peers: dict[str, Callable[[Frame], object]],
    peer_size: EngineSize,
    rounds: int,
) -> dict[str, str]:
    """A trained model beside dense networks: time, products, and ratios."""
    engines = {f"engine, {precision}": Engine(one) for precision, one in data.items()}
    streams = {name: engine.stream() for name, engine in engines.items()}
    steps: dict[str, Step] = {
        name: stepping(lambda frame, e=engine, s=streams[name]: e.advance(frame, s), frames)
        for name, engine in engines.items()
    }
    steps |= {name: stepping(advance, frames) for name, advance in peers.items()}
    times = times_in_turns(steps, rounds)
    products = {name: dense_products(peer_size, name) for name in peers}
    for name, stream in streams.items():
        products[name] = stream.executed.multiplications / stream.executed.num_frames
    shift_s = next(iter(data.values())).description.frame_shift_s
    density = " / ".join(f"{share:.1%}" for share in streams["engine, float32"].executed.density)
    rows = [
        {
            "Contestant": name,
            "us a frame": 1e6 * times[name].median() / len(frames),
            "ms a second of speech": 1e3 * times[name].median() / len(frames) / shift_s,
            "Multiplications a frame": products[name],
        }
        for name in times
    ]
    beside = ratios(times / len(frames), list(engines), list(peers))
    for row in beside:
        row["Multiplications, peer / ours"] = products[row["Peer"]] / products[row["Ours"]]
    return {
        f"Time per frame, spikes {density}": markdown(rows),
        "Beside dense networks": markdown(beside),
    }


def same_best(data: dict[str, EngineData], frames: list[Frame]) -> float:
    """Share of frames whose best output is the same with 8-bit weights."""
    together = np.concatenate(frames)
    engines = [Engine(data[precision]) for precision in PRECISIONS]
    best = [engine.advance(together, engine.stream()).argmax(axis=1) for engine in engines]
    return float((best[0] == best[1]).mean())


def time_densities(
    size: EngineSize,
    peers: dict[str, Callable[[Frame], object]],
    rounds: int,
    num_frames: int,
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """The engine at every density, and the times of the dense networks beside it."""
    rng = np.random.default_rng(2)
    noise = [rng.standard_normal((1, size.num_features), np.float32) for _ in range(num_frames)]
    steps: dict[str, Step] = {name: stepping(advance, noise) for name, advance in peers.items()}
    forced: dict[tuple[str, float], ForcedStep] = {}
    for precision in PRECISIONS:
        weights = forced_data(size, 1.0, precision).arrays["weights"]
        for density in DENSITIES:
            # All densities share their weights, or they would drive each other out of the cache.
            forced[precision, density] = forced_step(size, density, precision, weights, num_frames)
            steps[f"{precision} {density}"] = forced[precision, density].step
    times = times_in_turns(steps, rounds)
    medians = 1e6 * times.median() / num_frames
    fastest = min((name for name in peers if "int8" not in name), key=lambda name: medians[name])
    rows = []
    for density in DENSITIES:
        executed = forced["float32", density].stream.executed
        products = executed.multiplications / executed.num_frames
        outputs = sum(executed.description.site_sizes) * executed.num_frames
        rows.append(
            {
                "Density": f"{sum(executed.emitted) / outputs:.0%}",
                "Multiplications a frame": products,
                "Weights read, KiB": executed.weight_bytes / executed.num_frames / 1024,
                "float32, us": medians[f"float32 {density}"],
                "int8, us": medians[f"int8 {density}"],
                f"{fastest}: multiplications / ours": dense_products(size, fastest) / products,
                "its time / ours": medians[fastest] / medians[f"float32 {density}"],
            }
        )
    return rows, medians


def plot_densities(rows: list[dict[str, Any]], medians: pd.Series, peers: Sequence[str]) -> bytes:
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    shares = [100 * density for density in DENSITIES]
    for precision, marker in zip(PRECISIONS, "os", strict=True):
        times = [row[f"{precision}, us"] for row in rows]
        axes.loglog(shares, times, marker=marker, label=f"engine, {precision}")
    for number, peer in enumerate(peers):
        axes.axhline(medians[peer], color=f"C{number + 2}", linestyle="--", label=peer)
    axes.set(xlabel="Outputs that are not zero, %", ylabel="Time of a frame, us")
    axes.set_title("The sparser the spikes, the faster the engine")
    axes.legend()
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        figure.savefig(file.name, dpi=120)
        return Path(file.name).read_bytes()


def measure_process(data: EngineData, num_starts: int) -> dict[str, Any]:
    """Start-up, from the interpreter to the first scores, and what running adds to the memory."""
    with tempfile.TemporaryDirectory(prefix="spikeline-bench-") as folder:
        path, tiny = Path(folder) / "engine.spikes", Path(folder) / "tiny.spikes"
        path.write_bytes(write_engine(data))
        precision = data.description.precision
        tiny.write_bytes(write_engine(forced_data(EngineSize(8, 8, 1, 8), 0.1, precision)))

        def run(script: str, *arguments: Path, **variables: str) -> tuple[float, str]:
            started = time.perf_counter()
            command = [sys.executable, "-c", script, *map(str, arguments)]
            environment = {**os.environ, **variables}
            done = subprocess.run(command, env=environment, check=True, capture_output=True)
            return time.perf_counter() - started, done.stdout.decode()

        first_s, _ = run(_FIRST_FRAME, path, NUMBA_CACHE_DIR=str(Path(folder) / "cache"))
        starts = [run(_FIRST_FRAME, path)[0] for _ in range(num_starts)]
        before, after = map(int, run(_MEMORY, tiny, path)[1].split())
    return {
        "Weights": precision,
        "Weights, MiB": data.weight_bytes / 2**20,
        "First start ever, s": first_s,
        "Start, s": float(np.median(starts)),
        "Added to the peak, MiB": (after - before) / 1024,
        "Peak of the process, MiB": after / 1024,
    }


def main(
    model: str = "",
    peer_layers: int = 0,
    peer_hidden: int = 0,
    rounds: int = 15,
    frames: int = 100,
    small: SmallOption = False,
    record: RecordOption = None,
) -> None:
    """The event-driven engine of a trained model, or at chosen densities alone."""
    rounds, frames = (2, 20) if small else (rounds, frames)
    size = EngineSize(40, 550, 2, 1000)
    sections: dict[str, str] = {}
    facts = ["one process, one thread, one frame at a time, in turns"]
    data = {precision: forced_data(size, 0.1, precision) for precision in PRECISIONS}
    if model:
        trained = load_model(Location.of(model))
        data = {precision: build_engine(trained, precision) for precision in PRECISIONS}
        described = data["float32"].description
        size = EngineSize(*(getattr(described, field) for field in EngineSize._fields))
        facts.append(f"{described.model}, frames of {1000 * described.frame_shift_s:.0f} ms")
    peer_size = size._replace(
        hidden_size=peer_hidden or size.hidden_size, num_layers=peer_layers or size.num_layers
    )
    peers = dense_peers(peer_size)
    facts.append(
        f"engine: F={size.num_features}, {size.num_layers} x {size.hidden_size}, "
        f"O={size.num_outputs}; dense networks: {peer_size.num_layers} x {peer_size.hidden_size}"
    )
    if model:
        speech = frames_of_test_speech(trained, max(frames, 2000))
        sections |= time_model(data, speech[:frames], peers, peer_size, rounds)
        share = same_best(data, speech)
        facts.append(
            f"{share:.1%} of {len(speech):,} frames have the same best output with 8-bit weights"
        )
    same_size = peers if peer_size == size else dense_peers(size)
    rows, medians = time_densities(size, same_size, max(2, rounds // 2), max(20, frames // 2))
    picture = "" if record is None else f"![]({record.stem}-density.png)\n\n"
    sections["Time against density, dense networks of the same size"] = picture + markdown(rows)
    dense = [{"Dense network": name, "us a frame": medians[name]} for name in same_size]
    sections["Dense networks in the same rounds"] = markdown(dense)
    starts = 2 if small else 5
    sections["Processes"] = markdown(measure_process(one, starts) for one in data.values())
    publish(
        "Event-driven engine beside dense networks",
        facts,
        sections,
        ("torch", "numba", "numpy", "onnxruntime", "onnx"),
        record,
    )
    if record is not None:
        picture_file = record.with_name(f"{record.stem}-density.png")
        picture_file.write_bytes(plot_densities(rows, medians, list(same_size)))


if __name__ == "__main__":
    typer.run(main)
