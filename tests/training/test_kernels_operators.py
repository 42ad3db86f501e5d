"""The operators inside PyTorch: tracing, autocast, threads, forks, and the choice of backend."""

import logging
import multiprocessing
import os
import subprocess
import sys
import threading

import pytest
import torch

from featurize.stage import PipelineError
from training import recurrence
from training.kernels import jit, operators, threads
from training.kernels.backend import backend_named
from training.kernels.layer import (
    Keep,
    Layer,
    LayerWeights,
    OutputGradients,
    Rows,
    Saved,
    flattened,
)
from training.lif import FiringRule, LifState
from training.quantizer import RangeTracker, paper_quantizer

T, B, H = 5, 3, 11
LENGTHS = torch.tensor([5, 2, 0])
QUANTIZER = paper_quantizer(torch.tensor(2.0), 6, 3)
FIRING = FiringRule(QUANTIZER)


def tensors(seed=0, num_drives=2):
    generator = torch.Generator().manual_seed(seed)
    drives = [torch.randn(T, B, H, generator=generator) for _ in range(num_drives)]
    state = [torch.randn(B, H, generator=generator) for _ in range(3)]
    weight = torch.randn(2 * H, H, generator=generator) / H**0.5
    return drives, state, weight


def run_v2(drives, state, weight, **options):
    drive, before = torch.cat(tuple(drives), -1), LifState(*state)
    return recurrence.gated(drive, None, weight, LENGTHS, before, FIRING, **options)


def layer_of(kind, state, mask=None, **weights):
    rows = Rows(LENGTHS, mask)
    return Layer(kind, rows, LayerWeights(**weights), LifState(*state), QUANTIZER)


@pytest.mark.parametrize("save", [False, True])
@pytest.mark.parametrize("kind", ["encoder", "conventional", "v1", "v2"])
def test_layer_passes_opcheck(kind, save):
    drives, state, weight = tensors()
    drive, mask, weights = drives[0], None, {}
    if kind == "conventional":
        weights = {"decay_H": torch.rand(H)}
    if kind in ("v1", "v2"):
        drive, mask = torch.cat(drives, -1), torch.ones(B, H)
        weights = {"recurrent_2HH": weight} if kind == "v2" else {}
    for tensor in (drive, *state, *weights.values()):
        tensor.requires_grad_(save)
    layer = layer_of("gated" if kind in ("v1", "v2") else kind, state, mask, **weights)
    arguments = (*flattened(layer), drive, save, save, "cpu")
    torch.library.opcheck(operators._layer_operator, arguments)


@pytest.mark.parametrize("kind", ["encoder", "conventional", "gated"])
def test_every_backend_keeps_the_protocol(kind):
    drives, state, weight = tensors()
    drive = torch.cat(drives, -1) if kind == "gated" else drives[0]
    weights = {"conventional": {"decay_H": torch.rand(H)}, "gated": {"recurrent_2HH": weight}}
    layer = layer_of(kind, state, **weights.get(kind, {}))
    results = []
    for name in ("reference", "cpu"):
        backend = backend_named(name)
        output, saved = backend.forward(layer, drive, Keep(True))
        given = OutputGradients(torch.ones_like(output.spikes_TBH), output.state)
        gradients = backend.backward(layer, output.spikes_TBH, saved, given)
        outputs = [output.spikes_TBH, *output.state, output.minimum, output.maximum]
        results.append([*outputs, gradients.drive_TBG, *gradients.weights, *gradients.state])
    for expected, found in zip(*results, strict=True):
        assert (expected is None) == (found is None)
        if expected is not None:
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_compiled_graph_has_no_break_and_the_same_numbers():
    drives, state, weight = tensors()
    weight.requires_grad_()

    def loss(*drives):
        output = run_v2(drives, state, weight, backend="cpu")
        return output.spikes_TBH.square().sum() + output.state.residue.sum() + output.maximum

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    expected = loss(*drives)
    expected.backward()
    gradient, weight.grad = weight.grad, None
    found = compiled(*drives)
    found.backward()
    assert torch.equal(found, expected)
    torch.testing.assert_close(weight.grad, gradient)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_autocast_keeps_the_recurrence_in_float32(backend):
    drives, state, weight = tensors()
    weight.requires_grad_()
    rounded = [d.bfloat16() for d in drives]
    plain = run_v2([d.float() for d in rounded], state, weight, backend="cpu")
    plain.spikes_TBH.square().sum().backward()
    gradient, weight.grad = weight.grad, None
    with torch.autocast("cpu", torch.bfloat16):
        output = run_v2(rounded, state, weight, backend=backend)
        assert output.spikes_TBH.dtype == torch.float32
    output.spikes_TBH.square().sum().backward()
    torch.testing.assert_close(output.spikes_TBH, plain.spikes_TBH)
    torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-5)


