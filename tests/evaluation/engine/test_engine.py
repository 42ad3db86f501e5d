import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.engine.build import build_engine
from evaluation.engine.engine import Engine, log_softmax
from evaluation.multiplications import measure_activity
from evaluation.recognise import network_shape, recognise
from featurize.schema import FeaturizeManifest
from featurize.stage import PipelineError, read_manifest
from tests.harness.batches import stream_batches
from training.batching import collate
from training.models.counting import NetworkShape, count_terms
from training.trained_model import load_model

NUM_FEATURES = 7


def frames(num_frames, seed=0, num_features=NUM_FEATURES):
    return (1.5 * np.random.default_rng(seed).standard_normal((num_frames, num_features))).astype(
        np.float32
    )


def trained_output(recogniser, features):
    with torch.inference_mode():
        return recogniser.network(
            torch.from_numpy(features).unsqueeze(1), torch.tensor([len(features)])
        )


def run_by_frame(engine, features):
    """Outputs of every site at every frame, and the log-probabilities."""
    stream = engine.stream()
    sites, scores = [], []
    for frame in features:
        scores.append(engine.advance(frame[None], stream))
        sites.append([stream.spikes(site) for site in range(engine.description.num_layers + 1)])
    return [np.stack(site) for site in zip(*sites, strict=True)], np.concatenate(scores), stream


V3 = {"encoder_threshold": 3, "threshold": 6}
V3_OPTIONS = [
    V3,
    {**V3, "hidden_size": 70, "num_layers": 3, "projection_size": 5},
    {**V3, "num_bits": 8, "v3": {"initial_range": 1.0}},
    {**V3, "threshold": 3, "v3": {"residue_leak": False, "learned_levels": False}},
    {**V3, "v3": {"learned_levels": False}},
]
MODELS = [
    ("conventional", {}),
    ("v1", {}),
    ("v2", {}),
    ("v2", {"hidden_size": 70, "num_layers": 3}),
    ("v2", {"num_bits": 8, "threshold": 0}),
    ("v2", {"projection_size": 5}),
    ("v1", {"num_bits": 1, "threshold": 0}),
    *(("v3", options) for options in V3_OPTIONS),
    ("v2", {"num_bits": 32}),
]


@pytest.mark.parametrize(("model", "sizes"), MODELS)
def test_spikes_are_the_training_models_bit_by_bit(write_model, model, sizes):
    recogniser = load_model(write_model(model, **sizes))
    features = frames(60)
    expected = trained_output(recogniser, features)
    sites, scores, _ = run_by_frame(Engine(build_engine(recogniser)), features)
    for found, wanted in zip(sites, expected.site_outputs, strict=True):
        assert np.count_nonzero(wanted) > 0
        np.testing.assert_array_equal(found, wanted[:, 0].numpy())
    np.testing.assert_allclose(
        log_softmax(scores), expected.log_probs_TBO[:, 0].numpy(), rtol=0, atol=1e-4
    )


def test_any_cutting_of_the_stream_gives_the_same(write_model):
    engines = [
        Engine(build_engine(load_model(write_model(model)), precision))
        for model in ("conventional", "v1", "v2", "v3")
        for precision in ("float32", "int8")
    ]
    features = frames(45, seed=3)

    @settings(max_examples=60)
    @given(engine=st.sampled_from(engines), cuts=st.lists(st.integers(0, 45), max_size=8))
    def cut(engine, cuts):
        whole, stream = engine.stream(), engine.stream()
        expected = engine.advance(features, whole)
        edges = [0, *sorted(cuts), 45]
        parts = [
            engine.advance(features[start:end], stream) for start, end in itertools.pairwise(edges)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), expected)
        assert stream.executed == whole.executed

    cut()


@pytest.mark.parametrize(
    ("model", "sizes", "precision"),
    [(*model, "float32") for model in MODELS] + [(*model, "int8") for model in MODELS[:-1]],
)
def test_executed_counts_equal_the_audited_ones(write_model, model, sizes, precision):
    recogniser = load_model(write_model(model, **sizes))
    engine = Engine(build_engine(recogniser, precision))
    shape = NetworkShape(
        recogniser.network.config, recogniser.network.num_features, recogniser.network.num_outputs
    )
    for seed, num_frames in enumerate((40, 1, 7)):
        features = frames(num_frames, seed)
        sites, _, stream = run_by_frame(engine, features)
        outputs = [torch.from_numpy(site).unsqueeze(1) for site in sites]
        (activity,) = measure_activity(shape, outputs, torch.tensor([num_frames]))
        if precision == "float32":
            # Not the engine's own spikes: the training model's.
            expected = trained_output(recogniser, features).site_outputs
            (activity,) = measure_activity(shape, expected, torch.tensor([num_frames]))
        executed = {term.term: term for term in stream.executed.terms()}
        executed.pop("rescaling", None)
        audited = count_terms(shape, activity)
        assert list(executed) == [term.term for term in audited]
        for term in audited:
            found = executed[term.term]
            assert (found.num_rows, found.fan_out) == (term.nonzeros, term.fan_out)
            assert (found.multiplications, found.additions) == (
                term.multiplications,
                term.additions,
            )


