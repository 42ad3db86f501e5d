"""The corpus readers there are: built in, of an installed package, or of a module that is named.

``corpus`` of a feature set's configuration names one: by its name, by the name of an entry point of
the group ``spikeline.corpora`` (``our-speech = "our_package.reader:READER"``), or as
``module:attribute`` of a ``CorpusReader`` (of a file, put its folder on PYTHONPATH).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from featurize.corpora.entry import CorpusListing
from featurize.stage import Location, Registry


@dataclass(frozen=True)
class CorpusReader:
    """How one kind of corpus is read.

    Attributes:
        name: short name.
        scan: lists the utterances of some subsets of the corpus at a root, sorted, with what is
            unusable and a digest (``featurize.corpora.listing.make_listing`` does both).
        scored_subsets: names the subsets at one or more folders that a model may be scored on.
        scan_unpacked: lists a corpus of several archives, given the folder they are unpacked in,
            the folder of each, and the subsets; None for a corpus that comes as one.
        whole_subsets: names the subsets at a root that together hold every speaker, for subsets
            by speaker; None where only the subsets that are asked for are looked through.
    """

    name: str
    scan: Callable[[Location, Sequence[str]], CorpusListing]
    scored_subsets: Callable[[Sequence[Location]], tuple[str, ...]]
    scan_unpacked: Callable[[Location, Sequence[Location], Sequence[str]], CorpusListing] | None = (
        None
    )
    whole_subsets: Callable[[Location], tuple[str, ...]] | None = None


READERS = Registry(
    CorpusReader,
    "corpus reader",
    "spikeline.corpora",
    {
        "librispeech": "featurize.corpora.librispeech:READER",
        "timit": "featurize.corpora.timit:READER",
    },
)

CorpusName = Annotated[str, AfterValidator(READERS.check), READERS]
"""Name of a corpus reader, checked."""
