"""lhotse manifests, as its recipes write them; lhotse itself is not needed.

The root is a folder with ``[PREFIX_]cuts_SUBSET.jsonl[.gz]``, or with
``[PREFIX_]recordings_SUBSET.jsonl[.gz]`` and ``[PREFIX_]supervisions_SUBSET.jsonl[.gz]``. Each
supervision is an utterance. What lhotse would compute first (mixed or padded cuts, recordings
played faster or resampled, audio by command or in memory) is rejected: its lines name no file that
holds the utterance.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from featurize.corpora.entry import CorpusListing
from featurize.corpora.listing import is_macos_companion
from featurize.corpora.registry import reader_of_subsets
from featurize.corpora.stated import StatedCorpus, StatedUtterance, first_fault, require_subsets
from featurize.stage import Location, PipelineError

_NAME = re.compile(r"(?:.*_)?(cuts|recordings|supervisions)_([A-Za-z0-9][\w.-]*?)\.jsonl(?:\.gz)?")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)


PartT = TypeVar("PartT", bound=_Part)


class _Source(_Part):
    type: str
    source: str = Field(max_length=4096)
    channels: list[int] = []


class _Recording(_Part):
    id: str
    sources: list[_Source]
    duration: float = Field(gt=0)
    transforms: list[Any] | None = None


class _Supervision(_Part):
    id: str
    recording_id: str
    start: float
    duration: float = Field(gt=0)
    text: str | None = None
    speaker: str | None = None
    channel: int | list[int] | None = None


class _Cut(_Part):
    id: str
    start: float = Field(ge=0)
    duration: float = Field(gt=0)
    supervisions: list[_Supervision]
    recording: _Recording


def find_tables(root: Location) -> dict[str, dict[str, Location]]:
    """Subset to its tables, by what they hold, where they are cuts or both of the others."""
    tables: dict[str, dict[str, Location]] = {}
    for child in root.children():
        match = _NAME.fullmatch(child.name)
        if match is None or is_macos_companion(child.name):
            continue
        of_subset = tables.setdefault(match[2], {})
        if match[1] in of_subset:
            raise PipelineError(
                f"{of_subset[match[1]].name} and {child.name} are both the {match[1]} of subset "
                f"{match[2]!r}; join them, or move one to a folder of its own"
            )
        of_subset[match[1]] = child
    usable = {
        subset: kinds
        for subset, kinds in tables.items()
        if "cuts" in kinds or {"recordings", "supervisions"} <= kinds.keys()
    }
    if not usable:
        raise PipelineError(
            f"{root} has no lhotse manifests: no cuts_SUBSET.jsonl.gz, and no "
            "recordings_SUBSET.jsonl.gz with its supervisions_SUBSET.jsonl.gz"
        )
    return usable


def scan(root: Location, subsets: Sequence[str]) -> CorpusListing:
    """List the utterances of some subsets.

    Args:
        root: folder of the manifests, local or on S3; relative audio paths begin there.
        subsets: what the manifests' names end with.
    """
    tables = find_tables(root)
    corpus = StatedCorpus(root, subsets)
    require_subsets(root, corpus.subsets, tables)
    for subset in corpus.subsets:
        kinds = tables[subset]
        if "cuts" in kinds:
            _scan_cuts(corpus, subset, kinds["cuts"])
        else:
            _scan_supervisions(corpus, subset, kinds)
    return corpus.listing()


def _scan_cuts(corpus: StatedCorpus, subset: str, table: Location) -> None:
    for _, cut in _parsed(corpus, subset, table, _Cut, " is no cut of one recording"):
        if not cut.supervisions:
            corpus.reject(cut.id, subset, table.name, "missing_transcript", "no supervision")
        for supervision in cut.supervisions:
            # A supervision's start counts from the cut's.
            _add(corpus, subset, supervision, cut.recording, cut.start + supervision.start)


def _scan_supervisions(corpus: StatedCorpus, subset: str, kinds: dict[str, Location]) -> None:
    found = _parsed(corpus, subset, kinds["recordings"], _Recording)
    recordings = {recording.id: recording for _, recording in found}
    table = kinds["supervisions"]
    for where, supervision in _parsed(corpus, subset, table, _Supervision):
        recording = recordings.get(supervision.recording_id)
        if recording is None:
            said = f"{where}: its recording is not in the manifest of recordings"
            corpus.reject(supervision.id, subset, table.name, "missing_audio", said)
        else:
            _add(corpus, subset, supervision, recording, supervision.start)


def _parsed(
    corpus: StatedCorpus, subset: str, table: Location, kind: type[PartT], said: str | None = None
) -> Iterator[tuple[str, PartT]]:
    """What the lines of a table hold, and where; lines of another form are rejected."""
    for number, line in corpus.lines(table):
        where = f"line {number} of {table.name}"
        try:
            if line.strip():
                yield where, kind.model_validate_json(line)
        except ValidationError as error:
            fault = first_fault(error)
            detail = f"{where}: {fault}" if said is None else f"{where}{said} ({fault})"
            corpus.reject(where, subset, table.name, "malformed_entry", detail)


def _add(
    corpus: StatedCorpus,
    subset: str,
    supervision: _Supervision,
    recording: _Recording,
    start_s: float,
) -> None:
    files = [source.source for source in recording.sources if source.type == "file"]
    if len(files) != 1 or len(recording.sources) != 1 or recording.transforms:
        said = f"recording {recording.id[:60]!r} is not one file as it was recorded"
        corpus.reject(supervision.id, subset, subset, "malformed_entry", said)
        return
    of_file, channel = set(recording.sources[0].channels), supervision.channel
    spoken = of_file if channel is None else {channel} if isinstance(channel, int) else set(channel)
    if len(of_file) > 1 and spoken != of_file:
        said = f"it is on one of {len(of_file)} channels; write that one to a file of its own"
        corpus.reject(supervision.id, subset, subset, "malformed_entry", said)
        return
    whole = start_s == 0 and supervision.duration == recording.duration
    try:
        utterance = StatedUtterance.model_validate(
            {
                "id": supervision.id,
                "audio": files[0],
                "text": supervision.text or "",
                "speaker": supervision.speaker or "",
                "start": round(start_s, 9),
                "duration": None if whole else supervision.duration,
            }
        )
    except ValidationError as error:
        corpus.reject(supervision.id, subset, subset, "malformed_entry", first_fault(error))
    else:
        corpus.add(utterance, subset)


READER = reader_of_subsets("lhotse", scan, find_tables)
