"""Fused recurrences against the reference, over random shapes, lengths, bits and ranges.

The quantiser jumps at the edges of its levels and the gradient at the edge of the clip and of
the ReLU, so a difference of one rounding can change a spike. Cases that come close to an edge
are left out (a check in double precision finds them); all others must agree.
"""

import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from training import recurrence
from training.lif import FiringRule, LifState, conventional_step, encoder_step, gated_step
from training.quantizer import paper_quantizer

KINDS = ("encoder", "conventional", "v1", "v2")
EDGE = 2e-4  # of a level; rounding errors here are below 1e-5 of a level


class Case:
    """One layer with random parameters, and a scalar that depends on all its outputs."""

    def __init__(
        self,
        kind,
        num_frames,
        lengths,
        num_neurons,
        quantizer,
        seed,
        scale=1.0,
        dtype=torch.float32,
    ):
        generator = torch.Generator().manual_seed(seed)
        batch_size = len(lengths)

        def normal(*shape):
            return torch.randn(*shape, generator=generator)

        self.kind, self.quantizer, self.lengths = (
            kind,
            quantizer,
            torch.tensor(lengths, dtype=torch.int64),
        )
        num_drives = 2 if kind in ("v1", "v2") else 1
        self.drive = (scale * normal(num_frames, batch_size, num_drives * num_neurons)).to(dtype)
        self.state = [0.5 * normal(batch_size, num_neurons) for _ in range(3)]
        self.decay = torch.rand(num_neurons, generator=generator)
        keep = torch.rand(batch_size, num_neurons, generator=generator) < 0.8
        self.mask = keep / 0.8 if seed % 3 else None
        self.weight = 0.7 * normal(2 * num_neurons, num_neurons) / num_neurons**0.5
        self.cotangents = [normal(num_frames, batch_size, num_neurons)]
        self.cotangents += [normal(batch_size, num_neurons) for _ in range(3)]
        self.leaves = [self.drive, *self.state, self.decay, self.weight]

    def run(self, backend):
        for leaf in self.leaves:
            leaf.grad = None
            leaf.requires_grad_()
        state, firing = LifState(*self.state), FiringRule(self.quantizer)
        if self.kind == "encoder":
            return recurrence.encoder(self.drive, self.lengths, state, firing, backend=backend)
        if self.kind == "conventional":
            return recurrence.conventional(
                self.drive, self.decay, self.lengths, state, firing, backend=backend
            )
        weight = self.weight if self.kind == "v2" else None
        return recurrence.gated(
            self.drive, self.mask, weight, self.lengths, state, firing, backend=backend
        )

    def gradients(self, output):
        outputs = (output.spikes_TBH, *output.state)
        pairs = zip(outputs, self.cotangents, strict=True)
        sum((o * c).sum() for o, c in pairs).backward()
        return [leaf.grad if leaf.grad is not None else torch.zeros(()) for leaf in self.leaves]

    @torch.no_grad()
    def edge_distance(self):
        """How close any level, clip or ReLU comes to its edge, in levels; double precision."""
        state = LifState(*(s.double() for s in self.state))
        quantizer = self.quantizer._replace(range_M=self.quantizer.range_M.double())
        is_quantized, firing = quantizer.num_bits != 32, FiringRule(quantizer)
        scale = quantizer.scale() if is_quantized else 1.0
        weight = self.weight.double() if self.kind == "v2" else None
        mask = None if self.mask is None else self.mask.double()
        distances = [torch.tensor(1.0)]
        for t, x in enumerate(self.drive.double()):
            valid = (t < self.lengths).unsqueeze(1)
            if self.kind == "encoder":
                after, potential = encoder_step(x, state, firing)
            elif self.kind == "conventional":
                after, potential = conventional_step(x, self.decay.double(), state, firing)
            else:
                forget, cell = x.chunk(2, dim=-1)
                after, potential = gated_step(forget, cell, mask, weight, state, firing)
                if weight is not None:
                    cell = cell + state.spikes @ weight[weight.shape[1] :].T
                distances.append(
                    cell.abs()[valid.expand_as(cell)].min() if valid.any() else torch.tensor(1.0)
                )
            if is_quantized and valid.any():
                # Rounding errors grow with the potential; so does the berth around an edge.
                berth = 1.0 / potential.abs().clamp(min=1.0)
                level = potential * scale
                within = potential.abs() <= quantizer.range_M
                to_level = torch.where(within, (level - level.round()).abs(), 1.0)
                to_clip = (potential.abs() - quantizer.range_M).abs() * scale
                near = torch.minimum(to_level, to_clip) * berth
                distances.append(near[valid.expand_as(near)].min())
            pairs = zip(after, state, strict=True)
            state = LifState(*(torch.where(valid, a, b) for a, b in pairs))
        return float(torch.stack([d.float() for d in distances]).min())


