"""Multilingual LibriSpeech as distributed, in FLAC or Opus.

``ROOT/SUBSET/transcripts.txt`` (``SPEAKER_BOOK_NNNNNN<tab>words``) and
``ROOT/SUBSET/audio/SPEAKER/BOOK/SPEAKER_BOOK_NNNNNN.flac`` or ``.opus``.
"""

import re
from collections.abc import Sequence

from featurize.corpora.entry import CorpusListing
from featurize.corpora.registry import reader_of_subsets
from featurize.corpora.stated import StatedCorpus, StatedUtterance, require_subsets
from featurize.stage import Location, PipelineError

_TRANSCRIPTS = "transcripts.txt"
_ID = re.compile(r"(\d+)_(\d+)_\d+", re.ASCII)


def find_subsets(root: Location) -> tuple[str, ...]:
    """Folders at a root that have transcripts."""
    found = tuple(child.name for child in root.children() if child.child(_TRANSCRIPTS).exists())
    if not found:
        raise PipelineError(f"{root} has no folder with a {_TRANSCRIPTS}, as MLS has")
    return found


def scan(root: Location, subsets: Sequence[str]) -> CorpusListing:
    """List the utterances of some subsets.

    Args:
        root: the folder of one language, local or on S3.
        subsets: of ``train``, ``dev`` and ``test``.
    """
    corpus = StatedCorpus(root, subsets)
    require_subsets(root, corpus.subsets, find_subsets(root))
    for subset in corpus.subsets:
        table = root.child(subset, _TRANSCRIPTS)
        ending = _ending(root, subset)
        for number, line in corpus.lines(table):
            name, _, text = line.decode("utf-8", "replace").strip().partition("\t")
            match = _ID.fullmatch(name)
            if match is None:
                said = f"line {number} of {_TRANSCRIPTS}: expected 'SPEAKER_BOOK_NNN<tab>words'"
                corpus.reject(f"line {number}", subset, _TRANSCRIPTS, "malformed_transcript", said)
                continue
            speaker, book = match.groups()
            utterance = StatedUtterance(
                audio=f"{subset}/audio/{speaker}/{book}/{name}{ending}",
                text=text[:100_000],
                utterance_id=name[:200],
                speaker_id=speaker[:200],
                chapter_id=book[:200],
            )
            corpus.add(utterance, subset)
    return corpus.listing()


def _ending(root: Location, subset: str) -> str:
    """``.opus`` or ``.flac``, as the first audio file of the subset has it."""
    folder = root.child(subset, "audio")
    for _ in range(2):
        folder = next((child for child in folder.children() if child.is_dir()), folder)
    return ".opus" if any(file.name.endswith(".opus") for file in folder.children()) else ".flac"


READER = reader_of_subsets("mls", scan, find_subsets)