def test_gradients_reach_bfloat16_drives():
    drives, state, weight = tensors()
    leaves = [d.bfloat16().requires_grad_() for d in drives]
    run_v2(leaves, state, weight).spikes_TBH.sum().backward()
    assert all(leaf.grad.dtype == torch.bfloat16 and leaf.grad.any() for leaf in leaves)


def test_second_derivatives_are_refused():
    drives, state, weight = tensors()
    weight.requires_grad_()
    total = run_v2(drives, state, weight).spikes_TBH.sum()
    (gradient,) = torch.autograd.grad(total, weight, create_graph=True)
    with pytest.raises(RuntimeError, match="backend=reference"):
        gradient.sum().backward()


def test_stacked_drives_may_be_strided():
    drives, state, weight = tensors()
    expected = run_v2(drives, state, weight).spikes_TBH
    stacked = torch.cat(drives, -1)
    wider = torch.cat([stacked, stacked], -1)[..., : 2 * H]
    batch_major = stacked.transpose(0, 1).contiguous().transpose(0, 1)
    neurons_apart = torch.stack([stacked, stacked], dim=-1)[..., 0]
    for drive in (stacked, wider, batch_major, neurons_apart):
        found = recurrence.gated(drive, None, weight, LENGTHS, LifState(*state), FIRING)
        assert torch.equal(found.spikes_TBH, expected)


def test_states_and_weights_may_be_strided():
    drives, state, weight = tensors()
    expected = run_v2(drives, state, weight).spikes_TBH
    reversed_state = [s.T.contiguous().T for s in state]
    found = run_v2(drives, reversed_state, weight.T.contiguous().T).spikes_TBH
    assert torch.equal(found, expected)


def test_inputs_are_left_alone():
    drives, state, weight = tensors()
    before = [t.clone() for t in (*drives, *state, weight)]
    for tensor in (*drives, *state, weight):
        tensor.requires_grad_()
    run_v2(drives, state, weight).spikes_TBH.sum().backward()
    for tensor, copy in zip((*drives, *state, weight), before, strict=True):
        assert torch.equal(tensor, copy)


def test_nothing_is_kept_for_a_backward_pass_that_cannot_come():
    drives, state, weight = tensors()
    layer = layer_of("gated", state, recurrent_2HH=weight)
    outputs = operators.layer(layer, torch.cat(drives, -1), Keep(False), "cpu")
    assert [kept.numel() for kept in outputs[6:]] == [0] * len(Saved._fields)
    with torch.no_grad():
        weight.requires_grad_()
        assert not run_v2(drives, state, weight).spikes_TBH.requires_grad


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_any_number_of_threads_gives_the_same_numbers(num_threads):
    before = torch.get_num_threads()
    drives, state, weight = tensors()
    expected = run_v2(drives, state, weight, backend="reference")
    torch.set_num_threads(num_threads)
    try:
        found = run_v2(drives, state, weight)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found.spikes_TBH, expected.spikes_TBH)
    assert found.minimum == pytest.approx(float(expected.minimum), rel=1e-5)
    assert found.maximum == pytest.approx(float(expected.maximum), rel=1e-5)


def test_several_python_threads_at_once():
    inputs = [tensors(seed) for seed in range(4)]
    expected = [run_v2(*each).spikes_TBH for each in inputs]
    before, wrong = torch.get_num_threads(), []

    def work(number):
        torch.set_num_threads(2)
        for _ in range(20):
            drives, state, weight = inputs[number]
            if not torch.equal(run_v2(drives, state, weight).spikes_TBH, expected[number]):
                wrong.append(number)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    torch.set_num_threads(before)
    assert wrong == []


def _in_child(queue):
    torch.set_num_threads(2)
    queue.put(float(run_v2(*tensors()).spikes_TBH.sum()))


def fork_and_compare():
    torch.set_num_threads(2)
    expected = float(run_v2(*tensors()).spikes_TBH.sum())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    try:
        assert queue.get(timeout=500) == pytest.approx(expected)
    finally:
        child.join(timeout=1200)
    assert child.exitcode == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_child_can_use_the_kernels():
    """In a process of its own: a fork of this one would inherit Ray's exit handlers."""
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_a_failing_share_is_reported_after_all_have_ended():
    ended = []

    def fail():
        raise RuntimeError("share")

    with pytest.raises(RuntimeError, match="share"):
        threads.run([fail, lambda: ended.append(1)])
    assert ended == [1]


def test_auto_takes_the_fused_backend_and_says_so(caplog):
    recurrence._log_choice.cache_clear()
    with caplog.at_level(logging.INFO, "training.recurrence"):
        chosen = recurrence.choose_backend("auto", torch.device("cpu"), False)
    assert chosen == "cpu"
    assert "backend=cpu" in caplog.text
    assert recurrence.choose_backend("auto", torch.device("cpu"), True) == "reference"