def quantizers():
    def build(num_bits, threshold, range_M):
        top = max(1, 2 ** min(num_bits - 1, 30) - 1)
        return paper_quantizer(torch.tensor(range_M), num_bits, min(threshold, top - 1))

    num_bits = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 32])
    # Half of the ranges are far below the potentials: saturated neurons, full residues.
    range_M = st.sampled_from([0.2, 0.5, 1.0, 2.0, 4.0, 8.0])
    return st.builds(build, num_bits, st.integers(0, 5), range_M)


@st.composite
def cases(draw, kind):
    num_frames = draw(st.integers(1, 9))
    lengths = draw(st.lists(st.integers(0, num_frames), min_size=1, max_size=7))
    num_neurons = draw(st.sampled_from([1, 2, 7, 8, 9, 16, 23, 40]))
    seed = draw(st.integers(0, 10**6))
    return Case(kind, num_frames, lengths, num_neurons, draw(quantizers()), seed)


def assert_agrees(case, backend="cpu"):
    reference, fused = case.run("reference"), case.run(backend)
    expected = [reference.spikes_TBH, *reference.state, reference.minimum, reference.maximum]
    found = [fused.spikes_TBH, *fused.state, fused.minimum, fused.maximum]
    size = max(1.0, *(float(e.detach().abs().max()) for e in expected[:4]))
    for a, b in zip(expected, found, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5 * size)
    for a, b in zip(
        case.gradients(reference), [g.clone() for g in _gradients(case, backend)], strict=True
    ):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4 * max(1e-2, float(a.abs().max())))


def _gradients(case, backend):
    kept = [None if leaf.grad is None else leaf.grad.clone() for leaf in case.leaves]
    found = case.gradients(case.run(backend))
    for leaf, grad in zip(case.leaves, kept, strict=True):
        leaf.grad = grad
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_fused_equals_reference(kind):
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
    @given(case=cases(kind))
    def check(case):
        assume(case.edge_distance() > EDGE)
        assert_agrees(case)

    check()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_frames", [1, 5])
