"""A short seeded run of damaged inputs; ``make fuzz`` reads thousands of each format."""

import pytest

from tests.hostile.formats import NAMES
from tests.hostile.run import read_damaged

pytestmark = pytest.mark.integration


def test_damaged_inputs_are_refused_or_rejected_with_a_reason():
    tallies = read_damaged(num_inputs=15, seed=1, silence_s=1000)
    assert set(tallies) == set(NAMES)
    assert all(tally.num_inputs == 15 for tally in tallies.values())
    assert [finding for tally in tallies.values() for finding in tally.findings] == []
    # Damage that never shows would test nothing.
    assert all(tally.outcomes["read"] < 15 for tally in tallies.values())
