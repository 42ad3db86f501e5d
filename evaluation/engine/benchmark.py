"""``spikeline bench event-driven``: the engine beside dense networks, and what its sparsity gives.

One process, one thread, one frame at a time. All contestants read the same frames in turns; a
figure is the median over rounds, a ratio the median over rounds of peer / ours. Peers are a GRU and
an LSTM of the same sizes with random weights: a dense step takes the same time whatever they are.

Beside the timings: start-up and memory, error rates of both precisions, garbage fed in, and whether
the engine is exact on every utterance (``evaluation.engine.exactness``).
"""

import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from evaluation.config import ViterbiConfig
from evaluation.decoding import Decoder, ctc_greedy, phone_search
from evaluation.engine.build import build_engine
from evaluation.engine.density_curve import DensityCurve, measure_curve, time_steps
from evaluation.engine.description import Precision
from evaluation.engine.engine import Engine, Stream
from evaluation.engine.exactness import PRECISIONS, Exactness, check_exactness
from evaluation.engine.footprint import Footprint, measure_footprint
from evaluation.engine.from_run import front_end_of
from evaluation.engine.garbage import GarbageOutcome, feed_garbage
from evaluation.engine.offline import score_all
from evaluation.engine.peers import Step, onnx_steps, torch_step
from evaluation.multiplications import NetworkShape, dense_cost
from evaluation.recognise import choose_cmvn
from evaluation.scoring import count_edits, scored_transcript
from featurize.cmvn import Normaliser
from featurize.schema import FeatureRow, FeaturizeManifest
from featurize.shards import iter_rows
from featurize.stage import (
    Location,
    PipelineError,
    TypedConfig,
    read_manifest,
    software_versions,
    timestamp,
)
from training.checkpoint import Recogniser, load_recogniser
from training.models.network import OutputLayer
from training.models.spiking import SpikingNetwork

Frames = NDArray[np.float32]

_UTTERANCES_AT_ONCE = 16

GRU, LSTM = "torch nn.GRU", "torch nn.LSTM"
ONNX_NAMES = {
    "operator": "ONNX Runtime GRU, operator",
    "products": "ONNX Runtime GRU, products",
    "int8": "ONNX Runtime GRU, int8",
}

# (ours, peer): how many times faster the project sets out to be; the ONNX float GRU by its
# faster form.
REQUIRED_RATIOS = {
    ("float32", GRU): 10.0,
    ("float32", "ONNX Runtime GRU, float32"): 4.0,
    ("int8", "ONNX Runtime GRU, int8"): 2.0,
}


class EventDrivenBenchConfig(TypedConfig):
    """What to measure."""

    num_outputs: int | None = Field(
        1000,
        ge=2,
        description="Rows of the output layer; a trained model with fewer gets random ones for "
        "the timing. Empty for the model's own.",
    )
    split: str = Field("test", description="Split of the feature set whose frames are read.")
    frames_per_round: int = Field(100, ge=10, description="Frames of a turn.")
    num_rounds: int = Field(15, ge=3, description="Measured rounds.")
    curve: bool = Field(True, description="Time against density as well.")
    footprint: bool = Field(True, description="Start-up and memory as well.")
    first_start: bool = Field(True, description="A start with nothing compiled yet as well.")
    error_rates: bool = Field(
        True, description="Error rates of the float32 and the int8 engine on the split as well."
    )
    exactness: bool = Field(
        True,
        description="Whether counts and outputs are the training-time model's on every utterance "
        "of the split as well.",
    )
    hours_of_zeros: float = Field(
        8.0, ge=0, description="Of the longest garbage fed in; 0 for no garbage at all."
    )
    num_onnx_frames: int = Field(
        2000, ge=0, description="Frames that the exported ONNX step is compared on; 0 for none."
    )


class TimedStep(TypedConfig):
    """One contestant."""

    name: str = Field(description="Which.")
    frame_us: float = Field(description="Median time per frame.")
    fastest_us: float = Field(description="Fastest round.")
    multiplications: float = Field(description="Products per frame, matrix terms.")