def test_no_valid_frame_leaves_the_state_alone(kind, num_frames):
    case = Case(kind, num_frames, [0, 0], 9, paper_quantizer(torch.tensor(2.0), 6, 3), seed=1)
    output = case.run("cpu")
    assert not output.spikes_TBH.any()
    for before, after in zip(case.state, output.state, strict=True):
        assert torch.equal(before, after)
    assert output.minimum == torch.inf
    assert output.maximum == -torch.inf
    gradients = case.gradients(output)
    assert not gradients[0].any()
    for gradient, cotangent in zip(gradients[1:4], case.cotangents[1:], strict=True):
        assert torch.equal(gradient, cotangent)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_in_pieces_equals_the_whole(kind):
    quantizer = paper_quantizer(torch.tensor(2.0), 6, 3)
    case = Case(kind, 12, [12, 7, 0, 3], 21, quantizer, seed=4)
    whole = case.run("cpu")
    drive, lengths, pieces = case.drive, case.lengths, []
    for start, end in ((0, 5), (5, 6), (6, 12)):
        case.drive = drive[start:end].detach()
        case.lengths = (lengths - start).clamp(0, end - start)
        case.leaves = [case.drive, *case.state, case.decay, case.weight]
        output = case.run("cpu")
        pieces.append(output)
        case.state = [s.detach() for s in output.state]
    assert torch.equal(torch.cat([p.spikes_TBH for p in pieces]), whole.spikes_TBH)
    for found, expected in zip(pieces[-1].state, whole.state, strict=True):
        assert torch.equal(found, expected)
    assert min(p.minimum for p in pieces) == whole.minimum
    assert max(p.maximum for p in pieces) == whole.maximum


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind):
    quantizer = paper_quantizer(torch.tensor(2.0), 6, 3)
    case = Case(kind, 9, [4, 9, 1], 13, quantizer, seed=7)
    first = case.run("cpu")
    first_gradients = [g.clone() for g in case.gradients(first)]
    with torch.no_grad():
        for b, length in enumerate(case.lengths.tolist()):
            case.drive[length:, b] = float("nan")
    second = case.run("cpu")
    assert torch.equal(first.spikes_TBH, second.spikes_TBH)
    assert first.minimum == second.minimum
    for a, b in zip(first_gradients, case.gradients(second), strict=True):
        assert torch.equal(a, b)


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_no_nan_for_any_finite_input(kind, backend):
    @settings(max_examples=50, deadline=None)
    @example(  # a current beyond saturation overflowed in a gate's gradient
        values=[0.0, -89.0] + [0.0] * 6,
        state=[0.0, 1.6013287914757132e38, 0.0, 0.0, 0.0, 0.0],
        num_bits=1,
        log_range=0.0,
    )
    @given(
        values=st.lists(finite, min_size=8, max_size=8),
        state=st.lists(finite, min_size=6, max_size=6),
        num_bits=st.sampled_from([1, 2, 6, 8, 32]),
        log_range=st.floats(-6, 30),
    )
    def check(values, state, num_bits, log_range):
        quantizer = paper_quantizer(torch.tensor(10.0**log_range), num_bits, 0)
        case = Case(kind, 4, [4], 2, quantizer, seed=2)
        case.cotangents = [torch.ones_like(c) for c in case.cotangents]
        values = torch.tensor(values).view(4, 1, 2)
        case.drive = values.repeat(1, 1, case.drive.shape[-1] // 2)
        current, residue, spikes = torch.tensor(state).view(3, 1, 2)
        case.state = [current, residue, spikes.clamp(-1e30, 1e30)]
        case.leaves = [case.drive, *case.state, case.decay, case.weight]
        output = case.run(backend)
        results = [output.spikes_TBH, *output.state, output.minimum, output.maximum]
        assert not any(bool(result.isnan().any()) for result in results)
        # The gradient through v2's matrix is a product of currents over time: from enormous
        # ones it overflows in truth, and is checked for the others.
        if (
            kind != "v2"
            or float(torch.cat([values.flatten(), current[0], residue[0], spikes[0]]).abs().max())
            < 1e4
        ):
            assert not any(bool(g.isnan().any()) for g in case.gradients(output))

    check()


def test_gradients_of_an_unquantized_layer_match_finite_differences():
    # 32 bits make the layer smooth (away from the ReLU's edge): the true derivative exists.
    quantizer = paper_quantizer(torch.tensor(1.0), 32, 0)
    for kind in KINDS:
        case = Case(kind, 4, [4, 2], 3, quantizer, seed=11)
        gradients = case.gradients(case.run("cpu"))

        def value(case=case):
            output = case.run("cpu")
            outputs = (output.spikes_TBH.detach(), *(s.detach() for s in output.state))
            pairs = zip(outputs, case.cotangents, strict=True)
            return float(sum((o.double() * c).sum() for o, c in pairs))

        for leaf, gradient in zip(case.leaves, gradients, strict=True):
            if gradient.dim() == 0:
                continue
            direction = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(5))
            original, step = leaf.detach().clone(), 1e-2
            leaf.data = original + step * direction
            above = value()
            leaf.data = original - step * direction
            below = value()
            leaf.data = original
            expected = float((gradient * direction).sum())
            assert (above - below) / (2 * step) == pytest.approx(expected, rel=1e-2, abs=1e-2)


@pytest.mark.parametrize("num_neurons", [70, 300])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.6, 1.0])
def test_sparse_and_dense_recurrent_products_agree_with_the_reference(density, num_neurons):
    # The initial spikes' density decides which product the first frame uses; 300 neurons are
    # deeper than one cache block. Everything lies on a dyadic grid: sums are exact in any order.
    generator = torch.Generator().manual_seed(3)
    batch_size = 11
    weight = torch.randint(-8, 9, (2 * num_neurons, num_neurons), generator=generator) / 64
    spikes = torch.randint(1, 9, (batch_size, num_neurons), generator=generator) / 8
    spikes *= torch.rand(batch_size, num_neurons, generator=generator) < density
    zero = torch.zeros(batch_size, num_neurons)
    drive = torch.randint(-16, 17, (2, batch_size, 2 * num_neurons), generator=generator) / 16
    results = []
    for backend in ("reference", "cpu"):
        leaves = [tensor.clone().requires_grad_() for tensor in (drive, weight, spikes)]
        output = recurrence.gated(
            leaves[0],
            None,
            leaves[1],
            torch.full((batch_size,), 2),
            LifState(zero, zero, leaves[2]),
            FiringRule(paper_quantizer(torch.tensor(1.0), 32, 0)),
            backend=backend,
        )
        gradients = torch.autograd.grad(output.spikes_TBH.sum(), leaves)
        results.append((output.spikes_TBH, *gradients))
    for expected, found in zip(*results, strict=True):
        size = float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * size)
