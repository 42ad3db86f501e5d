"""The benchmarks at their full sizes: ``python -m pytest tests/benchmarks``, some ten minutes.

Each is the command a user runs. It must measure every case and write its page; the figures are
for people, and decide nothing here.
"""

import json
import os
import subprocess
import sys

import pytest

from training.recurrence_benchmark import REQUIRED_RATIOS

pytestmark = pytest.mark.timeout(1800)


def bench(*arguments):
    command = [sys.executable, "-c", "from flows.cli import main; main()", "bench", *arguments]
    return json.loads(
        subprocess.run([*command, "--json"], check=True, stdout=subprocess.PIPE).stdout
    )


def test_recurrence(tmp_path):
    page = tmp_path / "recurrence.md"
    result = bench("recurrence", "--record", str(page))
    measured = {(row["case"], row["model"], row["peer"]) for row in result["rows"]}
    missing = set(REQUIRED_RATIOS) - measured
    assert {case for case, _, _ in missing} <= result["skipped"].keys()
    assert page.read_text().startswith("# Recurrences")


def test_training():
    rates = {rate["model"] for rate in bench("training")["rates"]}
    assert rates == {"conventional", "v1", "v2", "gru", "lstm"}


@pytest.mark.skipif("FEATURES" not in os.environ, reason="FEATURES names a feature set to train on")
def test_epoch(tmp_path):
    page = tmp_path / "epoch.md"
    result = bench("epoch", "--features", os.environ["FEATURES"], "--record", str(page))
    assert all(sum(row["parts"].values()) == pytest.approx(1.0) for row in result["times"])
    assert "Where a step's time goes" in page.read_text()


def test_scaling(tmp_path):
    page = tmp_path / "scaling.md"
    result = bench("scaling", "--record", str(page))
    train = [row for row in result["measurements"] if row["stage"].startswith("train")]
    assert sorted({row["num_workers"] for row in train}) == [1, 2, 4]
    assert len({row["hours"] for row in train}) == 4
    assert "What breaks first" in page.read_text()
