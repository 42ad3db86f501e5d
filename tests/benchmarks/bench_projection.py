"""How long would every stage take at 960 and at 60,000 hours, and how long of that in one process?

``make bench-projection``. What a driver does by itself for every utterance or shard is measured
here on made-up pieces: planning shards, gathering what is kept of each, writing and reading the
index, counting labels, bootstrapping an evaluation. What spreads over workers is taken from
``make bench-scaling``, in seconds of a core for an hour of speech, by the options below. The rest
is arithmetic: hours x seconds / (cores x efficiency), and the driver's part added, which is what
no further machine shortens.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import typer

from evaluation.scoring import Bootstrap
from featurize.corpora.entry import CorpusEntry
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.make_shard import ShardResult, ShardSidecar, read_sidecar
from featurize.moments import MomentSums, RunningMoments
from featurize.plan_shards import plan_shards
from featurize.shard_labels import read_targets
from featurize.stage import Location
from featurize.utterance_index import index_shard
from tests.benchmarks.harness import RecordOption, SmallOption, markdown, publish
from tests.harness.random_features import write_random_features
from training.label_statistics import label_statistics

SHARD_SIZE = 256
UTTERANCES_PER_HOUR = 281_241 / 960.9  # of LibriSpeech's training subsets
TEST_HOURS, TEST_UTTERANCES = 5.4, 2620  # of test-clean


def seconds_of(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the processor, of the fastest of some runs: the machine may be busy."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def driver_costs(folder: Location, repeats: int) -> dict[str, float]:
    """Seconds of the driver, for an utterance of 12 s."""
    config = FeaturizeConfig(splits=SplitsConfig(train=("train",), dev=(), test=()))
    entries = [
        CorpusEntry(
            utterance_id=f"{n:07d}",
            speaker_id=str(n // 400),
            chapter_id="c",
            subset="train",
            text="A" * 185,
            audio=f"{n:07d}.flac",
        )
        for n in range(8 * SHARD_SIZE)
    ]
    plans = plan_shards(entries, config, folder, folder)
    frames = np.random.default_rng(0).integers(800, 1600, SHARD_SIZE).tolist()
    train = write_random_features(folder, SHARD_SIZE, frames).shards[0]
    moments = MomentSums.of(np.random.default_rng(0).normal(size=(9, config.num_features)))
    sidecar = ShardSidecar(
        result=ShardResult(
            subset="train",
            shard=train,
            rejects=(),
            num_samples=1,
            num_resampled=0,
            out_of_vocabulary={},
        ),
        moments={str(speaker): moments for speaker in range(SHARD_SIZE)},
        index=index_shard(folder, train).to_pydict(),
    )
    plans[0].sidecar.write_bytes(sidecar.model_dump_json().encode())

    def gather() -> None:
        running = RunningMoments()
        for own in read_sidecar(plans[0]).moments.values():
            running.add(own)

    errors, lengths = np.ones((2, TEST_UTTERANCES), np.int64)
    draws = Bootstrap(TEST_UTTERANCES, 1000, 0)
    return {
        "featurize: plan": seconds_of(lambda: plan_shards(entries, config, folder, folder), repeats)
        / len(entries),
        "featurize: gather shards": seconds_of(gather, repeats) / SHARD_SIZE,
        "train: label statistics": seconds_of(
            lambda: label_statistics(read_targets(folder, train), 48), repeats
        )
        / SHARD_SIZE,
        "evaluate: an interval": seconds_of(lambda: draws.error_rate(errors, lengths), repeats),
    }


def main(  # noqa: PLR0913 - each is an option of the command
    featurize_s: float = 1.3,
    align_s: float = 5.6,
    align_estimate_s: float = 295.0,
    epoch_s: float = 42.0,
    evaluate_s: float = 185.0,
    listing_us: float = 51.0,
    num_epochs: int = 24,
    cores: str = "16,128",
    efficiency: float = 0.79,
    train_efficiency: float = 0.57,
    small: SmallOption = False,
    record: RecordOption = None,
) -> None:
    """Every stage at 960 and 60,000 hours on so many cores; costs are of a core and an hour."""
    with tempfile.TemporaryDirectory(prefix="spikeline-bench-") as folder:
        own = driver_costs(Location.of(Path(folder)), 1 if small else 5)
    rows: list[dict[str, Any]] = []
    for hours in (960, 60_000):
        utterances = hours * UTTERANCES_PER_HOUR
        alone = {
            "featurize": utterances
            * (listing_us * 1e-6 + own["featurize: plan"] + own["featurize: gather shards"]),
            "align": align_estimate_s,
            "train": utterances * own["train: label statistics"],
            "evaluate": 20 * own["evaluate: an interval"],
        }
        spread = {
            "featurize": hours * featurize_s,
            "align": hours * align_s,
            "train": num_epochs * hours * epoch_s,
            "evaluate": TEST_HOURS * evaluate_s,
        }
        for stage, one_s in alone.items():
            row: dict[str, Any] = {"Hours of speech": hours, "Stage": stage}
            row["One process, min"] = one_s / 60
            row["Spread out, hours of a core"] = spread[stage] / 3600
            for number in map(int, cores.split(",")):
                # A batch bounds how many workers train well together.
                workers = min(number, 16) if stage == "train" else number
                share = train_efficiency if stage == "train" else efficiency
                whole_s = one_s + spread[stage] / (workers * share)
                row[f"Whole on {number} cores, min"] = whole_s / 60
            rows.append(row)
    publish(
        "Projection",
        [
            f"seconds of a core for an hour of speech: featurize {featurize_s}, align {align_s}, "
            f"an epoch {epoch_s}, evaluate {evaluate_s}; align's estimate {align_estimate_s} s "
            f"once; {num_epochs} epochs; training on 16 workers at most"
        ],
        {
            "What a driver does by itself": markdown(
                [
                    {"Piece": piece, "For an utterance, us": 1e6 * spent}
                    for piece, spent in own.items()
                    if "interval" not in piece
                ]
            ),
            "Stages": markdown(rows),
        },
        ("numpy", "pyarrow", "pydantic"),
        record,
    )


if __name__ == "__main__":
    typer.run(main)
