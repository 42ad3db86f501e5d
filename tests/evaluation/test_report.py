import io
import itertools
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread

from evaluation.claims import compared, factor, paper_claims, summary_lines
from evaluation.comparison import comparison_table, escape_markdown, summary_markdown
from evaluation.config import ViterbiConfig, WordSearchConfig
from evaluation.figures import MODEL_COLOURS, Plot, short_count
from evaluation.metrics import (
    ErrorRate,
    ErrorRates,
    EvaluationMetrics,
    ModelMetrics,
    MultiplicationCounts,
    ParameterCounts,
    RateDifference,
    Saving,
    WordModelMetrics,
)
from evaluation.outcome import ShownUtterance
from evaluation.plots import Findings, draw_plots
from evaluation.raster_plot import MAX_NEURONS, draw_raster, shown_neurons, spike_image
from evaluation.report import environment, marked_difference, render_report
from evaluation.spike_raster import SpikeRaster, TimedSymbol
from featurize.stage import read_manifest
from flows.stage_commands import sentences_of
from training.manifest import TrainManifest

COST = {"v2": 400_000.0, "v1": 250_000.0, "conventional": 150_000.0, "gru": 4e6, "lstm": 5e6}


def model_metrics(model, value, label=None, cost=None, recurrent=1_000_000):
    cost = COST[model] if cost is None else cost
    spiking = model in ("v2", "v1", "conventional")
    ratio = Saving(gru=4e6 / cost, lstm=5e6 / cost) if cost else Saving(gru=None, lstm=None)
    return ModelMetrics(
        model=model,
        label=label or model,
        run="runs/<b>training",
        training_fingerprint="x",
        decoder="greedy",
        num_layers=2,
        hidden_size=550,
        num_bits=6 if spiking else None,
        num_utterances=100,
        num_frames=360_000,
        frame_shift_s=0.01,
        error_rates=ErrorRates(per=ErrorRate(value=value, low=value - 0.01, high=value + 0.012)),
        parameters=ParameterCounts(total=recurrent + 5, recurrent_layers=recurrent),
        spike_density=(0.2, 0.1, 0.15) if spiking else (),
        multiplications_per_frame=MultiplicationCounts(
            audited=cost,
            as_published=1.3 * cost,
            terms={
                "feed_forward_1": 0.2 * cost,
                "recurrent_1": 0.7 * cost,
                "output": 0.1 * cost,
                "elementwise": 4000.0,
            },
            audited_closed_form=cost,
        ),
        additions_per_frame=cost + 7000,
        saving=ratio,
        saving_as_published=ratio,
        training_seconds=60.0,
        num_epochs=4,
    )


def trained(metrics, write_model):
    """A training manifest for each model of an evaluation."""
    training = read_manifest(write_model(metrics.models[0].model), TrainManifest)
    return {model.label: training for model in metrics.models}


def difference(one, other, value, low, high):
    return RateDifference(
        model=one, compared_with=other, rate="per", value=value, low=low, high=high
    )


@pytest.fixture
def metrics():
    return EvaluationMetrics(
        features="features|<x>",
        subsets=("test-mini",),
        label_kind="phones",
        primary_rate="per",
        models=(
            model_metrics("v2", 0.202),
            model_metrics("v1", 0.22),
            model_metrics("conventional", 0.35),
            model_metrics("gru", 0.19),
            model_metrics("lstm", 0.195, recurrent=2_000_000),
        ),
        differences=(
            difference("v2", "lstm", 0.007, 0.001, 0.0105),
            difference("v2", "gru", 0.012, 0.003, 0.021),
            difference("v1", "v2", 0.018, -0.002, 0.03),
            difference("conventional", "v1", -0.13, -0.15, -0.11),
        ),
    )


def test_summary_says_what_the_numbers_say(metrics):
    lines = summary_lines(metrics)
    assert lines[0] == "5 recognisers on 100 utterances (1.0 hours) of test-mini."
    assert lines[1] == "The lowest phone error rate is 19.00%, by the GRU."
    assert lines[2] == (
        "The SNN v2 is 1.20 points worse (95% interval of the difference +0.30 to +2.10) than the "
        "GRU, and needs 10.00 times fewer multiplications than a GRU of the same size (10.00 times "
        "by the paper's way of counting)."
    )


