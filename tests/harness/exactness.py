"""Whether the engine does exactly what the training-time model does, utterance by utterance.

Nothing is rounded or averaged:

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
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from evaluation.engine.build import build_engine
from evaluation.engine.counts import ExecutedCounts
from evaluation.engine.engine import Engine
from evaluation.metrics import EvaluationMetrics
from evaluation.multiplications import measure_activity
from evaluation.recognise import choose_cmvn, network_shape, recognise
from featurize.cmvn import Normaliser
from featurize.schema import FeaturizeManifest
from featurize.stage import Location, read_manifest
from tests.harness.batches import stream_batches
from training.models.counting import count_terms
from training.trained_model import load_model

LARGEST_DIFFERENCE = 1e-4
PRECISIONS = ("float32", "int8")


@dataclass
class Agreement:
    """What was compared, and utterances with a difference by its kind.

    Attributes:
        num_recorded: utterances whose counts were read from a finished evaluation; those of the
            others are what an evaluation would write.
        differing: kind of difference to the utterances that have it; empty where all is exact.
    """

    num_utterances: int = 0
    num_frames: int = 0
    num_spikes: int = 0
    num_recorded: int = 0
    differing: dict[str, list[str]] = field(default_factory=dict)


def agreement(
    model: Location, features: Location, split: str = "test", evaluation: Location | None = None
) -> Agreement:
    """Compare a model with its engine on every utterance of a split.

    Args:
        model: a finished training run of a spiking model.
        features: a finished feature set.
        split: of the feature set.
        evaluation: a finished evaluation of the model, whose recorded counts are compared as well.
    """
    recogniser, manifest = load_model(model), read_manifest(features, FeaturizeManifest)
    recorded = {} if evaluation is None else recorded_counts(evaluation)
    engines = {kind: Engine(build_engine(recogniser, kind)) for kind in PRECISIONS}
    shape, delay = network_shape(recogniser), recogniser.target_delay
    cmvn = choose_cmvn(recogniser.manifest, manifest)
    normalise, rng, found = Normaliser(cmvn), np.random.default_rng(0), Agreement()
    batches = stream_batches(features, manifest, manifest.splits[split], 16)

    def audit(outputs, length):
        (activity,) = measure_activity(shape, outputs, length)
        return audited_counts(count_terms(shape, activity))

    for recognition in recognise(recogniser, batches, cmvn):
        name, x_TF = recognition.row.utterance_id, normalise(recognition.row)
        length = torch.tensor([len(x_TF)])
        with torch.inference_mode():
            output = recogniser.network(torch.from_numpy(x_TF).unsqueeze(1), length)
        wanted = [site[:, 0].numpy() for site in output.site_outputs]
        counts = audit(output.site_outputs, length)
        written = audited_counts(count_terms(shape, recognition.activity))
        sites, executed, is_uncut = run_cut(engines["float32"], x_TF, rng)
        own, executed_int8, is_uncut_int8 = run_cut(engines["int8"], x_TF, rng)
        own_outputs = [torch.from_numpy(site).unsqueeze(1) for site in own]
        log_probs_TO = output.log_probs_TBO[delay:, 0].numpy()
        agrees = {
            "spikes": all(map(np.array_equal, sites, wanted)),
            "log-probabilities": np.allclose(
                recognition.log_probs_TO, log_probs_TO, rtol=0, atol=LARGEST_DIFFERENCE
            ),
            "float32 counts": executed_counts(executed) == counts,
            "int8 counts": executed_counts(executed_int8) == audit(own_outputs, length),
            "recorded counts": written == counts and recorded.get(name, counts) == counts,
            "cuttings": is_uncut and is_uncut_int8,
        }
        for kind, is_same in agrees.items():
            if not is_same:
                found.differing.setdefault(kind, []).append(name)
        found.num_utterances += 1
        found.num_frames += len(x_TF)
        found.num_spikes += sum(int(np.count_nonzero(site)) for site in wanted)
        found.num_recorded += name in recorded
    return found


def run_cut(engine: Engine, x_TF, rng) -> tuple[list, ExecutedCounts, bool]:
    """Every site's outputs frame by frame, the counts, and whether other cuttings give the same."""
    sites = [np.zeros((len(x_TF), size), np.float32) for size in engine.description.site_sizes]
    scores_TO = np.zeros((len(x_TF), engine.description.num_outputs), np.float32)
    stream = engine.stream()
    for t in range(len(x_TF)):
        scores_TO[t : t + 1] = engine.advance(x_TF[t : t + 1], stream)
        for number, site_TH in enumerate(sites):
            stream.write_spikes(number, site_TH[t])
    is_same, num_frames = True, len(x_TF)
    for cuts in ([], sorted(rng.integers(0, num_frames + 1, 6).tolist())):
        other = engine.stream()
        edges = itertools.pairwise([0, *cuts, num_frames])
        pieces = [engine.advance(x_TF[start:end], other) for start, end in edges]
        is_same &= np.array_equal(np.concatenate(pieces), scores_TO)
        is_same &= other.executed == stream.executed
    return sites, stream.executed, is_same


def audited_counts(terms) -> tuple:
    """An audit, comparable: term, rows, fan-out, multiplications, additions."""
    return tuple((t.term, t.nonzeros, t.fan_out, t.multiplications, t.additions) for t in terms)


def executed_counts(executed: ExecutedCounts) -> tuple:
    """What was executed, comparable with an audit of the float model, which rescales nothing."""
    return tuple(
        (t.term, t.num_rows, t.fan_out, t.multiplications, t.additions)
        for t in executed.terms()
        if t.term != "rescaling"
    )


def recorded_counts(evaluation: Location) -> dict[str, tuple]:
    """What a finished evaluation of one model recorded of each utterance."""
    metrics = EvaluationMetrics.model_validate_json(evaluation.child("metrics.json").read_bytes())
    (model,) = metrics.models
    content = evaluation.child("multiplications.parquet").read_bytes()
    found: dict[str, tuple] = {}
    columns = ("term", "nonzeros", "fan_out", "multiplications", "additions")
    for row in pq.read_table(pa.BufferReader(content)).to_pylist():
        assert row["model"] == model.label
        term = tuple(row[column] for column in columns)
        found[row["utterance_id"]] = (*found.get(row["utterance_id"], ()), term)
    return found
