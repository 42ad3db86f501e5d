import math
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from featurize.featurize import featurize
from featurize.schema import SHARD_SCHEMA, FeaturizeManifest
from featurize.stage import Location, PipelineError, read_manifest
from featurize.stage.manifest import write_sealed
from tests.harness import tiny
from training.checkpoint import CheckpointStore
from training.data import TrainingData, read_ahead
from training.loop import TrainingLoop
from training.manifest import TrainManifest
from training.models.build import build_network
from training.models.counting import kept_weights
from training.models.model_config import ModelConfig
from training.train import train, training_fingerprint
from training.train_config import (
    CurriculumStage,
    DensityConfig,
    OptimizerConfig,
    QuantizationScheduleConfig,
    SpecAugmentConfig,
    TrainConfig,
    WeightAveragingConfig,
)
from training.trained_model import load_model
from training.worker_config import WorkerConfig

HERE = WorkerConfig(in_process=True, threads_per_worker=1)


def small(model="v2", objective="ctc", num_epochs=3, **changes):
    settings = {
        "model": ModelConfig(model=model, hidden_size=24, dropout=0.2)
        if isinstance(model, str)
        else model,
        "objective": objective,
        "curriculum": (CurriculumStage(num_epochs=num_epochs),),
        "batch_size": 10,
        "optimizer": OptimizerConfig(learning_rate=1e-2),
    }
    return TrainConfig(**(settings | changes))


def loop_of(features, config, run):
    """A training loop about to begin, and its data."""
    manifest = read_manifest(features, FeaturizeManifest)
    data = TrainingData(features, manifest, config)
    network = build_network(config.model, 8, 6)
    network.train()
    return TrainingLoop(network, network, config, data, CheckpointStore(run)), data


def losses(location):
    return [m.train_loss for m in read_manifest(location, TrainManifest).metrics]


def dev_losses(location):
    return [m.dev_loss for m in read_manifest(location, TrainManifest).metrics]


@pytest.mark.parametrize("model", ["conventional", "v1", "v2", "lstm", "gru"])
@pytest.mark.parametrize("objective", ["ctc", "frame"])
def test_every_model_learns_by_every_objective(planted_features, tmp_path, model, objective):
    steady = OptimizerConfig(learning_rate=1e-2, constant_epochs=45)
    network = ModelConfig(model=model, hidden_size=48, dropout=0.1)
    config = small(network, objective, num_epochs=45, optimizer=steady)
    result = train(config, planted_features, Location.of(tmp_path), HERE)
    metrics = read_manifest(result.location, TrainManifest).metrics
    chance = 0.8 if objective == "frame" else 1.0
    assert metrics[-1].dev_error < 0.6 * chance
    assert metrics[-1].train_loss < 0.6 * metrics[0].train_loss
    assert all(m.num_utterances == 42 for m in metrics)
    assert len(metrics[-1].spike_density) == (0 if model in ("lstm", "gru") else 3)


def test_a_finished_run_is_not_repeated(planted_features, tmp_path):
    runs = Location.of(tmp_path)
    first = train(small(), planted_features, runs, HERE)
    manifest = first.location.child("manifest.json").read_bytes()
    second = train(small(), planted_features, runs, HERE)
    assert not first.skipped
    assert second.skipped
    assert second.location.child("manifest.json").read_bytes() == manifest
    backend = ModelConfig(model="v2", hidden_size=24, dropout=0.2, backend="reference")
    assert train(small(model=backend), planted_features, runs, HERE).skipped


