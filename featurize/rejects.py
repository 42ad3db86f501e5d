"""Utterances that are left out: a row of ``rejects.parquet`` each, with the reason."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

import pyarrow as pa

from featurize.stage import Location, write_table

REJECTS_NAME = "rejects.parquet"

RejectReason = Literal[
    "missing_audio",  # a transcript names audio that is not there
    "missing_transcript",  # audio without a transcript
    "empty_transcript",
    "unreadable_audio",  # the decoder refuses it: wrong format, garbage, broken header
    "truncated_audio",  # it decodes to fewer samples than its header claims
    "zero_length_audio",
    "too_short",  # shorter than one analysis window, or than its labels need
    "too_long",  # longer than the configured maximum
    "non_finite_audio",
    "unknown_symbol",  # the transcript has a symbol outside the alphabet
    "bad_alignment",  # a .PHN that does not parse, overlaps, or names unknown phones
    "missing_alignment",
    "unknown_speaker",  # not in SPEAKERS.TXT
    "duplicate_utterance",
    "unreadable_features",  # a Kaldi record that is damaged, or of another size than the others
    "malformed_transcript",  # a line that is not "<id> <words>", or not UTF-8
]

REJECT_SCHEMA = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Reject:
    """An utterance left out, and why."""

    utterance_id: str
    subset: str
    path: str
    reason: RejectReason
    detail: str


class RejectedUtterance(Exception):
    """Raised where one utterance turns out unusable; carries the reason for its reject row."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: RejectReason = reason
        self.detail = detail


def write_rejects(location: Location, rejects: Iterable[Reject]) -> None:
    """Write ``rejects.parquet`` below a stage's location, a row each in the order given."""
    write_table(location.child(REJECTS_NAME), REJECT_SCHEMA, map(asdict, rejects))
