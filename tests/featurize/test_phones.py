"""Folding by hand-written cases, and the alignment parser against hostile text."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurize.phones import (
    CMUDICT_39,
    PHONE_48_TO_39,
    PHONE_61_TO_48,
    TIMIT_48,
    TIMIT_61,
    PhoneSegment,
    fold_segments_to_48,
    parse_alignment,
    read_alignment,
    rescale_segments,
)
from featurize.reject_reasons import RejectedUtterance
from featurize.stage import Location


def test_the_sets_have_their_sizes():
    assert len(set(TIMIT_61)) == 61
    assert len(set(TIMIT_48)) == 48
    assert len(set(PHONE_48_TO_39.values())) == 39
    assert len(set(CMUDICT_39)) == 39


def test_lee_and_hon_groups():
    # Table of the 1989 paper: the groups within which confusions are not counted.
    groups = {}
    for phone, folded in PHONE_48_TO_39.items():
        groups.setdefault(folded, set()).add(phone)
    assert {frozenset(group) for group in groups.values() if len(group) > 1} == {
        frozenset({"sil", "cl", "vcl", "epi"}),
        frozenset({"el", "l"}),
        frozenset({"en", "n"}),
        frozenset({"sh", "zh"}),
        frozenset({"ao", "aa"}),
        frozenset({"ih", "ix"}),
        frozenset({"ah", "ax"}),
    }
    assert set(PHONE_61_TO_48) == set(TIMIT_61) - {"q"}


def test_folding_a_sentence():
    # "she had" as TIMIT writes it, with a glottal stop before it.
    spoken = ["h#", "q", "sh", "ix", "hv", "eh", "dcl", "d", "ax-h", "eng", "pau"]
    segments = [PhoneSegment(n, n + 1, phone) for n, phone in enumerate(spoken)]
    trained = tuple(segment.phone for segment in fold_segments_to_48(segments))
    assert trained == ("sil", "sh", "ix", "hh", "eh", "vcl", "d", "ax", "ng", "sil")
    scored = tuple(PHONE_48_TO_39[phone] for phone in trained)
    assert scored == ("sil", "sh", "ih", "hh", "eh", "sil", "d", "ah", "ng", "sil")


def test_q_goes_to_the_segment_after_it():
    segments = [PhoneSegment(0, 10, "h#"), PhoneSegment(10, 14, "q"), PhoneSegment(14, 30, "iy")]
    assert fold_segments_to_48(segments) == ((0, 10, "sil"), (10, 30, "iy"))


def test_q_at_the_end_goes_to_the_segment_before_it():
    segments = [PhoneSegment(0, 10, "iy"), PhoneSegment(10, 14, "q")]
    assert fold_segments_to_48(segments) == ((0, 14, "iy"),)


def test_q_between_holes_is_dropped():
    segments = [PhoneSegment(0, 5, "iy"), PhoneSegment(7, 9, "q"), PhoneSegment(11, 12, "aa")]
    assert fold_segments_to_48(segments) == ((0, 5, "iy"), (11, 12, "aa"))


@st.composite
def contiguous_segments(draw):
    lengths = draw(st.lists(st.integers(1, 5000), min_size=1, max_size=20))
    start, segments = 0, []
    for length in lengths:
        segments.append(PhoneSegment(start, start + length, draw(st.sampled_from(TIMIT_61))))
        start += length
    return segments


@given(contiguous_segments())
def test_folding_segments_keeps_their_order_and_leaves_no_holes(segments):
    folded = fold_segments_to_48(segments)
    assert [segment.phone for segment in folded] == [
        PHONE_61_TO_48[s.phone] for s in segments if s.phone != "q"
    ]
    if folded:
        assert folded[0].start_sample == 0
        assert folded[-1].end_sample == segments[-1].end_sample
        assert all(a.end_sample == b.start_sample for a, b in pairwise(folded))


@given(contiguous_segments())
def test_an_alignment_is_read_back_as_it_was_written(segments):
    text = "".join(f"{start} {end} {phone}\n" for start, end, phone in segments)
    assert parse_alignment(text.encode()) == tuple(segments)


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b"", "no segments"),
        (b"0 10\n", "line 1"),
        (b"0 10 aa\n5 20 b\n", "line 2 starts at 5"),
        (b"0 10 aa\n10 10 b\n", "empty"),
        (b"20 10 aa\n", "empty"),
        (b"0 10 zz\n", "unknown phone 'zz'"),
        (b"-5 10 aa\n", "line 1"),
        (b"0 1e9 aa\n", "line 1"),
        (b"0 " + b"9" * 400 + b" aa\n", "line 1"),
        (b"0 10 a\xe9\n", "ASCII"),
        (b"\0\1\2", "line 1"),
    ],
)
def test_bad_alignments_say_why(content, detail):
    with pytest.raises(RejectedUtterance, match=detail) as caught:
        parse_alignment(content)
    assert caught.value.reason == "bad_alignment"


@given(st.binary(max_size=200))
def test_any_bytes_are_an_alignment_or_rejected(content):
    try:
        segments = parse_alignment(content)
    except RejectedUtterance:
        return
    assert all(segment.phone in TIMIT_61 for segment in segments)


def test_an_alignment_that_is_missing_or_huge(tmp_path):
    with pytest.raises(RejectedUtterance) as caught:
        read_alignment(Location.of(tmp_path / "none.PHN"))
    assert caught.value.reason == "missing_alignment"
    huge = tmp_path / "huge.PHN"
    huge.write_bytes(b"0 1 aa\n" * 200_000)
    with pytest.raises(RejectedUtterance, match="megabyte"):
        read_alignment(Location.of(huge))


def test_rescaling_rounds_to_the_nearest_sample():
    assert rescale_segments(
        [PhoneSegment(0, 441, "aa"), PhoneSegment(441, 662, "b")], 22050, 16000
    ) == (
        (0, 320, "aa"),
        (320, 480, "b"),
    )