def test_resumed_equals_uninterrupted(planted_features, tmp_path):
    augmented = {
        "model": ModelConfig(model="v2", hidden_size=24, dropout=0.2, weight_density=0.4),
        "spec_augment": SpecAugmentConfig(),
        "quantization_schedule": QuantizationScheduleConfig(threshold_epochs=2),
        "density": DensityConfig(weight=0.1),
        "weight_averaging": WeightAveragingConfig(decay=0.8),
        "optimizer": OptimizerConfig(learning_rate=1e-2, rule="cosine", warmup_epochs=1),
    }
    whole = train(small(**augmented), planted_features, Location.of(tmp_path / "a"), HERE)

    class Killed(Exception):
        pass

    def kill_in_second_epoch(progress):
        if progress.epoch == 1 and progress.step == 2:
            raise Killed

    runs = Location.of(tmp_path / "b")
    with pytest.raises(Killed):
        train(small(**augmented), planted_features, runs, HERE, on_progress=kill_in_second_epoch)
    seen = []
    resumed = train(small(**augmented), planted_features, runs, HERE, on_progress=seen.append)
    assert min(progress.epoch for progress in seen) == 1
    assert losses(resumed.location) == losses(whole.location)
    a, b = load_model(whole.location), load_model(resumed.location)
    for weight in a.network.matrices().values():
        assert torch.count_nonzero(weight) == kept_weights(weight.numel(), 0.4)
    for (name, x), y in zip(
        a.network.state_dict().items(), b.network.state_dict().values(), strict=True
    ):
        assert torch.equal(x, y), name


@pytest.mark.integration
@pytest.mark.parametrize(("objective", "num_bits"), [("ctc", 32), ("frame", 6)])
def test_one_and_two_ray_workers_agree(planted_features, tmp_path, objective, num_bits):
    """Quantised spikes are discontinuous: once sums in another order (1e-7) flip one spike,
    curves part by more than rounding. So the long curve is compared unquantised, and the
    quantised one over a few gentle steps.
    """
    model = ModelConfig(model="v2", hidden_size=24, dropout=0.2, num_bits=num_bits)
    rate = OptimizerConfig(learning_rate=1e-2 if num_bits == 32 else 2e-4)
    config = small(model, objective, batch_size=7, optimizer=rate)
    alone = train(config, planted_features, Location.of(tmp_path / "alone"), HERE)
    seen = []
    two = train(
        config,
        planted_features,
        Location.of(tmp_path / "two"),
        WorkerConfig(num_workers=2, cpus_per_worker=0.5, threads_per_worker=1),
        on_progress=seen.append,
    )
    np.testing.assert_allclose(losses(two.location), losses(alone.location), rtol=1e-4)
    np.testing.assert_allclose(dev_losses(two.location), dev_losses(alone.location), rtol=1e-3)
    assert len(seen[-1].epochs) == 3
    assert not two.location.child("ray").exists()
    assert all(m.num_utterances == 42 for m in read_manifest(two.location, TrainManifest).metrics)


@pytest.mark.integration
def test_what_one_of_two_workers_fails_of_is_said_at_once(planted_features, tmp_path):
    """The other one waits for it: the group must end, and not begin again in vain."""
    copy = tmp_path / "features"
    shutil.copytree(planted_features.path, copy)
    features = Location.of(copy)
    shards = read_manifest(features, FeaturizeManifest).shards
    assert len(shards) >= 2
    for shard in shards[1::2]:  # those that the second worker looks at
        file = copy / shard.file
        groups = pq.ParquetFile(file).metadata
        column = groups.row_group(0).column(SHARD_SCHEMA.get_field_index("features"))
        content = bytearray(file.read_bytes())
        content[column.data_page_offset + column.total_compressed_size - 1] ^= 255
        file.write_bytes(content)
    workers = WorkerConfig(
        num_workers=2, cpus_per_worker=0.5, threads_per_worker=1, verify_features="full"
    )
    with pytest.raises(PipelineError, match=r"is damaged.*spikeline repair") as caught:
        train(small(), features, Location.of(tmp_path / "runs"), workers)
    assert shards[1].file in str(caught.value)
    (run,) = (tmp_path / "runs" / "training").glob("[!.]*")
    assert (run / "ray").is_dir()  # it was a worker that looked
    assert not (run / "failure.txt").exists()


@pytest.mark.integration
def test_more_workers_than_the_cluster_holds_is_refused(planted_features, tmp_path):
    greedy = WorkerConfig(num_workers=2, cpus_per_worker=500)
    with pytest.raises(PipelineError, match="needs 1000 CPU and the Ray cluster has"):
        train(small(), planted_features, Location.of(tmp_path), greedy)


