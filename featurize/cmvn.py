"""Cepstral mean and variance normalisation: statistics, application.

Shape legend: T frames, F features per frame.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from featurize.moments import MomentSums, add_moments, mean_and_std
from featurize.schema import CmvnStatistics, FeatureRow
from featurize.stage import PipelineError


def cmvn_statistics(
    mode: Literal["none", "global", "speaker"],
    train: Iterable[MomentSums],
    speakers: dict[str, MomentSums],
) -> CmvnStatistics:
    """Statistics for the manifest.

    Args:
        mode: what the reader will subtract; the global moments are always recorded.
        train: moments of parts of the train split.
        speakers: each speaker's moments over that speaker's own utterances, of any split.
    """
    mean, std = mean_and_std(add_moments(train))
    if mode != "speaker":
        return CmvnStatistics(mode=mode, mean=mean, std=std)
    own = {speaker: mean_and_std(moments) for speaker, moments in sorted(speakers.items())}
    return CmvnStatistics(
        mode=mode,
        mean=mean,
        std=std,
        speaker_mean={speaker: values[0] for speaker, values in own.items()},
        speaker_std={speaker: values[1] for speaker, values in own.items()},
    )


class Normaliser:
    """Applies CMVN to rows; build it once and keep it, the statistics are unpacked here."""

    def __init__(self, cmvn: CmvnStatistics) -> None:
        """Unpack the statistics of a feature set's manifest."""
        self._is_identity = cmvn.mode == "none"
        self._everyone = _shift_and_scale(cmvn.mean, cmvn.std)
        self._speakers = {
            speaker: _shift_and_scale(mean, cmvn.speaker_std[speaker])
            for speaker, mean in cmvn.speaker_mean.items()
        }

    def __call__(self, row: FeatureRow) -> NDArray[np.float32]:
        """(x - mean) / std in float32, (T, F); a speaker without an entry gets the global ones."""
        if self._is_identity:
            return row.features.astype(np.float32)
        mean, scale = self._speakers.get(row.speaker_id, self._everyone)
        if mean.shape[0] != row.features.shape[1]:
            raise PipelineError(
                f"{row.utterance_id}: {row.features.shape[1]} features, but the statistics have "
                f"{mean.shape[0]}; use the shards and the manifest of one location"
            )
        return (row.features.astype(np.float32) - mean) * scale


def _shift_and_scale(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.array(mean, dtype=np.float32), (1.0 / np.array(std)).astype(np.float32)
