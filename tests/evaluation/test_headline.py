"""The first sentence of a report never says more than the numbers do."""

import pytest

from evaluation.claims import summary_lines, title_of
from evaluation.headline import contestants, difference, headline
from evaluation.metrics import (
    ErrorRate,
    ErrorRates,
    EvaluationMetrics,
    ModelMetrics,
    MultiplicationCounts,
    ParameterCounts,
    RateDifference,
    Saving,
)
from evaluation.paper_corpus import paper_corpus
from featurize.schema import FeaturizeManifest, SubsetInfo
from featurize.stage import read_manifest

TITLES = {"v2": "SNN v2", "v3": "SNN v3", "gru": "GRU", "lstm": "LSTM"}


def a_model(kind, error, million_per_s, label=None, spread=0.01, output_share=None):
    cost = million_per_s * 1e4  # a frame of 10 ms
    is_spiking = kind in ("conventional", "v1", "v2")
    saving = Saving(gru=None, lstm=None)
    return ModelMetrics(
        model=kind,
        label=label or kind,
        title=TITLES[kind],
        run="runs/x",
        training_fingerprint="x",
        decoder="greedy",
        num_layers=2,
        hidden_size=550,
        num_bits=6 if is_spiking else None,
        num_utterances=100,
        num_frames=360_000,
        frame_shift_s=0.01,
        error_rates=ErrorRates(per=ErrorRate(value=error, low=error - spread, high=error + spread)),
        output_share=output_share,
        parameters=ParameterCounts(total=1005, recurrent_layers=1000),
        spike_density=(0.2, 0.1) if is_spiking else (),
        multiplications_per_frame=MultiplicationCounts(
            audited=cost, as_published=cost, terms={"output": cost}, audited_closed_form=cost
        ),
        additions_per_frame=cost,
        saving=saving,
        saving_as_published=saving,
        training_seconds=60.0,
        num_epochs=4,
    )


def an_evaluation(*models, differences=()):
    return EvaluationMetrics(
        features="features",
        subsets=("test",),
        label_kind="phones",
        primary_rate="per",
        models=models,
        differences=tuple(
            RateDifference(model=one, compared_with=other, rate="per", value=v, low=a, high=b)
            for one, other, v, a, b in differences
        ),
    )


def test_as_accurate_within_noise_at_fewer_multiplications():
    found = headline(
        an_evaluation(
            a_model("v2", 0.032, 3.06),
            a_model("gru", 0.029, 16.9),
            differences=[("v2", "gru", 0.003, -0.005, 0.009)],
        )
    )
    assert found.sentence == (
        "The SNN v2 is as accurate as the GRU within noise, and needs 5.5 times fewer "
        "multiplications."
    )
    assert found.reservation == (
        "A smaller GRU might do as well: no dense network of so few multiplications was tried."
    )
    assert [number.value for number in found.numbers] == ["3.2%", "2.9%", "5.5x"]
    assert found.numbers[2].meaning.endswith("3.06\u00a0M in place of 16.9\u00a0M")


def test_the_cheapest_dense_network_of_no_more_errors_is_compared_with():
    """Not the one of the same size, which would flatter."""
    found = headline(
        an_evaluation(
            a_model("v2", 0.40, 5.0),
            a_model("gru", 0.36, 50.0, "gru-large"),
            a_model("gru", 0.405, 12.0, "gru-small"),
        )
    )
    assert "as accurate as the GRU small within noise" in found.sentence
    assert "2.4 times fewer" in found.sentence


def test_more_errors_are_said_and_equal_multiplications_come_first():
    everyone = (a_model("v2", 0.40, 5.0), a_model("gru", 0.30, 50.0, "gru-large"))
    apart = headline(an_evaluation(*everyone))
    assert apart.sentence == (
        "The SNN v2 makes more errors than the GRU large (40.0% against 30.0%), but needs 10.0 "
        "times fewer multiplications."
    )
    beside = headline(an_evaluation(*everyone, a_model("gru", 0.45, 5.5, "gru-small")))
    assert beside.sentence == (
        "The SNN v2 makes fewer errors than the GRU small (40.0% against 45.0%), and needs about "
        "as many multiplications."
    )
    assert beside.reservation == ""


def test_a_smaller_dense_network_that_does_as_well_is_said():
    found = headline(an_evaluation(a_model("v2", 0.40, 5.0), a_model("gru", 0.40, 2.0)))
    assert found.sentence == (
        "The GRU is as accurate as the SNN v2 within noise, and needs 2.5 times fewer "
        "multiplications: spikes save nothing here."
    )
    better = headline(an_evaluation(a_model("v2", 0.40, 5.0), a_model("gru", 0.30, 2.0)))
    assert better.sentence == (
        "The SNN v2 makes more errors than the GRU (40.0% against 30.0%), which needs 2.5 times "
        "fewer multiplications: spikes save nothing here."
    )