def test_a_range_per_time_step_needs_the_reference():
    drives, state, weight = tensors()
    with pytest.raises(PipelineError, match="backend=reference"):
        run_v2(drives, state, weight, backend="cpu", per_step_range=RangeTracker())
    run_v2(drives, state, weight, backend="auto", per_step_range=RangeTracker())


def test_backends_refuse_tensors_of_other_devices():
    with pytest.raises(PipelineError, match="backend=auto"):
        recurrence.choose_backend("cpu", torch.device("cuda"), False)


RUN_ONCE = """
import torch
from training import recurrence
from training.lif import FiringRule, LifState
from training.quantizer import paper_quantizer
state = LifState.zeros(2, 4, torch.device("cpu"))
out = recurrence.encoder(torch.ones(3, 2, 4), torch.tensor([3, 1]), state,
                         FiringRule(paper_quantizer(torch.tensor(2.0), 6, 3)), backend="cpu")
print(float(out.spikes_TBH.sum()))
"""


def _fresh_process(tmp_path, **environment):
    result = subprocess.run(
        [sys.executable, "-c", RUN_ONCE],
        capture_output=True,
        text=True,
        cwd=os.getcwd(),
        env={**os.environ, **environment},
        check=True,
    )
    return float(result.stdout)


def test_machine_code_goes_to_the_directory_asked_for(tmp_path):
    assert _fresh_process(tmp_path, NUMBA_CACHE_DIR=str(tmp_path)) > 0
    compiled = list(tmp_path.glob("spikeline-kernels/*/**/*.nbc"))
    assert compiled
    assert all(path.stat().st_uid == os.getuid() for path in compiled)


def test_without_any_writable_directory_kernels_still_run(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(blocked))
    monkeypatch.setattr(jit.tempfile, "gettempdir", lambda: str(blocked))
    jit.cache_directory.cache_clear()
    try:
        assert jit.cache_directory() is None
        assert jit.kernel(lambda x: x + 1)(1) == 2
    finally:
        jit.cache_directory.cache_clear()


def test_a_directory_others_can_write_is_not_trusted(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    shared = tmp_path / "spikeline-kernels" / jit._source_hash()
    shared.mkdir(parents=True)
    shared.chmod(0o777)
    jit.cache_directory.cache_clear()
    try:
        assert jit.cache_directory() != shared
    finally:
        jit.cache_directory.cache_clear()


@pytest.mark.parametrize("lengths", [[6, 1, 1], [-1, 1, 1]])
def test_lengths_outside_the_sequence_are_refused(lengths):
    (drive,), state, _ = tensors(num_drives=1)
    with pytest.raises(ValueError, match="between 0 and T=5"):
        recurrence.encoder(drive, torch.tensor(lengths), LifState(*state), FIRING)


def test_shapes_that_do_not_fit_are_refused_by_name():
    drives, state, weight = tensors()
    good = (torch.cat(drives, -1), torch.ones(B, H), weight, LENGTHS)
    names = ("drive_TBG", "dropout_mask", "recurrent_weight", "lengths")
    for position, name in enumerate(names):
        wrong = list(good)
        wrong[position] = good[position][..., :-1]
        with pytest.raises(ValueError, match=name):
            recurrence.gated(*wrong, LifState(*state), FIRING)
    with pytest.raises(ValueError, match="drive_TBG"):
        recurrence.gated(drives[0], None, None, LENGTHS, LifState(*state), FIRING)
    with pytest.raises(ValueError, match="drive_TBH"):
        recurrence.encoder(drives[0][0], LENGTHS, LifState(*state), FIRING)
    with pytest.raises(ValueError, match=r"state\.residue"):
        recurrence.gated(*good, LifState(state[0], state[1][:2], state[2]), FIRING)
    with pytest.raises(ValueError, match="decay_H"):
        recurrence.conventional(drives[0], torch.ones(H - 1), LENGTHS, LifState(*state), FIRING)
    leaky = FIRING._replace(residue_leak=torch.ones(H - 1))
    with pytest.raises(ValueError, match=r"firing\.residue_leak"):
        recurrence.conventional(drives[0], torch.ones(H), LENGTHS, LifState(*state), leaky)


@pytest.mark.parametrize(
    ("backend", "shape"), [("reference", (0, 3, 4)), ("cpu", (0, 3, 4)), ("cpu", (2, 0, 4))]
)
def test_empty_sequences_and_batches(backend, shape):
    drive = torch.zeros(shape, requires_grad=True)
    state = LifState(*(torch.ones(shape[1:], requires_grad=True) for _ in range(3)))
    output = recurrence.gated(
        torch.cat((drive, drive), -1),
        None,
        torch.eye(4).repeat(2, 1),
        torch.zeros(shape[1], dtype=torch.int64),
        state,
        FIRING,
        backend=backend,
    )
    assert output.spikes_TBH.shape == shape
    (output.spikes_TBH.sum() + output.state.residue.sum()).backward()
    assert torch.equal(state.residue.grad, torch.ones(shape[1:]))


if __name__ == "__main__":
    fork_and_compare()
