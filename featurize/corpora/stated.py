"""Corpora whose utterances are stated in tables: what their readers share.

A table (JSON lines, CSV, Kaldi's, lhotse's) may come from anyone. Its lines are bounded, each is
validated, and what does not fit becomes a reject. A relative path is of a file below the corpus
root. Audio may also lie at an absolute path or ``s3://`` address; it has to be a plain file, and of
what is no audio nothing is repeated. An alignment, whose lines a reject may repeat, has to lie
below the root.
"""

import gzip
import hashlib
import io
import os
import stat
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from itertools import count
from pathlib import PurePosixPath
from typing import Any, Self, cast

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from featurize.corpora.entry import CorpusEntry, CorpusListing, file_of
from featurize.corpora.listing import CorpusFile, content_mark, make_listing, names_for_message
from featurize.corpora.text import normalise_text
from featurize.reject_reasons import RejectedUtterance, RejectReason
from featurize.rejects import Reject
from featurize.segment import Segment
from featurize.stage import Location, PipelineError

UNKNOWN_SPEAKER = "unknown"

_MAX_LINE_BYTES = 2**20
_MAX_TABLE_BYTES = 8 * 2**30
_MAX_NAME = 200
_LINE_FAULTS = (OSError, EOFError, zlib.error)


SURPLUS = "\0surplus"
"""In a row, the first cell that is beyond the columns; no column's name."""


class StatedUtterance(BaseModel):
    """One utterance as a table states it; the names of several tools' fields are taken."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    audio: str = Field(
        min_length=1,
        max_length=4096,
        validation_alias=AliasChoices("audio", "audio_filepath", "path", "file"),
        description="Audio file: a path below the corpus root, an absolute one, or s3://.",
    )
    text: str = Field(
        max_length=100_000,
        validation_alias=AliasChoices("text", "transcript", "sentence"),
        description="What is said; case and punctuation do not matter.",
    )
    utterance_id: str = Field(
        "",
        max_length=_MAX_NAME,
        validation_alias=AliasChoices("utterance_id", "id"),
        description="Name of the utterance; the audio file's, with the start where it has one.",
    )
    speaker_id: str = Field(
        "",
        max_length=_MAX_NAME,
        validation_alias=AliasChoices("speaker_id", "speaker", "client_id"),
        description="Who speaks; 'unknown' where it is not said.",
    )
    chapter_id: str = Field(
        "",
        max_length=_MAX_NAME,
        validation_alias=AliasChoices("chapter_id", "chapter"),
        description="Recording session; found in ids of LibriSpeech's form, SPEAKER-CHAPTER-NNNN.",
    )
    subset: str = Field(
        "",
        max_length=_MAX_NAME,
        validation_alias=AliasChoices("subset", "split"),
        description="Subset; the table's name where it is not said.",
    )
    start_s: float = Field(
        0.0,
        ge=0,
        lt=1e6,
        validation_alias=AliasChoices("start_s", "start", "offset"),
        description="Where the utterance begins in the audio file, in seconds.",
    )
    duration_s: float | None = Field(
        None,
        gt=0,
        lt=1e6,
        validation_alias=AliasChoices("duration_s", "duration"),
        description="How long it is, in seconds; to the end of the file where it is not said.",
    )
    alignment: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="A .PHN file below the corpus root, which counts samples from the "
        "utterance's start.",
    )

    @classmethod
    def of(cls, content: bytes | dict[str, Any]) -> Self:
        """From a line of JSON, or from a row of a CSV.

        Raises:
            ValidationError: when it states no utterance.
        """
        if isinstance(content, bytes):
            return cls.model_validate_json(content)
        return cls.model_validate(content)

    @model_validator(mode="before")
    @classmethod
    def _check_surplus(cls, content: Any) -> Any:
        if isinstance(content, dict) and SURPLUS in content:
            raise ValueError(
                f"{str(content[SURPLUS])[:40]!r} belongs to no column; a text with a comma has to "
                "stand in quotation marks"
            )
        return content

    @property
    def name(self) -> str:
        """The utterance's name, made from the audio's where the table gives none."""
        if self.utterance_id:
            return self.utterance_id
        stem = PurePosixPath(self.audio).stem
        return f"{stem}-{round(self.start_s * 1000):08d}" if self.start_s else stem


def read_lines(table: Location) -> Iterator[tuple[int, bytes]]:
    """A table's lines with their numbers, from 1; a ``.gz`` is unpacked on the way."""
    num_bytes = 0
    try:
        with table.open_read() as raw:
            packed = table.name.endswith(".gz")
            with gzip.GzipFile(fileobj=raw) if packed else nullcontext(raw) as unpacked:
                # fsspec's own readline takes no limit.
                stream = io.BufferedReader(cast(io.RawIOBase, unpacked))
                for number in count(1):
                    line = stream.readline(_MAX_LINE_BYTES + 1)
                    num_bytes += len(line)
                    if len(line) > _MAX_LINE_BYTES or num_bytes > _MAX_TABLE_BYTES:
                        raise PipelineError(f"{table}, line {number}: too long to be a table's")
                    if not line:
                        return
                    yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    except _LINE_FAULTS as error:
        raise PipelineError(f"cannot read {table}: {error}; check the file") from error


def first_fault(error: ValidationError) -> str:
    """What is wrong with a table's line, in few words, without its content."""
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")


