"""Vectors of eight and of sixteen floats: chosen by the processor, the same spikes bit by bit."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core.codegen import get_host_cpu_features

from training.kernels.lanes import NARROW, WIDE, lanes_for

ROOT = Path(__file__).parents[2]
# A step of v2 and of the conventional model: every product, sparse and dense, every scan.
STEP = """
import sys, numpy, torch
from training.models.model_config import ModelConfig
from training.kernels.simd import LANES
from training.models.build import build_network
torch.set_num_threads(2)
found = {"lanes": numpy.array(LANES)}
for model in ("v2", "conventional"):
    for threshold in (0, 5):
        torch.manual_seed(0)
        config = ModelConfig(model=model, hidden_size=150, dropout=0, threshold=threshold)
        network = build_network(config, 23, 41)
        lengths = torch.tensor([90, 70, 1])
        scores = network(torch.randn(90, 3, 23), lengths).log_probs_TBO
        scores.square().sum().backward()
        name = f"{model} {threshold}"
        found[f"{name} scores"] = scores.detach().numpy()
        for key, parameter in network.named_parameters():
            found[f"{name} gradient {key}"] = parameter.grad.numpy()
numpy.savez(sys.argv[1], **found)
"""


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ("+sse2,+avx2,+avx512f,+avx512vl", WIDE),
        ("+sse2,+avx2,-avx512f", NARROW),
        ("+neon", NARROW),
        ("", NARROW),
    ],
)
def test_sixteen_lanes_where_there_is_avx512(features, expected):
    assert lanes_for(features) == expected


def run_step(path, features):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CPU_FEATURES": features}
    subprocess.run(
        [sys.executable, "-c", STEP, str(path)], env=environment, check=True, timeout=600
    )
    return dict(np.load(path))


def test_results_do_not_depend_on_the_lanes(tmp_path):
    """Gradients of weights do in their last bits: sparse and dense sums part at another density."""
    features = get_host_cpu_features()
    if lanes_for(features) == NARROW:
        pytest.skip("this processor has no AVX-512")
    narrow = ",".join(f for f in features.split(",") if not f.startswith("+avx512"))
    wide, other = run_step(tmp_path / "w.npz", features), run_step(tmp_path / "n.npz", narrow)
    assert (int(wide.pop("lanes")), int(other.pop("lanes"))) == (WIDE, NARROW)
    assert set(wide) == set(other)
    for name, values in wide.items():
        if "scores" in name:
            np.testing.assert_array_equal(values, other[name], err_msg=name)
        else:
            scale = np.abs(values).max()
            np.testing.assert_allclose(values, other[name], rtol=0, atol=1e-5 * scale, err_msg=name)
