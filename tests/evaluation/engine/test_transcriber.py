import dataclasses
import itertools
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as save_safetensors

from evaluation.config import ViterbiConfig
from evaluation.decoding import ctc_greedy, symbol_search
from evaluation.engine.audio_file import open_audio
from evaluation.engine.build import EngineSearches, build_engine
from evaluation.engine.decoding import GreedyDecoder, stream_decoder
from evaluation.engine.description import FrontEndConfig
from evaluation.engine.engine import Engine, log_softmax
from evaluation.engine.engine_file import read_engine, write_engine
from evaluation.engine.front_end import TRUSTED_S, FrontEnd, RunningNormaliser
from evaluation.engine.resampler import StreamResampler
from evaluation.engine.transcriber import Transcriber
from featurize.features import FeatureExtractor
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.resampling import resample
from featurize.schema import LabelInventory, StateInventory
from featurize.stage import PipelineError
from training.align.states import phone_state_inventory
from training.trained_model import load_model

RATE = 16000
PHONES = LabelInventory(
    kind="alignment", symbols=("sil", "aa", "b", "t", "k"), scored_as=("sil", "aa", "b", "t", "k")
)
LETTERS = LabelInventory(
    kind="characters", symbols=(" ", "A", "B"), scored_as=(" ", "A", "B"), word_boundary=0
)


def noise(num_samples, seed=0):
    rng = np.random.default_rng(seed)
    return (0.3 * rng.standard_normal(num_samples)).clip(-1, 1).astype(np.float32)


def pieces(samples, cuts):
    edges = [0, *sorted(min(cut, len(samples)) for cut in cuts), len(samples)]
    return [samples[start:end] for start, end in itertools.pairwise(edges)]


CUTS = st.lists(st.integers(0, 9000), max_size=12)


def front_end(**options):
    config = FeaturizeConfig(splits=SplitsConfig(train=("a",), dev=("b",)), **options)
    size = config.num_features
    chosen = {
        name: getattr(config, name)
        for name in FrontEndConfig.model_fields
        if name not in ("mean", "std")
    }
    statistics = {"mean": (0.0,) * size, "std": (1.0,) * size}
    return config, FrontEndConfig(**(chosen | statistics | {"cmvn": "none"}))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"feature_dtype": "float32", "stack": 3, "stride": 3},
        {"stack": 3, "stride": 2},
        {"stack": 1, "stride": 3},
        {"deltas": 2, "num_bins": 23, "stack": 2, "stride": 1},
        {"features": "mfcc", "deltas": 1},
    ],
    ids=str,
)
def test_features_of_a_stream_are_those_of_the_whole(options):
    config, streamed = front_end(**options)
    extractor = FeatureExtractor(config)
    # A matrix product of other shape may round differently; everything else is exact.
    tolerance = 2e-3 if config.features == "mfcc" else 0.0

    @settings(max_examples=25)
    @given(num_samples=st.integers(0, 9000), cuts=CUTS)
    def check(num_samples, cuts):
        samples = noise(num_samples)
        expected = extractor(samples).astype(config.feature_dtype).astype(np.float32)
        stream = FrontEnd(streamed)
        found = [stream.feed(piece) for piece in pieces(samples, cuts)]
        found.append(stream.finish())
        np.testing.assert_allclose(np.concatenate(found), expected, rtol=tolerance, atol=tolerance)

    check()


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_resampling_a_stream_is_resampling_the_whole(rate):
    @settings(max_examples=15)
    @given(num_samples=st.integers(0, 9000), cuts=CUTS)
    def check(num_samples, cuts):
        samples = noise(num_samples)
        expected = np.clip(resample(samples, rate, RATE), -1.0, 1.0) if num_samples else samples
        stream = StreamResampler(rate, RATE)
        found = [stream.feed(piece) for piece in pieces(samples, cuts)]
        found.append(stream.finish())
        np.testing.assert_array_equal(np.concatenate(found), expected)

    check()


def test_greedy_decoding_in_pieces_is_that_of_the_whole():
    scores = np.random.default_rng(0).standard_normal((200, 4)).astype(np.float32)
    decoder = GreedyDecoder(4)
    for piece in np.array_split(scores, 17):
        decoder.feed(piece)
    assert decoder.finish() == ctc_greedy(scores)


def senones_of(num_parts):
    """States of every phone in two groups of left neighbours."""
    plain = phone_state_inventory(len(PHONES.symbols), num_parts)
    size = len(plain.phones)
    return StateInventory(
        states_per_phone=num_parts,
        phones=plain.phones * 2,
        positions=plain.positions * 2,
        left=((0, 1),) * size + ((2, 3, 4, 5),) * size,
        right=((),) * 2 * size,
    )


