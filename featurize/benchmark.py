"""How fast features are made: against decoding alone, and against peers, in one process.

Every case handles the same utterances, decoded from memory with soundfile, on one thread; the
cases take turns, and an utterance's best round counts, so that a disturbance hits no case alone.
Time is the process's CPU time: the rate is per core, whatever else the machine does.
"""

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from pydantic import Field
from threadpoolctl import threadpool_limits

from featurize.config import FeaturizeConfig, SplitsConfig
from featurize.corpora.entry import CorpusKind
from featurize.corpora.scan import scan_corpus
from featurize.features import FeatureExtractor
from featurize.make_shard import make_shard, plan_shards
from featurize.stage import Location, PipelineError, TypedConfig, software_versions

PEERS = ("kaldi_native_fbank", "lhotse")

Case = Callable[[bytes], object]


class BenchFeaturesConfig(TypedConfig):
    """What to measure on."""

    corpus: CorpusKind = Field("librispeech", description="Layout of the corpus.")
    subset: str = Field("train-mini", description="Subset whose utterances are measured.")
    num_utterances: int = Field(
        150, ge=2, description="Utterances in memory; peak memory is of this many and of half."
    )
    num_rounds: int = Field(10, ge=1, description="Measured rounds over all utterances.")
    with_peers: bool = Field(
        True, description="Also measure kaldi-native-fbank, lhotse and torchaudio."
    )


class FeatureRate(TypedConfig):
    """One case's result.

    Attributes:
        hours_per_core_hour: hours of audio per hour of one core, decoding included.
        share_of_decoding: that rate over the rate of decoding alone.
    """

    case: str
    hours_per_core_hour: float
    share_of_decoding: float


class PeakMemory(TypedConfig):
    """Peak resident memory of a process that makes shards one after another."""

    num_utterances: int
    peak_mib: float


class BenchFeaturesResult(TypedConfig):
    """What was measured, and on what."""

    config: BenchFeaturesConfig
    num_utterances: int
    audio_hours: float
    rates: tuple[FeatureRate, ...]
    peak_memory: tuple[PeakMemory, ...]
    num_cores: int
    versions: dict[str, str]


def bench_features(
    corpus: Location, config: BenchFeaturesConfig | None = None
) -> BenchFeaturesResult:
    """Measure decoding alone, decoding with features, peers, and peak memory.

    Args:
        corpus: root of a corpus; real speech, since noise compresses and decodes otherwise.
        config: what to measure on.

    Raises:
        PipelineError: when the corpus cannot be used, or a peer is not installed.
    """
    config = config or BenchFeaturesConfig()
    if config.with_peers:
        _require_peers()
    files = _read_files(corpus, config)
    seconds = sum(soundfile.info(io.BytesIO(file)).duration for file in files)
    cases = _cases(config.with_peers)
    with threadpool_limits(1):
        best = _best_times(cases, files, config.num_rounds)
    decoding = best["decode"]
    packages = ("spikeline", "numpy", "scipy", "numba", "soundfile")
    peers = ("kaldi-native-fbank", "lhotse", "torch", "torchaudio") if config.with_peers else ()
    half = max(1, config.num_utterances // 2)
    return BenchFeaturesResult(
        config=config,
        num_utterances=len(files),
        audio_hours=seconds / 3600,
        rates=tuple(
            FeatureRate(
                case=name, hours_per_core_hour=seconds / spent, share_of_decoding=decoding / spent
            )
            for name, spent in best.items()
        ),
        peak_memory=tuple(
            PeakMemory(num_utterances=count, peak_mib=_peak_memory_mib(corpus, config, count))
            for count in (half, 2 * half)
        ),
        num_cores=os.cpu_count() or 1,
        versions=software_versions(*packages, *peers),
    )


def _require_peers() -> None:
    missing = [name for name in PEERS if find_spec(name) is None]
    if missing:
        raise PipelineError(
            f"{', '.join(missing)} not installed; pip install 'spikeline[bench]', or leave the "
            "peers out with with_peers=false"
        )


def _read_files(corpus: Location, config: BenchFeaturesConfig) -> list[bytes]:
    listing = scan_corpus(config.corpus, corpus, [config.subset])
    if not listing.entries:
        raise PipelineError(f"subset {config.subset!r} of {corpus} has no usable utterances")
    return [
        listing.root.child(entry.audio).read_bytes()
        for entry in listing.entries[: config.num_utterances]
    ]


def _decode(file: bytes) -> NDArray[np.float32]:
    samples, _ = soundfile.read(io.BytesIO(file), dtype="float32")
    return np.asarray(samples, dtype=np.float32)


def _cases(with_peers: bool) -> dict[str, Case]:
    extract = FeatureExtractor(_features_config("any"))

    def over(compute: Callable[[NDArray[np.float32]], object]) -> Case:
        return lambda file: compute(_decode(file))

    cases = {"decode": _decode, "decode + spikeline fbank": over(extract)}
    if with_peers:
        cases |= {
            "decode + kaldi-native-fbank": over(_kaldi_native_fbank()),
            "decode + lhotse fbank": over(_lhotse_fbank()),
            "decode + torchaudio fbank": over(_torchaudio_fbank()),
        }
    return cases


def _features_config(subset: str, **options: int) -> FeaturizeConfig:
    splits = SplitsConfig(train=(subset,), dev=("unused",))
    return FeaturizeConfig(splits=splits, max_duration_s=600, **options)


def _kaldi_native_fbank() -> Callable[[NDArray[np.float32]], object]:
    import kaldi_native_fbank

    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.mel_opts.num_bins = 40

    def compute(samples: NDArray[np.float32]) -> NDArray[np.float32]:
        fbank = kaldi_native_fbank.OnlineFbank(options)
        fbank.accept_waveform(16000, samples * np.float32(32768))
        fbank.input_finished()
        return np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)])

    return compute


