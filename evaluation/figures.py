"""How a plot looks: one drawing, as a small PNG and as an SVG in the colours of its page.

The PNG stands on white, for artifacts and slides. The SVG is to be put into a page: its colours are
the page's style variables, so that it follows a light or dark scheme, and its text is text.

Model colours are Okabe and Ito's, which stay apart for colour-blind readers; a dark page has
lighter ones. Markers, hatches and line styles repeat what colours say.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from zlib import crc32

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

INK, LINE, PAPER = "#1c2024", "#d9dee4", "#ffffff"

MODEL_COLOURS = {
    "v3": "#009E73",
    "v2": "#0072B2",
    "v1": "#56B4E9",
    "conventional": "#E69F00",
    "gru": "#D55E00",
    "lstm": "#CC79A7",
    "ligru": "#8C510A",
    "deltagru": "#882255",
    "egru": "#332288",
    "adlif": "#999933",
    "radlif": "#44AA99",
}
MODEL_MARKERS = {
    "v3": "P",
    "v2": "o",
    "v1": "s",
    "conventional": "^",
    "gru": "D",
    "lstm": "v",
    "ligru": "X",
    "deltagru": "p",
    "egru": "h",
    "adlif": "<",
    "radlif": ">",
}
# A model without a colour of its own gets one of these, always the same, and a marker.
_OTHER_COLOURS = ("#009E73", "#0072B2", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
_OTHER_MARKERS = ("P", "X", "*", "p", "h", "<", ">", "d")
TERM_STYLES = {
    "feed_forward": ("#0072B2", ""),
    "recurrent": ("#E69F00", "//"),
    "output": ("#009E73", ".."),
    "projection": ("#F0E442", "\\\\"),
    "elementwise": ("#999999", "xx"),
}

# Colour of a drawing: its variable on a page, and what that is on a dark one.
_PAGE_COLOURS = {
    INK: ("ink", None),
    LINE: ("line", None),
    PAPER: ("paper", None),
    "#0072b2": ("blue", "#4da3dc"),
    "#56b4e9": ("sky", "#a5d8f6"),
    "#e69f00": ("orange", "#f2b632"),
    "#d55e00": ("vermilion", "#ff8b52"),
    "#cc79a7": ("pink", "#e8a6c8"),
    "#009e73": ("green", "#3cc79c"),
    "#f0e442": ("yellow", "#f5ec80"),
    "#999999": ("grey", "#8d959d"),
    "#8c510a": ("brown", "#d09a5b"),
    "#882255": ("wine", "#d87ba6"),
    "#332288": ("indigo", "#9d8fe8"),
    "#999933": ("olive", "#c3c35c"),
    "#44aa99": ("teal", "#6fd0c0"),
}


def colour_of(kind: str) -> str:
    """The colour of a kind of model."""
    return MODEL_COLOURS.get(kind) or _OTHER_COLOURS[crc32(kind.encode()) % len(_OTHER_COLOURS)]


def marker_of(kind: str) -> str:
    """The marker of a kind of model."""
    return MODEL_MARKERS.get(kind) or _OTHER_MARKERS[crc32(kind.encode()) % len(_OTHER_MARKERS)]


_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "text.parse_math": False,
    "svg.fonttype": "none",
}
_DPI = 180
_COLUMN_INCHES = 7.5
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


@dataclass(frozen=True)
class Plot:
    """A finished plot."""

    name: str  # file name without its ending
    title: str  # heading for people
    alt: str  # what it shows, in words, for readers who do not see it
    png: bytes  # the image on white; carries title and words (``plot_words``)
    svg: str  # an ``<svg>`` element for a page with the variables of ``page_colours``
    is_wide: bool = False  # whether it needs the page's whole width


@contextmanager
def plot_style() -> Iterator[None]:
    """Draw in this project's style for as long as the context lasts."""
    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(width: float = 5.6, height: float = 4.0) -> Figure:
    """An empty figure, in inches, that needs no screen."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def legend_below(figure: Figure, max_columns: int) -> None:
    """A legend under the drawing, in as many columns as its width allows."""
    for columns in range(max_columns, 0, -1):
        legend = figure.legend(loc="outside lower center", ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def short_count(value: float) -> str:
    """A count in at most four characters and a unit: 950, 12.3 k, 1.24 M."""
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def minor_count(value: float, _: object) -> str:
    """Between the powers of ten of a logarithmic axis: twos and fives alone."""
    leading = float(f"{value:.0e}".split("e")[0])
    return short_count(value) if leading in (2.0, 5.0) else ""


def finish(figure: Figure, name: str, title: str, alt: str) -> Plot:
    """Render a drawing both ways."""
    is_wide = figure.get_figwidth() > _COLUMN_INCHES
    return Plot(name, title, alt, _png(figure, title, alt), _svg(figure, name), is_wide)


def page_colours(dark: bool) -> str:
    """Style declarations of the colours that plots use beyond ink, line and paper."""
    return " ".join(
        f"--{variable}: {dark_colour if dark else colour};"
        for colour, (variable, dark_colour) in _PAGE_COLOURS.items()
        if dark_colour is not None
    )


def plot_words(png: bytes) -> tuple[str, str]:
    """Title and words that a plot's PNG carries; empty where it carries none."""
    with Image.open(io.BytesIO(png)) as image:
        carried = dict(image.info)
    return str(carried.get("Title", "")), str(carried.get("Description", ""))


def _png(figure: Figure, title: str, alt: str) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI, facecolor=PAPER)
    # Few colours make a quarter of the bytes; artifacts are kept in the server's database.
    small = io.BytesIO()
    words = PngInfo()
    words.add_itxt("Title", title)
    words.add_itxt("Description", alt)
    image = Image.open(stream).convert("RGB").quantize(256)
    image.save(small, format="png", optimize=True, pnginfo=words)
    return small.getvalue()


def _svg(figure: Figure, name: str) -> str:
    stream = io.StringIO()
    # Clip paths are named by a hash: of the plot's name too, since a page holds many plots.
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", facecolor="none", metadata=_NO_METADATA)
    return _for_page(stream.getvalue(), name)


def _for_page(svg: str, name: str) -> str:
    """A document's root element as part of a page: scalable, unique ids, the page's colours."""
    body = svg[svg.index("<svg") :].strip()
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"<svg[^>]*(viewBox=\"[^\"]*\")[^>]*>", r"<svg \1>", body, count=1)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r"\bid=\"", f'id="{name}-', body)
    body = body.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    # A variable works in a style, not everywhere in an attribute.
    body = re.sub(r"\bfill=\"(#[0-9a-f]{6})\"", r'style="fill: \1"', body)
    body = body.replace("DejaVu Sans'", "DejaVu Sans', Verdana, sans-serif")
    for colour, (variable, _) in _PAGE_COLOURS.items():
        body = body.replace(f": {colour}", f": var(--{variable})")
    return body
