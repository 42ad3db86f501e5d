"""Transcripts as people write them, brought into the form that LibriSpeech has them in."""

_DROPPED = str.maketrans(dict.fromkeys('.,;:?!"()[]', ""))
_DIVIDERS = str.maketrans("-\u2013\u2014", "   ")


def normalise_text(text: str) -> str:
    """Upper case, no punctuation, single spaces; unusual symbols stay, to be noticed later.

    Example:
        >>> normalise_text("She said: well-known, isn't it?")
        "SHE SAID WELL KNOWN ISN'T IT"
    """
    return " ".join(text.translate(_DIVIDERS).translate(_DROPPED).upper().split())
