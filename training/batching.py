"""Padded batches from feature rows.

Shape legend: T time, B batch, F features, L labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from featurize.cmvn import Normaliser
from featurize.schema import CmvnStatistics, FeatureRow
from training.losses import IGNORED_TARGET


@dataclass(frozen=True)
class Batch:
    """A padded batch, time first."""

    x_TBF: Tensor  # normalised features, float32, 0 at padding
    lengths_B: Tensor  # frames, int64
    labels_BL: Tensor  # label ids, int64, 0 at padding
    label_lengths_B: Tensor  # labels, int64
    # frame targets, int64, -1 at padding; None where the rows have none
    alignment_TB: Tensor | None
    utterance_ids: tuple[str, ...]  # in the batch's order

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on another device."""
        alignment = self.alignment_TB
        return Batch(
            self.x_TBF.to(device),
            self.lengths_B.to(device),
            self.labels_BL.to(device),
            self.label_lengths_B.to(device),
            None if alignment is None else alignment.to(device),
            self.utterance_ids,
        )


@dataclass(frozen=True)
class Example:
    """One training sequence: normalised features (T, F), labels (L,), alignment (T,) or None."""

    utterance_id: str
    features: np.ndarray
    labels: np.ndarray
    alignment: np.ndarray | None


def delayed(alignment: np.ndarray, num_frames: int) -> np.ndarray:
    """Frame targets as they stand where each is named some frames later.

    The first frames name nothing, and the last targets are named by no frame.

    Args:
        alignment: (T,) target ids.
    """
    if num_frames == 0:
        return alignment
    shifted = np.full(len(alignment), IGNORED_TARGET, dtype=np.int64)
    shifted[num_frames:] = alignment[:-num_frames]
    return shifted


def pad(examples: Sequence[Example], num_features: int) -> Batch:
    """Pad examples into a batch; no examples give one empty sequence, so that collectives run.

    Args:
        examples: in the batch's order, which is kept.
    """
    size = max(1, len(examples))
    lengths = np.array([len(e.features) for e in examples] or [0])
    label_lengths = np.array([len(e.labels) for e in examples] or [0])
    x = np.zeros((max(1, int(lengths.max())), size, num_features), dtype=np.float32)
    labels = np.zeros((size, max(1, int(label_lengths.max()))), dtype=np.int64)
    aligned = bool(examples) and all(e.alignment is not None for e in examples)
    alignment = np.full(x.shape[:2], IGNORED_TARGET, dtype=np.int64)
    for number, example in enumerate(examples):
        x[: lengths[number], number] = example.features
        labels[number, : label_lengths[number]] = example.labels
        if aligned:
            alignment[: lengths[number], number] = example.alignment
    return Batch(
        torch.from_numpy(x),
        torch.from_numpy(lengths),
        torch.from_numpy(labels),
        torch.from_numpy(label_lengths),
        torch.from_numpy(alignment) if aligned or not examples else None,
        tuple(e.utterance_id for e in examples),
    )


def collate(rows: Sequence[FeatureRow], cmvn: CmvnStatistics) -> Batch:
    """Normalise and pad whole utterances, in the given order.

    Args:
        rows: at least one, all with the same number of features.
    """
    normalise = Normaliser(cmvn)
    examples = [
        Example(row.utterance_id, normalise(row), row.labels, row.alignment) for row in rows
    ]
    return pad(examples, rows[0].features.shape[1])
