"""v3 fused against v3 in the reference: values, gradients, padding and pieces, option by option."""

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from training import recurrence
from training.lif import FiringRule, LifState, encoder_step, gated_step
from training.quantizer import Quantizer, paper_quantizer

KINDS = ("encoder", "gated")
EDGE = 2e-4  # of a level


class Case:
    """One site of v3 with random parameters, and a scalar that depends on all its outputs."""

    def __init__(self, kind, lengths, num_neurons, options, seed):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(*shape, generator=generator)

        self.kind, self.options = kind, options
        self.lengths = torch.tensor(lengths, dtype=torch.int64)
        batch_size, num_frames = len(lengths), max(*lengths, 1) + 1
        self.drive = normal(num_frames, batch_size, (2 if kind == "gated" else 1) * num_neurons)
        self.state = [0.5 * normal(batch_size, num_neurons) for _ in range(3)]
        keep = torch.rand(batch_size, num_neurons, generator=generator) < 0.8
        self.mask = keep / 0.8 if seed % 3 else None
        self.weight = 0.7 * normal(2 * num_neurons, num_neurons) / num_neurons**0.5
        self.leak = 0.3 + 0.7 * torch.rand(num_neurons, generator=generator)
        self.range_M = torch.tensor(options["range_M"])
        self.threshold = torch.tensor(options["threshold"])
        self.cotangents = [normal(num_frames, batch_size, num_neurons)]
        self.cotangents += [normal(batch_size, num_neurons) for _ in range(3)]
        self.num_frames = num_frames

    def leaves(self):
        return [self.drive, *self.state, self.weight, self.leak, self.range_M, self.threshold]

    def firing(self, convert=lambda tensor: tensor):
        quantizer = Quantizer(
            convert(self.range_M), convert(self.threshold), self.options["num_bits"]
        )
        leak = convert(self.leak) if self.options["leaks"] else None
        return FiringRule(quantizer, leak)

    def run(self, backend):
        state, firing = LifState(*self.state), self.firing()
        if self.kind == "encoder":
            return recurrence.encoder(self.drive, self.lengths, state, firing, backend=backend)
        return recurrence.gated(
            self.drive, self.mask, self.weight, self.lengths, state, firing, backend=backend
        )

    def outcome(self, backend):
        """Outputs and the gradients of all leaves, zeros where there are none."""
        leaves = [leaf.requires_grad_() for leaf in self.leaves()]
        output = self.run(backend)
        outputs = (output.spikes_TBH, *output.state)
        total = sum((o * c).sum() for o, c in zip(outputs, self.cotangents, strict=True))
        gradients = torch.autograd.grad(total, leaves, materialize_grads=True, allow_unused=True)
        return [*outputs, output.minimum, output.maximum], list(gradients)

    @torch.no_grad()
    def edge_distance(self):
        """How close a level, threshold, window, clip or ReLU comes to its edge."""
        state = LifState(*(s.double() for s in self.state))
        firing = self.firing(torch.Tensor.double)
        quantizer = firing.quantizer
        scale = quantizer.scale() if quantizer.num_bits != 32 else torch.tensor(1.0).double()
        distances = [torch.tensor(1.0)]
        for t, x in enumerate(self.drive.double()):
            valid = (t < self.lengths).unsqueeze(1)
            if self.kind == "encoder":
                after, potential = encoder_step(x, state, firing)
            else:
                mask = None if self.mask is None else self.mask.double()
                weight = self.weight.double()
                after, potential = gated_step(*x.chunk(2, dim=-1), mask, weight, state, firing)
                cell = x.chunk(2, dim=-1)[1] + state.spikes @ weight.chunk(2)[1].T
                if valid.any():
                    distances.append(cell.abs()[valid.expand_as(cell)].min())
            if quantizer.num_bits != 32 and valid.any():
                berth = 1.0 / potential.abs().clamp(min=1.0)
                scaled = potential * scale
                edges = [scaled, (scaled.abs() - quantizer.threshold_levels)]
                apart = [(edges[0] - edges[0].round()).abs(), edges[1].abs()]
                apart += [(edges[1].abs() - 1.0).abs()]
                apart += [(potential.abs() - quantizer.range_M).abs() * scale]
                apart = torch.stack(apart).amin(0) * berth
                distances.append(apart[valid.expand_as(apart)].min())
            pairs = zip(after, state, strict=True)
            state = LifState(*(torch.where(valid, a, b) for a, b in pairs))
        return float(torch.stack([d.float() for d in distances]).min())


