import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from featurize.features import FeatureExtractor, stack_frames
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from training.align.forced import Transcript, align_utterance, best_places, flat_places
from training.align.gaussians import Mixtures, MixtureStatistics
from training.align.stacking import Stacking, splice
from training.align.states import PhoneStates
from training.align.transforms import Scatter


def brute_force(scores, states):
    """The best of all ways to cut the frames into one stretch per state."""
    num_frames = len(scores)
    best = (-np.inf, None)
    for cuts in itertools.combinations(range(1, num_frames), len(states) - 1):
        places = np.searchsorted(cuts, np.arange(num_frames), side="right")
        best = max(best, (scores[np.arange(num_frames), states[places]].sum(), tuple(places)))
    return best


@given(
    st.integers(1, 7), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**16), st.booleans()
)
def test_best_places_is_the_best_of_all_segmentations(
    num_frames, num_places, num_states, seed, equal
):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(num_frames, num_states)).astype(np.float32)
    states = np.zeros(num_places, int) if equal else rng.integers(0, num_states, num_places)
    found = best_places(scores, states)
    if num_places > num_frames:
        assert found is None
        return
    places, score = found
    expected, _ = brute_force(scores, states)
    assert score == pytest.approx(expected, abs=1e-4)
    assert scores[np.arange(num_frames), states[places]].sum() == pytest.approx(expected, abs=1e-4)
    assert places[0] == 0
    assert places[-1] == num_places - 1
    assert set(np.diff(places)) <= {0, 1}


def sharp_scores(truth, num_states, rng):
    scores = rng.normal(0, 0.1, (len(truth), num_states)).astype(np.float32)
    scores[np.arange(len(truth)), truth] += 5.0
    return scores


