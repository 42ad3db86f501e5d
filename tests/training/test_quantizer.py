"""The multi-bit quantiser: levels, silence, gradient, and its running range."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.quantizer import (
    RANGE_MOMENTUM,
    RangeTracker,
    fire,
    paper_quantizer,
    quantize,
)

potentials = st.floats(-50, 50, width=32)
ranges = st.floats(0.125, 20, width=32)
bits = st.integers(1, 8)


def level(potential, range_M, num_bits, threshold):
    """The integer level by the definition, in Python arithmetic."""
    slack = 1e-4 if num_bits == 1 else -1e-4
    scaled = 2 ** (num_bits - 1) * (1 + slack) / range_M * max(-range_M, min(range_M, potential))
    found = math.trunc(scaled)
    is_near_edge = abs(scaled - round(scaled)) < 1e-3
    return (found if abs(found) > threshold else 0), is_near_edge


@given(potential=potentials, range_M=ranges, num_bits=bits, threshold=st.integers(0, 5))
def test_levels_follow_the_definition(potential, range_M, num_bits, threshold):
    expected, is_near_edge = level(potential, range_M, num_bits, threshold)
    quantizer = paper_quantizer(torch.tensor(range_M), num_bits, threshold)
    scale = float(quantizer.scale())
    found = quantize(torch.tensor(potential), quantizer).item() * scale
    assert found == pytest.approx(round(found), abs=1e-4)
    if not is_near_edge:
        assert round(found) == expected


@given(range_M=ranges, num_bits=bits)
def test_the_edges_of_the_range_reach_the_top_level_and_no_further(range_M, num_bits):
    quantizer = paper_quantizer(torch.tensor(range_M), num_bits, 0)
    potential = torch.tensor([range_M, -range_M, 1e6, -1e6])
    found = quantize(potential, quantizer) * quantizer.scale()
    top = max(1, 2 ** (num_bits - 1) - 1)
    assert found.round().tolist() == [top, -top, top, -top]


def test_paper_setting_uses_levels_4_to_31():
    quantizer = paper_quantizer(torch.tensor(1.0), 6, 3)
    found = quantize(torch.linspace(-1.5, 1.5, 20001), quantizer)
    levels = set((found * quantizer.scale()).round().int().tolist())
    assert levels == {0, *range(4, 32), *range(-31, -3)}


def test_one_bit_fires_plus_and_minus_one():
    quantizer = paper_quantizer(torch.tensor(2.0), 1, 0)
    found = quantize(torch.tensor([-2.0, -1.9, 0.0, 1.9, 2.0]), quantizer)
    assert (found * quantizer.scale()).round().tolist() == [-1, 0, 0, 0, 1]


def test_thirty_two_bits_leave_the_potential_alone():
    potential = torch.tensor([-1e9, -0.1, 0.0, 3.7], requires_grad=True)
    found = fire(potential, paper_quantizer(torch.tensor(0.5), 32, 3))
    assert torch.equal(found, potential)
    found.sum().backward()
    assert potential.grad.tolist() == [1, 1, 1, 1]


def test_gradient_is_one_inside_the_clip_and_zero_outside():
    potential = torch.tensor([-2.5, -2.0, -0.01, 0.0, 1.9, 2.0, 2.1], requires_grad=True)
    fire(potential, paper_quantizer(torch.tensor(2.0), 6, 3)).sum().backward()
    assert potential.grad.tolist() == [0, 1, 1, 1, 1, 1, 0]


@given(st.lists(st.tuples(st.floats(-9, 0), st.floats(0, 9)), min_size=1, max_size=12))
def test_range_is_the_bias_corrected_average_of_the_extremes(steps):
    tracker = RangeTracker()
    for minimum, maximum in steps:
        tracker.update(torch.tensor(minimum), torch.tensor(maximum))
    weights = [RANGE_MOMENTUM * (1 - RANGE_MOMENTUM) ** i for i in range(len(steps))][::-1]
    low = sum(w * s[0] for w, s in zip(weights, steps, strict=True)) / sum(weights)
    high = sum(w * s[1] for w, s in zip(weights, steps, strict=True)) / sum(weights)
    expected = max(abs(low), abs(high), 1e-6)
    assert float(tracker.range_M()) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_an_untouched_range_is_positive():
    assert float(RangeTracker().range_M()) > 0


def test_a_range_has_a_bound_and_nothing_below_it_is_changed():
    tracker, free = RangeTracker(max_range=4.0), RangeTracker()
    for maximum, expected in ((3.0, 3.0), (40.0, 4.0), (80.0, 4.0)):
        for each in (tracker, free):
            each.num_updates.zero_(), each.minimum.zero_(), each.maximum.zero_()
            each.update(torch.tensor(-1.0), torch.tensor(maximum))
        assert float(free.range_M()) == pytest.approx(maximum)
        assert float(tracker.range_M()) == pytest.approx(expected)
    assert tracker.state_dict().keys() == free.state_dict().keys()
