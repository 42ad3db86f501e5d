"""One entry for all corpora: a root and subset names in, a listing out."""

import logging
from collections.abc import Sequence

from featurize.corpora.archive import ARCHIVE_SUFFIXES, extract_archive, is_archive
from featurize.corpora.entry import CorpusListing
from featurize.corpora.registry import READERS
from featurize.stage import Location, PipelineError

EXTRACTED_FOLDER = "extracted"

_log = logging.getLogger(__name__)


def scan_corpus(kind: str, root: Location, subsets: Sequence[str]) -> CorpusListing:
    """List a corpus, unpacking it first where it comes as archives.

    A root that is a ``.tar.gz``, or a folder of nothing but such archives, is unpacked into a
    folder ``extracted/ARCHIVE`` beside them, once; the listing's root is then ``extracted``.

    Args:
        kind: name of the corpus's reader.
        root: its folder, local or on S3, or its archive or archives, local.
        subsets: the subsets wanted.

    Returns:
        Entries, known rejects and the digest.

    Raises:
        PipelineError: when the root, a subset or an archive cannot be used; the message says
            what is there instead.
    """
    if not subsets:
        raise PipelineError("no subsets are named; name at least one subset of the corpus")
    reader = READERS.named(kind)
    archives = _archives_at(root)
    if not archives:
        return reader.scan(root, subsets)
    base = archives[0].parent.child(EXTRACTED_FOLDER)
    if not base.is_local:
        raise PipelineError(
            f"{root}: archives on S3 are not unpacked in place; unpack them into a folder first"
        )
    unpacked = []
    for archive in archives:
        target = base.child(_stem(archive))
        extract_archive(archive, target)
        unpacked.append(target)
    if reader.scan_unpacked is not None:
        return reader.scan_unpacked(base, unpacked, subsets)
    if len(unpacked) > 1:
        raise PipelineError(f"{root} holds several archives; {kind} comes as one")
    return reader.scan(unpacked[0], subsets)


def subsets_at(kind: str, root: Location) -> tuple[str, ...]:
    """The subsets that a corpus has to be scored on.

    Args:
        kind: name of the corpus's reader.
        root: as in :func:`scan_corpus`.

    Raises:
        PipelineError: when there is none.
    """
    base = root.parent if is_archive(root) and not root.is_dir() else root
    folders = [root]
    if archives := _archives_at(root):
        folders = [base.child(EXTRACTED_FOLDER, _stem(archive)) for archive in archives]
        for archive, folder in zip(archives, folders, strict=True):
            extract_archive(archive, folder)
    return READERS.named(kind).scored_subsets(folders)


def _archives_at(root: Location) -> list[Location]:
    """The archives that make up a root, if that is what it is."""
    if is_archive(root) and not root.is_dir():
        return [root]
    children = [child for child in root.children() if child.name != EXTRACTED_FOLDER]
    return children if children and all(map(is_archive, children)) else []


def _stem(archive: Location) -> str:
    name = archive.name
    suffix = next(suffix for suffix in ARCHIVE_SUFFIXES if name.lower().endswith(suffix))
    return name[: -len(suffix)]
