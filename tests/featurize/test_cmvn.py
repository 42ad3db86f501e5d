"""Streamed moments against numpy on the concatenation; application of the statistics."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurize.cmvn import Normaliser, cmvn_statistics
from featurize.moments import MIN_STD, MomentSums, add_moments
from featurize.schema import FeatureRow
from featurize.stage import PipelineError


def random_features(seed, num_frames, num_features=4):
    rng = np.random.default_rng(seed)
    scale, shift = rng.uniform(0.1, 5, num_features), rng.uniform(-20, 20, num_features)
    return (rng.standard_normal((num_frames, num_features)) * scale + shift).astype(np.float32)


def row(features, speaker="s1"):
    return FeatureRow(
        utterance_id="u",
        speaker_id=speaker,
        chapter_id="c",
        subset="train",
        text="A",
        labels=np.zeros(1, dtype=np.int32),
        num_samples=1,
        features=features,
        alignment=None,
    )


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_streamed_moments_are_those_of_the_whole(lengths, seed):
    whole = random_features(seed, sum(lengths))
    parts = np.split(whole, np.cumsum(lengths)[:-1])
    statistics = cmvn_statistics("global", [MomentSums.of(part) for part in parts], {})
    exact = whole.astype(np.float64)
    np.testing.assert_allclose(statistics.mean, exact.mean(axis=0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        statistics.std, np.maximum(exact.std(axis=0), MIN_STD), rtol=1e-5, atol=1e-5
    )


def test_normalised_features_have_mean_zero_and_deviation_one():
    features = random_features(1, 500)
    statistics = cmvn_statistics("global", [MomentSums.of(features)], {})
    normal = Normaliser(statistics)(row(features))
    assert normal.dtype == np.float32
    np.testing.assert_allclose(normal.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(normal.std(axis=0), 1, atol=1e-4)


def test_float16_rows_are_normalised_in_float32():
    features = random_features(1, 50)
    statistics = cmvn_statistics("global", [MomentSums.of(features)], {})
    halves = features.astype(np.float16)
    normal = Normaliser(statistics)(row(halves))
    assert normal.dtype == np.float32
    np.testing.assert_array_equal(normal, Normaliser(statistics)(row(halves.astype(np.float32))))


def test_each_speaker_has_its_own_statistics_and_strangers_the_global_ones():
    own = {"s1": random_features(1, 300), "s2": random_features(2, 300)}
    moments = {speaker: MomentSums.of(features) for speaker, features in own.items()}
    statistics = cmvn_statistics("speaker", list(moments.values()), moments)
    normaliser = Normaliser(statistics)
    for speaker, features in own.items():
        np.testing.assert_allclose(normaliser(row(features, speaker)).mean(axis=0), 0, atol=1e-4)
    everyone = cmvn_statistics("global", list(moments.values()), {})
    np.testing.assert_array_equal(
        normaliser(row(own["s1"], "stranger")), Normaliser(everyone)(row(own["s1"]))
    )
    assert abs(Normaliser(everyone)(row(own["s1"])).mean(axis=0)).max() > 0.1


def test_none_leaves_the_features_alone():
    features = random_features(3, 10)
    statistics = cmvn_statistics("none", [MomentSums.of(features)], {})
    np.testing.assert_array_equal(Normaliser(statistics)(row(features)), features)


def test_a_constant_feature_is_not_blown_up():
    features = np.full((20, 2), 3.0, dtype=np.float32)
    statistics = cmvn_statistics("global", [MomentSums.of(features)], {})
    assert statistics.std == (MIN_STD, MIN_STD)
    np.testing.assert_array_equal(Normaliser(statistics)(row(features)), 0)


def test_statistics_of_another_feature_size_are_refused():
    statistics = cmvn_statistics("global", [MomentSums.of(random_features(1, 9, 3))], {})
    with pytest.raises(PipelineError, match="4 features, but the statistics have 3"):
        Normaliser(statistics)(row(random_features(1, 9, 4)))


def test_moments_that_cannot_be_added():
    with pytest.raises(ValueError, match="no moments"):
        add_moments([])
    with pytest.raises(ValueError, match="different feature sizes"):
        add_moments(MomentSums.of(random_features(1, 5, size)) for size in (2, 3))
