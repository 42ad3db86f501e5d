import numpy as np
import pytest

from featurize.stage import PipelineError
from training.align.compare import TimedPhones, compare_alignments


def timed(*phones):
    """From (name, end in seconds) of each phone."""
    starts = [0.0, *(end for _, end in phones[:-1])]
    return TimedPhones.of([(name, s, end) for s, (name, end) in zip(starts, phones, strict=True)])


TRUTH = timed(("sil", 0.1), ("HH", 0.2), ("AH0", 0.3), ("L", 0.4), ("OW1", 0.5), ("", 0.7))


def test_names_lose_stress_and_equal_neighbours_become_one():
    found = TimedPhones.of([("h#", 0, 0.1), ("AH0", 0.2, 0.3), ("ah1", 0.3, 0.4), ("sp", 0.4, 1)])
    assert found.names == ("SIL", "AH", "SIL")
    assert found.ends_s.tolist() == [0.2, 0.4, 1.0]


def test_distances_by_hand():
    ours = timed(("SIL", 0.13), ("HH", 0.2), ("AH", 0.285), ("L", 0.4), ("OW", 0.56), ("SIL", 0.7))
    found = compare_alignments({"a": ours, "b": TRUTH, "c": TRUTH}, {"a": TRUTH, "d": TRUTH})
    assert found.utterances == {"both": 1, "first": 2, "second": 1}
    assert found.boundaries == {"matched": 5, "first": 0, "second": 0}
    assert found.phones == {"same": 4, "different": 0, "missing": 0, "extra": 0}
    assert found.everywhere.mean_ms == pytest.approx((30 + 0 + 15 + 0 + 60) / 5)
    assert found.everywhere.offset_ms == pytest.approx((30 + 0 - 15 + 0 + 60) / 5)
    assert found.everywhere.within == {10: 0.4, 20: 0.6, 50: 0.8}
    assert (found.in_speech.num, found.beside_silence.num) == (3, 2)
    assert found.beside_silence.mean_ms == pytest.approx(45)
    assert found.in_speech.mean_ms == pytest.approx(5)
    assert found.far == {60: 0, 200: 0}
    assert [(u.utterance_id, round(u.largest_ms)) for u in found.worst] == [("a", 60)]


def test_what_one_of_them_lacks_is_counted_and_not_measured():
    # A pause the truth lacks, a phone under another name, one too few.
    ours = timed(("sil", 0.1), ("HH", 0.2), ("AA", 0.3), ("sil", 0.35), ("L", 0.5), ("sil", 0.7))
    found = compare_alignments({"a": ours}, {"a": TRUTH})
    assert found.phones == {"same": 2, "different": 1, "missing": 1, "extra": 0}
    assert found.boundaries == {"matched": 2, "first": 3, "second": 3}
    assert found.everywhere.mean_ms == pytest.approx(0)


def test_the_sums_add_up_whatever_the_alignments():
    rng = np.random.default_rng(1)

    def anything():
        ends = np.cumsum(rng.integers(1, 20, rng.integers(1, 12))) / 100
        return timed(*((str(rng.choice(["sil", "A", "B", "C"])), end) for end in ends))

    first = {f"u{n}": anything() for n in range(200)}
    second = {f"u{n}": anything() for n in range(50, 250)}
    found = compare_alignments(first, second)
    both = [f"u{n}" for n in range(50, 200)]
    assert found.utterances == {"both": 150, "first": 50, "second": 50}
    for side, name in ((first, "first"), (second, "second")):
        total = sum(len(side[u].names) - 1 for u in both)
        assert found.boundaries["matched"] + found.boundaries[name] == total
    spoken = sum(name != "SIL" for u in both for name in second[u].names)
    assert found.phones["same"] + found.phones["different"] + found.phones["missing"] == spoken
    assert found.in_speech.num + found.beside_silence.num == found.everywhere.num


def test_alignments_of_different_utterances_are_refused():
    with pytest.raises(PipelineError, match="no utterance in common"):
        compare_alignments({"a": TRUTH}, {"b": TRUTH})