def options():
    return st.fixed_dictionaries(
        {
            "range_M": st.sampled_from([0.5, 1.0, 2.0, 5.0]),
            "threshold": st.sampled_from([1.0, 2.3, 4.0]),
            "num_bits": st.sampled_from([3, 4, 6, 8, 32]),
            "leaks": st.booleans(),
        }
    )


ALL = {
    "range_M": 1.0,
    "threshold": 2.3,
    "num_bits": 6,
    "leaks": True,
}


def assert_agrees(case, backend="cpu"):
    (expected, expected_gradients), (found, gradients) = (
        case.outcome("reference"),
        case.outcome(backend),
    )
    size = max(1.0, *(float(e.detach().abs().max()) for e in expected[:4]))
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5 * size)
    largest = max(float(gradient.abs().max()) for gradient in expected_gradients)
    for a, b in zip(expected_gradients, gradients, strict=True):
        size = max(1e-2, float(a.abs().max())) if a.dim() else largest
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4 * size)


@pytest.mark.parametrize("kind", KINDS)
def test_fused_equals_reference(kind):
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
    @given(
        lengths=st.lists(st.integers(0, 8), min_size=1, max_size=6),
        num_neurons=st.sampled_from([1, 7, 8, 17, 33]),
        options=options(),
        seed=st.integers(0, 10**6),
    )
    def check(lengths, num_neurons, options, seed):
        case = Case(kind, lengths, num_neurons, options, seed)
        assume(case.edge_distance() > EDGE)
        assert_agrees(case)

    check()


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind):
    case = Case(kind, [4, 9, 1], 13, ALL, seed=7)
    first, first_gradients = case.outcome("cpu")
    with torch.no_grad():
        for b, length in enumerate(case.lengths.tolist()):
            case.drive[length:, b] = float("nan")
    second, gradients = case.outcome("cpu")
    for a, b in zip([*first, *first_gradients], [*second, *gradients], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_in_pieces_equals_the_whole(kind):
    case = Case(kind, [12, 7, 0, 3], 21, ALL, seed=4)
    whole = case.run("cpu")
    drive, lengths, pieces = case.drive, case.lengths, []
    for start, end in ((0, 5), (5, 6), (6, 13)):
        case.drive, case.lengths = drive[start:end], (lengths - start).clamp(0, end - start)
        pieces.append(case.run("cpu"))
        case.state = list(pieces[-1].state)
    assert torch.equal(torch.cat([p.spikes_TBH for p in pieces]), whole.spikes_TBH)
    for found, expected in zip(pieces[-1].state, whole.state, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_do_not_depend_on_the_threads(kind):
    case = Case(kind, [9, 5, 0, 9, 2], 19, ALL, seed=5)
    before = torch.get_num_threads()
    results = []
    for num_threads in (1, 3):
        torch.set_num_threads(num_threads)
        try:
            results.append(case.outcome("cpu")[1])
        finally:
            torch.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5)


def test_with_every_option_off_it_is_v2_bit_by_bit():
    off = {**ALL, "leaks": False, "threshold": 4.0}
    case = Case("gated", [9, 5, 0], 19, off, seed=5)
    found = case.run("cpu")
    expected = recurrence.gated(
        case.drive,
        case.mask,
        case.weight,
        case.lengths,
        LifState(*case.state),
        FiringRule(paper_quantizer(case.range_M, 6, 3)),
        backend="cpu",
    )
    assert torch.equal(found.spikes_TBH, expected.spikes_TBH)
    for a, b in zip(found.state, expected.state, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("learned", ["leak", "range_M", "threshold"])
def test_each_learned_part_has_its_gradient_alone(learned):
    case = Case("gated", [9, 5, 7], 19, ALL, seed=5)
    results = []
    for backend in ("reference", "cpu"):
        leaf = getattr(case, learned).detach().requires_grad_()
        setattr(case, learned, leaf)
        output = case.run(backend)
        total = (output.spikes_TBH * case.cotangents[0]).sum() + output.state.residue.sum()
        results.append(torch.autograd.grad(total, leaf)[0])
        setattr(case, learned, leaf.detach())
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)
    assert results[1].any()
