"""Plots as Prefect's pages show them, light or dark."""

import base64
import io

import numpy as np
from PIL import Image

from evaluation.comparison import escape_markdown
from evaluation.figures import plot_words

MAX_IMAGE_BYTES = 4 * 2**20
_GREY = np.array([0x80, 0x88, 0x90], np.float64) / 255
"""Ink that stands out from a light page and from a dark one."""
_COLOURLESS = 0.15


def picture(png: bytes) -> str:
    """A plot as markdown, with its words as alternative text."""
    _, words = plot_words(png)
    return f"![{escape_markdown(words)}]({png_data_uri(for_any_page(png))})"


def for_any_page(png: bytes) -> bytes:
    """A plot on white as one without ground, whose ink is a grey that any page shows.

    White becomes clear; what a pixel has beside white keeps its colour, or becomes grey where it
    has none.
    """
    with Image.open(io.BytesIO(png)) as image:
        rgb = np.asarray(image.convert("RGB"), np.float64) / 255
    opacity = 1.0 - rgb.min(axis=2, keepdims=True)
    colour = np.divide(
        rgb - (1.0 - opacity), opacity, out=np.zeros_like(rgb), where=opacity > 0
    ).clip(0, 1)
    saturation = (rgb.max(axis=2) - rgb.min(axis=2))[..., None]
    is_ink = saturation < _COLOURLESS * np.maximum(opacity, 1e-9)
    pixels = np.concatenate([np.where(is_ink, _GREY, colour), opacity], axis=2)
    clear = Image.fromarray((255 * pixels).round().astype(np.uint8), "RGBA")
    stream = io.BytesIO()
    clear.quantize(256, Image.Quantize.FASTOCTREE).save(stream, format="png", optimize=True)
    return stream.getvalue()


def png_data_uri(png: bytes) -> str:
    """A PNG as a data address, for markdown.

    Raises:
        ValueError: when it is no PNG, or too large for the server.
    """
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("not a PNG image")
    if len(png) > MAX_IMAGE_BYTES:
        raise ValueError(f"image of {len(png)} bytes; artifacts hold up to {MAX_IMAGE_BYTES}")
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
