"""Phone sets and time-aligned phone transcripts.

TIMIT's 61 phones are folded to 48 for training and 39 for scoring by the rules of Lee & Hon,
*Speaker-independent phone recognition using hidden Markov models*, IEEE Transactions on
Acoustics, Speech, and Signal Processing 37(11), 1989. The glottal stop ``q`` is deleted.
"""

import codecs
import re
from collections.abc import Sequence
from typing import NamedTuple

from featurize.reject_reasons import RejectedUtterance
from featurize.stage import Location

_TIMIT_61_NAMES = """
    aa ae ah ao aw ax ax-h axr ay b bcl ch d dcl dh dx eh el em en eng epi er ey f g gcl h# hh
    hv ih ix iy jh k kcl l m n ng nx ow oy p pau pcl q r s sh t tcl th uh uw ux v w y z zh
"""
TIMIT_61: tuple[str, ...] = tuple(_TIMIT_61_NAMES.split())

# Allophones that Lee & Hon train as one; all others keep their name.
_FOLDED_TO_48: dict[str, str] = {
    "ax-h": "ax",
    "axr": "er",
    "em": "m",
    "eng": "ng",
    "hv": "hh",
    "nx": "n",
    "ux": "uw",
    "pcl": "cl",
    "tcl": "cl",
    "kcl": "cl",
    "bcl": "vcl",
    "dcl": "vcl",
    "gcl": "vcl",
    "h#": "sil",
    "pau": "sil",
}

# Confusions within these groups are not counted as errors; silence and closures are one.
_FOLDED_TO_39: dict[str, str] = {
    "ao": "aa",
    "ax": "ah",
    "el": "l",
    "en": "n",
    "ix": "ih",
    "zh": "sh",
    "cl": "sil",
    "vcl": "sil",
    "epi": "sil",
}

DELETED_PHONE = "q"

PHONE_61_TO_48: dict[str, str] = {
    phone: _FOLDED_TO_48.get(phone, phone) for phone in TIMIT_61 if phone != DELETED_PHONE
}
TIMIT_48: tuple[str, ...] = tuple(sorted(set(PHONE_61_TO_48.values())))
PHONE_48_TO_39: dict[str, str] = {phone: _FOLDED_TO_39.get(phone, phone) for phone in TIMIT_48}

_CMUDICT_39_NAMES = """
    AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V
    W Y Z ZH
"""
CMUDICT_39: tuple[str, ...] = tuple(_CMUDICT_39_NAMES.split())

_TIMIT_61_SET = frozenset(TIMIT_61)
_MAX_ALIGNMENT_BYTES = 2**20
_ALIGNMENT_LINE = re.compile(r"(\d{1,12})\s+(\d{1,12})\s+(\S{1,16})", re.ASCII)


class PhoneSegment(NamedTuple):
    """One phone in time."""

    start_sample: int  # first sample, at the audio file's own rate
    end_sample: int  # one past the last sample
    phone: str  # one of the 61 TIMIT phones, or of a folded set


def fold_segments_to_48(segments: Sequence[PhoneSegment]) -> tuple[PhoneSegment, ...]:
    """Fold a 61-phone alignment to 48 phones without leaving holes.

    Deleting ``q`` from a sequence of labels is all the 1989 rules say; in an alignment its
    samples need an owner. A glottal stop is the onset of the vowel after it, so they go to the
    following segment where one begins at its end, else to the preceding one, else they stay
    unlabelled.
    """
    folded: list[PhoneSegment] = []
    pending: int | None = None
    for index, segment in enumerate(segments):
        if segment.phone == DELETED_PHONE:
            start = segment.start_sample if pending is None else pending
            following = segments[index + 1 : index + 2]
            if following and following[0].start_sample == segment.end_sample:
                pending = start
            elif folded and folded[-1].end_sample == start:
                folded[-1] = folded[-1]._replace(end_sample=segment.end_sample)
                pending = None
            else:
                pending = None
            continue
        start = segment.start_sample if pending is None else pending
        pending = None
        folded.append(PhoneSegment(start, segment.end_sample, PHONE_61_TO_48[segment.phone]))
    return tuple(folded)


def rescale_segments(
    segments: Sequence[PhoneSegment], from_rate_hz: int, to_rate_hz: int
) -> tuple[PhoneSegment, ...]:
    """Move an alignment from the audio file's sample rate to that of resampled audio."""
    if from_rate_hz == to_rate_hz:
        return tuple(segments)

    def moved(sample: int) -> int:
        return (sample * to_rate_hz + from_rate_hz // 2) // from_rate_hz

    return tuple(PhoneSegment(moved(start), moved(end), phone) for start, end, phone in segments)


def parse_alignment(content: bytes | str) -> tuple[PhoneSegment, ...]:
    """Parse TIMIT's ``.PHN``: one ``start_sample end_sample phone`` per line.

    Segments must be in order, not empty and not overlapping; holes between them are allowed.

    Raises:
        RejectedUtterance: ``bad_alignment``, with the line at fault.
    """
    try:
        text = (
            content
            if isinstance(content, str)
            else content.removeprefix(codecs.BOM_UTF8).decode("ascii")
        )
    except UnicodeDecodeError as error:
        raise RejectedUtterance("bad_alignment", "the alignment is not ASCII text") from error
    segments: list[PhoneSegment] = []
    last_end = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        match = _ALIGNMENT_LINE.fullmatch(line.strip())
        if match is None:
            raise RejectedUtterance(
                "bad_alignment", f"line {number} is not 'start end phone': {line[:60]!r}"
            )
        start, end, phone = int(match[1]), int(match[2]), match[3].lower()
        if phone not in _TIMIT_61_SET:
            raise RejectedUtterance("bad_alignment", f"line {number}: unknown phone {phone!r}")
        if start >= end:
            raise RejectedUtterance("bad_alignment", f"line {number}: {start} to {end} is empty")
        if start < last_end:
            raise RejectedUtterance(
                "bad_alignment",
                f"line {number} starts at {start}, before the previous end {last_end}",
            )
        segments.append(PhoneSegment(start, end, phone))
        last_end = end
    if not segments:
        raise RejectedUtterance("bad_alignment", "the alignment has no segments")
    return tuple(segments)


def read_alignment(location: Location) -> tuple[PhoneSegment, ...]:
    """Read and validate a ``.PHN`` file; see :func:`parse_alignment`.

    Raises:
        RejectedUtterance: ``missing_alignment`` where there is no file, ``bad_alignment`` where
            it does not parse or is larger than an alignment can be.
    """
    try:
        with location.open_read() as stream:
            content = stream.read(_MAX_ALIGNMENT_BYTES + 1)
    except FileNotFoundError as error:
        raise RejectedUtterance("missing_alignment", f"no file {location}") from error
    if len(content) > _MAX_ALIGNMENT_BYTES:
        raise RejectedUtterance("bad_alignment", f"{location.name} is over a megabyte")
    return parse_alignment(content)