def with_search(recogniser, streamed=None):
    """An engine that carries a search for symbols, as an exported one does."""
    search = symbol_search(recogniser, ViterbiConfig())
    return build_engine(recogniser, "float32", streamed, EngineSearches(search, None, ""))


@pytest.mark.parametrize("frame_shift_s", [0.01, 0.03])
def test_senones_in_pieces_are_searched_as_the_whole(write_model, tmp_path, frame_shift_s):
    """From the file, too: what a stream finds is what an evaluation does."""
    options = {"states": senones_of(3), "frame_shift_s": frame_shift_s}
    recogniser = load_model(write_model("v2", PHONES, objective="frame", **options))
    path = tmp_path / "a.spikes"
    path.write_bytes(write_engine(with_search(recogniser)))
    data = read_engine(path)
    decoder = stream_decoder(data, data.search("symbols"))
    rng = np.random.default_rng(1)
    scores = np.repeat(3 * rng.standard_normal((90, data.description.num_outputs)), 4, axis=0)
    scores = (scores + rng.standard_normal(scores.shape)).astype(np.float32)
    for piece in np.array_split(scores, 19):
        decoder.feed(piece)
    found = decoder.finish()
    assert found == symbol_search(recogniser, ViterbiConfig())(log_softmax(scores))
    assert len(found) > 10


def test_a_frame_engine_without_a_search_says_so(write_model):
    recogniser = load_model(write_model("v2", PHONES, objective="frame", num_features=13))
    _, streamed = front_end(num_bins=13)
    with pytest.raises(PipelineError, match="no search for the symbols"):
        Transcriber(build_engine(recogniser, "float32", streamed))


def test_a_damaged_graph_in_an_engine_is_refused(write_model):
    recogniser = load_model(write_model("v2", PHONES, objective="frame"))
    data = with_search(recogniser)
    arcs = data.arrays["symbols_arcs"].copy()
    arcs[0, 3] = 10_000
    broken = dataclasses.replace(data, arrays={**data.arrays, "symbols_arcs": arcs})
    with pytest.raises(PipelineError, match="leads to no state"):
        broken.search("symbols")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("symbol_search", "size", "num_states"), -100),
        (("symbol_search", "size", "num_states"), 10**30),
        (("symbol_search", "size", "num_arcs"), 2**31),
        (("labels", "scored_as"), ["A"]),
        (("front_end", "frame_shift_s"), 1e-9),
        (("front_end", "frame_length_s"), 1e-9),
        (("front_end", "mean"), [math.nan] * 13),
        (("front_end", "std"), [math.inf] * 13),
    ],
)
def test_a_description_that_cannot_be_is_refused_in_a_line(write_model, tmp_path, place, value):
    recogniser = load_model(write_model("v2", PHONES, objective="frame", num_features=13))
    _, streamed = front_end(num_bins=13)
    data = with_search(recogniser, streamed)
    described = json.loads(data.description.model_dump_json())
    *folders, name = place
    inner = described
    for folder in folders:
        inner = inner[folder]
    assert inner[name] is not None
    inner[name] = value
    path = tmp_path / "hostile.spikes"
    text = json.dumps(described)
    metadata = {"spikeline_engine": text, "sha256": "{}"}
    path.write_bytes(save_safetensors(dict(data.arrays), metadata=metadata))
    with pytest.raises(PipelineError, match=r"hostile\.spikes: "):
        read_engine(path)


def test_a_search_for_symbols_that_are_not_there_is_refused(write_model):
    data = with_search(load_model(write_model("v2", PHONES, objective="frame")))
    labels = data.description.labels
    fewer = labels.model_copy(update={"symbols": labels.symbols[:1], "scored_as": ()})
    broken = dataclasses.replace(
        data, description=data.description.model_copy(update={"labels": fewer})
    )
    with pytest.raises(PipelineError, match="more symbols than it has"):
        broken.search("symbols")


def test_a_speaker_is_normalised_by_what_was_heard_so_far():
    """By hand: the training statistics count as some seconds, then come the frames."""
    config = front_end(num_bins=4, stack=3, stride=3)[1].model_copy(
        update={"cmvn": "speaker", "mean": (2.0,) * 12, "std": (0.5,) * 12}
    )
    trusted = TRUSTED_S / 0.03
    frames = np.random.default_rng(0).normal(5.0, 3.0, (400, 12)).astype(np.float32)
    normalise = RunningNormaliser(config)
    found = np.concatenate([normalise(piece) for piece in np.array_split(frames, 7)])
    for t in (0, 1, 57, 399):
        heard = frames[: t + 1].astype(float)
        mean = (trusted * 2.0 + heard.sum(0)) / (trusted + t + 1)
        squares = (trusted * (0.25 + 4.0) + (heard**2).sum(0)) / (trusted + t + 1)
        expected = (frames[t] - mean) / np.sqrt(squares - mean**2)
        np.testing.assert_allclose(found[t], expected, rtol=1e-3, atol=1e-4)
    # Late frames are normalised as by the whole speaker, far better than by the training set.
    own = (frames - frames.mean(0)) / frames.std(0)
    assert np.abs(found[300:] - own[300:]).mean() < 0.7 * np.abs((frames[300:] - 2) / 0.5).mean()
    normalise.reset()
    np.testing.assert_array_equal(normalise(frames[:3]), found[:3])