@pytest.mark.integration
def test_divergence_in_a_ray_worker_is_one_clear_error(planted_features, tmp_path):
    config = small("lstm", optimizer=OptimizerConfig(learning_rate=1e30))
    with pytest.raises(PipelineError, match=r"diverged.*lower"):
        train(config, planted_features, Location.of(tmp_path), WorkerConfig(cpus_per_worker=0.5))


def test_a_loss_beyond_sense_is_divergence_though_it_is_a_number(planted_features, tmp_path):
    """Whether weights of 1e30 overflow depends on how the processor multiplies."""
    loop, _ = loop_of(planted_features, small("lstm", "frame"), Location.of(tmp_path))
    for loss in (3e29, math.inf, math.nan):
        with pytest.raises(PipelineError, match=r"diverged.*lower"):
            loop._check_converging(loss, 0, 100)
    loop._check_converging(900.0, 0, 100)


@pytest.mark.parametrize(("num_steps", "num_skipped"), [(1, 1), (4, 3), (400, 21)])
def test_an_epoch_whose_steps_changed_nothing_is_divergence(num_steps, num_skipped):
    """Its loss is finite: only the gradients were not."""
    loop = SimpleNamespace(num_skipped_steps=num_skipped)
    with pytest.raises(PipelineError, match=f"{num_skipped} steps with a gradient that was not"):
        TrainingLoop._check_converging(loop, 0.5, 0, num_steps)
    loop.num_skipped_steps = min(num_steps // 2, 20)
    TrainingLoop._check_converging(loop, 0.5, 0, num_steps)


def test_checkpoints_keep_newest_and_best_and_pass_over_incomplete(planted_features, tmp_path):
    result = train(small(num_epochs=5), planted_features, Location.of(tmp_path), HERE)
    manifest = read_manifest(result.location, TrainManifest)
    kept = {place.name for place in result.location.child("checkpoints").children()}
    assert kept == {"epoch-0004", f"epoch-{manifest.best_epoch:04d}"}
    best = min(manifest.metrics, key=lambda m: m.dev_error)
    assert manifest.best_epoch == best.epoch
    store = CheckpointStore(result.location)
    store.directory(9).child("network.safetensors").write_bytes(b"half")
    assert store.newest().epoch == 4


def test_a_damaged_weights_file_is_refused(planted_features, tmp_path):
    result = train(small(num_epochs=1), planted_features, Location.of(tmp_path), HERE)
    weights = result.location.child("weights.safetensors")
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(PipelineError, match=r"weights.safetensors is damaged.*train this model"):
        load_model(result.location)


def test_metrics_and_label_statistics_stand_beside_the_weights(planted_features, tmp_path):
    result = train(small(num_epochs=2), planted_features, Location.of(tmp_path), HERE)
    with result.location.child("metrics.parquet").open_read() as stream:
        table = pq.read_table(stream).to_pylist()
    assert [row["epoch"] for row in table] == [0, 1]
    statistics = load_model(result.location).label_statistics
    assert int(statistics["bigram_counts"][5].sum()) == 42
    assert int(statistics["bigram_counts"][:, 5].sum()) == 42
    manifest = read_manifest(planted_features, FeaturizeManifest)
    frames = manifest.subsets["train-planted"].num_frames
    assert int(statistics["frame_counts"].sum()) == frames


def test_learning_rate_halves_when_dev_error_stops_improving(planted_features, tmp_path):
    config = small(
        "gru",
        num_epochs=8,
        optimizer=OptimizerConfig(
            learning_rate=1e-2, min_learning_rate=3e-3, halve_below_improvement=0.5
        ),
    )
    result = train(config, planted_features, Location.of(tmp_path), HERE)
    metrics = read_manifest(result.location, TrainManifest).metrics
    for before, this, after in zip(metrics, metrics[1:], metrics[2:], strict=False):
        halved = (before.dev_error - this.dev_error) <= 0.5 * before.dev_error
        expected = max(this.learning_rate / 2, 3e-3) if halved else this.learning_rate
        assert after.learning_rate == pytest.approx(expected)
    assert metrics[-1].learning_rate == pytest.approx(3e-3)


def test_a_schedule_brings_quantisation_in_and_the_best_epoch_waits_for_it(
    planted_features, tmp_path
):
    schedule = QuantizationScheduleConfig(
        unquantized_epochs=1, threshold_epochs=3, num_range_updates=7
    )
    model = ModelConfig(model="v2", hidden_size=8, threshold=9, encoder_threshold=6)
    config = small(model, num_epochs=6, quantization_schedule=schedule)
    network = build_network(model, 8, 6)
    sites = (network.encoder_site, *(layer.site for layer in network.layers))
    seen = []
    for epoch in range(6):
        network.begin_epoch(schedule, epoch)
        seen.append([(s.quantizer().num_bits, s.threshold) for s in sites[:2]])
    assert seen == [
        [(32, 0), (32, 0)],
        [(6, 0), (6, 0)],
        [(6, 2), (6, 3)],
        [(6, 4), (6, 6)],
        [(6, 6), (6, 9)],
        [(6, 6), (6, 9)],
    ]
    result = train(config, planted_features, Location.of(tmp_path), HERE)
    manifest = read_manifest(result.location, TrainManifest)
    assert [m.spikes_as_configured for m in manifest.metrics] == [False] * 4 + [True] * 2
    assert manifest.best_epoch >= 4
    weights = load_model(result.location).network.state_dict()
    trackers = [int(v) for name, v in weights.items() if name.endswith("tracker.num_updates")]
    assert trackers == [7, 7, 7]


def test_a_schedule_that_never_ends_is_refused():
    with pytest.raises(ValueError, match="takes 3 epochs of 3 and leaves none"):
        small(quantization_schedule=QuantizationScheduleConfig(threshold_epochs=3))


def test_the_average_is_exponential_and_is_what_is_scored_and_kept(planted_features, tmp_path):
    config = small("v2", weight_averaging=WeightAveragingConfig(decay=0.75))
    loop, data = loop_of(planted_features, config, Location.of(tmp_path))
    expected = None
    for step in data.train_steps(0):
        loop.train_part(0, step)
        weight = loop.network.layers[0].input_map.weight.detach().clone()
        expected = weight if expected is None else 0.75 * expected + 0.25 * weight
    average = loop.average.module
    assert torch.allclose(average.layers[0].input_map.weight, expected, atol=1e-6)
    assert torch.equal(average.output.norm.running_mean, loop.network.output.norm.running_mean)
    scored = loop.score_dev().loss
    loop.average = None
    assert loop.score_dev().loss != scored
    result = train(config, planted_features, Location.of(tmp_path / "runs"), HERE)
    store = CheckpointStore(result.location)
    directory = store.directory(read_manifest(result.location, TrainManifest).best_epoch)
    averaged = load_file(directory.child("average.safetensors").path)
    kept = load_model(result.location).network.output.linear.weight
    assert torch.equal(kept, averaged["module.output.linear.weight"])


def test_a_density_penalty_makes_a_network_fire_less(planted_features, tmp_path):
    def density(**changes):
        result = train(
            small(num_epochs=6, **changes), planted_features, Location.of(tmp_path), HERE
        )
        return sum(read_manifest(result.location, TrainManifest).metrics[-1].spike_density[1:])

    assert density(density=DensityConfig(weight=3.0)) < 0.8 * density()


def test_an_option_that_is_off_does_not_rename_a_result(planted_features):
    manifest = read_manifest(planted_features, FeaturizeManifest)
    named = training_fingerprint(small(), manifest)
    assert named == training_fingerprint(small(density=None), manifest)
    assert named != training_fingerprint(small(density=DensityConfig(weight=0.1)), manifest)


def test_a_bounded_range_holds_in_training_and_in_the_recogniser(planted_features, tmp_path):
    model = ModelConfig(model="v2", hidden_size=24, max_range=0.5)
    result = train(small(model), planted_features, Location.of(tmp_path), HERE)
    network = load_model(result.location).network
    output = network(torch.randn(9, 2, 8), torch.tensor([9, 7]))
    for layer, spikes in zip(network.layers, output.site_outputs[1:], strict=True):
        assert float(layer.site.quantizer().range_M) == 0.5
        assert 0 < float(spikes.detach().abs().max()) <= 0.5
    assert float(network.encoder_site.quantizer().range_M) > 0.5


def test_the_encoders_range_has_a_bound_of_its_own():
    network = build_network(ModelConfig(model="v2", hidden_size=8, encoder_max_range=0.25), 8, 5)
    network(torch.randn(9, 2, 8), torch.tensor([9, 7]))
    assert float(network.encoder_site.quantizer().range_M) == 0.25
    assert float(network.layers[0].site.quantizer().range_M) != 0.25


def test_settings_of_spikes_do_not_rename_a_dense_model(planted_features):
    manifest = read_manifest(planted_features, FeaturizeManifest)

    def named(kind, threshold, **changes):
        model = ModelConfig(model=kind, hidden_size=24, threshold=threshold)
        return training_fingerprint(small(model, **changes), manifest)

    penalised = {"density": DensityConfig(weight=0.1)}
    assert named("lstm", 3) == named("lstm", 5, **penalised) != named("gru", 3)
    assert len({named("v2", 3), named("v2", 5), named("v2", 3, **penalised)}) == 3


def test_curriculum_lengths(planted_features, tmp_path):
    stages = (CurriculumStage(num_epochs=1, chunk_frames=9), CurriculumStage(num_epochs=1))
    config = small("v1", "frame", curriculum=stages)
    manifest = read_manifest(planted_features, FeaturizeManifest)
    data = TrainingData(planted_features, manifest, config)
    first = list(data.train_steps(0))
    assert max(step.batch.x_TBF.shape[0] for step in first) == 9
    second = list(data.train_steps(1))
    frames = manifest.subsets["train-planted"].num_frames
    assert sum(s.num_frames for s in first) == sum(s.num_frames for s in second) == frames


def test_row_cache_bounds_what_it_keeps(planted_features):
    manifest = read_manifest(planted_features, FeaturizeManifest)
    data = TrainingData(planted_features, manifest, small(shuffle_window_rows=6))
    for _ in data.train_steps(0):
        kept = sum(len(rows) for rows in data._cache._groups.values())
        assert kept <= 6


def test_read_ahead_hands_errors_on():
    def broken():
        yield from ()
        raise PipelineError("the shard is gone")

    with pytest.raises(PipelineError, match="the shard is gone"):
        list(read_ahead(broken()))


def test_a_split_without_utterances_is_named(planted_features, tmp_path):
    manifest = read_manifest(planted_features, FeaturizeManifest)
    shutil.copytree(planted_features.path, tmp_path / "broken")
    broken = Location.of(tmp_path / "broken")
    write_sealed(broken, manifest.model_copy(update={"splits": manifest.splits | {"train": ()}}))
    with pytest.raises(PipelineError, match=r"train split .* has no usable utterance"):
        train(small(), broken, Location.of(tmp_path), HERE)


def test_gradient_clipping_bounds_the_step(planted_features):
    config = small(optimizer=OptimizerConfig(max_gradient_norm=1e-3))
    loop, data = loop_of(planted_features, config, Location.of("/nowhere"))
    loop.train_part(0, next(iter(data.train_steps(0))))
    norm = torch.stack([p.grad.norm() for p in loop.network.parameters()]).norm()
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_frame_objective_without_alignment_names_the_remedy(tmp_path):
    corpus, runs = (
        Location.of(tiny.make_corpus(tmp_path / "corpus")),
        Location.of(tmp_path / "runs"),
    )
    features = featurize(tiny.FEATURES, corpus, runs).location
    config = tiny.TRAINING.model_copy(update={"objective": "frame"})
    with pytest.raises(PipelineError, match=r"objective=frame needs alignments.*labels=alignment"):
        train(config, features, runs, HERE)
