"""Why an utterance may be left out, and the exception that says so where it is found out."""

from typing import Literal

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
    "poor_alignment",  # its frames fit the words far worse than its speaker's others do
    "unknown_speaker",  # not in SPEAKERS.TXT
    "duplicate_utterance",
    "unreadable_features",  # a Kaldi record that is damaged, or of another size than the others
    "malformed_entry",  # a table's line that does not state an utterance
    "malformed_transcript",  # a line that is not "<id> <words>", or not UTF-8
]


class RejectedUtterance(Exception):
    """Raised where one utterance turns out unusable; carries the reason for its reject row."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: RejectReason = reason
        self.detail = detail
