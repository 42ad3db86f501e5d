"""Weights chosen one after the other."""

from hypothesis import given
from hypothesis import strategies as st

from evaluation import tuning
from evaluation.config import WordSearchConfig

CONFIG = WordSearchConfig(lm_weight=0.6, word_score=0.4)
LM_WEIGHTS, WORD_SCORES = (0.5, 0.75, 1.0, 1.5, 2.0), (-1.0, 0.0, 1.0, 2.0, 3.0)
GRID = {"lm_weight": LM_WEIGHTS, "word_score": WORD_SCORES}


def tuned_by(num_errors):
    """Tune where a configuration makes ``num_errors(config)`` errors; and what was tried."""
    tried = []

    def counted(configs):
        tried.extend(configs)
        return [num_errors(config) for config in configs]

    return tuning.one_after_the_other(CONFIG, GRID, counted), tried


@given(st.sampled_from(LM_WEIGHTS), st.sampled_from(WORD_SCORES))
def test_the_best_of_independent_weights_is_found(lm_weight, word_score):
    def num_errors(config):
        distance = abs(config.lm_weight - lm_weight) + abs(config.word_score - word_score)
        return round(100 * distance)

    found, tried = tuned_by(num_errors)
    assert (found.lm_weight, found.word_score) == (lm_weight, word_score)
    assert len(set(tried)) == len(tried)  # nothing is counted twice


def test_a_second_pass_mends_what_the_first_chose_by_other_weights():
    def num_errors(config):
        """The best language model weight depends on the word score."""
        best = 1.5 if config.word_score == 3 else 0.5
        return round(8 * abs(config.lm_weight - best)) + (0 if config.word_score == 3 else 20)

    found, _ = tuned_by(num_errors)
    assert (found.lm_weight, found.word_score) == (1.5, 3)


def test_what_ties_stays():
    found, _ = tuned_by(lambda config: 7)
    assert found == CONFIG
