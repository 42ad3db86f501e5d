"""Filterbank, cepstra, deltas and stacking against torchaudio and closed forms."""

import numpy as np
import pytest
import torch
import torchaudio.functional
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torchaudio.compliance import kaldi

from featurize.features import FeatureExtractor
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.frames import append_deltas, num_stacks, stack_frames

SPLITS = SplitsConfig(train=("train",), dev=("dev",))


def extractor(**options):
    return FeatureExtractor(FeaturizeConfig(splits=SPLITS, **options))


def sixteen_bit(samples):
    return torch.from_numpy(samples * np.float32(32768))[None]


@st.composite
def signals(draw, min_samples=0, max_samples=6000):
    """Coloured noise with an offset: no spectrum bin is empty, as in recorded speech."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    length = draw(st.integers(min_samples, max_samples))
    loudness = draw(st.floats(1e-3, 0.3))
    noise = rng.standard_normal(length + 8)
    smoothing = np.ones(draw(st.integers(1, 4)))
    coloured = np.convolve(noise, smoothing, "valid")[:length]
    return (loudness * coloured + draw(st.floats(-0.2, 0.2))).astype(np.float32)


@given(signals(), st.sampled_from([(16000, 40), (16000, 80), (8000, 23)]))
@settings(max_examples=60, deadline=None)
def test_fbank_is_kaldis(samples, rate_and_bins):
    rate, bins = rate_and_bins
    ours = extractor(sample_rate_hz=rate, num_bins=bins)(samples)
    if len(samples) < rate // 40:
        assert ours.shape == (0, bins)
        return
    theirs = kaldi.fbank(sixteen_bit(samples), num_mel_bins=bins, sample_frequency=float(rate))
    energies = np.exp(theirs.numpy())
    # An almost empty bin between full ones holds what rounding leaves there.
    allowed = 1e-3 * energies + 1e-5 * energies.max(axis=1, keepdims=True)
    assert (np.abs(np.exp(ours) - energies) <= allowed).all()


@given(signals(min_samples=400))
@settings(max_examples=30, deadline=None)
def test_mfcc_is_kaldis(samples):
    ours = extractor(features="mfcc", num_bins=23, num_ceps=13)(samples)
    theirs = kaldi.mfcc(sixteen_bit(samples), num_mel_bins=23, num_ceps=13)
    # Cepstra reach some hundreds; this is the same relative accuracy as the filterbank's.
    np.testing.assert_allclose(ours, theirs.numpy(), atol=5e-3)


def test_silence_is_the_floor_not_infinity():
    features = extractor()(np.zeros(4000, dtype=np.float32))
    np.testing.assert_allclose(features, np.log(np.finfo(np.float32).eps), rtol=1e-6)


def test_a_tone_is_loudest_in_its_filter():
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    features = extractor()(tone.astype(np.float32))
    mel = 1127 * np.log1p(np.array([20.0, 8000.0, 1000.0]) / 700)
    expected = (mel[2] - mel[0]) / (mel[1] - mel[0]) * 41 - 1
    assert abs(features.mean(axis=0).argmax() - expected) <= 0.5


def test_more_samples_than_one_block_change_nothing_before_them():
    samples = (0.1 * np.random.default_rng(0).standard_normal(16000 * 9)).astype(np.float32)
    whole = extractor()(samples)
    np.testing.assert_array_equal(whole[:500], extractor()(samples[: 400 + 499 * 160]))


def test_non_finite_samples_give_non_finite_features():
    samples = np.full(1000, 0.1, dtype=np.float32)
    samples[500] = np.nan
    assert not np.isfinite(extractor()(samples)).all()


def test_dither_is_seeded_by_the_utterance():
    samples, dithered = np.zeros(4000, dtype=np.float32), extractor(dither=1.0)
    np.testing.assert_array_equal(dithered(samples, "a"), dithered(samples, "a"))
    assert not np.array_equal(dithered(samples, "a"), dithered(samples, "b"))
    assert dithered(samples, "a").min() > -5  # noise of one 16-bit step lifts the floor


features_tf = st.integers(1, 30).flatmap(
    lambda frames: st.integers(0, 2**32 - 1).map(
        lambda seed: np.random.default_rng(seed).standard_normal((frames, 3)).astype(np.float32)
    )
)


@given(features_tf)
def test_deltas_are_torchaudios(features):
    def deltas(x):
        return torchaudio.functional.compute_deltas(torch.from_numpy(x.T.copy())).numpy().T

    ours = append_deltas(features, 2)
    assert ours.shape == (len(features), 9)
    np.testing.assert_array_equal(ours[:, :3], features)
    np.testing.assert_allclose(ours[:, 3:6], deltas(features), atol=1e-5)
    inside = slice(2, len(features) - 2)
    np.testing.assert_allclose(ours[inside, 6:], deltas(deltas(features))[inside], atol=1e-5)


def test_deltas_of_a_parabola():
    t = np.arange(20, dtype=np.float32)
    ours = append_deltas((t**2)[:, None], 2)[4:-4]
    np.testing.assert_allclose(ours[:, 1], 2 * t[4:-4], rtol=1e-5)
    np.testing.assert_allclose(ours[:, 2], 2.0, rtol=1e-4)


@given(st.integers(0, 50), st.integers(1, 5), st.integers(1, 5))
def test_stacking_keeps_only_full_stacks(num_frames, stack, stride):
    frames = np.arange(num_frames * 2, dtype=np.float32).reshape(num_frames, 2)
    stacked = stack_frames(frames, stack, stride)
    expected = [
        frames[start : start + stack].ravel() for start in range(0, num_frames - stack + 1, stride)
    ]
    assert len(stacked) == num_stacks(num_frames, stack, stride) == len(expected)
    np.testing.assert_array_equal(stacked, np.reshape(expected, (-1, 2 * stack)))


@given(st.integers(0, 20000), st.integers(1, 4), st.data())
@settings(deadline=None)
def test_shapes_are_foretold(num_samples, stack, data):
    stride = data.draw(st.integers(1, stack))
    ours = extractor(stack=stack, stride=stride, deltas=1)
    features = ours(np.zeros(num_samples, dtype=np.float32))
    assert features.shape == (ours.num_frames(num_samples), ours.config.num_features)
    centres = ours.centre_samples(len(features))
    assert (np.diff(centres) == 160 * stride).all()
    assert not len(centres) or centres[-1] < num_samples


def test_centre_of_a_stack_is_the_centre_of_its_middle_frame():
    assert extractor().centre_samples(2).tolist() == [200, 360]
    assert extractor(stack=3, stride=3).centre_samples(2).tolist() == [360, 840]
    assert extractor(stack=4, stride=2).centre_samples(1).tolist() == [360]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frame_shift_s": 0.05}, "would skip audio"),
        ({"features": "mfcc", "num_ceps": 41}, "num_ceps=41 exceeds num_bins=40"),
        ({"num_bins": 128}, "without a spectrum bin"),
        ({"stack": 2, "stride": 3}, "would drop frames"),
        ({"max_duration_s": 0.05, "min_duration_s": 0.1}, "max_duration_s"),
        ({"lexicon": "words.txt"}, "labels=phones only"),
        ({"splits": {"train": ["a"], "dev": ["a"]}}, "'a' is named twice"),
        ({"splits": {"train": [], "dev": []}}, "no subset"),
    ],
)
def test_contradictions_are_refused_with_the_remedy(options, message):
    with pytest.raises(ValidationError, match=message):
        FeaturizeConfig.model_validate({"splits": SPLITS} | options)