def test_a_difference_within_noise_is_not_called_one():
    assert compared(difference("a", "b", 0.01, -0.001, 0.03)).startswith("not clearly apart")
    assert "better" in compared(difference("a", "b", -0.01, -0.02, -0.001))
    assert "worse" in compared(difference("a", "b", 0.01, 0.001, 0.02))


def test_costing_more_is_said():
    assert factor(0.5) == "2.00 times more"
    assert factor(2.0) == "2.00 times fewer"


def test_verdicts_follow_the_intervals(metrics):
    verdicts = {claim.claim: claim.verdict for claim in paper_claims(metrics)}
    assert verdicts == {
        "v2 errs little more than an LSTM (points)": "holds",
        "v1 errs more than v2 (points)": "undecided",
        "the conventional SNN errs more than v1 (points)": "does not hold",
        "recurrent-layer parameters, LSTM over v2": "holds",
        "multiplications, GRU over v2": "does not hold",
        "multiplications, GRU over v1": "holds",
    }


def test_words_are_said_beside_phones(metrics, write_model):
    wer = ErrorRate(value=0.31, low=0.3, high=0.32)
    lstm = metrics.models[4].model_copy(
        update={
            "error_rates": metrics.models[4].error_rates.model_copy(update={"wer": wer}),
            "words": WordSearchConfig(lm_weight=0.75, word_score=-1),
        }
    )
    given = WordModelMetrics(
        language_model="books.arpa.gz",
        num_ngrams=(200_000, 900_000, 700_000),
        num_words=200_000,
        num_spelled=199_000,
        perplexity=171.4,
        unknown_share=0.0123,
    )
    words = difference("v2", "lstm", 0.02, 0.01, 0.03).model_copy(update={"rate": "wer"})
    both = metrics.model_copy(
        update={
            "models": (*metrics.models[:4], lstm),
            "word_model": given,
            "differences": (*metrics.differences, words),
        }
    )
    assert (
        "The lowest word error rate is 31.00%, by the LSTM: with a 3-gram model of 199,000 words "
        "(books.arpa.gz), perplexity 171; 1.2% of the words spoken are not in it."
    ) in summary_lines(both)
    close = paper_claims(both)[0]
    assert close.here == (
        "+0.70 points (95% interval +0.10 to +1.05); words +2.00 points (95% interval +1.00 to "
        "+3.00)"
    )
    assert close.verdict == paper_claims(metrics)[0].verdict
    page = render_report(both, (), {}, trained(both, write_model), "2026-11-25T12:00:00+00:00")
    assert "words with lm_weight 0.75, word_score -1, chosen on dev" in page
    assert comparison_table(both)[4]["WER"] == "31.00% (30.00 to 32.00)"
    assert comparison_table(both)[0]["WER"] == ""


def test_verdicts_stand_on_the_papers_corpora_alone(metrics, write_model):
    assert "Verdict here" not in summary_markdown(metrics)
    assert "there is no verdict" in render_report(
        metrics, (), {}, trained(metrics, write_model), "2026-11-25T12:00:00+00:00"
    )
    timit = metrics.model_copy(update={"paper_corpus": "timit"})
    assert "Verdict here" in summary_markdown(timit)
    page = render_report(timit, (), {}, trained(timit, write_model), "2026-11-25T12:00:00+00:00")
    assert '<td class="holds">' in page
    assert '<td class="fails">' in page


def test_claims_need_their_models(metrics, write_model):
    alone = metrics.model_copy(update={"models": metrics.models[3:], "differences": ()})
    assert paper_claims(alone) == []
    assert "Beside the paper" not in summary_markdown(alone)
    assert "Beside the paper" not in render_report(
        alone, (), {}, trained(alone, write_model), "2026-11-25T12:00:00+00:00"
    )


