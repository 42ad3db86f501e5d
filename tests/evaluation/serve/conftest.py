"""An engine that hears something in anything, its server, and speech."""

import numpy as np
import pytest

from evaluation.engine.build import build_engine
from evaluation.engine.description import FrontEndConfig
from evaluation.engine.engine_file import write_engine
from evaluation.engine.front_end import FrontEnd
from evaluation.engine.transcriber import Transcriber
from featurize.schema import LabelInventory
from tests.harness.serving import serving
from training.trained_model import load_model

LETTERS = LabelInventory(
    kind="characters", symbols=tuple(" ABCDEFG"), scored_as=tuple(" ABCDEFG"), word_boundary=0
)
MAX_STREAMS = 6


@pytest.fixture(scope="module")
def engine_file(tmp_path_factory, write_model_in):
    """A random network, which hears letters in noise."""
    folder = tmp_path_factory.mktemp("engine")
    model = write_model_in(folder, "v2", LETTERS, num_features=13, hidden_size=200)
    front_end = FrontEndConfig(
        **{"sample_rate_hz": 16000, "features": "fbank", "num_bins": 13, "num_ceps": 13},
        **{"frame_length_s": 0.025, "frame_shift_s": 0.01, "deltas": 0, "stack": 1, "stride": 3},
        **{"feature_dtype": "float32", "cmvn": "none", "mean": (0.0,) * 13, "std": (1.0,) * 13},
    )
    frames_TF = FrontEnd(front_end).feed(speech(10.0) / np.float32(32768))
    normalised = {"mean": frames_TF.mean(0), "std": frames_TF.std(0) / 2, "cmvn": "global"}
    front_end = FrontEndConfig.model_validate(front_end.model_dump() | normalised)
    path = folder / "engine.spikes"
    path.write_bytes(write_engine(build_engine(load_model(model), "float32", front_end)))
    return path


@pytest.fixture(scope="module")
def server(engine_file):
    """For clients that may do anything, however long a busy machine takes over it."""
    limits = {"idle_s": 3600.0, "max_streams": MAX_STREAMS, "max_stream_s": 400.0}
    with serving(engine_file, max_file_bytes=2**20, **limits) as started:
        yield started


def speech(seconds, rate=16000, seed=0):
    """Noise whose loudness and colour change like those of syllables."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * (300 + 200 * np.sin(2 * np.pi * 0.7 * time)) * time)
    loudness = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * time)
    noise = rng.standard_normal(len(time))
    return (4000 * loudness * (tone + noise)).clip(-32768, 32767).astype(np.int16)


@pytest.fixture(scope="module")
def transcribed(engine_file):
    """What ``transcribe`` hears in the same samples."""

    def transcribe(samples, rate=16000):
        transcriber = Transcriber.from_file(engine_file, sample_rate_hz=rate)
        transcriber.feed(samples / np.float32(32768))
        return transcriber.result()

    return transcribe


@pytest.fixture(scope="module", name="speech")
def _speech():
    return speech
