"""Sums and extremes over all training workers; the identity when there is one."""

import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of training workers."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This worker's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def all_sum(value: Tensor) -> Tensor:
    """Sum over workers, in place where there are several; returns ``value``."""
    if world_size() > 1:
        dist.all_reduce(value, op=dist.ReduceOp.SUM)
    return value


def all_max(value: Tensor) -> Tensor:
    """Elementwise maximum over workers, in place where there are several; returns ``value``."""
    if world_size() > 1:
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value
