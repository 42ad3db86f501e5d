"""Trajectories of the LIF steps that can be checked by hand.

Range M = 31.9968 / 32 with 6 bits makes the level scale exactly 32, so a potential of k / 32 is
level k and every number below is a dyadic fraction.
"""

import pytest
import torch

from training.constants import SATURATION
from training.lif import FiringRule, LifState, conventional_step, encoder_step, gated_step
from training.quantizer import paper_quantizer

UNIT = 1 / 32
RANGE_M = torch.tensor(31.9968 / 32)
SIX_BITS = FiringRule(paper_quantizer(RANGE_M, num_bits=6, threshold=3))


def column(*values):
    return torch.tensor([values])


def rest(num_neurons=1):
    return LifState.zeros(1, num_neurons, torch.device("cpu"))


def test_the_scale_of_these_tests_is_32():
    assert float(SIX_BITS.quantizer.scale()) == pytest.approx(32.0, rel=1e-7)


def run_encoder(frames):
    state, potentials, spikes = rest(), [], []
    for frame in frames:
        state, potential = encoder_step(column(frame), state, SIX_BITS)
        potentials.append(potential.item() / UNIT)
        spikes.append(round(state.spikes.item() / UNIT, 3))
    return potentials, spikes, state


def test_residue_below_threshold_is_carried_until_it_fires():
    # levels: 2.5 silent, 5 fires 5 and leaves 0, 1.5 silent, 3.25 is level 3 <= threshold,
    # 6.75 fires 6 and leaves 0.75
    potentials, spikes, state = run_encoder(
        [2.5 * UNIT, 2.5 * UNIT, 1.5 * UNIT, 1.75 * UNIT, 3.5 * UNIT]
    )
    assert potentials == [2.5, 5.0, 1.5, 3.25, 6.75]
    assert spikes == [0, 5, 0, 0, 6]
    assert state.residue.item() == pytest.approx(0.75 * UNIT, abs=1e-6)


def test_spikes_are_negative_too_and_truncate_towards_zero():
    potentials, spikes, _ = run_encoder([-5.5 * UNIT, 1.0 * UNIT])
    assert potentials == [-5.5, pytest.approx(0.5, abs=1e-5)]
    assert spikes == [-5, 0]


def test_a_potential_beyond_the_range_fires_the_top_level_and_keeps_the_rest():
    potentials, spikes, state = run_encoder([40 * UNIT, 0.0])
    assert spikes == [31, 9]
    assert potentials[1] == pytest.approx(9.0, abs=1e-4)
    assert state.residue.item() == pytest.approx(0.0, abs=1e-6)


def test_conventional_current_decays_by_tau():
    # tau 1/2, drive 16 units once: I = 16, 8, 4, 2; V = R + I with spikes 16, 8, 4, 0
    decay, state, spikes, currents = torch.tensor([0.5]), rest(), [], []
    for drive in (16 * UNIT, 0.0, 0.0, 0.0):
        state, _ = conventional_step(column(drive), decay, state, SIX_BITS)
        currents.append(state.synaptic_current.item() / UNIT)
        spikes.append(round(state.spikes.item() / UNIT, 3))
    assert currents == [16, 8, 4, 2]
    assert spikes == [16, 8, 4, 0]
    assert state.residue.item() == pytest.approx(2 * UNIT, abs=1e-6)


def test_tau_one_never_forgets_and_tau_zero_has_no_memory():
    state = rest(2)
    for _ in range(3):
        state, _ = conventional_step(
            column(4 * UNIT, 4 * UNIT), torch.tensor([1.0, 0.0]), state, SIX_BITS
        )
    assert (state.synaptic_current / UNIT).tolist() == [[12, 4]]


def test_v1_mixes_the_old_current_and_the_cell_half_and_half_at_zero_forget_drive():
    # F = 1/2; cell 8 units: I = 4, 6, 7; V = 4, 6, 7 all fire
    state, currents, spikes = rest(), [], []
    for _ in range(3):
        state, _ = gated_step(column(0.0), column(8 * UNIT), None, None, state, SIX_BITS)
        currents.append(state.synaptic_current.item() / UNIT)
        spikes.append(round(state.spikes.item() / UNIT, 3))
    assert currents == [4, 6, 7]
    assert spikes == [4, 6, 7]


def test_a_negative_cell_is_rectified_and_the_mask_scales_the_cell_only():
    before = LifState(column(8 * UNIT, 8 * UNIT), torch.zeros(1, 2), torch.zeros(1, 2))
    after, _ = gated_step(
        column(0.0, 0.0), column(-5.0, 8 * UNIT), column(2.0, 2.0), None, before, SIX_BITS
    )
    assert (after.synaptic_current / UNIT).tolist() == [[4, 12]]


def test_v2_feeds_spikes_back_into_both_drives():
    # Two neurons; neuron 0 fired 16 units. U_f[1, 0] = 0, U_c[1, 0] = 1/2: cell of neuron 1 is
    # 8 units, F = 1/2, so its current is 4 units. Neuron 0 hears nothing.
    weight = torch.zeros(4, 2)
    weight[2 + 1, 0] = 0.5
    before = LifState(torch.zeros(1, 2), torch.zeros(1, 2), column(16 * UNIT, 0.0))
    after, _ = gated_step(column(0.0, 0.0), column(0.0, 0.0), None, weight, before, SIX_BITS)
    assert (after.synaptic_current / UNIT).tolist() == [[0, 4]]
    assert (after.spikes / UNIT).tolist() == [[0, pytest.approx(4, abs=1e-4)]]


def test_gradient_inside_the_clip_flows_along_the_current_only():
    # Spikes of frame 2 depend on the drive of frame 1 through tau alone: dY_2 / dx_1 = tau.
    drive = torch.tensor([[5 * UNIT], [5 * UNIT]], requires_grad=True)
    state, decay = rest(), torch.tensor([0.25])
    for t in range(2):
        state, _ = conventional_step(drive[t : t + 1], decay, state, SIX_BITS)
    state.spikes.sum().backward()
    assert drive.grad.flatten().tolist() == [0.25, 1.0]


def test_gradient_outside_the_clip_flows_along_the_residue():
    # 40 units lie outside: dY_1/dV_1 = 0 and dR_1/dV_1 = 1, so dY_2/dx_1 = 1.
    drive = torch.tensor([[40 * UNIT], [0.0]], requires_grad=True)
    state = rest()
    for t in range(2):
        state, _ = encoder_step(drive[t : t + 1], state, SIX_BITS)
    state.spikes.sum().backward()
    assert drive.grad.flatten().tolist() == [1.0, 1.0]


def test_potentials_saturate_instead_of_overflowing():
    largest = torch.finfo(torch.float32).max
    state = rest()
    for _ in range(3):
        state, potential = encoder_step(column(largest), state, SIX_BITS)
        assert potential.item() == pytest.approx(SATURATION)
    state, potential = encoder_step(column(-largest), state, SIX_BITS)
    assert potential.item() == pytest.approx(-SATURATION)
