import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from featurize.features import FeatureExtractor, stack_frames
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from training.align.gaussians import Mixtures, MixtureStatistics
from training.align.graph import PhoneTranscript, best_path, flat_places, state_graph
from training.align.shards import AlignedUtterance
from training.align.stacking import Stacking, splice
from training.align.states import PhoneStates, states_of
from training.align.transforms import Scatter
from training.align.write import _deviations


def brute_force(scores, sequences):
    """The best of all ways to cut the frames into one stretch per state, over some sequences.

    Returns:
        The score, and every sequence of phones with the places of its frames that has it: where
        phones or pronunciations are alike, several say the same of the frames.
    """
    num_frames = len(scores)
    ways = []
    for phones, states in sequences:
        for cuts in itertools.combinations(range(1, num_frames), len(states) - 1):
            places = np.searchsorted(cuts, np.arange(num_frames), side="right")
            score = scores[np.arange(num_frames), states[places]].sum(dtype=np.float64)
            ways.append((score, phones.tolist(), places.tolist()))
    best = max((score for score, *_ in ways), default=-np.inf)
    return best, [way for score, *way in ways if score > best - 1e-4]


def spelt_out(transcript):
    """Every sequence of phones of a transcript, pauses and pronunciations chosen in all ways."""
    silence = transcript.silence
    gaps = [[], [silence]] if silence is not None else [[]]
    for said in itertools.product(*transcript.words):
        for pauses in itertools.product(gaps, repeat=len(said) + 1):
            phones = list(pauses[0])
            for word, pause in zip(said, pauses[1:], strict=True):
                phones += [*word, *pause]
            yield np.array(phones, np.int32)


NUM_PHONES, SILENCE = 4, 3


class TwoNeighbours:
    """A state for each phone between each two neighbours."""

    states_per_phone = 1
    knows_context = True

    def in_context(self, left_n, phone_n, right_n):
        size = NUM_PHONES + 1
        return (((left_n % size) * size + phone_n) * size + right_n % size)[:, None].astype(
            np.int64
        )


SEQUENCES = {
    "one": PhoneStates(1),
    "three": PhoneStates(3),
    "context": TwoNeighbours(),
}
pronunciations = st.lists(
    st.lists(st.integers(0, NUM_PHONES - 2), min_size=1, max_size=2),
    min_size=1,
    max_size=2,
    unique_by=tuple,
)


@example(3, [[[0, 0], [0]], [[0]]], None, "one", 0)  # two phones or three: the same states
@given(
    st.integers(1, 8),
    st.lists(pronunciations, min_size=1, max_size=2),
    st.sampled_from([SILENCE, None]),
    st.sampled_from(sorted(SEQUENCES)),
    st.integers(0, 2**16),
)
def test_the_best_path_is_the_best_of_all(num_frames, words, silence, name, seed):
    sequence, transcript = SEQUENCES[name], PhoneTranscript(words, silence)
    scores = np.random.default_rng(seed).normal(size=(num_frames, 125)).astype(np.float32)
    graph = state_graph(transcript, sequence, 1)
    found = best_path(scores[:, graph.used_U], graph)
    sequences = [(phones, states_of(sequence, phones)) for phones in spelt_out(transcript)]
    expected, ways = brute_force(scores, sequences)
    if not ways:
        assert found is None
        return
    assert found.score == pytest.approx(expected, abs=1e-4)
    assert [found.phones_P.tolist(), found.places_t.tolist()] in ways


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
    pauses = rng.random(len(words) + 1) < 0.5
    phones = [silence] * bool(pauses[0])
    for word, pause in zip(words, pauses[1:], strict=True):
        phones += [*word, *[silence] * bool(pause)]
    states = (np.array(phones)[:, None] * states_per_phone + np.arange(states_per_phone)).ravel()
    truth_states = np.repeat(states, rng.integers(3, 6, len(states)))
    truth_phones = truth_states // states_per_phone
    scores = sharp_scores(truth_states, 13 * states_per_phone, rng)
    graph = state_graph(
        PhoneTranscript([[w] for w in words], silence), PhoneStates(states_per_phone), 3
    )
    found = best_path(scores[:, graph.used_U], graph)
    assert found.phones_P.tolist() == phones
    assert found.phones_P[found.places_t // states_per_phone].tolist() == truth_phones.tolist()


def test_a_silence_has_its_least_length_or_is_not_there():
    transcript = PhoneTranscript([[[0]], [[1]]], 2)
    graph = state_graph(transcript, PhoneStates(1), 3)
    scores = np.zeros((8, 3), np.float32)
    scores[:3, 0] = scores[3:5, 2] = scores[5:, 1] = 1
    # Two silent frames: as three, which cost one frame, or as none, which cost two.
    assert best_path(scores[:, graph.used_U], graph).phones_P.tolist() == [0, 2, 1]
    scores[3, 2], scores[3, 0] = 0, 1
    assert best_path(scores[:, graph.used_U], graph).phones_P.tolist() == [0, 1]


def test_too_few_frames_have_no_path():
    graph = state_graph(PhoneTranscript([[[0, 1, 0], [0, 1]], [[1]]], 2), PhoneStates(2), 2)
    scores = np.zeros((6, len(graph.used_U)), np.float32)
    assert best_path(scores, graph).phones_P.tolist() == [0, 1, 1]
    assert best_path(scores[:5], graph) is None
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


def test_deviations_are_of_a_speakers_own_scores_and_few_are_not_judged():
    def said(speaker, scores):
        return [
            AlignedUtterance(f"{speaker}-{n}", speaker, "train", 1, score, 1, 0, 1)
            for n, score in enumerate(scores)
        ]

    found = _deviations(
        [*said("a", [-50.0, -49, -51, -48, -52, -60]), *said("b", [-9.0, -10, -11, -10, -10]),
         *said("few", [-1.0, -1000])]
    )  # fmt: skip
    # Medians -50.5 and -10; distances .5 1.5 .5 2.5 1.5 9.5 and 1 0 1 0 0: half are at most 1.
    assert found["a-5"] == pytest.approx(9.5 / 1.4826)
    assert found["b-2"] == pytest.approx(1 / 1.4826)
    assert found["few-1"] == 0
    assert _deviations(said("a", [-1.0] * 6)) == {f"a-{n}": 0 for n in range(6)}
