"""Whether the engine does exactly what the training-time model does, utterance by utterance.

Per utterance, and nothing is rounded or averaged:

- **spikes**: the float32 engine's outputs of every site at every frame equal the network's in
  evaluation mode bit by bit; log-probabilities may differ by ``LARGEST_DIFFERENCE``.
- **counts**: what the engine executed (rows of weights added up, products, sums, elementwise
  operations) equals, term by term, the evaluation's audit of the network's own outputs and what the
  evaluation records of the utterance. With 8-bit weights the network has other spikes, so that
  engine is held against the audit of the spikes it sent.
- **cuttings**: frame by frame, at once and in random pieces, scores and counts are the same.

Shape legend: T frames, F features, O outputs.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from evaluation.engine.build import build_engine
from evaluation.engine.counts import ExecutedCounts
from evaluation.engine.description import Precision
from evaluation.engine.engine import Engine, Floats
from evaluation.engine.onnx_run import OnnxComparison, compare_onnx
from evaluation.manifest import EvaluateManifest
from evaluation.metrics import EvaluationMetrics
from evaluation.multiplications import TermCount, count_terms, measure_activity
from evaluation.recognise import Recognition, choose_cmvn, network_shape, recognise, stream_batches
from featurize.cmvn import Normaliser
from featurize.schema import FeaturizeManifest
from featurize.stage import Location, PipelineError, TypedConfig, read_manifest
from training.checkpoint import Recogniser, load_recogniser

LARGEST_DIFFERENCE = 1e-4
PRECISIONS: tuple[Precision, ...] = ("float32", "int8")

_BATCH = 16
_RESCALING = "rescaling"  # of 8-bit weights; an audit of the float model has none

Counts = tuple[tuple[str, int, int, int, int], ...]
"""Term, rows, fan-out, multiplications, additions."""


class Exactness(TypedConfig):
    """One model's agreement with its engine over a set of utterances."""

    model: str = Field(description="Address of the training run.")
    model_name: str = Field(description="Kind of model.")
    num_layers: int = Field(description="L.")
    hidden_size: int = Field(description="H.")
    num_utterances: int = Field(description="Utterances compared.")
    num_frames: int = Field(description="Their frames.")
    num_spikes: int = Field(description="Non-zero outputs of the network, all sites.")
    multiplications: int = Field(description="Audited, all utterances.")
    differing_outputs: int = Field(description="Outputs of a site that are not the network's.")
    largest_difference: float = Field(description="Of a log-probability.")
    differing_cuttings: int = Field(description="Utterances that depend on how they are cut.")
    differing_counts: dict[Precision, int] = Field(
        description="Utterances with a term that is not the audited one, by precision of weights."
    )
    differing_records: int = Field(
        description="Utterances whose recorded counts are not the executed ones."
    )
    num_recorded: int = Field(
        description="Utterances whose counts were read from a finished evaluation's file; the "
        "others' are what an evaluation would write."
    )
    onnx: OnnxComparison | None = Field(
        None, description="The exported step in ONNX Runtime; empty where it is not installed."
    )

    @property
    def is_exact(self) -> bool:
        """Whether nothing differs, scores within ``LARGEST_DIFFERENCE``."""
        differing = (
            self.differing_outputs,
            self.differing_cuttings,
            self.differing_records,
            *self.differing_counts.values(),
        )
        return not any(differing) and self.largest_difference <= LARGEST_DIFFERENCE