@given(st.integers(0, 2**16), st.sampled_from([1, 2, 3]))
def test_silence_between_words_is_found_where_it_is(seed, states_per_phone):
    rng = np.random.default_rng(seed)
    silence = 12
    # No phone twice: between equal ones, where a pause lies can be a toss-up.
    spoken = rng.permutation(12)[: rng.integers(2, 13)]
    words = [word.tolist() for word in np.array_split(spoken, rng.integers(1, 5)) if len(word)]
    pauses = rng.random(len(words) - 1) < 0.5
    phones = [silence]
    for number, word in enumerate(words):
        phones += [silence] * bool(number and pauses[number - 1]) + word
    phones.append(silence)
    states = (np.array(phones)[:, None] * states_per_phone + np.arange(states_per_phone)).ravel()
    truth_states = np.repeat(states, rng.integers(3, 6, len(states)))
    truth_phones = truth_states // states_per_phone
    scores = sharp_scores(truth_states, 13 * states_per_phone, rng)
    found = align_utterance(
        scores, Transcript.of_words(words, silence), PhoneStates(states_per_phone), 3
    )
    assert found.phones_P.tolist() == phones
    assert found.phones_P[found.places_t // states_per_phone].tolist() == truth_phones.tolist()


def test_a_short_utterance_is_aligned_without_pauses_or_not_at_all():
    words = Transcript.of_words([[0, 1], [0, 1]], silence=2)
    assert words.phones_P.tolist() == [2, 0, 1, 2, 0, 1, 2]
    scores = np.zeros((6, 3), np.float32)
    assert align_utterance(scores, words, PhoneStates(1), 2).phones_P.tolist() == [2, 0, 1, 0, 1, 2]
    assert align_utterance(scores[:5], words, PhoneStates(1), 2) is None
    assert flat_places(5, 6) is None


def test_the_flat_start_is_even():
    assert flat_places(7, 3).tolist() == [0, 0, 0, 1, 1, 2, 2]


def stacking_of(stack, stride, num_rows=9):
    splits = SplitsConfig(train=("a",), dev=("b",))
    config = FeaturizeConfig(splits=splits, num_bins=5, stack=stack, stride=stride)
    return config, Stacking(stack, stride, config.frame_shift_s)


@pytest.mark.parametrize(("stack", "stride"), [(1, 1), (3, 3), (4, 2), (3, 1)])
def test_rows_give_back_the_frames_they_were_joined_from(stack, stride):
    frames = np.arange(33.0, dtype=np.float32).reshape(-1, 3) + 1
    rows = stack_frames(frames, stack, stride)
    config, stacking = stacking_of(stack, stride)
    restored = stacking.frames(rows)
    assert np.array_equal(restored, frames[: len(restored)])
    assert len(restored) > len(frames) - stride
    middles = stacking.middle_frames(len(rows))
    centres = FeatureExtractor(config).centre_samples(len(rows))
    assert np.array_equal(centres, middles * 160 + 200)
    assert middles.max() < len(restored)


def test_splicing_repeats_the_outermost_frames():
    spliced = splice(np.array([[1.0], [2.0], [3.0]], np.float32), 1)
    assert spliced.tolist() == [[1, 1, 2], [1, 2, 3], [2, 3, 3]]


@pytest.fixture
def two_states():
    rng = np.random.default_rng(3)
    covariance = np.array([[4.0, 1.5], [1.5, 1.0]])
    states = np.repeat([0, 1], 4000)
    x = rng.multivariate_normal([0, 0], covariance, 8000) + states[:, None] * [2.0, -1.0]
    return x.astype(np.float32), states, covariance


def scattered(x, states, num_states):
    scatter = Scatter(x.shape[1], num_states)
    for start in range(0, len(x), 1000):
        scatter.add(x[start : start + 1000], states[start : start + 1000])
    return scatter


def test_principal_components_are_white(two_states):
    x, states, _ = two_states
    projected = scattered(x, states, 3).principal_components(5)(x)
    assert np.allclose(projected.mean(0), 0, atol=1e-2)
    assert np.allclose(np.cov(projected.T), np.eye(2), atol=1e-2)


def test_the_discriminant_of_two_states_is_fishers(two_states):
    x, states, covariance = two_states
    projection = scattered(x, states, 3).discriminants(1)
    fisher = np.linalg.solve(covariance, [2.0, -1.0])
    found = projection.matrix_XD[:, 0]
    cosine = abs(found @ fisher) / np.linalg.norm(found) / np.linalg.norm(fisher)
    assert cosine > 0.999
    within = np.concatenate([projection(x[states == s]) - projection(x[states == s]).mean(0)
                             for s in (0, 1)])  # fmt: skip
    assert within.var() == pytest.approx(1.0, abs=1e-2)


def random_mixtures(rng, shape=(3, 4, 2)):
    weights = rng.random(shape[:2]) + 0.1
    return Mixtures(
        weights / weights.sum(1, keepdims=True),
        rng.normal(size=shape),
        rng.random(shape) + 0.3,
    )


def test_log_likelihoods_are_scipys():
    rng = np.random.default_rng(5)
    mixtures, x = random_mixtures(rng), rng.normal(size=(11, 2)).astype(np.float32)
    found = mixtures.log_likelihoods(x)
    for state in range(3):
        density = sum(
            weight * multivariate_normal(mean, np.diag(variance)).pdf(x)
            for weight, mean, variance in zip(
                mixtures.weights_SM[state],
                mixtures.means_SMD[state],
                mixtures.variances_SMD[state],
                strict=True,
            )
        )
        assert np.allclose(found[:, state], np.log(density), atol=1e-4)


def test_one_component_has_the_moments_of_its_frames():
    rng = np.random.default_rng(6)
    x, states = rng.normal(size=(300, 2)).astype(np.float32), np.repeat([0, 2], 150)
    statistics = MixtureStatistics(3, 1, 2)
    statistics.add(x[:100], states[:100], np.ones((100, 1), np.float32))
    statistics.add(x[100:], states[100:], np.ones((200, 1), np.float32))
    found = statistics.estimate(None)
    assert np.allclose(found.means_SMD[2, 0], x[150:].mean(0), atol=1e-5)
    assert np.allclose(found.variances_SMD[0, 0], x[:150].var(0), atol=1e-5)
    # State 1 has no frame: it has the moments of all, and can still be aligned.
    assert np.allclose(found.means_SMD[1, 0], x.mean(0), atol=1e-5)


def test_every_estimate_raises_the_likelihood():
    rng = np.random.default_rng(7)
    x = np.concatenate([rng.normal(-2, 1, (400, 2)), rng.normal(2, 0.5, (400, 2))])
    x, states = x.astype(np.float32), np.zeros(800, np.int64)
    statistics = MixtureStatistics(1, 1, 2)
    statistics.add(x, states, np.ones((800, 1), np.float32))
    single = statistics.estimate(None)
    mixtures, likelihoods = single.split(), []
    for _ in range(6):
        statistics = MixtureStatistics(1, 2, 2)
        statistics.add(x, states, mixtures.responsibilities(x, states))
        mixtures = statistics.estimate(mixtures)
        likelihoods.append(mixtures.log_likelihoods(x).mean())
    assert likelihoods == sorted(likelihoods)
    assert likelihoods[-1] > single.log_likelihoods(x).mean() + 0.5