@pytest.fixture
def engine_data(write_model):
    _, streamed = front_end(num_bins=13)
    recogniser = load_model(write_model("v2", LETTERS, num_features=13))
    return build_engine(recogniser, "float32", streamed)


def test_any_feeding_gives_the_same_result(engine_data):
    samples = noise(9000)
    whole = Transcriber(engine_data)
    whole.feed(samples)
    expected = whole.result()
    assert expected.symbols
    assert expected.executed.num_frames == 54
    assert expected.operations_per_s > 0

    @settings(max_examples=25)
    @given(cuts=CUTS)
    def check(cuts):
        transcriber = Transcriber(engine_data)
        for piece in pieces(samples, cuts):
            transcriber.feed(piece)
        found = transcriber.result()
        assert (found.text, found.symbols) == (expected.text, expected.symbols)
        assert found.executed == expected.executed

    check()


def test_a_delayed_network_names_nothing_by_its_first_frames(write_model):
    """The same weights with and without a delay: one hears phones in the scores from frame 3 on."""
    options = {"objective": "frame", "num_features": 13, "frame_shift_s": 0.01}
    _, streamed = front_end(num_bins=13)
    plain = with_search(load_model(write_model("v2", PHONES, **options)), streamed)
    late = with_search(load_model(write_model("v2", PHONES, target_delay=3, **options)), streamed)
    frames = FrontEnd(streamed)
    samples = noise(9000)
    heard = np.concatenate([frames.feed(samples), frames.finish()])
    engine = Engine(plain)
    decoder = stream_decoder(plain, plain.search("symbols"))
    decoder.feed(engine.advance(heard, engine.stream())[3:])
    expected = tuple(PHONES.symbols[found] for found in decoder.finish())

    @settings(max_examples=20)
    @given(cuts=CUTS)
    def check(cuts):
        transcriber = Transcriber(late)
        for piece in pieces(samples, cuts):
            transcriber.feed(piece)
        found = transcriber.result()
        assert found.symbols == expected
        assert found.executed.num_frames == len(heard)

    check()


def test_a_partial_hypothesis_grows_into_the_result_and_the_next_stream_is_fresh(engine_data):
    transcriber = Transcriber(engine_data)
    seen = []
    for piece in np.array_split(noise(9000), 10):
        transcriber.feed(piece)
        seen.append(transcriber.so_far().text)
    first = transcriber.result()
    assert seen == sorted(seen, key=len)
    assert seen[-1] == first.text
    transcriber.feed(noise(9000))
    second = transcriber.result()
    assert dataclasses.replace(second, busy_s=first.busy_s) == first


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(0),
        np.zeros(1),
        np.zeros(RATE),
        np.sign(noise(RATE)),
        1e30 * noise(RATE),
        np.full(RATE, 0.99, np.float64),
    ],
    ids=["empty", "one sample", "silence", "clipped noise", "far too loud", "constant"],
)
def test_whatever_is_fed_in_gives_an_answer(engine_data, samples):
    transcriber = Transcriber(engine_data)
    transcriber.feed(samples)
    heard = transcriber.result()
    assert heard.audio_s == len(samples) / RATE
    assert np.isfinite(transcriber._stream.state.residue).all()
    assert all(0 <= share <= 1 for share in heard.executed.density)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers_are_refused_and_harm_nothing(engine_data, value):
    transcriber = Transcriber(engine_data)
    with pytest.raises(PipelineError, match="not-a-number or infinity"):
        transcriber.feed(np.array([0.0, value]))
    transcriber.feed(noise(9000))
    again = Transcriber(engine_data)
    again.feed(noise(9000))
    assert transcriber.result().symbols == again.result().symbols


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.zeros(9000, np.int16), r"type int16; give floating-point .* divided by 32768$"),
        (np.zeros(9000, np.uint8), "type uint8; .* by the largest value"),
        (np.zeros((9000, 2), np.float32), r"shape \(9000, 2\); give one channel"),
        (np.array(["a"]), "type <U1"),
    ],
)
def test_samples_of_another_kind_are_refused(engine_data, samples, said):
    transcriber = Transcriber(engine_data)
    with pytest.raises(PipelineError, match=said):
        transcriber.feed(samples)
    transcriber.feed(torch.zeros(9000))  # a tensor is an array
    assert transcriber.result().audio_s == 9000 / RATE