def check_exactness(
    model: Location,
    features: Location | None = None,
    *,
    split: str = "test",
    evaluation: Location | None = None,
    num_onnx_frames: int = 0,
) -> Exactness:
    """Compare a model with its engine on every utterance of a split.

    Args:
        model: a finished training run of a spiking model.
        features: a feature set; the model's own where not given.
        split: of the feature set.
        evaluation: a finished evaluation whose recorded counts are held against those executed,
            where it has this model.
        num_onnx_frames: frames to run through the exported ONNX step as well.

    Raises:
        PipelineError: when something is unfinished, the model does not spike, or its spikes are
            not quantised, so that an evaluation does not run it in the engine.
    """
    recogniser = load_recogniser(model)
    location = features or Location.of(recogniser.manifest.features)
    manifest = read_manifest(location, FeaturizeManifest)
    subsets = manifest.splits.get(split, ())
    if not subsets:
        raise PipelineError(f"split={split} has no subsets in {location}")
    recorded = {} if evaluation is None else recorded_counts(evaluation, recogniser)
    comparison = _Comparison(recogniser, model.uri)
    cmvn = choose_cmvn(recogniser.manifest, manifest)
    normalise = Normaliser(cmvn)
    frames: list[Floats] = []
    batches = stream_batches(location, manifest, subsets, _BATCH)
    for recognition in recognise(recogniser, batches, cmvn):
        x_TF = normalise(recognition.row)
        comparison.add(recognition, x_TF, recorded.get(recognition.row.utterance_id))
        if sum(map(len, frames)) < num_onnx_frames:
            frames.append(x_TF)
    onnx = None
    if frames:
        onnx = compare_onnx(comparison.data["float32"], np.concatenate(frames)[:num_onnx_frames])
    return comparison.result(onnx)


def recorded_counts(evaluation: Location, recogniser: Recogniser) -> dict[str, Counts]:
    """What a finished evaluation recorded of each utterance, empty where it lacks the model."""
    read_manifest(evaluation, EvaluateManifest)
    metrics = EvaluationMetrics.model_validate_json(evaluation.child("metrics.json").read_bytes())
    trained = recogniser.manifest.fingerprint
    labels = [m.label for m in metrics.models if m.training_fingerprint == trained]
    if not labels:
        return {}
    content = evaluation.child("multiplications.parquet").read_bytes()
    rows = pq.read_table(pa.BufferReader(content)).to_pylist()
    found: dict[str, list[tuple[str, int, int, int, int]]] = {}
    columns = ("term", "nonzeros", "fan_out", "multiplications", "additions")
    for row in rows:
        if row["model"] == labels[0]:
            term = tuple(row[column] for column in columns)
            found.setdefault(row["utterance_id"], []).append(term)
    return {utterance: tuple(terms) for utterance, terms in found.items()}


def audited_counts(terms: Sequence[TermCount]) -> Counts:
    """An audit, comparable."""
    return tuple((t.term, t.nonzeros, t.fan_out, t.multiplications, t.additions) for t in terms)


def executed_counts(executed: ExecutedCounts) -> Counts:
    """What was executed, comparable with an audit of the float model."""
    return tuple(
        (t.term, t.num_rows, t.fan_out, t.multiplications, t.additions)
        for t in executed.terms()
        if t.term != _RESCALING
    )


