"""Transcripts as words, for language models and word error rates."""

import re
from collections.abc import Iterator, Sequence

from featurize.schema import FeaturizeManifest
from featurize.shards import damaged, open_shard, shards_of
from featurize.stage import Location

_PUNCTUATION = re.compile(r"[^\w']+")


def words_of(text: str) -> tuple[str, ...]:
    """Upper-case words of a transcript; punctuation separates, apostrophes belong to words."""
    words = _PUNCTUATION.sub(" ", text.upper()).split()
    return tuple(word for word in words if word.strip("'"))


def read_transcripts(
    features: Location, manifest: FeaturizeManifest, subsets: Sequence[str]
) -> Iterator[tuple[str, ...]]:
    """The words of every utterance of some subsets, without reading features."""
    for shard in shards_of(manifest, subsets):
        file = features.child(shard.file)
        with open_shard(file, shard) as parquet:
            texts = parquet.read(["text"], use_threads=False)["text"].to_pylist()
        if len(texts) != shard.num_utterances:
            raise damaged(file, "its counts are not the manifest's")
        yield from map(words_of, texts)