def _lhotse_fbank() -> Callable[[NDArray[np.float32]], object]:
    from lhotse import Fbank, FbankConfig

    fbank = Fbank(FbankConfig(num_mel_bins=40, snip_edges=True, device="cpu"))

    def compute(samples: NDArray[np.float32]) -> object:
        return fbank.extract(samples, 16000)

    return compute


def _torchaudio_fbank() -> Callable[[NDArray[np.float32]], object]:
    import torch
    from torchaudio.compliance import kaldi

    torch.set_num_threads(1)

    def compute(samples: NDArray[np.float32]) -> object:
        waveform = torch.from_numpy(samples * np.float32(32768))[None]
        return kaldi.fbank(waveform, num_mel_bins=40)

    return compute


def _best_times(
    cases: dict[str, Case], files: Sequence[bytes], num_rounds: int
) -> dict[str, float]:
    """CPU seconds of each case: every utterance's best round, summed.

    By utterance, since a neighbour on a shared core slows some milliseconds down, and a case
    whose rounds are longer would less often have one to itself.
    """
    best = {name: np.full(len(files), np.inf) for name in cases}
    for run in cases.values():
        run(files[0])
    for _ in range(num_rounds):
        for name, run in cases.items():
            for number, file in enumerate(files):
                start = time.process_time()
                run(file)
                spent = time.process_time() - start
                best[name][number] = min(best[name][number], spent)
    return {name: float(times.sum()) for name, times in best.items()}


def _peak_memory_mib(corpus: Location, config: BenchFeaturesConfig, num_utterances: int) -> float:
    """Peak memory of a fresh process that makes shards of so many utterances."""
    command = [sys.executable, "-m", "featurize.benchmark"]
    arguments = [corpus.uri, config.corpus, config.subset, str(num_utterances)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PipelineError(f"measuring memory failed: {done.stderr.strip()[-300:]}")
    return float(done.stdout)


def _measure_memory(corpus: str, kind: CorpusKind, subset: str, num_utterances: int) -> float:
    """Make shards of 32 utterances one after another, and return this process's peak in MiB."""
    listing = scan_corpus(kind, Location.of(corpus), [subset])
    config = _features_config(subset, utterances_per_shard=32)
    entries = listing.entries[:num_utterances]
    with tempfile.TemporaryDirectory() as folder:
        for plan in plan_shards(entries, config, listing.root, Location.of(folder)):
            make_shard(plan)
    return _own_peak_mib()


def _own_peak_mib() -> float:
    """This program's peak: unlike ``ru_maxrss`` without that of the process that started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise PipelineError("/proc/self/status has no VmHWM; measure memory on Linux")


if __name__ == "__main__":
    _, _corpus, _kind, _subset, _count = sys.argv
    _layout: CorpusKind = "timit" if _kind == "timit" else "librispeech"
    sys.stdout.write(str(_measure_memory(_corpus, _layout, _subset, int(_count))))
