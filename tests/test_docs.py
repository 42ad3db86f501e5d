"""The documentation pages build without a warning, and what they say of features is so."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]


def test_the_pages_build(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-d", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    reference = (tmp_path / "reference" / "index.html").read_text()
    for name in ("spikeline.load", "spikeline.Scores.multiplications_per_s", "training.lif"):
        assert f'id="{name}"' in reference
    neuron = (tmp_path / "own-neuron" / "index.html").read_text()
    assert "class Layer(StepLayer)" in re.sub("<[^>]*>", "", neuron)  # the example itself


def test_the_lines_that_decode_features_do():
    page = (ROOT / "docs/python.md").read_text()
    (lines,) = re.findall(r"```python\n(import numpy\n+def features_of.*?)```", page, re.S)
    scope = {}
    exec(lines, scope)
    features = np.arange(6, dtype="<f2").reshape(3, 2)
    row = {
        "feature_dtype": "float16",
        "features": features.tobytes(),
        "num_frames": 3,
        "num_features": 2,
    }
    assert np.array_equal(scope["features_of"](row), features)
