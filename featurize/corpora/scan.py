"""One entry for all corpora: a root and subset names in, a listing out."""

import logging
from collections.abc import Sequence

from featurize.corpora.archive import ARCHIVE_SUFFIXES, extract_archive, is_archive
from featurize.corpora.entry import CorpusListing
from featurize.corpora.listing import is_macos_companion, names_for_message
from featurize.corpora.registry import READERS, CorpusReader
from featurize.corpora.speaker_subsets import SpeakerSubset, dealt_to_speaker_subsets, owners
from featurize.stage import Location, PipelineError

EXTRACTED_FOLDER = "extracted"

_log = logging.getLogger(__name__)


def scan_corpus(
    kind: str, root: Location, subsets: Sequence[str], own: Sequence[SpeakerSubset] = ()
) -> CorpusListing:
    """List a corpus, unpacking it first where it comes as archives.

    A root that is a ``.tar.gz``, or a folder of such archives and of no other folder, is unpacked
    into a folder ``extracted/ARCHIVE`` beside them, once; the listing's root is then ``extracted``.
    Other files beside archives (lists of checksums, unfinished downloads) are named in a warning.

    Args:
        root: its folder, local or on S3, or its archive or archives, local.
        own: those of them that are made of speakers, wherever they lie: in any folder of TIMIT,
            in the other subsets wanted of LibriSpeech.

    Returns:
        Entries, known rejects and the digest.
    """
    if not subsets:
        raise PipelineError("no subsets are named; name at least one subset of the corpus")
    reader = READERS.named(kind)
    claims = owners(own)
    if not claims:
        return _scan(reader, root, subsets)
    # Those of the corpus's own subsets come first: a speaker belongs to the first that claims.
    folders = [subset for subset in subsets if subset not in claims.values()]
    if reader.whole_subsets is not None:
        found = reader.whole_subsets(_unpacked(root)[0] if _archives_at(root) else root)
        folders = list(dict.fromkeys([*folders, *found]))
    if not folders:
        raise PipelineError(
            "speaker_subsets take speakers out of a folder of the corpus; name such a folder as a "
            "split as well, for example as splits.train"
        )
    return dealt_to_speaker_subsets(_scan(reader, root, folders), claims, subsets)


def _scan(reader: CorpusReader, root: Location, subsets: Sequence[str]) -> CorpusListing:
    archives = _archives_at(root)
    if not archives:
        return reader.scan(root, subsets)
    unpacked = _unpacked(root)
    if reader.scan_unpacked is not None:
        return reader.scan_unpacked(unpacked[0].parent, unpacked, subsets)
    if len(unpacked) > 1:
        raise PipelineError(f"{root} holds several archives; {reader.name} comes as one")
    return reader.scan(unpacked[0], subsets)


def subsets_at(kind: str, root: Location) -> tuple[str, ...]:
    """The subsets that a corpus has to be scored on.

    Args:
        root: as in :func:`scan_corpus`.
    """
    folders = _unpacked(root) if _archives_at(root) else [root]
    return READERS.named(kind).scored_subsets(folders)


def _unpacked(root: Location) -> list[Location]:
    """The folder of each archive at a root, unpacked."""
    archives = _archives_at(root)
    others = [child.name for child in root.children() if child.name != EXTRACTED_FOLDER]
    if passed_over := {*others} - {archive.name for archive in archives}:
        _log.warning(
            "%s: taken as a folder of archives; passed over: %s",
            root,
            names_for_message(passed_over),
        )
    base = archives[0].parent.child(EXTRACTED_FOLDER)
    if not base.is_local:
        raise PipelineError(
            f"{root}: archives on S3 are not unpacked in place; unpack them into a folder first"
        )
    folders = [base.child(_stem(archive)) for archive in archives]
    for archive, folder in zip(archives, folders, strict=True):
        extract_archive(archive, folder)
    return folders


def _archives_at(root: Location) -> list[Location]:
    """The archives that make up a root, if that is what it is."""
    if is_archive(root) and not root.is_dir():
        return [root]
    children = [
        child
        for child in root.children()
        if child.name != EXTRACTED_FOLDER and not is_macos_companion(child.name)
    ]
    archives = [child for child in children if is_archive(child) and not child.is_dir()]
    others = [child for child in children if child not in archives]
    if not archives or any(child.is_dir() for child in others):
        return []  # folders beside archives: the corpus is unpacked already
    return archives


def _stem(archive: Location) -> str:
    name = archive.name
    suffix = next(suffix for suffix in ARCHIVE_SUFFIXES if name.lower().endswith(suffix))
    return name[: -len(suffix)]
