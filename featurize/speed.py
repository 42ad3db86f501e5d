"""Speed perturbation: training utterances played faster and slower (Ko et al. 2015).

Tempo and pitch change together, as on a tape. A copy has an id of its own and its speaker.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from featurize.copies import copy_prefix
from featurize.corpora.entry import CorpusEntry
from featurize.resampling import resample

_PER_UNIT = 100


def at_speed(entry: CorpusEntry, factor: float) -> CorpusEntry:
    """The copy of an utterance at a speed, with the id ``sp0.9-ID``."""
    return replace(entry, utterance_id=f"{copy_prefix(factor)}{entry.utterance_id}", speed=factor)


def play(samples: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Samples at a speed, at the same rate.

    Args:
        samples: (num_samples,) float32.
        factor: speed, in hundredths; 0.9 lasts longer and sounds lower.

    Returns:
        (ceil(num_samples / factor),) float32, or the samples themselves at 1.
    """
    return resample(samples, round(_PER_UNIT * factor), _PER_UNIT)


def recorded_samples(samples: NDArray[np.int64], factor: float) -> NDArray[np.int64]:
    """Where samples of the copy lie in the recording, to read its alignment at."""
    if factor == 1.0:
        return samples
    recorded: NDArray[np.int64] = np.rint(samples * factor).astype(np.int64)
    return recorded
