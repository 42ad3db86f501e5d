import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.engine import onnx_export
from evaluation.engine.build import build_engine
from evaluation.engine.description import FrontEndConfig
from evaluation.engine.engine import Engine
from evaluation.engine.engine_file import EngineData, read_engine, write_engine
from evaluation.engine.nir_export import nir_file
from evaluation.engine.onnx_export import onnx_step_model
from featurize.stage import PipelineError
from training.trained_model import load_model

NEEDS = "not installed; pip install -e '.[export]'"


def compare_onnx(data, features):
    pytest.importorskip("onnxruntime", reason=f"onnxruntime is {NEEDS}")
    from tests.harness import onnx_stream

    return onnx_stream.compare_onnx(data, features)


def frames(num_frames, seed=0, num_features=7):
    return (1.5 * np.random.default_rng(seed).standard_normal((num_frames, num_features))).astype(
        np.float32
    )


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        ("conventional", {}),
        ("conventional", {"hidden_size": 300}),
        ("v1", {"num_bits": 1, "threshold": 0}),
        ("v1", {"hidden_size": 300}),
        ("v2", {"hidden_size": 33, "num_layers": 3}),
        ("v2", {"num_bits": 32}),
        ("v2", {"hidden_size": 300}),
        ("v2", {"projection_size": 5}),
        ("conventional", {"projection_size": 5}),
        ("v3", {"hidden_size": 300, "encoder_threshold": 3, "threshold": 6}),
        ("v3", {"projection_size": 5, "v3": {"initial_range": 1.0}}),
        ("v3", {"v3": {"residue_leak": False}}),
    ],
)
def test_onnx_step_gives_the_engines_scores(write_model, model, sizes):
    """Within a rounding: one other spike would move a score by a thousand times as much."""
    data = build_engine(load_model(write_model(model, **sizes)))
    assert compare_onnx(data, frames(100)).largest_difference < 1e-5


def test_sums_in_another_order_spike_differently(write_model, monkeypatch):
    """Why the export says in which order to add up: the same step with the runtime's products."""

    def product(graph, name, source, weight_KG):
        weight = graph.constant(f"{name}_weight", weight_KG)
        return graph.add("MatMul", [source, weight], f"{name}_product")

    monkeypatch.setattr(onnx_export, "ordered_product", product)
    data = build_engine(load_model(write_model("v2", hidden_size=300)))
    assert compare_onnx(data, frames(300)).differing_frames > 0


def test_silence_goes_through_the_step(write_model):
    """No spikes at all: there is nothing to add up."""
    data = build_engine(load_model(write_model("conventional")))
    data.arrays["biases"][:] = 0.0
    assert compare_onnx(data, np.zeros((5, 7), np.float32)).largest_difference == 0.0


@pytest.mark.parametrize("model", ["v1", "v2"])
def test_nir_lacks_a_gated_node(write_model, model):
    data = build_engine(load_model(write_model(model)))
    with pytest.raises(PipelineError, match="no node for a gated synaptic current"):
        nir_file(data)


def test_nir_lacks_graded_spikes(write_model):
    data = build_engine(load_model(write_model("conventional")))
    with pytest.raises(PipelineError, match="no neuron with graded, signed spikes"):
        nir_file(data)


@pytest.mark.parametrize("cmvn", ["none", "global", "speaker"])
def test_an_onnx_file_says_how_it_is_run(write_model, tmp_path, cmvn):
    """The documentation's lines, with nothing but the file, ONNX Runtime and NumPy."""
    onnxruntime = pytest.importorskip("onnxruntime", reason=f"onnxruntime is {NEEDS}")
    recogniser = load_model(write_model("v2"))
    front_end = FrontEndConfig(
        **{"sample_rate_hz": 16000, "features": "fbank", "num_bins": 7, "num_ceps": 7},
        **{"frame_length_s": 0.025, "frame_shift_s": 0.01, "deltas": 0, "stack": 1, "stride": 3},
        **{"feature_dtype": "float32", "cmvn": cmvn, "mean": (1.0,) * 7, "std": (2.0,) * 7},
    )
    data = build_engine(recogniser, "float32", front_end)
    path, features = tmp_path / "v2.onnx", frames(12)
    path.write_bytes(onnx_step_model(data))
    page = (Path(__file__).parents[3] / "docs/trained-model.md").read_text()
    (program,) = re.findall(r"```python\n(import json, numpy, onnxruntime\n.*?)```", page, re.S)
    assert len([line for line in program.splitlines() if line]) <= 10
    names = {"features": features, "path": str(path)}
    exec(program, names)
    engine = Engine(data)
    expected = engine.advance(features, engine.stream())
    np.testing.assert_allclose(np.concatenate(names["scores"]), expected, atol=1e-4)
    assert names["best"] == [data.description.output_names[n] for n in expected.argmax(1)]
    said = onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
    assert json.loads(said["symbols"]) == ["P", "T", "K"]
    assert json.loads(said["outputs"]) == ["P", "T", "K", "<blank>"]
    assert json.loads(said["frame_shift_s"]) == 0.03
    assert json.loads(said["features"])["stride"] == 3
    assert json.loads(said["features"])["cmvn"] == cmvn
    assert ("mean" in said, "std" in said) == (cmvn != "none",) * 2