class _Comparison:
    """Adds up the differences of one model over utterances."""

    def __init__(self, recogniser: Recogniser, address: str) -> None:
        self.recogniser, self.address = recogniser, address
        self.shape = network_shape(recogniser)
        self.data = {kind: build_engine(recogniser, kind) for kind in PRECISIONS}
        self.engines = {kind: Engine(data) for kind, data in self.data.items()}
        self.rng = np.random.default_rng(0)
        self.totals = dict.fromkeys(
            ("utterances", "frames", "spikes", "products", "outputs", "cuttings", "recorded"), 0
        )
        self.differing_records = 0
        self.differing_counts: dict[Precision, int] = dict.fromkeys(PRECISIONS, 0)
        self.largest_difference = 0.0

    def add(self, recognition: Recognition, x_TF: Floats, recorded: Counts | None) -> None:
        """Compare one utterance.

        Args:
            recognition: what the evaluation makes of it.
            x_TF: its normalised frames.
            recorded: what a finished evaluation wrote down.
        """
        length = torch.tensor([len(x_TF)])
        with torch.inference_mode():
            output = self.recogniser.network(torch.from_numpy(x_TF).unsqueeze(1), length)
        wanted = [site[:, 0].numpy() for site in output.site_outputs]
        audit = self._audit(output.site_outputs, length)
        counts = audited_counts(audit)
        written = audited_counts(count_terms(self.shape, recognition.activity))
        sites, executed = self._run("float32", x_TF)
        log_probs_TO = output.log_probs_TBO[self.recogniser.target_delay :, 0].numpy()
        self._note_scores(recognition.log_probs_TO, log_probs_TO)
        self.totals["utterances"] += 1
        self.totals["frames"] += len(x_TF)
        self.totals["spikes"] += sum(int(np.count_nonzero(site)) for site in wanted)
        self.totals["products"] += sum(t.multiplications for t in audit if t.fan_out)
        self.totals["outputs"] += sum(
            int(np.count_nonzero(ours != theirs))
            for ours, theirs in zip(sites, wanted, strict=True)
        )
        self.totals["recorded"] += recorded is not None
        self.differing_records += written != counts or recorded not in (None, counts)
        self.differing_counts["float32"] += executed_counts(executed) != counts
        sites, executed = self._run("int8", x_TF)
        own = [torch.from_numpy(site).unsqueeze(1) for site in sites]
        differs = executed_counts(executed) != audited_counts(self._audit(own, length))
        self.differing_counts["int8"] += differs

    def _audit(self, outputs: Sequence[Tensor], length: Tensor) -> tuple[TermCount, ...]:
        (activity,) = measure_activity(self.shape, outputs, length)
        return count_terms(self.shape, activity)

    def _note_scores(self, ours_TO: Floats, theirs_TO: Floats) -> None:
        if ours_TO.size:
            largest = float(np.abs(ours_TO - theirs_TO).max())
            self.largest_difference = max(self.largest_difference, largest)

    def _run(
        self, precision: Precision, x_TF: Floats
    ) -> tuple[list[NDArray[np.float32]], ExecutedCounts]:
        """Every site's outputs, frame by frame, and the counts; compared with other cuttings."""
        engine = self.engines[precision]
        sizes = engine.description.site_sizes
        sites = [np.zeros((len(x_TF), size), np.float32) for size in sizes]
        scores_TO = np.zeros((len(x_TF), engine.description.num_outputs), np.float32)
        stream = engine.stream()
        for t in range(len(x_TF)):
            scores_TO[t : t + 1] = engine.advance(x_TF[t : t + 1], stream)
            for number, site_TH in enumerate(sites):
                stream.write_spikes(number, site_TH[t])
        agrees = True
        for edges in ([0, len(x_TF)], self._edges(len(x_TF))):
            other = engine.stream()
            pieces = [engine.advance(x_TF[a:b], other) for a, b in itertools.pairwise(edges)]
            agrees &= np.array_equal(np.concatenate(pieces), scores_TO)
            agrees &= other.executed == stream.executed
        self.totals["cuttings"] += not agrees
        return sites, stream.executed

    def _edges(self, num_frames: int) -> list[int]:
        cuts = self.rng.integers(0, num_frames + 1, 6).tolist()
        return [0, *sorted(cuts), num_frames]

    def result(self, onnx: OnnxComparison | None) -> Exactness:
        """The totals."""
        totals = self.totals
        return Exactness(
            model=self.address,
            model_name=self.shape.model,
            num_layers=self.shape.num_layers,
            hidden_size=self.shape.hidden_size,
            num_utterances=totals["utterances"],
            num_frames=totals["frames"],
            num_spikes=totals["spikes"],
            multiplications=totals["products"],
            differing_outputs=totals["outputs"],
            largest_difference=self.largest_difference,
            differing_cuttings=totals["cuttings"],
            differing_counts=self.differing_counts,
            differing_records=self.differing_records,
            num_recorded=totals["recorded"],
            onnx=onnx,
        )
