"""What a corpus reader yields: validated entries, and rejects with their reason."""

from dataclasses import dataclass
from typing import Literal

from featurize.stage import Location

CorpusKind = Literal["librispeech", "timit"]

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
    "malformed_transcript",  # a line that is not "<id> <words>", or not UTF-8
]


@dataclass(frozen=True)
class CorpusEntry:
    """One utterance of a corpus, before its audio is read.

    Attributes:
        audio: path of the audio file, relative to the corpus root.
        alignment: path of a ``.PHN`` file (start sample, end sample, phone), or None.
        speed: factor at which the audio is played; 1 as recorded.
    """

    utterance_id: str
    speaker_id: str
    chapter_id: str
    subset: str
    text: str
    audio: str
    alignment: str | None = None
    speed: float = 1.0


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


@dataclass(frozen=True)
class CorpusListing:
    """A scanned corpus.

    Attributes:
        root: where the corpus stands.
        entries: usable utterances, sorted by (subset, utterance_id).
        rejects: utterances already known to be unusable.
        digest: SHA-256 over every entry's path, size, modification mark and text: the corpus's
            part of the feature set's fingerprint.
    """

    root: Location
    entries: tuple[CorpusEntry, ...]
    rejects: tuple[Reject, ...]
    digest: str
