"""The corpus readers there are: built in, of an installed package, or of a module that is named.

``corpus`` of a feature set's configuration names one: by its name, by the name of an entry point of
the group ``spikeline.corpora`` (``our-speech = "our_package.reader:READER"``), or as
``module:attribute`` of a ``CorpusReader`` (of a file, put its folder on PYTHONPATH).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from featurize.corpora.entry import CorpusListing
from featurize.stage import Location, PipelineError, Registry


@dataclass(frozen=True)
class CorpusReader:
    """How one kind of corpus is read."""

    name: str
    # lists the utterances of some subsets of the corpus at a root, sorted, with what is unusable
    # and a digest (``featurize.corpora.listing.make_listing`` does both)
    scan: Callable[[Location, Sequence[str]], CorpusListing]
    # names the subsets at one or more folders that a model may be scored on
    scored_subsets: Callable[[Sequence[Location]], tuple[str, ...]]
    # lists a corpus of several archives, given the folder they are unpacked in, the folder of each,
    # and the subsets; None for a corpus that comes as one
    scan_unpacked: Callable[[Location, Sequence[Location], Sequence[str]], CorpusListing] | None = (
        None
    )
    # names the subsets at a root that together hold every speaker, for subsets by speaker; None
    # where only the subsets that are asked for are looked through
    whole_subsets: Callable[[Location], tuple[str, ...]] | None = None
    # whether a root is of this kind (an error means no), for who does not say
    recognises: Callable[[Location], bool] = lambda _: False


def reader_of_subsets(
    name: str,
    scan: Callable[[Location, Sequence[str]], CorpusListing],
    subsets_of: Callable[[Location], Iterable[str]],
) -> CorpusReader:
    """A reader of corpora whose subsets all may be scored.

    Args:
        subsets_of: names the subsets at a root; an error says that the root is not of this kind.
    """
    return CorpusReader(
        name,
        scan,
        lambda roots: tuple(subset for root in roots for subset in subsets_of(root)),
        recognises=lambda root: bool(subsets_of(root)),
    )


READERS = Registry(
    CorpusReader,
    "corpus reader",
    "spikeline.corpora",
    {
        "librispeech": "featurize.corpora.librispeech:READER",
        "timit": "featurize.corpora.timit:READER",
        "mls": "featurize.corpora.mls:READER",
        "kaldi": "featurize.corpora.kaldi:READER",
        "lhotse": "featurize.corpora.lhotse:READER",
        "manifest": "featurize.corpora.manifest:READER",
        "several": "featurize.corpora.several:READER",
    },
)


def recognised(root: Location) -> str:
    """The name of the built-in reader of a root, by what stands there."""
    for name in READERS.built_in:
        try:
            if READERS.named(name).recognises(root):
                return name
        except (PipelineError, OSError):
            continue  # not of this kind
    raise PipelineError(
        f"{root} is laid out as none of: {', '.join(READERS.built_in)}; name its reader with "
        "--reader, or write a table of it (a CSV with the columns audio and text)"
    )


CorpusName = Annotated[str, AfterValidator(READERS.check), READERS]
"""Name of a corpus reader, checked."""
