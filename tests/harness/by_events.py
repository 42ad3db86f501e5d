"""Running a step network frame by frame, with products for events alone, and counting them.

A second way to count, with nothing of the first: no activities, no fan-outs, no closed forms. Each
matrix is a list of columns; an input that is not zero (for a network that sends changes: that has
changed) has its column multiplied and added, and each weight of it that connects two different
things is one operation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Executed:
    """Operations of one matrix so far."""

    multiplications: int = 0
    additions: int = 0


class Matrix:
    """A matrix and what it holds: the sum of its columns so far, where it adds changes up."""

    def __init__(self, weight, bias, *, changes, binary=False, dense=False, skips_diagonal=False):
        self.weight, self.changes, self.binary, self.dense = weight, changes, binary, dense
        self.bias = torch.zeros(len(weight)) if bias is None else bias
        self.sum, self.seen = self.bias.clone(), torch.zeros(weight.shape[1])
        self.skips_diagonal = skips_diagonal
        self.executed = Executed()

    def __call__(self, value: Tensor) -> Tensor:
        events = value - self.seen if self.changes else value
        total = self.sum if self.changes else self.bias.clone()
        for number in range(len(events)):
            event = float(events[number])
            if event == 0.0 and not self.dense:
                continue
            reached = [
                k for k in range(len(self.weight)) if not (self.skips_diagonal and k == number)
            ]
            total[reached] += event * self.weight[reached, number]
            self.executed.additions += len(reached)
            self.executed.multiplications += 0 if self.binary else len(reached)
        self.seen = value.clone()
        return total.clone()


def run_by_events(network, x_TF: Tensor) -> tuple[Tensor, dict[str, Executed]]:
    """Score one utterance; returns log-probabilities (T, O) and what each matrix executed."""
    kind = network.config.spec.name
    changes, binary = kind == "deltagru", kind in ("adlif", "radlif", "leaky")
    matrices: dict[str, Matrix] = {}
    for number, layer in enumerate(network.layers, start=1):
        weight, bias = layer.norm.folded(layer.input_map.weight)
        first = number == 1
        matrices[f"feed_forward_{number}"] = Matrix(
            weight, bias, changes=changes, binary=binary and not first, dense=first and not changes
        )
        if layer.has_feedback:
            matrices[f"recurrent_{number}"] = Matrix(
                layer.recurrent_weight,
                None,
                changes=changes,
                binary=binary,
                skips_diagonal=kind == "radlif",
            )
    weight, bias = network.output.norm.folded(network.output.linear.weight)
    matrices["output"] = Matrix(weight, bias, changes=changes, binary=binary)
    states = [layer.initial_state(1, torch.device("cpu")) for layer in network.layers]
    told = torch.zeros(x_TF.shape[1])
    scores = []
    for x_F in x_TF:
        if changes:
            limit = network.config.input_delta_threshold
            told = torch.where((x_F - told).abs() > limit, x_F, told)
            x_F = told
        value = x_F
        for number, layer in enumerate(network.layers, start=1):
            drive = matrices[f"feed_forward_{number}"](value).unsqueeze(0)
            back = None
            if layer.has_feedback:
                back = matrices[f"recurrent_{number}"](states[number - 1][-1][0]).unsqueeze(0)
            states[number - 1] = layer.step(drive, back, states[number - 1])
            value = states[number - 1][-1][0]
        scores.append(matrices["output"](value).log_softmax(0))
    return torch.stack(scores), {name: matrix.executed for name, matrix in matrices.items()}
