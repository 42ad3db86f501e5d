"""Counts over the training labels that decoding needs: frame priors and symbol bigrams."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def label_statistics(
    targets: Iterable[tuple[NDArray[np.int32], NDArray[np.int32] | None]],
    num_symbols: int,
    num_frame_targets: int | None = None,
) -> dict[str, Tensor]:
    """Count bigrams of label sequences and frames per symbol.

    Args:
        targets: label ids and frame targets (None: there are none) of each training utterance.
        num_symbols: S.
        num_frame_targets: targets an alignment may hold, where they are not the symbols.

    Returns:
        ``bigram_counts`` (S + 1, S + 1) int64: row S counts starts, column S counts ends; and
        ``frame_counts`` (num_frame_targets,) int64 where there are alignments.
    """
    bigrams = np.zeros((num_symbols + 1, num_symbols + 1), dtype=np.int64)
    num_frame_targets = num_frame_targets or num_symbols
    frames = np.zeros(num_frame_targets, dtype=np.int64)
    for labels, alignment in targets:
        bounded = np.concatenate([[num_symbols], labels, [num_symbols]])
        np.add.at(bigrams, (bounded[:-1], bounded[1:]), 1)
        if alignment is not None:
            frames += np.bincount(alignment, minlength=num_frame_targets)
    statistics = {"bigram_counts": torch.from_numpy(bigrams)}
    if frames.any():
        statistics["frame_counts"] = torch.from_numpy(frames)
    return statistics
