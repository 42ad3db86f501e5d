"""Several corpora in one feature set: a YAML file that names them.

::

    corpora:
      read: {reader: librispeech, root: /data/LibriSpeech}
      own:  {reader: manifest, root: recordings}

A subset is named ``CORPUS:SUBSET``, such as ``read:train-clean-100``. Names of speakers and
utterances get the same beginning, so that two corpora may have the same.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from featurize.corpora.entry import CorpusEntry, CorpusListing, file_of
from featurize.corpora.registry import CorpusName, CorpusReader
from featurize.corpora.scan import scan_corpus
from featurize.corpora.scan import subsets_at as subsets_of_one
from featurize.corpora.stated import first_fault, require_subsets
from featurize.rejects import Reject
from featurize.stage import Location, PipelineError, TypedConfig

_MAX_BYTES = 2**20
_OWN_NAME = "several"


class OneCorpus(TypedConfig):
    """One of several corpora."""

    reader: CorpusName = Field(description="How its folders are laid out.")
    root: str = Field(min_length=1, description="Where it is; relative to the file that names it.")


class SeveralCorpora(TypedConfig):
    """The corpora of one feature set."""

    corpora: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,40}$")], OneCorpus] = Field(
        min_length=1, description="A short name for each."
    )


def read_file(file: Location) -> dict[str, tuple[str, Location]]:
    """Name to reader and root of each corpus that a file names."""
    try:
        with file.open_read() as stream:
            content = yaml.safe_load(stream.read(_MAX_BYTES))
        several = SeveralCorpora.model_validate(content)
    except OSError as error:
        raise PipelineError(f"cannot read {file}: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = (
            first_fault(error)
            if isinstance(error, ValidationError)
            else " ".join(str(error).split())
        )
        raise PipelineError(
            f"{file} does not name several corpora, as 'corpora: {{NAME: {{reader: ..., root: "
            f"...}}}}': {said}"
        ) from error
    named = {}
    for name, one in several.corpora.items():
        if one.reader == _OWN_NAME:
            raise PipelineError(f"{file}: {name} is several again; name its corpora here")
        absolute = one.root.startswith(("/", "s3://", "~")) or not file.parent.is_local
        root = one.root if absolute else f"{file.parent.path}/{one.root}"
        named[name] = (one.reader, Location.of(root))
    return named


def scan(file: Location, subsets: Sequence[str]) -> CorpusListing:
    """List the utterances of subsets of several corpora.

    Args:
        subsets: ``CORPUS:SUBSET`` each.
    """
    corpora = read_file(file)
    wanted: dict[str, list[str]] = {}
    for subset in subsets:
        name, _, own = subset.partition(":")
        require_subsets(file, [name], corpora)
        wanted.setdefault(name, []).append(own)
    entries: list[CorpusEntry] = []
    rejects: list[Reject] = []
    digest = hashlib.sha256()
    for name, own_subsets in sorted(wanted.items()):
        reader, root = corpora[name]
        listing = scan_corpus(reader, root, own_subsets)
        digest.update(f"{name} {listing.digest}\n".encode())
        entries += [_renamed(name, entry, listing.root) for entry in listing.entries]
        rejects += [
            replace(
                reject,
                utterance_id=f"{name}:{reject.utterance_id}",
                subset=f"{name}:{reject.subset}",
            )
            for reject in listing.rejects
        ]
    return CorpusListing.of(file.parent, entries, rejects, digest.hexdigest())


def _renamed(name: str, entry: CorpusEntry, root: Location) -> CorpusEntry:
    alignment = entry.alignment and file_of(root, entry.alignment).uri
    return replace(
        entry,
        utterance_id=f"{name}:{entry.utterance_id}",
        speaker_id=f"{name}:{entry.speaker_id}",
        subset=f"{name}:{entry.subset}",
        audio=file_of(root, entry.audio).uri,
        alignment=alignment,
    )


def subsets_at(files: Sequence[Location]) -> tuple[str, ...]:
    """Every subset of every corpus that the files name."""
    return tuple(
        f"{name}:{subset}"
        for file in files
        for name, (reader, root) in read_file(file).items()
        for subset in subsets_of_one(reader, root)
    )


READER = CorpusReader(
    _OWN_NAME, scan, subsets_at, recognises=lambda root: not root.is_dir() and bool(read_file(root))
)
