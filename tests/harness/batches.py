"""Utterances of a feature set in batches, as evaluations of whole utterances read them."""

import itertools

from featurize.shards import iter_rows


def stream_batches(features, manifest, subsets, batch_size, *, every=1):
    """Lists of rows in the order of the shards; of the utterances, each ``every``-th."""
    rows = itertools.islice(iter_rows(features, manifest, subsets), 0, None, every)
    while batch := list(itertools.islice(rows, batch_size)):
        yield batch