class Ratio(TypedConfig):
    """How many times faster the engine is than a peer."""

    ours: Precision = Field(description="Which engine.")
    peer: str = Field(description="Which peer.")
    ratio: float = Field(description="Median over rounds.")
    counted: float = Field(description="Peer's products over ours.")
    required: float | None = Field(description="What the project set out for.")


class EngineErrorRate(TypedConfig):
    """Errors of one engine over the whole split, greedy or by phone search."""

    precision: Precision = Field(description="Of the weights.")
    error_rate: float = Field(description="Errors over reference symbols.")
    num_utterances: int = Field(description="Scored.")


class EventDrivenBenchResult(TypedConfig):
    """Everything the benchmark found."""

    config: EventDrivenBenchConfig = Field(description="What was measured.")
    model: str = Field(description="Address of the training run.")
    model_name: str = Field(description="Kind of model.")
    trained_outputs: int = Field(description="Rows that the output layer was trained with.")
    size: tuple[int, int, int, int] = Field(description="F, H, L, O as timed.")
    frame_shift_s: float = Field(description="Seconds of audio per frame.")
    density: tuple[float, ...] = Field(description="Share of non-zero outputs on these frames.")
    steps: tuple[TimedStep, ...] = Field(description="Contestants.")
    ratios: tuple[Ratio, ...] = Field(description="Engine against peers.")
    curve: DensityCurve | None = Field(None, description="Time against density.")
    footprints: tuple[Footprint, ...] = Field((), description="Start-up and memory.")
    error_rates: tuple[EngineErrorRate, ...] = Field((), description="By precision.")
    garbage: tuple[GarbageOutcome, ...] = Field((), description="Inputs that are no speech.")
    exactness: tuple[Exactness, ...] = Field((), description="This model, then the others named.")
    skipped: dict[str, str] = Field(description="What was not measured, and why.")
    versions: dict[str, str] = Field(description="Software.")
    measured_at: str = Field(description="When, UTC.")


