"""flashlight-text, which searches beams and words, has no release for Python 3.13 and newer."""

import importlib.util

from featurize.stage import PipelineError


def has_flashlight() -> bool:
    """Whether the library is installed."""
    return importlib.util.find_spec("flashlight") is not None


def require_flashlight() -> None:
    """Refuse a search that cannot be made.

    Raises:
        PipelineError: when the library is not installed.
    """
    if not has_flashlight():
        raise PipelineError(
            "word search and beam search need flashlight-text, which Python 3.13 lacks: install "
            "with Python 3.11 or 3.12, or evaluate without words and without beam search"
        )
