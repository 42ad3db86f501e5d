"""What plots share."""

import pytest

from evaluation.figures import legend_below, new_figure


@pytest.mark.parametrize("names", [["v2"] * 3, [f"v2-seed={n}" for n in range(11)], ["v" * 120]])
def test_a_legend_stays_within_the_drawing(names):
    figure = new_figure()
    axes = figure.subplots()
    for number, name in enumerate(names):
        axes.plot([0, 1], [0, number], "o", label=name)
    legend_below(figure, min(5, len(names)))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names
    if len(names) > 1:
        assert legend.get_window_extent().x0 >= 0
        assert legend.get_window_extent().x1 <= figure.bbox.width
