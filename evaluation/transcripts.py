"""Transcripts as words, for language models and word error rates."""

import re
from collections.abc import Iterator, Sequence

from featurize.copies import copy_prefixes
from featurize.schema import FeaturizeManifest
from featurize.shards import read_columns
from featurize.stage import Location

_PUNCTUATION = re.compile(r"[^\w']+")


def words_of(text: str) -> tuple[str, ...]:
    """Upper-case words of a transcript; punctuation separates, apostrophes belong to words."""
    words = _PUNCTUATION.sub(" ", text.upper()).split()
    return tuple(word for word in words if word.strip("'"))


def read_transcripts(
    features: Location, manifest: FeaturizeManifest, subsets: Sequence[str]
) -> Iterator[tuple[str, ...]]:
    """The words of every utterance of some subsets, without reading features.

    Copies of an utterance at other speeds say nothing new, and are left out.
    """
    copied = copy_prefixes(manifest.config)
    names = ["utterance_id", "text"]
    for table in read_columns(features, manifest, subsets, names):
        for utterance_id, text in zip(*(table[name].to_pylist() for name in names), strict=True):
            if not utterance_id.startswith(copied):
                yield words_of(text)
