"""``python -OO``: no assertions, no docstrings, and the same results."""

import json
import subprocess
import sys
from pathlib import Path

from evaluation.evaluate import evaluate
from featurize.featurize import featurize
from featurize.stage import Location
from tests.harness.tiny import EVALUATION, FEATURES, HERE, TRAINING, make_corpus
from training.train import train

REPOSITORY = Path(__file__).parents[2]
SCRIPT = """
import sys
from tests.integration.test_optimised_python import of_every_stage
from flows.cli import run
assert False, "assertions are off"
code = run(["corpus", "check", sys.argv[1], "--set", "max_reject_share=0.5"])
print(of_every_stage(sys.argv[1], sys.argv[2]))
sys.exit(code)
"""


def of_every_stage(corpus: str, runs: str) -> str:
    """Fingerprints, and what was recognised."""
    results = Location.of(runs)
    features = featurize(FEATURES, Location.of(corpus), results)
    model = train(TRAINING, features.location, results, HERE)
    scored = evaluate(EVALUATION, [model.location], features.location, results)
    rates = json.loads(scored.location.child("metrics.json").read_bytes())["models"][0]
    names = [result.fingerprint for result in (features, model, scored)]
    return json.dumps([*names, rates["error_rates"], rates["multiplications_per_frame"]])


def test_stages_are_the_same_without_assertions_and_docstrings(tmp_path):
    corpus = make_corpus(tmp_path / "corpus")
    done = subprocess.run(
        [sys.executable, "-OO", "-c", SCRIPT, str(corpus), str(tmp_path / "optimised")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == of_every_stage(str(corpus), str(tmp_path / "ordinary"))
