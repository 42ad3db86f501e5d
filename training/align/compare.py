"""How far two alignments of the same utterances lie apart.

The phones of an utterance in one alignment are laid beside those in the other with the fewest
edits. A boundary counts as the same one in both where the phones on its two sides lie beside each
other (whether their names agree or not, but silence only beside silence); of these the distance in
time is taken. All others are counted as unmatched.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import kaldialign
import numpy as np
from numpy.typing import NDArray

from featurize.stage import PipelineError, TypedConfig

SILENT = "SIL"
_SILENCES = frozenset({"", "SIL", "SP", "<EPS>", "PAU", "H#"})
_WITHIN_MS = (10, 20, 50)
_FAR_MS = (60, 200)
_NUM_WORST = 10


@dataclass(frozen=True, eq=False)
class TimedPhones:
    """The phones of an utterance, each beginning where the one before ends."""

    names: tuple[str, ...]  # upper case, without stress; silence is ``SIL``
    ends_s: NDArray[np.float64]  # (P,) end of each, seconds

    @classmethod
    def of(cls, intervals: list[tuple[str, float, float]]) -> "TimedPhones":
        """From name, start and end of each phone, in order; silence lies before and between them.

        Equal neighbours become one phone: in a row of frame targets they cannot be told apart.
        """
        names: list[str] = []
        ends: list[float] = []

        def put(name: str, end_s: float) -> None:
            if names and names[-1] == name:
                ends[-1] = end_s
            else:
                names.append(name)
                ends.append(end_s)

        for name, start_s, end_s in intervals:
            if start_s > (ends[-1] if ends else 0.0) + 1e-4:
                put(SILENT, start_s)
            bare = name.strip().upper().rstrip("012")
            put(SILENT if bare in _SILENCES else bare, end_s)
        return cls(tuple(names), np.array(ends))


class BoundaryDistances(TypedConfig):
    """Boundaries of one kind that both alignments have, and how far apart they lie."""

    num: int
    mean_ms: float  # mean distance
    offset_ms: float  # mean of first less second; above 0 the first alignment has them later
    within: dict[int, float]  # share at most so many milliseconds apart

    @classmethod
    def of(cls, signed_ms: NDArray[np.float64]) -> "BoundaryDistances":
        """From first less second of each."""
        num, apart = len(signed_ms), np.abs(signed_ms)
        return cls(
            num=num,
            mean_ms=float(apart.mean()) if num else 0.0,
            offset_ms=float(signed_ms.mean()) if num else 0.0,
            # A thousandth of a millisecond is rounding of times in seconds.
            within={ms: float((apart <= ms + 1e-3).mean()) if num else 0.0 for ms in _WITHIN_MS},
        )


class UtteranceDistance(TypedConfig):
    """Mean and largest distance of an utterance's matched boundaries."""

    utterance_id: str
    mean_ms: float
    largest_ms: float


class AlignmentComparison(TypedConfig):
    """A first alignment against a second."""

    utterances: dict[str, int]  # utterances in ``both``, in the ``first`` and the ``second`` alone
    # boundaries of the utterances in both: ``matched``, and unmatched ones of the ``first`` and the
    # ``second``
    boundaries: dict[str, int]
    # of the second's, silence aside: the ``same`` name in the first, ``different``, ``missing`` in
    # the first; and ``extra`` in the first
    phones: dict[str, int]
    everywhere: BoundaryDistances  # distances of all matched boundaries
    in_speech: BoundaryDistances  # of those between two phones
    beside_silence: BoundaryDistances  # of those between a phone and silence
    # number of utterances whose boundaries lie on average further apart than so many milliseconds
    far: dict[int, int]
    worst: tuple[UtteranceDistance, ...]  # the utterances furthest apart


def compare_alignments(
    first: Mapping[str, TimedPhones], second: Mapping[str, TimedPhones]
) -> AlignmentComparison:
    """Compare two alignments, utterance by utterance.

    Args:
        first: the alignment that is judged, by utterance id.
        second: what it is held against.
    """
    both = sorted(first.keys() & second.keys())
    if not both:
        example = f"{min(first, default='none')!r} against {min(second, default='none')!r}"
        raise PipelineError(f"the two alignments have no utterance in common ({example})")
    found = {name: _compare(first[name], second[name]) for name in both}
    signed_ms = np.concatenate([pair.signed_ms for pair in found.values()])
    is_silent = np.concatenate([pair.is_beside_silence for pair in found.values()])
    apart = [
        UtteranceDistance(
            utterance_id=name,
            mean_ms=float(np.abs(pair.signed_ms).mean()),
            largest_ms=float(np.abs(pair.signed_ms).max()),
        )
        for name, pair in found.items()
        if len(pair.signed_ms)
    ]
    num_matched = len(signed_ms)
    return AlignmentComparison(
        utterances={
            "both": len(both),
            "first": len(first) - len(both),
            "second": len(second) - len(both),
        },
        boundaries={
            "matched": num_matched,
            "first": sum(len(first[name].names) - 1 for name in both) - num_matched,
            "second": sum(len(second[name].names) - 1 for name in both) - num_matched,
        },
        phones={
            key: sum(pair.phones[key] for pair in found.values())
            for key in ("same", "different", "missing", "extra")
        },
        everywhere=BoundaryDistances.of(signed_ms),
        in_speech=BoundaryDistances.of(signed_ms[~is_silent]),
        beside_silence=BoundaryDistances.of(signed_ms[is_silent]),
        far={ms: sum(utterance.mean_ms > ms for utterance in apart) for ms in _FAR_MS},
        worst=tuple(sorted(apart, key=lambda u: (-u.mean_ms, u.utterance_id))[:_NUM_WORST]),
    )


@dataclass(frozen=True, eq=False)
class _Pair:
    """One utterance in both alignments."""

    signed_ms: NDArray[np.float64]
    is_beside_silence: NDArray[np.bool_]
    phones: dict[str, int]


def _compare(first: TimedPhones, second: TimedPhones) -> _Pair:
    phones = dict.fromkeys(("same", "different", "missing", "extra"), 0)
    signed_ms: list[float] = []
    beside: list[bool] = []
    one = other = 0
    was_paired = was_silent = False
    for theirs, ours in kaldialign.align(second.names, first.names, "*"):
        is_silent = SILENT in (theirs, ours)
        is_paired = "*" not in (theirs, ours) and (theirs == ours or not is_silent)
        if is_paired and was_paired:
            signed_ms.append(1e3 * (first.ends_s[one - 1] - second.ends_s[other - 1]))
            beside.append(is_silent or was_silent)
        for name, key in ((theirs, "missing"), (ours, "extra")):
            if not is_paired and name not in ("*", SILENT):
                phones[key] += 1
        if is_paired and not is_silent:
            phones["same" if theirs == ours else "different"] += 1
        one, other = one + (ours != "*"), other + (theirs != "*")
        was_paired, was_silent = is_paired, is_silent
    return _Pair(np.array(signed_ms), np.array(beside, bool), phones)
