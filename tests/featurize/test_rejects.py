import random
from collections import Counter

import pytest

from featurize.rejects import (
    Reject,
    check_reject_share,
    check_sums,
    count_rejects,
    read_reject_counts,
    write_rejects,
)
from featurize.stage import Location, PipelineError

HERE = Location.of("/stage")
SPLITS = {"train": ("a", "b"), "dev": ("c",)}


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_lost_without_a_reject_is_noticed(seed):
    draw = random.Random(seed)
    kept = {subset: draw.randrange(50) for subset in "abc"}
    lost = Counter({(draw.choice("abc"), draw.choice(("x", "y"))): draw.randrange(1, 9)})
    came_in = Counter(kept)
    for (subset, _), count in lost.items():
        came_in[subset] += count
    check_sums(HERE, came_in, kept, lost)
    subset = draw.choice("abc")
    for wrong in (-1, 1):
        with pytest.raises(PipelineError, match=f"'{subset}' .* does not add up"):
            check_sums(HERE, came_in | {subset: came_in[subset] + wrong}, kept, lost)


def test_a_subset_that_is_nowhere_in_the_result_is_noticed():
    with pytest.raises(PipelineError, match="'c' has 3 utterances, of which 0 were kept"):
        check_sums(HERE, {"a": 2, "c": 3}, {"a": 2}, Counter())


def test_each_split_has_its_share_and_a_large_one_does_not_hide_a_small_one():
    kept = {"a": 5000, "b": 5000, "c": 98}
    check_reject_share(HERE, SPLITS, kept, Counter({("a", "x"): 99}), 0.01)
    with pytest.raises(PipelineError, match=r"2 of 100 utterances of dev rejected \(2.0%\).*: y 2"):
        check_reject_share(HERE, SPLITS, kept, Counter({("a", "x"): 9, ("c", "y"): 2}), 0.01)


def test_counts_are_read_as_they_were_written(tmp_path):
    rejects = [
        Reject(f"u{n}", "ab"[n % 2], "", ("too_short", "bad_alignment")[n % 3 == 0], "why")
        for n in range(9)
    ]
    location = Location.of(tmp_path)
    write_rejects(location, rejects)
    assert read_reject_counts(location) == count_rejects(rejects)
    (tmp_path / "rejects.parquet").write_bytes(b"PAR1")
    with pytest.raises(PipelineError, match="missing or damaged"):
        read_reject_counts(location)
