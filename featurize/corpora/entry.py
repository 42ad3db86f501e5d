"""What a corpus reader yields: validated entries, and what it had to reject."""

from collections.abc import Iterable
from dataclasses import dataclass

from featurize.rejects import Reject
from featurize.segment import Segment
from featurize.stage import Location


@dataclass(frozen=True)
class CorpusEntry:
    """One utterance of a corpus, before its audio is read."""

    utterance_id: str
    speaker_id: str
    chapter_id: str
    subset: str
    text: str
    # path of the audio file, relative to the corpus root; or, where a table names it so, an
    # absolute path or an ``s3://`` address (:func:`file_of`)
    audio: str
    # path of a ``.PHN`` file (start sample, end sample, phone), or None; it counts samples from
    # where the utterance begins
    alignment: str | None = None
    speed: float = 1.0  # factor at which the audio is played; 1 as recorded
    # which part of the audio file is the utterance; None for all of it
    segment: Segment | None = None


def file_of(root: Location, path: str) -> Location:
    """A file that a corpus names: below its root, or where an absolute path or address says."""
    return Location.of(path) if path.startswith(("/", "s3://")) else root.child(path)


@dataclass(frozen=True)
class CorpusListing:
    """A scanned corpus."""

    root: Location
    entries: tuple[CorpusEntry, ...]  # usable utterances, sorted by (subset, utterance_id)
    rejects: tuple[Reject, ...]  # utterances already known to be unusable
    # SHA-256 over every entry's path, size, modification mark and text: the corpus's part of the
    # feature set's fingerprint
    digest: str

    @classmethod
    def of(
        cls,
        root: Location,
        entries: Iterable[CorpusEntry],
        rejects: Iterable[Reject],
        digest: str = "",
    ) -> "CorpusListing":
        """A listing of entries and rejects in any order."""
        return cls(
            root,
            tuple(sorted(entries, key=lambda entry: (entry.subset, entry.utterance_id))),
            tuple(sorted(rejects, key=lambda reject: (reject.subset, reject.path))),
            digest,
        )
