"""Checkpoints from outside: whatever is wrong with one is said in a sentence."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load, save

from featurize.featurize import featurize
from featurize.stage import Location, PipelineError, held_lease, held_token, read_manifest
from featurize.stage.manifest import write_sealed
from tests.harness.tiny import FEATURES, HERE, TRAINING, make_corpus
from training.checkpoint import CheckpointStore, load_weights
from training.manifest import EpochMetrics, TrainManifest
from training.models.build import build_network
from training.models.model_config import ModelConfig
from training.models.registry import BUILT_IN, model_named
from training.train import train
from training.trained_model import load_model

EPOCH = EpochMetrics(
    epoch=0,
    train_loss=1.0,
    dev_loss=1.0,
    dev_error=0.5,
    learning_rate=1e-3,
    frames_per_s=1.0,
    num_frames=1,
    num_utterances=1,
    seconds=1.0,
    spike_density=(),
)


def make_network():
    network = build_network(ModelConfig(model="gru", hidden_size=4, num_layers=1), 3, 5)
    optimizer = torch.optim.AdamW(network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return network, optimizer


@pytest.fixture
def store(tmp_path):
    store = CheckpointStore(Location.of(tmp_path))
    network, optimizer = make_network()
    store.save(network, None, optimizer, 1e-3, (EPOCH,))
    return store


def restore(store):
    network, optimizer = make_network()
    state = store.newest()
    store.restore(state, network, None, optimizer)


def exchange(store, name, data):
    """Replace a file, and make the checksum fit."""
    place = store.directory(0)
    place.child(name).write_bytes(data)
    state = json.loads(place.child("state.json").read_bytes())
    state["sha256"][name] = hashlib.sha256(data).hexdigest()
    place.child("state.json").write_bytes(json.dumps(state).encode())


def test_what_was_saved_is_restored(tmp_path):
    saved, its_optimizer = make_network()
    store = CheckpointStore(Location.of(tmp_path))
    store.save(saved, None, its_optimizer, 1e-3, (EPOCH,))
    network, optimizer = make_network()
    store.restore(store.newest(), network, None, optimizer)
    for name, value in saved.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name
    for ours, theirs in zip(network.parameters(), saved.parameters(), strict=True):
        for key, value in its_optimizer.state[theirs].items():
            assert torch.equal(optimizer.state[ours][key], value), key


@pytest.mark.parametrize("name", ["network.safetensors", "optimizer.safetensors"])
def test_bytes_that_are_no_safetensors_are_refused(store, name):
    exchange(store, name, b"\xff" * 100)
    with pytest.raises(PipelineError, match=rf"{name} is no safetensors.*remove .*/checkpoints,"):
        restore(store)
    store.location.parent.child("manifest.json").write_bytes(b"{}")
    with pytest.raises(PipelineError, match=rf"{name} is no safetensors.*spikeline repair"):
        restore(store)


@pytest.mark.parametrize("change", ["missing", "misshapen", "extra", "unknown", "integers"])
def test_moments_of_another_network_are_refused(store, change):
    tensors = load(store.directory(0).child("optimizer.safetensors").read_bytes())
    if change == "missing":
        del tensors["0.exp_avg"]
    elif change == "misshapen":
        tensors["0.exp_avg"] = torch.zeros(1)
    elif change == "extra":
        tensors["99.step"] = tensors["0.step"].clone()
    elif change == "unknown":
        tensors["nonsense"] = tensors["0.step"].clone()
    else:
        tensors["0.exp_avg"] = tensors["0.exp_avg"].long()
    exchange(store, "optimizer.safetensors", save(tensors))
    with pytest.raises(PipelineError, match=r"optimizer.safetensors is of another network"):
        restore(store)


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 3},
        {"epoch": 10**12},
        {"epoch": -1, "epochs": []},
        {"epochs": []},
        {"sha256": {}},
        {"epoch": "x"},
        {"learning_rate": {}},
    ],
)
def test_a_state_that_lies_is_refused(store, change):
    file = store.directory(0).child("state.json")
    file.write_bytes(json.dumps(json.loads(file.read_bytes()) | change).encode())
    with pytest.raises(PipelineError, match=r"state.json (is damaged|does not name)"):
        store.newest()


def test_a_worker_whose_run_was_taken_over_writes_nothing(tmp_path):
    run = Location.of(tmp_path / "run")
    network, optimizer = make_network()
    with held_lease(run):
        store = CheckpointStore(run, held_token(run))
        store.save(network, None, optimizer, 1e-3, (EPOCH,))
    before = run.files()
    with pytest.raises(PipelineError, match="another run has taken over"):
        store.save(network, None, optimizer, 1e-3, (EPOCH, EPOCH.model_copy(update={"epoch": 1})))
    assert run.files() == before


@pytest.mark.parametrize("kind", BUILT_IN)
def test_weights_are_held_against_a_network_that_takes_no_memory(kind):
    config_type = model_named(kind).config or ModelConfig
    config = config_type(model=kind, hidden_size=4, num_layers=2)
    weights = build_network(config, 3, 5).state_dict()
    with torch.device("meta"):
        same, larger = (
            build_network(config.model_copy(update={"hidden_size": size}), 3, 5)
            for size in (4, 8192)
        )
    load_weights(same, weights, assign=True)
    with pytest.raises(PipelineError, match="do not fit the configured network"):
        load_weights(larger, weights, assign=True)


def test_a_manifest_that_claims_a_vast_network_is_refused_at_once(tmp_path):
    """Making that network first would take minutes and gigabytes."""
    runs = Location.of(tmp_path / "runs")
    features = featurize(FEATURES, Location.of(make_corpus(tmp_path / "corpus")), runs)
    model = train(TRAINING, features.location, runs, HERE).location
    manifest = read_manifest(model, TrainManifest)
    vast = manifest.config.model.model_copy(update={"hidden_size": 8192, "num_layers": 16})
    config = manifest.config.model_copy(update={"model": vast})
    write_sealed(model, manifest.model_copy(update={"config": config}))
    with pytest.raises(PipelineError, match="do not fit the configured network"):
        load_model(model)
