"""A corpus that comes as several archives, each with subsets of its own."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from featurize.corpora.entry import CorpusEntry, CorpusListing
from featurize.corpora.listing import names_for_message
from featurize.rejects import Reject
from featurize.stage import Location, PipelineError

Scan = Callable[[Location, Sequence[str]], CorpusListing]
SubsetsOf = Callable[[Location], tuple[str, ...]]


def scan_folders(
    scan: Scan,
    subsets_of: SubsetsOf,
    base: Location,
    folders: Sequence[Location],
    subsets: Sequence[str],
) -> CorpusListing:
    """Join the listings of folders that hold different subsets under one root.

    Args:
        scan: lists some subsets of one folder.
        subsets_of: names the subsets that a folder has.
        base: the root of the joined listing.
        folders: below it.
    """
    entries: list[CorpusEntry] = []
    rejects: list[Reject] = []
    digest = hashlib.sha256()
    missing = dict.fromkeys(subsets)
    present: dict[str, Location] = {}
    for folder in folders:
        here = subsets_of(folder)
        for subset in here:
            before = present.setdefault(subset, folder)
            if before != folder and subset in subsets:
                raise PipelineError(
                    f"subset {subset!r} is in two archives, {before.name} and {folder.name}; "
                    "unpack them into one folder, or give the subset two names"
                )
        wanted = [subset for subset in missing if subset in here]
        if not wanted:
            continue
        listing = scan(folder, wanted)
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
    return CorpusListing.of(base, entries, rejects, digest.hexdigest())
