"""One entry for all corpora: a root and subset names in, a listing out."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from featurize.corpora import librispeech, timit
from featurize.corpora.archive import ARCHIVE_SUFFIXES, extract_archive, is_archive
from featurize.corpora.entry import CorpusEntry, CorpusKind, CorpusListing
from featurize.corpora.listing import names_for_message
from featurize.rejects import Reject
from featurize.stage import Location, PipelineError

EXTRACTED_FOLDER = "extracted"

_SCAN: dict[CorpusKind, Callable[[Location, Sequence[str]], CorpusListing]] = {
    "librispeech": librispeech.scan,
    "timit": timit.scan,
}
_log = logging.getLogger(__name__)


def scan_corpus(kind: CorpusKind, root: Location, subsets: Sequence[str]) -> CorpusListing:
    """List a corpus, unpacking it first where it comes as archives.

    A root that is a ``.tar.gz``, or a folder of nothing but such archives, is unpacked into a
    folder ``extracted/ARCHIVE`` beside them, once; the listing's root is then ``extracted``.

    Args:
        kind: the corpus's layout.
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
    archives = _archives_at(root)
    if not archives:
        return _SCAN[kind](root, subsets)
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
    if kind == "timit":
        if len(unpacked) > 1:
            raise PipelineError(f"{root} holds several archives; TIMIT comes as one")
        return timit.scan(unpacked[0], subsets)
    return _scan_unpacked_librispeech(base, unpacked, subsets)


def subsets_at(kind: CorpusKind, root: Location) -> tuple[str, ...]:
    """The subsets a corpus has to be scored on: all of LibriSpeech's, TIMIT's core test set.

    Args:
        kind: the corpus's layout.
        root: as in :func:`scan_corpus`.

    Raises:
        PipelineError: when there is none.
    """
    if kind == "timit":
        return ("test",)
    base = root.parent if is_archive(root) and not root.is_dir() else root
    folders = [root]
    if archives := _archives_at(root):
        folders = [base.child(EXTRACTED_FOLDER, _stem(archive)) for archive in archives]
        for archive, folder in zip(archives, folders, strict=True):
            extract_archive(archive, folder)
    found = sorted(
        {name for folder in folders for name in librispeech.subsets_with_speakers(folder)}
    )
    if not found:
        raise PipelineError(f"{root} has no subset with speech in LibriSpeech's layout")
    return tuple(found)


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


def _scan_unpacked_librispeech(
    base: Location, unpacked: Sequence[Location], subsets: Sequence[str]
) -> CorpusListing:
    """Join the listings of archives that hold different subsets under one root."""
    entries: list[CorpusEntry] = []
    rejects: list[Reject] = []
    digest = hashlib.sha256()
    missing = dict.fromkeys(subsets)
    present: set[str] = set()
    for folder in unpacked:
        here = librispeech.subsets_of(folder)
        present.update(here)
        wanted = [subset for subset in missing if subset in here]
        if not wanted:
            continue
        listing = librispeech.scan(folder, wanted)
        prefix = listing.root.path[len(base.path) + 1 :] + "/"
        for entry in listing.entries:
            alignment = prefix + entry.alignment if entry.alignment is not None else None
            entries.append(replace(entry, audio=prefix + entry.audio, alignment=alignment))
        rejects += [replace(reject, path=prefix + reject.path) for reject in listing.rejects]
        digest.update(listing.digest.encode())
        for subset in wanted:
            del missing[subset]
    if missing:
        raise PipelineError(
            f"no subset {next(iter(missing))!r} in the archives at {base.parent}; they have: "
            f"{names_for_message(present)}"
        )
    entries.sort(key=lambda entry: (entry.subset, entry.utterance_id))
    rejects.sort(key=lambda reject: (reject.subset, reject.path))
    return CorpusListing(base, tuple(entries), tuple(rejects), digest.hexdigest())
