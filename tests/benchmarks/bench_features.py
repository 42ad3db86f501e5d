"""How fast are features made, beside decoding alone and beside other tools?

``make bench-features``. Every case handles the same utterances, decoded from memory with
soundfile, on one thread, in turns. Time is this process's CPU time: the rate is per core,
whatever else the machine does.
"""

import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import typer
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from featurize.corpora.scan import scan_corpus
from featurize.corpora.synthetic import SyntheticConfig, synthesize_corpus
from featurize.features import FeatureExtractor
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.make_shard import make_shard
from featurize.plan_shards import plan_shards
from featurize.stage import Location
from tests.benchmarks.harness import (
    RecordOption,
    SmallOption,
    forget_peak,
    markdown,
    peak_mib,
    publish,
    times_in_turns,
)
from tests.harness import training_process

Samples = NDArray[np.float32]
NUM_BINS = 40


def configuration(subset: str, **options: int) -> FeaturizeConfig:
    splits = SplitsConfig(train=(subset,), dev=("unused",))
    return FeaturizeConfig(splits=splits, max_duration_s=600, num_bins=NUM_BINS, **options)


def decode(file: bytes) -> Samples:
    return soundfile.read(io.BytesIO(file), dtype="float32")[0]


def extractors() -> dict[str, Callable[[Samples], object]]:
    """Ours and three others, 40 filters each."""
    import kaldi_native_fbank
    from lhotse import Fbank, FbankConfig
    from torchaudio.compliance import kaldi

    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.mel_opts.num_bins = NUM_BINS
    lhotse_fbank = Fbank(FbankConfig(num_mel_bins=NUM_BINS, snip_edges=True, device="cpu"))

    def kaldi_native(samples: Samples) -> object:
        fbank = kaldi_native_fbank.OnlineFbank(options)
        fbank.accept_waveform(16000, samples * np.float32(32768))
        fbank.input_finished()
        return np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)])

    def torchaudio(samples: Samples) -> object:
        waveform = torch.from_numpy(samples * np.float32(32768))[None]
        return kaldi.fbank(waveform, num_mel_bins=NUM_BINS)

    return {
        "spikeline": FeatureExtractor(configuration("any")),
        "kaldi-native-fbank": kaldi_native,
        "lhotse": lambda samples: lhotse_fbank.extract(samples, 16000),
        "torchaudio": torchaudio,
    }


def time_cases(corpus: Path, subset: str, num_utterances: int, rounds: int) -> dict[str, Any]:
    """Rows of the table, and how much speech there was."""
    listing = scan_corpus("librispeech", Location.of(corpus), [subset])
    entries = listing.entries[:num_utterances]
    files = [listing.root.child(entry.audio).read_bytes() for entry in entries]
    audio_s = sum(soundfile.info(io.BytesIO(file)).duration for file in files)

    def over_all(work: Callable[[Samples], object]) -> Callable[[], None]:
        def run() -> None:
            for file in files:
                work(decode(file))

        return run

    cases = {"decoding alone": over_all(lambda samples: None)}
    cases |= {f"decoding, {name}": over_all(work) for name, work in extractors().items()}
    with threadpool_limits(1):
        times = times_in_turns(cases, rounds, timer=time.process_time)
    decoding = times["decoding alone"]
    rows = [
        {
            "Case": name,
            "Hours of speech in an hour of one core": audio_s / times[name].median(),
            "Time / time of decoding alone": (times[name] / decoding).median(),
        }
        for name in cases
    ]
    return {"rows": rows, "minutes": audio_s / 60, "utterances": len(files)}


def shard_peak_mib(corpus: Path, subset: str, num_utterances: int) -> float:
    """Peak of this process, which must be fresh, while it makes shards of 32 utterances."""
    listing = scan_corpus("librispeech", Location.of(corpus), [subset])
    config = configuration(subset, utterances_per_shard=32)
    forget_peak()
    with tempfile.TemporaryDirectory() as folder:
        target = Location.of(folder)
        entries = listing.entries[:num_utterances]
        for plan in plan_shards(entries, config, listing.root, target):
            make_shard(plan)
    return peak_mib()


def main(
    corpus: Path | None = None,
    subset: str = "train-synthetic",
    utterances: int = 150,
    rounds: int = 10,
    small: SmallOption = False,
    record: RecordOption = None,
) -> None:
    """Feature extraction on a LibriSpeech root, or on synthetic speech."""
    if small:
        utterances, rounds = 4, 2
    with tempfile.TemporaryDirectory(prefix="spikeline-bench-") as folder:
        name = "synthetic speech" if corpus is None else f"{subset}"
        if corpus is None:
            corpus = Path(folder)
            minutes = 1.0 if small else 20.0
            synthesize_corpus(corpus, SyntheticConfig(minutes=minutes, num_speakers=20))
        found = time_cases(corpus, subset, utterances, rounds)
        peaks = [
            {
                "Utterances": count,
                "Peak, MiB": training_process.call(shard_peak_mib, corpus, subset, count),
            }
            for count in (utterances // 2, utterances)
        ]
    publish(
        "Features beside decoding and other tools",
        [
            f"{found['utterances']} utterances, {found['minutes']:.1f} minutes of {name}; "
            f"{NUM_BINS} filters, one thread, CPU time, {rounds} rounds in turns",
        ],
        {
            "Rate": markdown(found["rows"]),
            "Memory of a process that makes shards one after another, PyTorch included": markdown(
                peaks
            ),
        },
        ("numpy", "numba", "soundfile", "kaldi-native-fbank", "lhotse", "torchaudio"),
        record,
    )


if __name__ == "__main__":
    typer.run(main)