@pytest.mark.parametrize(("leaky", "projected"), [(True, None), (False, None), (True, 4)])
def test_nir_carries_the_unquantised_conventional_network(write_model, tmp_path, leaky, projected):
    nir = pytest.importorskip("nir", reason=f"nir is {NEEDS}")
    recogniser = load_model(
        write_model("conventional", num_bits=32, hidden_size=6, projection_size=projected)
    )
    with torch.no_grad():
        for layer in recogniser.network.layers:
            layer.decay.copy_(torch.linspace(0.1, 0.9, 6) if leaky else torch.ones(6))
    data = build_engine(recogniser)
    path = tmp_path / "model.nir"
    path.write_bytes(nir_file(data))
    engine, features = Engine(data), frames(20)
    expected = engine.advance(features, engine.stream())
    np.testing.assert_allclose(simulate(nir, nir.read(path), features), expected, rtol=1e-4)


@pytest.mark.parametrize("leaky", [True, False])
def test_snntorch_runs_what_nir_carries(write_model, tmp_path, leaky):
    """Its neurons, wired by nirtorch, hear what the engine hears; and back come the same decays.

    Its own importer, like norse's, knows the neurons that spike (LIF, IF, CubaLIF) and neither
    ``LI`` nor ``I``: what these are to it is said here.
    """
    nirtorch = pytest.importorskip("nirtorch", reason=f"nirtorch is {NEEDS}")
    nir, snntorch = (pytest.importorskip(n, reason=f"{n} is {NEEDS}") for n in ("nir", "snntorch"))
    from snntorch.import_nir import _nir_to_snntorch_module

    recogniser = load_model(write_model("conventional", num_bits=32, hidden_size=6))
    with torch.no_grad():
        for layer in recogniser.network.layers:
            layer.decay.copy_(torch.linspace(0.1, 0.9, 6) if leaky else torch.ones(6))
    data = build_engine(recogniser)
    path = tmp_path / "model.nir"
    path.write_bytes(nir_file(data))
    made = []

    class Membrane(torch.nn.Module):
        def __init__(self, decay):
            super().__init__()
            never = {"threshold": 1e9, "reset_mechanism": "none"}
            self.neuron = snntorch.Leaky(beta=torch.as_tensor(decay), **never)
            made.append(self.neuron)

        def forward(self, current, state=None):
            before = torch.zeros_like(current) if state is None else state
            _, potential = self.neuron(current, before)
            return potential, potential

    nodes = {
        nir.Affine: _nir_to_snntorch_module,  # nirtorch 2.6's own leaves the bias as it was drawn
        nir.LI: lambda node: Membrane((1 - 1 / node.tau).astype("float32")),
        nir.I: lambda node: Membrane(np.ones_like(node.r, dtype="float32")),
    }
    network = nirtorch.nir_to_torch(str(path), nodes)
    scores, state = [], None
    features = frames(20)
    with torch.inference_mode():
        for frame in torch.from_numpy(features)[:, None]:
            score, state = network(frame, state)
            scores.append(score[0].numpy())
    engine = Engine(data)
    expected = engine.advance(features, engine.stream())
    np.testing.assert_allclose(np.stack(scores), expected, rtol=1e-4, atol=1e-5)
    back = np.concatenate([neuron.beta.numpy() for neuron in made])
    decays = np.concatenate([layer.decay.detach().numpy() for layer in recogniser.network.layers])
    np.testing.assert_allclose(np.sort(back), np.sort(decays), atol=1e-6)


def simulate(nir, graph, features):
    """NIR's equations in Euler steps of one frame, following the edges."""
    following = dict(graph.edges)
    potential = dict.fromkeys(graph.nodes, 0.0)
    scores = []
    for value in features:
        name = "input"
        while (name := following[name]) != "output":
            node = graph.nodes[name]
            if isinstance(node, nir.Affine):
                value = node.weight @ value + node.bias
            elif isinstance(node, nir.I):
                potential[name] = potential[name] + node.r * value
                value = potential[name]
            else:
                assert isinstance(node, nir.LI)
                v = potential[name]
                potential[name] = v + (node.v_leak - v + node.r * value) / node.tau
                value = potential[name]
        scores.append(value)
    return np.stack(scores)


def test_a_file_round_trips(write_model, tmp_path):
    for precision in ("float32", "int8"):
        data = build_engine(load_model(write_model("v2", objective="frame")), precision)
        path = tmp_path / f"{precision}.spikes"
        path.write_bytes(write_engine(data))
        read = read_engine(path)
        assert read.description == data.description
        for name, array in data.arrays.items():
            np.testing.assert_array_equal(read.arrays[name], array)
        first, second = Engine(data), Engine(read)
        features = frames(10)
        np.testing.assert_array_equal(
            first.advance(features, first.stream()), second.advance(features, second.stream())
        )


def damaged(content, position):
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda content: b"", "is no engine file"),
        (lambda content: b"RIFF" + content, "is no engine file"),
        (lambda content: content[:-7], "is no engine file"),
        (lambda content: damaged(content, len(content) - 9), "damaged"),
    ],
)
def test_a_damaged_file_is_refused(write_model, tmp_path, spoil, said):
    path = tmp_path / "engine.spikes"
    path.write_bytes(spoil(write_engine(build_engine(load_model(write_model("v2"))))))
    with pytest.raises(PipelineError, match=said):
        read_engine(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PipelineError, match="no such engine file"):
        read_engine(tmp_path / "none.spikes")


def test_weights_that_are_not_numbers_are_refused(write_model):
    data = build_engine(load_model(write_model("v2")))
    data.arrays["weights"][3] = np.nan
    with pytest.raises(PipelineError, match="weights is not finite"):
        write_engine(EngineData(data.description, data.arrays))