def test_single_bit_models_are_worded(metrics):
    binary = metrics.model_copy(
        update={"models": (model_metrics("v2", 0.3, cost=0.0),), "differences": ()}
    )
    text = " ".join(summary_lines(binary))
    assert "no multiplications in its matrix products" in text
    assert "no dense model is in this comparison" in text
    assert comparison_table(binary)[0]["GRU/model"] == "no mult."


def test_a_silent_network_is_not_praised(metrics):
    silent = metrics.models[0].model_copy(update={"spike_density": (0.5, 0.0, 0.1)})
    lines = summary_lines(metrics.model_copy(update={"models": (silent,)}))
    assert any("nearly silent (layer 1 fires in 0.00%" in line for line in lines)
    assert not any("silent" in line for line in summary_lines(metrics))


def broken(metrics, *values):
    """Two recognisers, v2 and GRU, with these errors, and their difference."""
    v2, gru = (
        model_metrics(kind, value) for kind, value in zip(("v2", "gru"), values, strict=True)
    )
    apart = values[0] - values[1]
    return metrics.model_copy(
        update={
            "models": (v2, gru),
            "differences": (difference("v2", "gru", apart, apart - 0.01, apart + 0.01),),
        }
    )


@pytest.mark.parametrize("values", [(0.89, 0.92), (0.92, 0.30), (0.30, 0.92)])
def test_a_recogniser_that_does_not_work_is_compared_with_none(metrics, values):
    """Six minutes of speech, two epochs: 89 against 92% errors is no lead of the first."""
    lines = summary_lines(broken(metrics, *values))
    text = " ".join(lines)
    assert "better" not in text
    assert "not clearly apart" not in text
    assert "not compared" in text
    assert text.count("does not work") == sum(value > 0.6 for value in values)
    assert "Train it longer" in text
    assert ("The lowest phone error rate" in text) == (min(values) < 0.6)


def test_a_command_says_once_that_a_recogniser_does_not_work(metrics):
    shown = " ".join(map(str, sentences_of(broken(metrics, 0.63, 0.64))))
    assert shown.count("SNN v2 does not work: 63% errors") == 1
    assert shown.count("GRU does not work: 64% errors") == 1


def test_nothing_put_out_is_said_with_the_remedy(metrics):
    silent = model_metrics("v2", 0.58).model_copy(
        update={"output_share": 0.05, "viterbi": ViterbiConfig(tune_on_dev=False)}
    )
    text = " ".join(summary_lines(metrics.model_copy(update={"models": (silent,)})))
    assert "does not work: 58% errors, 5% as many symbols put out as were spoken" in text
    assert "evaluate.viterbi.tune_on_dev=true" in text


def test_verdicts_need_recognisers_that_work(metrics):
    models = [model_metrics("v2", 0.89), model_metrics("lstm", 0.92), model_metrics("v1", 0.9)]
    apart = [
        difference("v2", "lstm", -0.03, -0.04, -0.02),
        difference("v1", "v2", 0.01, 0.005, 0.02),
    ]
    neither = metrics.model_copy(update={"models": tuple(models), "differences": tuple(apart)})
    verdicts = {c.claim: c.verdict for c in paper_claims(neither)}
    assert verdicts.pop("recurrent-layer parameters, LSTM over v2") == "does not hold"
    assert set(verdicts.values()) == {"undecided"}
    # The worse of two need not work for the better to be better.
    one = metrics.model_copy(
        update={
            "models": (model_metrics("v1", 0.4), model_metrics("conventional", 0.7)),
            "differences": (difference("conventional", "v1", 0.3, 0.29, 0.31),),
        }
    )
    assert next(c.verdict for c in paper_claims(one)) == "holds"


