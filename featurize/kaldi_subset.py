"""One data folder of Kaldi's: what is read of it, and what of that names the import."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurize.import_kaldi_config import KaldiSubset
from featurize.kaldi_alignment import alignment_files, read_alignments
from featurize.kaldi_archives import (
    ScriptEntry,
    archive_mark,
    read_integer_vectors,
    read_lines,
    read_script,
    read_table,
)
from featurize.stage import Location, PipelineError, sha256_of

logger = logging.getLogger(__name__)

_SHIFT_TOLERANCE_S = 1e-6


@dataclass(frozen=True, eq=False)
class SubsetTables:
    """A subset's tables, read."""

    config: KaldiSubset
    script: dict[str, ScriptEntry]
    speakers: dict[str, str]
    durations_s: dict[str, str]  # of the audio, by ``utt2dur``; empty where there is no such file
    texts: dict[str, str] | None  # None where the folder has no transcripts at all
    pdfs: dict[str, NDArray[np.int32]]
    phones: dict[str, NDArray[np.int32]]

    @property
    def keys(self) -> list[str]:
        """The utterances: those with features, and those that have a speaker but no features."""
        return sorted({*self.script, *self.speakers})


def read_subset(config: KaldiSubset, root: str | None) -> SubsetTables:
    """Read all tables of a subset; what they say of other utterances is counted in a warning.

    Args:
        root: where relative paths in feats.scp begin; None for that file's folder.
    """
    data = Location.of(config.data)
    text, durations = data.child("text"), data.child("utt2dur")
    if config.alignment is not None:
        pdfs, phones = read_alignments(Location.of(config.alignment))
    else:
        pdfs, phones = (dict(read_integer_vectors(file)) for file in _alignment_archives(config))
    tables = SubsetTables(
        config,
        read_script(data.child("feats.scp"), _root_of(config, root)),
        read_table(data.child("utt2spk"), one_word=True),
        read_table(durations, one_word=True) if durations.exists() else {},
        read_table(text) if text.exists() else None,
        pdfs,
        phones,
    )
    strangers = {*pdfs, *phones, *(tables.texts or ()), *tables.durations_s} - set(tables.keys)
    if strangers:
        logger.warning(
            "%s: %d utterances of text, utt2dur or the alignment are neither in feats.scp nor in "
            "utt2spk and are not imported, such as %s",
            data,
            len(strangers),
            min(strangers),
        )
    return tables


def check_frame_shift(config: KaldiSubset, frame_shift_s: float) -> None:
    """Hold the configured frame shift against the file in which Kaldi keeps it, if it does."""
    file = Location.of(config.data).child("frame_shift")
    if not file.exists():
        return
    stated = " ".join(read_lines(file))
    try:
        is_other = abs(float(stated) - frame_shift_s) > _SHIFT_TOLERANCE_S
    except ValueError as error:
        raise PipelineError(f"{file} holds no number of seconds: {stated[:40]!r}") from error
    if is_other:
        raise PipelineError(f"{file} says {stated}; set frame_shift_s to it")


def marks_of_subset(config: KaldiSubset, root: str | None) -> Iterator[bytes]:
    """What changes with any file that is read: digests; of feature archives, what marks them."""
    data = Location.of(config.data)
    script = data.child("feats.scp")
    aligned = (
        _alignment_archives(config)
        if config.alignment is None
        else alignment_files(Location.of(config.alignment))
    )
    for file in (script, data.child("utt2spk"), *aligned):
        if not file.exists() or file.is_dir():
            raise PipelineError(f"{file} is missing; check subsets of the configuration")
        yield sha256_of(file)[0].encode()
    for file in (data.child("text"), data.child("utt2dur")):
        yield sha256_of(file)[0].encode() if file.exists() else b"none"
    archives = {entry.file for entry in read_script(script, _root_of(config, root)).values()}
    for archive in sorted(archives, key=str):
        yield f"{archive} {archive_mark(archive)}\n".encode()


def _alignment_archives(config: KaldiSubset) -> tuple[Location, Location]:
    assert config.pdfs is not None  # the configuration has both, where it has no alignment
    assert config.phones is not None
    return Location.of(config.pdfs), Location.of(config.phones)


def _root_of(config: KaldiSubset, root: str | None) -> Location:
    return Location.of(config.data if root is None else root)