def bench_event_driven(
    config: EventDrivenBenchConfig,
    model: Location,
    features: Location | None,
    others: Sequence[Location] = (),
    evaluation: Location | None = None,
) -> EventDrivenBenchResult:
    """Measure the engine of a trained model.

    Args:
        config: what to measure.
        model: a finished training run of a spiking model.
        features: a feature set; the model's own where not given.
        others: more such runs, each with its own feature set, of which exactness alone is checked.
        evaluation: a finished evaluation, of any of them, whose recorded counts are checked.

    Raises:
        PipelineError: when either is unfinished, or the model does not spike.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = _Bench(config, model, features).run()
        if not config.exactness:
            return result
        checks = [(model, features), *((other, None) for other in others)]
        exactness = tuple(
            check_exactness(
                run,
                own,
                split=config.split,
                evaluation=evaluation,
                num_onnx_frames=config.num_onnx_frames,
            )
            for run, own in checks
        )
        return result.model_copy(update={"exactness": exactness})
    finally:
        torch.set_num_threads(threads)


class _Bench:
    def __init__(
        self, config: EventDrivenBenchConfig, model: Location, features: Location | None
    ) -> None:
        self.config, self.model = config, model
        self.recogniser = load_recogniser(model)
        network = self.recogniser.network
        if not isinstance(network, SpikingNetwork):
            raise PipelineError(f"{model} is a {network.config.model}; name a spiking model")
        self.trained_outputs = network.num_outputs
        self.location = features or Location.of(self.recogniser.manifest.features)
        self.features = read_manifest(self.location, FeaturizeManifest)
        self.error_rates = self._error_rates() if config.error_rates else ()
        self.skipped: dict[str, str] = {}
        self.garbage = self._garbage()
        if config.num_outputs is not None and config.num_outputs > network.num_outputs:
            self.recogniser = widened(self.recogniser, config.num_outputs)

    def run(self) -> EventDrivenBenchResult:
        network = self.recogniser.network
        shape = NetworkShape.of(network.config, network.num_features, network.num_outputs)
        size = (shape.num_features, shape.hidden_size, shape.num_layers, shape.num_outputs)
        frames = self._frames()
        peers = self._peers(size)
        engines = {
            precision: Engine(build_engine(self.recogniser, precision)) for precision in PRECISIONS
        }
        streams = {precision: engine.stream() for precision, engine in engines.items()}
        steps: dict[str, Step] = {
            precision: partial(engine.advance, stream=streams[precision])
            for precision, engine in engines.items()
        } | peers
        times = time_steps(steps, dict.fromkeys(steps, frames), self.config.num_rounds)
        _add_faster_onnx(times)
        products = {
            name: dense_cost(shape, "lstm" if name == LSTM else "gru")[0] for name in times
        } | {precision: _products_per_frame(stream) for precision, stream in streams.items()}
        return EventDrivenBenchResult(
            config=self.config,
            model=self.model.uri,
            model_name=network.config.model,
            trained_outputs=self.trained_outputs,
            size=size,
            frame_shift_s=self.recogniser.manifest.frame_shift_s,
            density=streams["float32"].executed.density,
            steps=tuple(
                TimedStep(
                    name=name,
                    frame_us=statistics.median(values),
                    fastest_us=min(values),
                    multiplications=products[name],
                )
                for name, values in times.items()
            ),
            ratios=_ratios(times, products),
            curve=self._curve(size, peers, shape) if self.config.curve else None,
            footprints=self._footprints(),
            error_rates=self.error_rates,
            garbage=self.garbage,
            skipped=self.skipped,
            versions=software_versions("torch", "numba", "numpy", "onnxruntime", "onnx"),
            measured_at=timestamp(),
        )

    def _frames(self) -> list[Frames]:
        """Frames of test speech, one by one."""
        found: list[Frames] = []
        for frame in self._normalised(self._rows()):
            found.extend(frame[n : n + 1] for n in range(len(frame)))
            if len(found) >= self.config.frames_per_round:
                return found[: self.config.frames_per_round]
        raise PipelineError(
            f"split={self.config.split} has {len(found)} frames, fewer than "
            f"frames_per_round={self.config.frames_per_round}; lower it"
        )

    def _rows(self) -> Sequence[FeatureRow]:
        subsets = self.features.splits.get(self.config.split, ())
        if not subsets:
            raise PipelineError(f"split={self.config.split} has no subsets in {self.location}")
        return list(islice(iter_rows(self.location, self.features, subsets), 2000))

    def _normalised(self, rows: Sequence[FeatureRow]) -> Sequence[Frames]:
        normalise = Normaliser(choose_cmvn(self.recogniser.manifest, self.features))
        return [normalise(row) for row in rows]

    def _peers(self, size: tuple[int, int, int, int]) -> dict[str, Step]:
        peers = {GRU: torch_step("gru", *size), LSTM: torch_step("lstm", *size)}
        try:
            dense = onnx_steps(*size)
        except ImportError as error:
            self.skipped["ONNX Runtime"] = f"{error}; pip install -e '.[export]'"
            return peers
        return peers | {ONNX_NAMES[name]: step for name, step in dense.items()}

    def _curve(
        self, size: tuple[int, int, int, int], peers: dict[str, Step], shape: NetworkShape
    ) -> DensityCurve:
        return measure_curve(
            size,
            peers,
            {name: dense_cost(shape, "lstm" if name == LSTM else "gru")[0] for name in peers},
            frames_per_round=max(20, self.config.frames_per_round // 2),
            num_rounds=max(3, self.config.num_rounds // 2),
        )

    def _footprints(self) -> tuple[Footprint, ...]:
        if not self.config.footprint:
            return ()
        return tuple(
            measure_footprint(
                build_engine(self.recogniser, precision),
                num_starts=5,
                with_first=self.config.first_start and precision == "float32",
            )
            for precision in PRECISIONS
        )

    def _garbage(self) -> tuple[GarbageOutcome, ...]:
        if not self.config.hours_of_zeros:
            return ()
        try:
            front_end = front_end_of(self.recogniser.manifest, self.model.uri, self.location.uri)
        except PipelineError as error:
            self.skipped["garbage"] = str(error)
            return ()
        data = build_engine(self.recogniser, "float32", front_end)
        return feed_garbage(data, self.config.hours_of_zeros)

    def _error_rates(self) -> tuple[EngineErrorRate, ...]:
        rows = self._rows()
        features = self._normalised(rows)
        return tuple(self._error_rate(precision, rows, features) for precision in PRECISIONS)

    def _decoder(self) -> Decoder:
        if self.recogniser.manifest.config.objective == "ctc":
            return ctc_greedy
        return phone_search(self.recogniser, ViterbiConfig())

    def _error_rate(
        self, precision: Precision, rows: Sequence[FeatureRow], features: Sequence[Frames]
    ) -> EngineErrorRate:
        labels, decode = self.recogniser.manifest.labels, self._decoder()
        delay = self.recogniser.target_delay
        engine = Engine(build_engine(self.recogniser, precision))
        errors = length = 0
        # No timing: a search through senones takes a while, and every core may help.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(rows), _UTTERANCES_AT_ONCE):
                chosen = slice(start, start + _UTTERANCES_AT_ONCE)
                log_probs = [
                    scored.log_probs_TO[delay:] for scored in score_all(engine, features[chosen], 1)
                ]
                for row, ids in zip(rows[chosen], pool.map(decode, log_probs), strict=True):
                    edits = count_edits(
                        scored_transcript(row.labels.tolist(), labels).symbols,
                        scored_transcript(ids, labels).symbols,
                    )
                    errors += edits.errors
                    length += edits.reference_length
        return EngineErrorRate(
            precision=precision, error_rate=errors / max(1, length), num_utterances=len(rows)
        )


def widened(recogniser: Recogniser, num_outputs: int) -> Recogniser:
    """Give the output layer more rows, random ones after the trained ones, for timing alone.

    The network is changed in place. What comes out means nothing any more, and is not searched.
    """
    network, manifest = recogniser.network, recogniser.manifest
    assert isinstance(network, SpikingNetwork)
    torch.manual_seed(0)
    wide = OutputLayer(network.config.hidden_size, num_outputs).eval()
    with torch.no_grad():
        wide.linear.weight[: network.num_outputs] = network.output.linear.weight
    network.output, network.num_outputs = wide, num_outputs
    config = manifest.config.model_copy(update={"objective": "ctc", "target_delay": None})
    changed = manifest.model_copy(update={"config": config, "states": None})
    return replace(recogniser, manifest=changed)


def _products_per_frame(stream: Stream) -> float:
    executed = stream.executed
    return executed.multiplications / executed.num_frames


def _add_faster_onnx(times: dict[str, list[float]]) -> None:
    """Name the faster of the two float32 forms, which is what the engine is held against."""
    forms = [ONNX_NAMES[name] for name in ("operator", "products")]
    if forms[0] in times:
        faster = min(forms, key=lambda name: statistics.median(times[name]))
        times["ONNX Runtime GRU, float32"] = times[faster]


def _ratios(times: dict[str, list[float]], products: dict[str, float]) -> tuple[Ratio, ...]:
    ratios = []
    for ours in PRECISIONS:
        for peer in times:
            if peer in PRECISIONS or peer in (ONNX_NAMES["operator"], ONNX_NAMES["products"]):
                continue
            per_round = [a / b for a, b in zip(times[peer], times[ours], strict=True)]
            ratios.append(
                Ratio(
                    ours=ours,
                    peer=peer,
                    ratio=statistics.median(per_round),
                    counted=products[peer] / max(1.0, products[ours]),
                    required=REQUIRED_RATIOS.get((ours, peer)),
                )
            )
    return tuple(ratios)
