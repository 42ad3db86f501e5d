"""The density curve as a picture and as rows of a table."""

from collections.abc import Sequence

from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from evaluation.engine.density_curve import DensityCurve
from evaluation.figures import Plot, finish, minor_count, new_figure, plot_style, short_count

_OURS = {
    "float_us": ("engine, float32", "#0072B2", "o"),
    "int8_us": ("engine, int8", "#009E73", "s"),
}
_DENSE_STYLES = (
    ("#D55E00", "-", "D"),
    ("#CC79A7", "--", "v"),
    ("#E69F00", "-.", "^"),
    ("#999999", ":", "P"),
    ("#56B4E9", (0, (6, 2)), "X"),
)


def curve_rows(curve: DensityCurve) -> list[dict[str, str]]:
    """A row per density: time, products, and what became of the counted saving."""
    peer = _yardstick(curve)
    rows = []
    for point in curve.points:
        counted = curve.dense_multiplications[peer] / max(1.0, point.multiplications)
        realised = curve.dense_us[peer] / point.float_us
        rows.append(
            {
                "Density": f"{100 * point.density:.0f}%",
                "Mult./frame": f"{point.multiplications:,.0f}",
                "Weights read, KiB": f"{point.weight_kib:,.0f}",
                "float32, us": f"{point.float_us:,.0f}",
                "int8, us": f"{point.int8_us:,.0f}",
                "Mult./us, float32": f"{point.multiplications / point.float_us:,.0f}",
                f"Counted saving over {peer}": f"{counted:.1f}x",
                "Realised in time": f"{realised:.1f}x",
            }
        )
    return rows


def _yardstick(curve: DensityCurve) -> str:
    """The fastest dense float32 network: the hardest to beat."""
    names = [name for name in curve.dense_us if "int8" not in name]
    return min(names, key=lambda name: curve.dense_us[name])


def crossover_lines(curve: DensityCurve) -> list[str]:
    """At which density the engine takes as long as each dense network."""
    lines = []
    for peer, dense_us in curve.dense_us.items():
        name, field = ("int8", "int8_us") if "int8" in peer else ("float32", "float_us")
        times = [getattr(point, field) for point in curve.points]
        crossing = curve.crossover(peer, times)
        verdict = (
            "slower at every density measured"
            if crossing == 0.0
            else "faster at every density measured"
            if crossing is None
            else f"faster below a density of {100 * crossing:.0f}%"
        )
        lines.append(f"Beside {peer} ({dense_us:,.0f} us) the {name} engine is {verdict}.")
    return lines


def curve_plot(curve: DensityCurve) -> Plot:
    """Time per frame against density, and against executed products, log-log."""
    with plot_style():
        figure = new_figure(11.0, 5.0)
        left, right = figure.subplots(1, 2, sharey=True)
        for field, (name, colour, marker) in _OURS.items():
            times = [getattr(point, field) for point in curve.points]
            densities = [point.density for point in curve.points]
            products = [point.multiplications for point in curve.points]
            left.plot(densities, times, color=colour, marker=marker, label=name)
            right.plot(products, times, color=colour, marker=marker)
        for (name, dense_us), (colour, line, marker) in zip(
            curve.dense_us.items(), _DENSE_STYLES, strict=False
        ):
            left.axhline(dense_us, color=colour, linestyle=line, label=name)
            products = [curve.dense_multiplications[name]]
            right.plot(products, [dense_us], color=colour, marker=marker, linestyle="")
        left.set_xlabel("Share of outputs that are not zero")
        left.set_ylabel("Time per frame, microseconds")
        right.set_xlabel("Multiplications executed per frame")
        for axes in (left, right):
            axes.set_xscale("log")
            axes.set_yscale("log")
        left.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
        # A logarithmic axis would write its own as formulas, which this style does not set.
        left.xaxis.set_minor_formatter(NullFormatter())
        for axis in (left.yaxis, right.xaxis):
            axis.set_minor_formatter(FuncFormatter(minor_count))
        figure.legend(loc="outside lower center", ncols=4, fontsize=9)
        title = (
            f"Time of one frame: {curve.num_layers} layers of {curve.hidden_size}, "
            f"{curve.num_outputs} outputs, one thread"
        )
        alt = f"{title}, against spike density. {' '.join(crossover_lines(curve))}"
        return finish(figure, "time_against_density", title, alt)


def markdown_table(rows: Sequence[dict[str, str]]) -> list[str]:
    """Rows as a markdown table."""
    head = list(rows[0])
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join('---' for _ in head)}|"]
    return [*lines, *(f"| {' | '.join(row.values())} |" for row in rows)]
