"""Objectives, as sums that the loop divides by the global batch's number of targets.

Shape legend: T time, B batch, O outputs, S symbols.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED_TARGET = -1


def ctc_loss_sum(
    log_probs_TBO: Tensor, lengths_B: Tensor, labels_BL: Tensor, label_lengths_B: Tensor
) -> Tensor:
    """Connectionist temporal classification, summed over utterances (Graves et al. 2006).

    Args:
        log_probs_TBO: log-softmax scores; the blank is the last output.
        lengths_B: valid frames.
        labels_BL: symbol ids, padded with anything.
        label_lengths_B: labels of each utterance; each must fit into its frames.
    """
    if log_probs_TBO.shape[0] == 0 or not bool((lengths_B > 0).any()):
        return log_probs_TBO.sum() * 0.0
    return F.ctc_loss(
        log_probs_TBO,
        labels_BL,
        lengths_B,
        label_lengths_B,
        blank=log_probs_TBO.shape[2] - 1,
        reduction="sum",
    )


def frame_loss_sum(log_probs_TBO: Tensor, alignment_TB: Tensor) -> Tensor:
    """Cross-entropy with the frame alignment, summed over frames; padding is ``-1``."""
    return F.nll_loss(
        log_probs_TBO.flatten(0, 1),
        alignment_TB.flatten(),
        ignore_index=IGNORED_TARGET,
        reduction="sum",
    )


def greedy_ctc_labels(log_probs_TBO: Tensor, lengths_B: Tensor) -> list[list[int]]:
    """Best label of each frame, repeats collapsed and blanks removed.

    Example:
        >>> path = torch.tensor([2, 0, 0, 2, 0, 1])  # the blank is 2, the last output
        >>> scores_TBO = torch.nn.functional.one_hot(path, 3).log()[:, None]
        >>> greedy_ctc_labels(scores_TBO, torch.tensor([6]))
        [[0, 0, 1]]
    """
    blank = log_probs_TBO.shape[2] - 1
    best_BT = log_probs_TBO.argmax(dim=2).T.cpu()
    decoded = []
    for path, length in zip(best_BT, lengths_B.tolist(), strict=True):
        collapsed = torch.unique_consecutive(path[:length]).tolist()
        decoded.append([symbol for symbol in collapsed if symbol != blank])
    return decoded