@pytest.mark.parametrize(
    ("error", "cost", "word"), [(0.3, 5.0, "and"), (0.3, 20.0, "but"), (0.5, 5.0, "but")]
)
def test_what_is_won_and_what_is_lost_are_joined_by_but(error, cost, word):
    found = headline(an_evaluation(a_model("v2", error, cost), a_model("gru", 0.4, 10.0)))
    assert f"%), {word} needs 2.0 times" in found.sentence


def test_an_interval_that_tells_nothing_apart_is_no_equality():
    found = headline(
        an_evaluation(a_model("v2", 0.40, 5.0, spread=0.1), a_model("gru", 0.35, 50.0, spread=0.1))
    )
    assert found.sentence.startswith("Too little test speech to tell the SNN v2 and the GRU apart")
    assert "accurate" not in found.sentence


@pytest.mark.parametrize(("error", "share"), [(0.89, None), (0.58, 0.05)])
def test_a_recogniser_that_does_not_work_is_said_first(error, share):
    found = headline(
        an_evaluation(a_model("v2", error, 5.0, output_share=share), a_model("gru", 0.92, 50.0))
    )
    assert found.sentence.startswith(f"The SNN v2 does not work: {error:.0%} errors")
    assert found.reservation.startswith("Train it longer")
    assert "fewer" not in found.sentence + found.reservation


def test_a_dense_network_that_does_not_work_is_compared_with_none():
    found = headline(an_evaluation(a_model("v2", 0.40, 5.0), a_model("gru", 0.92, 50.0)))
    assert found.sentence == "The SNN v2 makes 40.0% phone errors."
    assert found.reservation.startswith("The GRU does not work")


def test_one_kind_alone():
    assert "No dense network" in headline(an_evaluation(a_model("v2", 0.4, 5.0))).reservation
    dense = headline(an_evaluation(a_model("gru", 0.4, 5.0), a_model("lstm", 0.3, 9.0)))
    assert dense.sentence == "The LSTM makes 30.0% phone errors."
    assert "No spiking recogniser" in dense.reservation
    assert len(dense.numbers) == 3


def test_single_bit_spikes_need_no_multiplications():
    found = headline(an_evaluation(a_model("v2", 0.4, 0.0), a_model("gru", 0.4, 5.0)))
    assert "needs no multiplications, only additions" in found.sentence
    assert found.numbers[2].value == "0"


@pytest.mark.parametrize(
    ("layout", "train", "hours", "speakers", "found"),
    [
        ("timit", ("train",), 3.1, 462, "timit"),
        ("timit", ("train",), 0.4, 462, None),
        ("timit", ("train",), 3.1, 20, None),
        ("librispeech", ("train-clean-100",), 100.6, 251, "librispeech-100h"),
        ("librispeech", ("train-mini",), 2.6, 20, None),
        ("manifest", ("train-clean-100",), 100.6, 251, None),
    ],
)
def test_verdicts_need_a_corpus_of_the_paper(write_features, layout, train, hours, speakers, found):
    manifest = read_manifest(write_features(), FeaturizeManifest)
    info = SubsetInfo(num_utterances=1, num_speakers=speakers, num_frames=1, hours=hours)
    changed = {
        "config": {"corpus": layout},
        "splits": {"train": train},
        "subsets": dict.fromkeys(train, info),
    }
    assert paper_corpus(manifest.model_copy(update=changed)) == found


def test_without_paired_differences_all_seeds_count():
    """The first seed alone would have said the opposite of the mean."""
    ours = [a_model("v3", error, 5, f"v3-{n}", 0.005) for n, error in enumerate((0.30, 0.26, 0.26))]
    dense = [
        a_model("gru", error, 5, f"gru-{n}", 0.005) for n, error in enumerate((0.28, 0.29, 0.29))
    ]
    models = [
        one.model_copy(
            update={"setting": one.model, "spike_density": (0.1,) if one in ours else ()}
        )
        for one in (*ours, *dense)
    ]
    metrics = an_evaluation(*models)
    one, other = contestants(metrics)
    apart = difference(metrics, one, other)
    assert apart.value == pytest.approx(-0.04 / 3)
    assert (apart.low, apart.high) == pytest.approx((0.255 - 0.295, 0.305 - 0.275))


@pytest.mark.parametrize(
    ("label", "title"),
    [
        ("v2-seed-1", "SNN v2 seed 1"),
        ("v2-617b3e-seed-1", "SNN v2 617b3e seed 1"),
        ("v2-optimizer.learning_rate=1e-05", "SNN v2 optimizer.learning_rate=1e-05"),
        ("v2-viterbi.insertion=-3-seed-1", "SNN v2 viterbi.insertion=-3 seed 1"),
    ],
)
def test_a_minus_belongs_to_its_number(label, title):
    assert title_of(a_model("v2", 0.3, 5, label)) == title


def test_rates_of_what_the_search_was_chosen_on_are_said_to_be_too_good():
    metrics = an_evaluation(a_model("v2", 0.3, 5))
    said = "chosen on these utterances"
    assert not any(said in line for line in summary_lines(metrics))
    here = metrics.model_copy(update={"is_search_chosen_here": True})
    assert any(said in line for line in summary_lines(here))