def test_table_has_the_rates_that_exist_and_equal_keys(metrics):
    rows = comparison_table(metrics)
    assert [row["Model"] for row in rows] == ["v2", "v1", "conventional", "gru", "lstm"]
    assert len({tuple(row) for row in rows}) == 1
    assert rows[0]["PER"] == "20.20% (19.20 to 21.40)"
    assert "WER" not in rows[0]
    assert rows[0]["Mult./frame (audited)"] == "400,000"
    assert rows[0]["GRU/model"] == "10.00x"
    assert (rows[0]["Spike density"], rows[3]["Spike density"]) == (
        "20.0% / 10.0% / 15.0%",
        "dense",
    )


def test_a_narrow_summary_keeps_what_the_result_is_about(metrics):
    def header(**options):
        lines = summary_markdown(metrics, **options).splitlines()
        return next(line for line in lines if line.startswith("| Model |"))

    assert header() == "| " + " | ".join(comparison_table(metrics)[0]) + " |"
    assert header(narrow=True) == (
        "| Model | PER | Spike density | Mult./s (audited) | Mult./frame (audited) | "
        "Mult./frame (as published) | GRU/model |"
    )


def test_markdown_tables_are_whole_and_text_is_escaped(metrics):
    hostile = metrics.model_copy(update={"subsets": ("<img src=x>|a\nb",)})
    text = summary_markdown(hostile)
    assert "<img" not in text.replace("\\<img", "")
    tables = [line for line in text.splitlines() if line.startswith("|")]
    comparison = tables[: 2 + len(metrics.models)]
    assert len({line.replace("\\|", "").count("|") for line in comparison}) == 1
    assert escape_markdown("a|b\n*c*") == "a\\|b \\*c\\*"


def test_differences_are_marked_and_escaped():
    marked = marked_difference(("a", "b", "<i>"), ("a", "c", "<i>", "d"))
    assert marked == "a <del>b</del> <ins>c</ins> &lt;i&gt; <ins>d</ins>"


