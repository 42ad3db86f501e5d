"""A small feature set and untrained recognisers, stored by the real writers."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from featurize.schema import (
    CmvnStatistics,
    FeatureRow,
    FeaturizeManifest,
    LabelInventory,
    StateInventory,
    SubsetInfo,
)
from featurize.shard_writer import pack_row, write_shard
from featurize.stage import Location
from featurize.stage.manifest import write_manifest
from training.checkpoint import save_tensors
from training.label_statistics import label_statistics
from training.manifest import EpochMetrics, TrainManifest
from training.models.build import build_network, num_outputs
from training.models.model_config import ModelConfig
from training.train_config import TrainConfig
from training.weight_pruning import WeightPruner

torch.set_num_threads(1)

NUM_FEATURES = 7
PHONES = LabelInventory(
    kind="alignment",
    symbols=("sil", "cl", "aa", "ao", "q"),
    scored_as=("sil", "sil", "aa", "aa", None),
)
CHARACTERS = LabelInventory(
    kind="characters",
    symbols=(" ", "A", "B", "<"),
    scored_as=(" ", "A", "B", "<"),
    word_boundary=0,
)
LETTER_PHONES = LabelInventory(kind="phones", symbols=("P", "T", "K"), scored_as=("P", "T", "K"))


def make_row(
    number: int, subset: str, labels: LabelInventory, utterance_id: str | None = None
) -> FeatureRow:
    rng = np.random.default_rng([number, len(subset)])
    num_frames = int(rng.integers(9, 31))
    alignment = np.sort(rng.integers(0, len(labels.symbols), num_frames)).astype(np.int32)
    kept = np.concatenate([[True], alignment[1:] != alignment[:-1]])
    return FeatureRow(
        utterance_id=utterance_id or f"{subset}-{number:03d}",
        speaker_id=f"s{number % 3}",
        chapter_id="c",
        subset=subset,
        text="<b>text</b>",
        labels=alignment[kept],
        num_samples=num_frames * 160,
        features=rng.normal(3.0, 2.0, (num_frames, NUM_FEATURES)).astype(np.float32),
        alignment=alignment,
    )


@pytest.fixture
def write_features(tmp_path) -> Callable[..., Location]:
    """Write a finished feature set of a few utterances per subset."""

    def write(
        labels: LabelInventory = LETTER_PHONES,
        *,
        name: str = "features",
        lexicon: str | None = None,
        frame_shift_s: float = 0.03,
        cmvn_mode: str = "global",
        num_utterances: int = 11,
        hostile_id: str | None = None,
    ) -> Location:
        target = Location.of(tmp_path / name)
        subsets = {"clean-train": ("train",), "clean-dev": ("dev",), "clean-test": ("test",)}
        shards, infos = [], {}
        for subset in subsets:
            rows = [
                make_row(n, subset, labels, hostile_id if n == 0 else None)
                for n in range(num_utterances)
            ]
            for part, some in enumerate((rows[: num_utterances // 2], rows[num_utterances // 2 :])):
                packed = [pack_row(row, "float32") for row in some]
                shards.append(write_shard(target, f"{subset}-{part}.parquet", subset, packed, 4))
            infos[subset] = SubsetInfo(
                num_utterances=len(rows),
                num_speakers=3,
                num_frames=sum(len(row.features) for row in rows),
                hours=0.1,
            )
        statistics = {
            f"s{n}": (float(n),) * NUM_FEATURES for n in range(3) if cmvn_mode == "speaker"
        }
        manifest = FeaturizeManifest(
            stage="featurize",
            schema_version=1,
            fingerprint=f"f-{name}",
            created_at="2026-01-01T00:00:00+00:00",
            versions={},
            config={} if lexicon is None else {"lexicon": lexicon},
            corpus_digest="0",
            splits={"train": ("clean-train",), "dev": ("clean-dev",), "test": ("clean-test",)},
            sample_rate_hz=16000,
            frame_shift_s=frame_shift_s,
            num_features=NUM_FEATURES,
            labels=labels,
            cmvn=CmvnStatistics(
                mode=cmvn_mode,
                mean=(0.0,) * NUM_FEATURES,
                std=(1.0,) * NUM_FEATURES,
                speaker_mean=statistics,
                speaker_std=dict.fromkeys(statistics, (1.0,) * NUM_FEATURES),
            ),
            subsets=infos,
            shards=tuple(shards),
            reject_counts={},
            num_resampled=0,
        )
        write_manifest(target, manifest)
        return target

    return write


@pytest.fixture
def write_model(tmp_path, write_model_in) -> Callable[..., Location]:
    """Write a finished training run whose network has random weights and a seen range."""
    return functools.partial(write_model_in, tmp_path)


@pytest.fixture(scope="session")
def write_model_in() -> Callable[..., Location]:
    """The same, in a folder that is given."""

    def write(  # noqa: PLR0913 - each has a default that a test changes by name
        folder: Path,
        model: str = "v2",
        labels: LabelInventory = LETTER_PHONES,
        *,
        objective: str = "ctc",
        seed: int = 0,
        num_features: int = NUM_FEATURES,
        frame_shift_s: float = 0.03,
        cmvn: CmvnStatistics | None = None,
        upstream: dict[str, str] | None = None,
        states: StateInventory | None = None,
        target_delay: int | None = None,
        **sizes,
    ) -> Location:
        config = TrainConfig(
            model=ModelConfig(
                model=model, **({"hidden_size": 9, "num_layers": 2, "threshold": 3} | sizes)
            ),
            objective=objective,
            seed=seed,
            target_delay=target_delay,
        )
        torch.manual_seed(seed)
        outputs = num_outputs(len(labels.symbols), objective, states)
        network = build_network(config.model, num_features, outputs).train()
        network(3 + 2 * torch.randn(20, 4, num_features), torch.tensor([20, 18, 20, 5]))
        network.after_step()
        if config.model.weight_density is not None:
            WeightPruner(network, config.model.weight_density).after_step(0, 1.0, ())
        target = Location.of(folder / f"{model}-{objective}-{seed}")
        rows = [make_row(n, "clean-train", labels) for n in range(11)]
        statistics = label_statistics(
            [(row.labels, row.alignment) for row in rows],
            len(labels.symbols),
            None if states is None else outputs,
        )
        epochs = tuple(
            EpochMetrics(
                epoch=n,
                train_loss=2.0 / (n + 1),
                dev_loss=2.1 / (n + 1),
                dev_error=0.9 / (n + 1),
                learning_rate=1e-3,
                frames_per_s=1000.0,
                num_frames=100,
                num_utterances=11,
                seconds=1.5,
                spike_density=(0.2, 0.3, 0.1) if config.model.is_event_based else (),
            )
            for n in range(4)
        )
        manifest = TrainManifest(
            stage="training",
            schema_version=1,
            fingerprint=f"{seed:02d}{model}{objective}",
            upstream=upstream or {},
            created_at="2026-01-01T00:00:00+00:00",
            versions={},
            config=config,
            features="elsewhere",
            num_features=num_features,
            frame_shift_s=frame_shift_s,
            labels=labels,
            cmvn=cmvn
            or CmvnStatistics(mode="global", mean=(3.0,) * num_features, std=(2.0,) * num_features),
            best_epoch=3,
            best_dev_error=0.225,
            num_epochs=4,
            num_parameters=network.num_parameters(),
            weights="weights.safetensors",
            weights_sha256=save_tensors(target.child("weights.safetensors"), network.state_dict()),
            label_statistics="label_statistics.safetensors",
            label_statistics_sha256=save_tensors(
                target.child("label_statistics.safetensors"), statistics
            ),
            metrics=epochs,
            states=states,
        )
        write_manifest(target, manifest)
        return target

    return write