def test_hours_of_silence_keep_memory_flat(engine_data):
    """What the recogniser holds after an hour is what it held after a minute."""

    def held(minutes):
        transcriber = Transcriber(engine_data)
        minute = np.zeros(60 * RATE, np.float32)
        for _ in range(minutes):
            transcriber.feed(minute)
        front = transcriber._front_end
        return [array.nbytes for array in (front._samples, front._static, front._unstacked)]

    assert held(2) == held(60)


GARBAGE = """
import json, sys
import numpy as np
from evaluation.engine.transcriber import Transcriber
from featurize.stage import PipelineError

def peak_mib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

transcriber = Transcriber.from_file(sys.argv[1])
rate, rng = transcriber.sample_rate_hz, np.random.default_rng(0)
minute = np.zeros(60 * rate, np.float32)
# A minute of noise and one of zeros first: what every stream needs is there then.
for samples in (0.1 * rng.standard_normal(60 * rate), minute):
    transcriber.feed(samples)
transcriber.result()
inputs = {
    "nothing": [np.zeros(0)],
    "one sample": [np.zeros(1)],
    "not a number": [np.array([0.0, np.nan, 0.0])],
    "infinite": [np.array([0.0, np.inf])],
    "a second of silence": [np.zeros(rate)],
    "ten seconds of noise, clipped": [np.sign(rng.standard_normal(10 * rate))],
    "ten seconds of noise, 10^30 too loud": [1e30 * rng.standard_normal(10 * rate)],
    "zeros": [minute] * round(float(sys.argv[2])),
}
found = {}
for name, blocks in inputs.items():
    before = peak_mib()
    try:
        for block in blocks:
            transcriber.feed(block)
        said = transcriber.result().audio_s
    except PipelineError as error:
        said = str(error)
        transcriber.result()
    found[name] = (said, peak_mib() - before)
assert "torch" not in sys.modules
print(json.dumps(found))
"""


def test_the_same_engine_has_the_same_bytes(engine_data, tmp_path):
    """Safetensors alone writes its metadata in an order of chance."""
    (content,) = {write_engine(engine_data) for _ in range(20)}
    path = tmp_path / "engine.spikes"
    path.write_bytes(content)
    assert read_engine(path).description == engine_data.description
    assert (8 + int.from_bytes(content[:8], "little")) % 8 == 0


def test_garbage_is_answered_or_refused_and_memory_stays_flat(engine_data, tmp_path):
    """In a process of its own, without torch; GARBAGE_MINUTES of zeros, six where it is not set."""
    path, minutes = tmp_path / "engine.spikes", os.environ.get("GARBAGE_MINUTES", "6")
    path.write_bytes(write_engine(engine_data))
    command = [sys.executable, "-c", GARBAGE, str(path), minutes]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    refused = {name for name, (said, _) in found.items() if isinstance(said, str)}
    assert refused == {"not a number", "infinite"}
    answered = {name: said for name, (said, _) in found.items() if name not in refused}
    assert answered == {
        "nothing": 0.0,
        "one sample": pytest.approx(1 / RATE),
        "a second of silence": 1.0,
        "ten seconds of noise, clipped": 10.0,
        "ten seconds of noise, 10^30 too loud": 10.0,
        "zeros": 60.0 * float(minutes),
    }
    assert max(added_mib for _, added_mib in found.values()) < 8  # of 22 MiB in six minutes


def test_an_engine_file_is_enough(engine_data, tmp_path):
    path = tmp_path / "engine.spikes"
    path.write_bytes(write_engine(engine_data))
    results = []
    for transcriber in (Transcriber(engine_data), Transcriber.from_file(path)):
        transcriber.feed(noise(9000))
        results.append(transcriber.result().symbols)
    assert results[0] == results[1]


def test_an_engine_of_frames_cannot_listen(write_model):
    data = build_engine(load_model(write_model("v2")))
    with pytest.raises(PipelineError, match="reads frames, not samples"):
        Transcriber(data)


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [("a.wav", 16000, 1), ("b.flac", 22050, 2), ("c.ogg", 48000, 1)],
)
def test_files_are_read_in_blocks(tmp_path, name, rate, channels):
    samples = noise(30000)
    soundfile.write(tmp_path / name, np.stack([samples] * channels, axis=1), rate)
    with open_audio(str(tmp_path / name)) as audio:
        found = np.concatenate(list(audio.blocks))
    assert audio.sample_rate_hz == rate
    assert found.shape == samples.shape


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), (b"", "a.wav: "), (b"text" * 99, "a.wav: ")],
)
def test_what_is_no_audio_is_named(tmp_path, content, said):
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PipelineError, match=said), open_audio(str(path)):
        pass
