"""A corpus and configurations so small that a whole stage takes a fraction of a second."""

import random
from pathlib import Path

import numpy as np
import soundfile

from evaluation.config import EvaluateConfig
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from training.models.model_config import ModelConfig
from training.train_config import CurriculumStage, OptimizerConfig, TrainConfig
from training.worker_config import WorkerConfig

SUBSETS = {"train-tiny": 8, "dev-tiny": 3, "test-tiny": 3}
HERE = WorkerConfig(in_process=True, threads_per_worker=1)


def make_corpus(root: Path) -> Path:
    """Write tones with letters for transcripts, in LibriSpeech's layout; always the same bytes."""
    rng = np.random.default_rng(5)
    letters = random.Random(5)
    root.mkdir(parents=True)
    (root / "SPEAKERS.TXT").write_text("".join(f"{n} | F | tiny | 1 | N\n" for n in (1, 2)))
    for subset, count in SUBSETS.items():
        for speaker in (1, 2):
            chapter = root / subset / str(speaker) / "7"
            chapter.mkdir(parents=True)
            lines = []
            for number in range(speaker - 1, count, 2):
                name = f"{speaker}-7-{len(subset)}{number:03d}"
                seconds = np.arange(int(rng.integers(6_000, 9_000))) / 16_000
                tone = 0.3 * np.sin(2 * np.pi * rng.integers(200, 2_000) * seconds)
                noise = rng.normal(0, 0.01, len(seconds))
                soundfile.write(chapter / f"{name}.flac", tone + noise, 16_000)
                lines.append(f"{name} {''.join(letters.choices('ABCDE', k=4))}\n")
            (chapter / f"{speaker}-7.trans.txt").write_text("".join(lines))
    # One that is rejected, so that there is something to publish.
    broken = root / "train-tiny" / "1" / "7" / f"1-7-{len('train-tiny')}000.flac"
    broken.write_bytes(broken.read_bytes()[:900])
    return root


FEATURES = FeaturizeConfig(
    corpus="librispeech",
    splits=SplitsConfig(train=("train-tiny",), dev=("dev-tiny",), test=("test-tiny",)),
    labels="characters",
    num_bins=12,
    utterances_per_shard=2,
    row_group_size=2,
    max_reject_share=0.5,
)
TRAINING = TrainConfig(
    model=ModelConfig(model="gru", hidden_size=6, num_layers=1),
    curriculum=(CurriculumStage(num_epochs=3),),
    batch_size=4,
    optimizer=OptimizerConfig(learning_rate=3e-3),
)
EVALUATION = EvaluateConfig(num_bootstrap=100)