class Outline(HTMLParser):
    """Checks nesting; keeps tags with their attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_report_is_whole_self_contained_and_accessible(metrics, write_model):
    example = ShownUtterance('u"><script>', ("K", "AE", "<b>"), ("K", "T", "<b>"))
    plot = Plot("p", "A <plot>", 'Alt "text"', b"png", '<svg viewBox="0 0 1 1"></svg>', True)
    page = render_report(
        metrics,
        [plot],
        {"v2": [example], "gru": [example]},
        trained(metrics, write_model),
        "2026-01-01",
    )
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    tags = [tag for tag, _ in outline.seen]
    assert not {"script", "link", "iframe", "object"} & set(tags)
    assert dict(outline.seen)["html"] == {"lang": "en"}
    for tag, attributes in outline.seen:
        assert "onclick" not in attributes
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"] == 'Alt "text"'
        if tag == "th":
            assert attributes["scope"] in ("col", "row", "rowgroup")
    assert "http" not in page.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in page
    assert "u&#34;&gt;&lt;script&gt;" in page
    assert summary_lines(metrics)[1] in page
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    regions = [a["aria-label"] for _, a in outline.seen if a.get("role") == "region"]
    assert len(set(regions)) == len(regions)


@pytest.mark.parametrize(
    ("value", "text"), [(950, "950"), (12_345, "12.3 k"), (1_240_000, "1.24 M"), (0, "0")]
)
def test_short_counts(value, text):
    assert short_count(value) == text


def a_raster(label="v2", symbol="AH", utterance_id="u1", hidden=9):
    rng = np.random.default_rng(0)
    sites = [rng.normal(size=(20, size)).astype(np.float32) for size in (7, hidden, hidden)]
    for site in sites:
        site[np.abs(site) < 1.0] = 0.0
    return SpikeRaster(
        label=label,
        utterance_id=utterance_id,
        text="WHAT WAS SAID",
        duration_s=0.6,
        spectrogram_tF=rng.normal(size=(60, 7)).astype(np.float32),
        feature_kind="fbank",
        site_outputs=tuple(sites),
        hypothesis=(TimedSymbol(symbol, 0.03, 0.3),),
        reference=(TimedSymbol("K", 0.0, 0.6),),
    )


def test_plots_are_images_that_say_what_they_show(metrics, write_model):
    plots = draw_plots(Findings(metrics, trained(metrics, write_model), (a_raster(),)))
    assert [plot.name for plot in plots] == [
        "error_against_multiplications",
        "multiplications_by_term",
        "spike_density",
        "learning_curves",
        "spike_raster_v2",
    ]
    for plot in plots:
        image = imread(io.BytesIO(plot.png))
        assert image.shape[1] > 900
        assert image[..., :3].std() > 0.02
        assert len(plot.png) < 150_000
        assert "v2" in plot.alt
    assert "v2 20.2% at 40 M" in plots[0].alt
    assert "v2 from 90.0% to 22.5%" in plots[3].alt
    assert "Recognised: AH." in plots[4].alt
    assert set(MODEL_COLOURS) >= {model.model for model in metrics.models}


def test_plots_of_dense_and_of_single_bit_models_alone(metrics, write_model):
    dense = metrics.model_copy(update={"models": metrics.models[3:]})
    names = [plot.name for plot in draw_plots(Findings(dense, trained(dense, write_model)))]
    assert "spike_density" not in names
    binary = metrics.model_copy(update={"models": (model_metrics("v2", 1.3, cost=0.0),)})
    assert len(draw_plots(Findings(binary, trained(binary, write_model)))) == 4


def test_drawings_follow_the_colours_of_their_page(metrics, write_model):
    plots = draw_plots(Findings(metrics, trained(metrics, write_model), (a_raster(hidden=300),)))
    style, ids = environment().get_template("report.css").render(), []
    for plot in plots:
        root = ET.fromstring(plot.svg)
        shapes = [element.attrib for element in root.iter()]
        assert "width" not in root.attrib
        assert "http" not in plot.svg
        colours = {
            colour
            for attributes in shapes
            for colour in re.findall("#[0-9a-f]{6}", attributes.get("style", ""))
        }
        assert colours == set()
        assert not any(re.match("#[0-9a-f]{6}", a.get("fill", "")) for a in shapes)
        variables = set(re.findall(r"var\(--(\w+)\)", plot.svg))
        assert {"ink", "blue"} & variables
        for variable in variables:
            assert style.count(f"--{variable}:") == 3  # light, dark, print
        own = [attributes["id"] for attributes in shapes if "id" in attributes]
        references = re.findall(r"url\(#([^)]*)\)|href=\"#([^\"]*)\"", plot.svg)
        assert {one or other for one, other in references} <= set(own)
        ids += own
    assert len(set(ids)) == len(ids)


def test_hostile_text_in_a_drawing_stays_text():
    hostile = "</text><script>alert(1)</script>$\\frac{1}$"
    plot = draw_raster(a_raster(symbol=hostile, utterance_id=hostile))
    root = ET.fromstring(plot.svg)
    assert not [element for element in root.iter() if "script" in element.tag]
    assert hostile in [element.text for element in root.iter()]


def test_rasters_colour_signs_and_keep_silence_clear():
    image = spike_image(np.array([[0.0, 1.0], [-0.5, 0.0], [0.0, 0.0]], np.float32))
    assert image.shape == (2, 3, 4)
    assert np.array_equal(image[..., 3] > 0, [[False, True, False], [True, False, False]])
    assert image[1, 0, 3] == 1.0
    assert image[1, 0, 2] > image[1, 0, 0]  # positive is blue
    assert image[0, 1, 0] > image[0, 1, 2]  # negative is orange
    assert not spike_image(np.zeros((4, 2), np.float32))[..., 3].any()


def test_a_raster_shows_neurons_of_the_whole_layer():
    assert np.array_equal(shown_neurons(5), range(5))
    many = shown_neurons(550)
    assert (len(many), many[0], many[-1]) == (MAX_NEURONS, 0, 549)


def test_labels_cannot_become_mathematics(metrics, write_model):
    odd = metrics.model_copy(
        update={"models": (model_metrics("gru", 0.2, label="gru-$\\frac{1}$"),)}
    )
    assert draw_plots(Findings(odd, trained(odd, write_model)))