@pytest.mark.parametrize("num_bits", [1, 3, 6, 7, 8])
def test_int8_sums_are_exact_integers(num_bits, write_model):
    """Against the same integers multiplied by numpy in 64 bits, at full scale and density."""
    model = write_model("conventional", num_bits=num_bits, threshold=0, hidden_size=40)
    data = build_engine(load_model(model), "int8")
    rng = np.random.default_rng(num_bits)
    weights = np.where(rng.random(data.arrays["weights"].shape) < 0.9, 127, -127).astype(np.int8)
    data.arrays["weights"][:] = weights
    matrix = data.layout.matrices[-1]
    data.arrays["biases"][: matrix.bias_offset] = 1e6  # every neuron at its top level
    engine = Engine(data)
    stream = engine.stream()
    scores = [engine.advance(frame[None], stream)[0] for frame in frames(5, 5)]
    last = stream.spikes(2)
    scale = data.arrays["quantizers"][2, 1]
    levels = np.rint(last * scale).astype(np.int64)
    rows = weights[matrix.offset :].reshape(-1, matrix.width).astype(np.int64)
    sums = (levels @ rows)[: matrix.fan_out]
    at = slice(matrix.bias_offset, matrix.bias_offset + matrix.fan_out)
    expected = sums.astype(np.float32) * data.arrays["scales"][at] + data.arrays["biases"][at]
    assert np.abs(levels).max() == max(1, 2 ** (num_bits - 1) - 1)
    np.testing.assert_array_equal(scores[-1], expected)


def test_int8_weights_are_within_half_a_step_of_the_folded_ones(write_model):
    recogniser = load_model(write_model("v2", hidden_size=20))
    exact, rounded = (build_engine(recogniser, kind) for kind in ("float32", "int8"))
    level_scale = exact.arrays["quantizers"][:, 1]
    sites = {"feed_forward_1": 0, "feed_forward_2": 1, "recurrent_1": 1, "recurrent_2": 2}
    for ours, theirs in zip(rounded.layout.matrices, exact.layout.matrices, strict=True):

        def rows(data, matrix):
            end = matrix.offset + matrix.num_rows * matrix.width
            return data.arrays["weights"][matrix.offset : end].reshape(-1, matrix.width)

        width = min(ours.width, theirs.width)
        step = rounded.arrays["scales"][ours.bias_offset : ours.bias_offset + width]
        step = step * level_scale[sites.get(ours.term, 2)]
        difference = rows(rounded, ours)[:, :width] * step - rows(exact, theirs)[:, :width]
        assert (np.abs(difference) <= 0.5001 * step + 1e-7).all()


def test_unquantised_spikes_have_no_int8_engine(write_model):
    recogniser = load_model(write_model("v2", num_bits=32))
    with pytest.raises(PipelineError, match="precision=float32"):
        build_engine(recogniser, "int8")


def test_dense_models_have_no_engine(write_model):
    with pytest.raises(PipelineError, match="does not spike"):
        build_engine(load_model(write_model("gru")))


def test_frames_of_another_size_are_refused(write_model):
    engine = Engine(build_engine(load_model(write_model("v2"))))
    with pytest.raises(ValueError, match=r"reads \(T, 7\)"):
        engine.advance(np.zeros((3, 8), np.float32), engine.stream())


@pytest.mark.parametrize("model", ["conventional", "v1", "v2", "v3"])
def test_an_evaluation_by_events_is_that_of_the_network(write_model, write_features, model):
    """Every utterance of a corpus: same scores, and the audited activity of the network itself."""
    recogniser, location = load_model(write_model(model)), write_features()
    manifest = read_manifest(location, FeaturizeManifest)
    batches = list(stream_batches(location, manifest, ("clean-train", "clean-test"), 4))
    found = list(recognise(recogniser, iter(batches), manifest.cmvn))
    assert len(found) == 22
    for recognition in found:
        batch = collate([recognition.row], manifest.cmvn)
        with torch.inference_mode():
            output = recogniser.network(batch.x_TBF, batch.lengths_B)
        (activity,) = measure_activity(
            network_shape(recogniser), output.site_outputs, batch.lengths_B
        )
        if model not in ("v2", "v3"):  # nothing is fed back, and the audit charges nothing for it
            activity = dataclasses.replace(activity, fed_back=recognition.activity.fed_back)
        assert recognition.activity == activity
        np.testing.assert_allclose(
            recognition.log_probs_TO, output.log_probs_TBO[:, 0].numpy(), rtol=0, atol=1e-4
        )


@pytest.mark.parametrize("model", ["v2", "lstm"])
def test_a_delayed_network_is_scored_from_its_first_named_frame(write_model, write_features, model):
    features = write_features()
    manifest = read_manifest(features, FeaturizeManifest)
    batches = list(stream_batches(features, manifest, ["clean-test"], 4))
    plain, late = (
        list(
            recognise(
                load_model(write_model(model, objective="frame", target_delay=delay)),
                iter(batches),
                manifest.cmvn,
            )
        )
        for delay in (None, 2)
    )
    for whole, named in zip(plain, late, strict=True):
        np.testing.assert_array_equal(named.log_probs_TO, whole.log_probs_TO[2:])
        assert named.activity == whole.activity


@pytest.mark.parametrize("hidden_size", [5, 8, 13, 16, 40])
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_what_a_file_holds_behind_the_last_neuron_never_spikes(precision, hidden_size, write_model):
    recogniser = load_model(write_model("conventional", threshold=0, hidden_size=hidden_size))
    data = build_engine(recogniser, precision)
    data.arrays["biases"][: data.layout.matrices[-1].bias_offset] = 1e6
    engine = Engine(data)
    stream = engine.stream()
    for frame in frames(5, 5):
        engine.advance(frame[None], stream)
    description = data.description
    assert all(
        0 <= index < size
        for size, first, count in zip(
            description.site_sizes,
            np.cumsum([0, *description.site_sizes]),
            stream.state.counts,
            strict=False,
        )
        for index in stream.state.indices[first : first + count]
    )
    assert (stream.state.counts <= description.site_sizes).all()
