"""A spike raster under the spectrogram that caused it, over the symbols that came of it.

Shape legend: T rows, t frames, F features, H neurons.
"""

import re
from textwrap import shorten

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from evaluation.figures import LINE, Plot, finish, new_figure, plot_style
from evaluation.spike_raster import SpikeRaster, TimedSymbol

MAX_NEURONS = 96
"""Rows shown of one site, spread evenly: more would be thinner than a pixel."""

# Between the lines' shades for light and for dark pages: an image has one colour for both.
_POSITIVE, _NEGATIVE = "#1f86cc", "#e06a14"
_FAINTEST = 0.55
_TRACK_HEIGHT = 0.42
_TEXT_WIDTH = 110
_FEATURE_NAMES = {"fbank": "mel filters", "mfcc": "cepstra"}


def draw_raster(raster: SpikeRaster) -> Plot:
    """Draw one utterance: features, spikes of each site, hypothesis, reference; one time axis."""
    num_sites = len(raster.site_outputs)
    tracks = {"heard": raster.hypothesis}
    if raster.reference:
        tracks["said"] = raster.reference
    with plot_style():
        figure = new_figure(width=9.6, height=2.2 + 1.25 * num_sites + _TRACK_HEIGHT * len(tracks))
        rows = figure.subplots(
            1 + num_sites + len(tracks),
            1,
            sharex=True,
            height_ratios=[1.5, *[1.4] * num_sites, *[_TRACK_HEIGHT] * len(tracks)],
        )
        _spectrogram(rows[0], raster)
        for number, site_TH in enumerate(raster.site_outputs):
            _spikes(rows[1 + number], site_TH, _site_title(number), raster.duration_s)
        for axes, (name, symbols) in zip(rows[1 + num_sites :], tracks.items(), strict=True):
            _symbols(axes, name, symbols, raster.duration_s)
        rows[-1].tick_params(axis="x", bottom=True, labelbottom=True)
        said = shorten(raster.text, _TEXT_WIDTH, placeholder=" ...")
        rows[-1].set_xlabel(f"Seconds\n{said}" if said else "Seconds")
        title = f"Spikes of {raster.label}"
        figure.suptitle(
            f"{title} on {raster.utterance_id}: blue positive, orange negative",
            x=0.01,
            ha="left",
            fontsize=11.5,
        )
        name = re.sub(r"\W+", "_", f"spike_raster_{raster.label}")
        shown = f"{title}, from sound to recognised symbols"
        return finish(figure, name, shown, _alt(raster, title))


def _site_title(number: int) -> str:
    return f"layer {number}" if number else "encoder"


def _bare(axes: Axes, title: str) -> None:
    axes.grid(visible=False)
    axes.set_yticks([])
    axes.tick_params(axis="x", bottom=False)
    axes.set_ylabel(title, rotation=0, ha="right", va="center")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _spectrogram(axes: Axes, raster: SpikeRaster) -> None:
    values_Ft = raster.spectrogram_tF.T
    low, high = np.percentile(values_Ft, [2.0, 99.5])
    axes.imshow(
        values_Ft,
        aspect="auto",
        origin="lower",
        cmap="magma",
        vmin=low,
        vmax=high,
        interpolation="none",
        extent=(0.0, raster.duration_s, 0.0, float(len(values_Ft))),
    )
    name = _FEATURE_NAMES.get(raster.feature_kind, "features")
    _bare(axes, f"{len(values_Ft)}\n{name}")


def shown_neurons(num_neurons: int) -> NDArray[np.int64]:
    """Which neurons of a site have a row: all, or ``MAX_NEURONS`` spread evenly."""
    return np.unique(np.linspace(0, num_neurons - 1, min(num_neurons, MAX_NEURONS)).round()).astype(
        np.int64
    )


def spike_image(site_TH: NDArray[np.float32]) -> NDArray[np.float32]:
    """Spikes as colours, (H, T, 4): clear where nothing fired, the stronger the more opaque."""
    values_HT = site_TH.T
    magnitude = np.abs(values_HT)
    strongest = float(magnitude.max()) or 1.0
    image = np.zeros((*values_HT.shape, 4), np.float32)
    image[values_HT > 0, :3] = to_rgb(_POSITIVE)
    image[values_HT < 0, :3] = to_rgb(_NEGATIVE)
    opacity = _FAINTEST + (1.0 - _FAINTEST) * magnitude / strongest
    image[..., 3] = np.where(magnitude > 0, opacity, 0.0)
    return image


def _spikes(axes: Axes, site_TH: NDArray[np.float32], title: str, duration_s: float) -> None:
    num_neurons = site_TH.shape[1]
    shown_TN = site_TH[:, shown_neurons(num_neurons)]
    axes.imshow(
        spike_image(shown_TN),
        aspect="auto",
        origin="lower",
        interpolation="none",
        extent=(0.0, duration_s, 0.0, float(shown_TN.shape[1])),
    )
    count = (
        f"{num_neurons}"
        if shown_TN.shape[1] == num_neurons
        else f"{shown_TN.shape[1]} of {num_neurons}"
    )
    density = float(np.count_nonzero(site_TH)) / site_TH.size
    _bare(axes, f"{title}\n{count} neurons\n{density:.0%} fire")
    axes.axhline(0, color=LINE, linewidth=0.8)


def _symbols(axes: Axes, name: str, symbols: tuple[TimedSymbol, ...], duration_s: float) -> None:
    _bare(axes, name)
    axes.set_xlim(0.0, duration_s)
    axes.set_ylim(0.0, 1.0)
    for number, timed in enumerate(symbols):
        axes.axvline(timed.start_s, color=LINE, linewidth=0.8)
        # Neighbours stand at two heights, so that short ones do not run into each other.
        axes.text(
            (timed.start_s + timed.end_s) / 2,
            0.74 if number % 2 else 0.26,
            timed.symbol,
            ha="center",
            va="center",
            fontsize=8,
        )


def _alt(raster: SpikeRaster, title: str) -> str:
    densities = ", ".join(
        f"{_site_title(number)} {np.count_nonzero(site) / site.size:.1%}"
        for number, site in enumerate(raster.site_outputs)
    )
    heard = " ".join(timed.symbol for timed in raster.hypothesis)
    parts = [
        f"{title} on utterance {raster.utterance_id}, {raster.duration_s:.1f} seconds, under its "
        f"spectrogram. Share of neurons and frames that fire: {densities}.",
        f"Said: {raster.text}." if raster.text else "",
        f"Recognised: {heard}." if heard else "Nothing was recognised.",
    ]
    return " ".join(part for part in parts if part)