class StatedCorpus:
    """Gathers stated utterances and what is rejected, and makes the listing.

    Args:
        root: of the corpus.
        subsets: those wanted; utterances of others are passed over.
    """

    def __init__(self, root: Location, subsets: Sequence[str]) -> None:
        self.root = root
        self.subsets = tuple(dict.fromkeys(subsets))
        self._stated: list[tuple[StatedUtterance, str]] = []
        self._rejects: list[Reject] = []
        self._digest = hashlib.sha256()

    def lines(self, table: Location) -> Iterator[tuple[int, bytes]]:
        """As :func:`read_lines`; what is read becomes part of the corpus's digest."""
        self._digest.update(table.name.encode("utf-8", "surrogateescape") + b"\0")
        for number, line in read_lines(table):
            self._digest.update(line)
            yield number, line

    def add(self, utterance: StatedUtterance, subset: str) -> None:
        """Take one utterance; ``subset`` is what it belongs to unless it says so itself."""
        subset = utterance.subset or subset
        if subset in self.subsets:
            self._stated.append((utterance, subset))

    def reject(
        self, utterance_id: str, subset: str, path: str, reason: RejectReason, detail: str
    ) -> None:
        """Leave one out. One of no wanted subset counts to the first, or it would count nowhere."""
        if subset not in self.subsets:
            subset = self.subsets[0]
        shown = "".join(c if c.isprintable() else "?" for c in utterance_id)[:_MAX_NAME]
        self._rejects.append(Reject(shown, subset, path, reason, detail))

    def listing(self) -> CorpusListing:
        """The listing of all that was added."""
        wanted = [path for stated, _ in self._stated for path in (stated.audio, stated.alignment)]
        files = files_at(self.root, filter(None, wanted))
        entries: list[CorpusEntry] = []
        seen: set[str] = set()
        for stated, subset in self._stated:
            try:
                entries.append(self._entry(stated, subset, files, seen))
            except RejectedUtterance as refused:
                path = "".join(c if c.isprintable() else "?" for c in stated.audio)
                self.reject(stated.name, subset, path, refused.reason, refused.detail)
        return make_listing(
            self.root, entries, self._rejects, files, tables=self._digest.hexdigest()
        )

    def _entry(
        self, stated: StatedUtterance, subset: str, files: dict[str, CorpusFile], seen: set[str]
    ) -> CorpusEntry:
        name, speaker = stated.name, stated.speaker_id or UNKNOWN_SPEAKER
        for part in (name, speaker, stated.chapter_id):
            if not part.isprintable() or part != part.strip():
                raise RejectedUtterance("malformed_entry", "an id with characters that do not show")
        if name in seen:
            raise RejectedUtterance("duplicate_utterance", "named twice; the first is kept")
        seen.add(name)
        if stated.audio not in files:
            raise RejectedUtterance("missing_audio", _not_there(self.root, stated.audio))
        text = normalise_text(stated.text)
        if not text:
            raise RejectedUtterance("empty_transcript", "no words")
        if stated.alignment is not None and not _lies_below(self.root, stated.alignment, files):
            raise RejectedUtterance("missing_alignment", "no such file below the corpus root")
        whole = not stated.start_s and stated.duration_s is None
        return CorpusEntry(
            utterance_id=name,
            speaker_id=speaker,
            chapter_id=stated.chapter_id or _chapter(name, speaker),
            subset=subset,
            text=text,
            audio=stated.audio,
            alignment=stated.alignment,
            segment=None if whole else Segment(stated.start_s, stated.duration_s),
        )


def files_at(root: Location, paths: Iterable[str]) -> dict[str, CorpusFile]:
    """Those of the paths that are plain files, or links to some, with size and mark.

    Args:
        root: what relative paths are below of; paths that climb out of it are not there.
        paths: as :func:`featurize.corpora.entry.file_of` takes them.
    """
    places: dict[str, Location] = {}
    for path in paths:
        if path.isprintable() and not path.endswith("/"):
            with suppress(PipelineError):  # it climbs, or is of another scheme
                places[path] = file_of(root, path)
    found = {}
    on_s3: dict[Location, dict[str, str]] = defaultdict(dict)
    for path, file in places.items():
        if file.is_local:
            with suppress(OSError):
                status = os.stat(file.path)
                if stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
                    found[path] = CorpusFile(path, status.st_size, str(int(status.st_mtime)))
        else:
            on_s3[file.parent][file.path] = path
    for folder, wanted in on_s3.items():  # a request for each folder, not for each file
        with suppress(FileNotFoundError):
            for info in folder.filesystem.ls(folder.path, detail=True):
                path = wanted.get(str(info["name"]), "")
                if path and info["type"] == "file":
                    found[path] = CorpusFile(path, int(info["size"]), content_mark(info))
    return found


def require_subsets(root: Location, wanted: Iterable[str], present: Iterable[str]) -> None:
    """Refuse subsets that a corpus lacks."""
    there = set(present)
    for subset in wanted:
        if subset not in there:
            raise PipelineError(
                f"no subset {subset!r} in {root}; it has: {names_for_message(there)}"
            )


def _lies_below(root: Location, path: str, files: dict[str, CorpusFile]) -> bool:
    if path not in files or path.startswith(("/", "s3://")):
        return False
    if not root.is_local:
        return True
    top = os.path.realpath(root.path)
    return os.path.commonpath([top, os.path.realpath(root.child(path).path)]) == top


def _not_there(root: Location, path: str) -> str:
    if path.startswith(("/", "s3://")):
        return "no such file"
    return f"no such file below {root}, where relative paths begin"


def _chapter(utterance_id: str, speaker_id: str) -> str:
    """The middle of ``SPEAKER-CHAPTER-NNNN``; empty for ids of another form."""
    rest = utterance_id.removeprefix(f"{speaker_id}-")
    chapter, _, number = rest.partition("-")
    return chapter if rest != utterance_id and chapter.isalnum() and number.isdigit() else ""
