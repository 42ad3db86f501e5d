"""A layer's norm and recurrence that keep almost nothing for the backward pass.

Trading time for memory on long sequences: instead of gates and currents of all frames, only
the state at every ``chunk_frames`` frames is kept, and the backward pass runs the forward one
again, a chunk at a time, from the last to the first. Per neuron and frame of a gated layer
that leaves the product ``W X`` (2 floats) and the spikes (1), in place of five.

Shape legend: T time, B batch, N packed valid frames, G drives of a layer (H or 2H), H neurons.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from training.collectives import all_sum
from training.lif import LifState, RecurrenceOutput
from training.models.batch_norm import FrameBatchNorm, Moments
from training.models.frames import ValidFrames

ChunkRecurrence = Callable[[Tensor, Tensor, LifState], RecurrenceOutput]
"""(drive of a chunk (T, B, G), valid frames of it (B,), state before it) to its result."""

NUM_STATES = len(LifState._fields)


def _chunks(frames: ValidFrames, chunk_frames: int) -> Iterator[tuple[slice, ValidFrames, slice]]:
    """Frames of each chunk, which of them are valid, and their rows among the packed ones.

    Packing is by time first, so the packed rows of a chunk are adjacent.
    """
    for start in range(0, frames.num_frames, chunk_frames):
        stop = min(start + chunk_frames, frames.num_frames)
        lengths_B = (frames.lengths_B - start).clamp(0, stop - start)
        first = int(frames.lengths_B.clamp(max=start).sum())
        rows = slice(first, first + int(lengths_B.sum()))
        yield slice(start, stop), ValidFrames(lengths_B, stop - start), rows


class _Recomputed(torch.autograd.Function):
    """``recur(BN(product))`` in chunks; see ``recomputed``."""

    @staticmethod
    def forward(ctx, recur, frames, chunk_frames, moments, product_NG, gamma_G, beta_G, *tensors):  # type: ignore[no-untyped-def]
        state = LifState(*tensors[:NUM_STATES])
        mean_G, inverse_std_G, count = moments
        scale_G = gamma_G * inverse_std_G
        shift_G = beta_G - mean_G * scale_G
        spikes, before = [], []
        minimum = product_NG.new_full((), torch.inf)
        maximum = product_NG.new_full((), -torch.inf)
        for _, valid, rows in _chunks(frames, chunk_frames):
            before.append(state)
            drive = valid.unpack(product_NG[rows] * scale_G + shift_G)
            output = recur(drive, valid.lengths_B, state)
            state = output.state
            spikes.append(output.spikes_TBH)
            minimum = torch.minimum(minimum, output.minimum)
            maximum = torch.maximum(maximum, output.maximum)
        ctx.recur, ctx.frames, ctx.chunk_frames = recur, frames, chunk_frames
        ctx.count, ctx.parameters = count, tensors[NUM_STATES:]
        ctx.num_chunks = len(before)
        kept = (product_NG, gamma_G, scale_G, shift_G, mean_G, inverse_std_G)
        ctx.save_for_backward(*kept, *(tensor for state in before for tensor in state))
        ctx.mark_non_differentiable(minimum, maximum)
        return torch.cat(spikes), *state, minimum, maximum

    @staticmethod
    def backward(ctx, grad_spikes_TBH, *others):  # type: ignore[no-untyped-def]
        product, gamma, scale, shift, mean, inverse_std, *states = ctx.saved_tensors
        grad_state: Sequence[Tensor] = others[:NUM_STATES]
        grad_drive = torch.empty_like(product)
        grad_parameters = [torch.zeros_like(parameter) for parameter in ctx.parameters]
        chunks = list(_chunks(ctx.frames, ctx.chunk_frames))
        for number in range(ctx.num_chunks - 1, -1, -1):
            times, valid, rows = chunks[number]
            state = LifState(*states[number * NUM_STATES : (number + 1) * NUM_STATES])
            drive = valid.unpack(product[rows] * scale + shift)
            gradients = _chunk_gradients(
                ctx, drive, valid, state, (grad_spikes_TBH[times], *grad_state)
            )
            grad_drive[rows] = valid.pack(gradients[0])
            grad_state = gradients[1 : 1 + NUM_STATES]
            for total, gradient in zip(grad_parameters, gradients[1 + NUM_STATES :], strict=True):
                total += gradient
        # As batch norm's own backward pass, in the gradient's memory.
        grad_beta = grad_drive.sum(0)
        grad_gamma = torch.zeros_like(grad_beta)
        for _, _, rows in chunks:
            grad_gamma += (grad_drive[rows] * (product[rows] - mean)).sum(0)
        grad_gamma *= inverse_std
        sums = torch.stack([grad_beta, grad_gamma])
        if ctx.count is not None:
            shares = all_sum(sums.clone()) / ctx.count
            for _, _, rows in chunks:
                normalized = (product[rows] - mean) * inverse_std
                grad_drive[rows] -= shares[0] + normalized * shares[1]
        grad_drive *= gamma * inverse_std
        return None, None, None, None, grad_drive, sums[1], sums[0], *grad_state, *grad_parameters


def _chunk_gradients(
    ctx: Any, drive: Tensor, valid: ValidFrames, state: LifState, gradients: tuple[Tensor, ...]
) -> list[Tensor]:
    """Run a chunk again and differentiate it: gradients of drive, state and parameters."""
    with torch.enable_grad():
        drive = drive.detach().requires_grad_()
        leaves = [tensor.detach().requires_grad_() for tensor in state]
        output = ctx.recur(drive, valid.lengths_B, LifState(*leaves))
        found = torch.autograd.grad(
            (output.spikes_TBH, *output.state),
            (drive, *leaves, *ctx.parameters),
            gradients,
            allow_unused=True,
        )
    wanted = (drive, *leaves, *ctx.parameters)
    return [
        torch.zeros_like(leaf) if gradient is None else gradient
        for leaf, gradient in zip(wanted, found, strict=True)
    ]


def recomputed(
    product_NG: Tensor,
    norm: FrameBatchNorm,
    moments: Moments,
    recur: ChunkRecurrence,
    parameters: Sequence[Tensor],
    frames: ValidFrames,
    state: LifState,
    chunk_frames: int,
) -> RecurrenceOutput:
    """``recur(norm(product))`` over a sequence, for the price of a second forward pass.

    Args:
        product_NG: ``W X`` of the valid frames.
        moments: ``norm.moments(product_NG)``, of this pass.
        recur: the recurrence of a chunk, with the quantiser of this pass.
        parameters: what ``recur`` uses besides its arguments and shall get gradients.
        chunk_frames: frames recomputed together; the memory of a chunk is that of the ordinary
            pass, so a few hundred are a good choice.
    """
    spikes, current, residue, last, minimum, maximum = _Recomputed.apply(  # type: ignore[no-untyped-call, unused-ignore]
        recur,
        frames,
        chunk_frames,
        moments,
        product_NG,
        norm.weight,
        norm.bias,
        *state,
        *parameters,
    )
    return RecurrenceOutput(spikes, LifState(current, residue, last), minimum, maximum)
