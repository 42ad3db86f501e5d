"""How far an alignment is from the truth: frames that agree, and how far boundaries lie apart.

``python tests/benchmarks/alignment_quality.py ALIGNED TRUTH``: a feature set of the align stage,
and the same corpus featurized with ``labels=alignment``. Boundaries are compared where an
utterance has as many of them in both, in order.
"""

import sys

import numpy as np

from featurize.schema import FeaturizeManifest
from featurize.shards import iter_rows
from featurize.stage import Location, read_manifest


def phones_of_rows(location: Location) -> dict[str, np.ndarray]:
    """Utterance id to the symbol id of each row."""
    manifest = read_manifest(location, FeaturizeManifest)
    symbols = np.arange(len(manifest.labels.symbols))
    if manifest.states is not None:
        symbols = np.array(manifest.states.phones)
    rows = iter_rows(location, manifest, manifest.subsets)
    return {row.utterance_id: symbols[row.alignment] for row in rows}


def compare(aligned: Location, truth: Location) -> None:
    """Print the figures."""
    found, exact = phones_of_rows(aligned), phones_of_rows(truth)
    shift_ms = 1000 * read_manifest(truth, FeaturizeManifest).frame_shift_s
    agree = np.concatenate([found[name] == exact[name] for name in found])
    pairs = [(np.flatnonzero(np.diff(found[n])), np.flatnonzero(np.diff(exact[n]))) for n in found]
    apart = [np.abs(ours - theirs) for ours, theirs in pairs if len(ours) == len(theirs)]
    distance_ms = shift_ms * np.concatenate(apart)
    print(f"utterances                       {len(found)} of {len(exact)}")
    print(f"frames that agree                {agree.mean():.1%} of {len(agree)}")
    print(f"boundaries compared              {len(distance_ms)}")
    print(f"mean distance of boundaries      {distance_ms.mean():.1f} ms")
    print(f"boundaries at most 20 ms apart   {(distance_ms <= 20).mean():.1%}")


if __name__ == "__main__":
    compare(Location.of(sys.argv[1]), Location.of(sys.argv[2]))
