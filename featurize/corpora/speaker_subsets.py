"""Subsets of one's own, by speaker: for corpora that come without the standard ones.

A TIMIT with nothing but TRAIN, or with other speakers than the standard lists name, has no dev
split to choose by. Its speakers can be dealt to subsets here, and so can those of one folder of
LibriSpeech.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import Field

from featurize.corpora.entry import CorpusListing
from featurize.stage import PipelineError, TypedConfig

_FIRST_OF_ID = re.compile(r"[^-_]+")


class SpeakerSubset(TypedConfig):
    """A subset that is the utterances of some speakers, wherever in the corpus they lie."""

    name: str = Field(
        min_length=1, description="Name of the subset, as the splits call it, such as dev."
    )
    speakers: tuple[str, ...] = Field(
        min_length=1,
        description="Its speakers, as the corpus names them: FADG0 in TIMIT, 1272 in LibriSpeech.",
    )


def owners(own: Sequence[SpeakerSubset]) -> dict[str, str]:
    """Speaker to the subset that claims it.

    Raises:
        ValueError: when a name or a speaker is used twice.
    """
    names = [subset.name for subset in own]
    claims: dict[str, str] = {}
    for subset in own:
        if names.count(subset.name) > 1:
            raise ValueError(f"speaker_subsets: {subset.name!r} is named twice; join the two")
        for speaker in subset.speakers:
            if speaker in claims:
                raise ValueError(
                    f"speaker_subsets: speaker {speaker!r} is in {claims[speaker]!r} and in "
                    f"{subset.name!r}; a speaker belongs to one subset"
                )
            claims[speaker] = subset.name
    return claims


def dealt_to_speaker_subsets(
    listing: CorpusListing, claims: Mapping[str, str], wanted: Sequence[str]
) -> CorpusListing:
    """Give claimed speakers' utterances to their subsets, and keep those of the wanted subsets.

    Args:
        listing: of every folder in which a claimed speaker may be.
        claims: speaker to subset, from :func:`owners`.
        wanted: the subsets that are used.
    """
    entries = [
        replace(entry, subset=claims.get(entry.speaker_id, entry.subset))
        for entry in listing.entries
    ]
    rejects = [
        replace(reject, subset=claims.get(_speaker(reject.utterance_id), reject.subset))
        for reject in listing.rejects
    ]
    present = {entry.speaker_id for entry in entries}
    present |= {_speaker(reject.utterance_id) for reject in rejects}
    missing = sorted(set(claims) - present)
    if missing:
        raise PipelineError(
            f"speaker_subsets: {listing.root} has no utterance of speaker {missing[0]!r} in the "
            "folders that are read; check the name, or take it out of "
            f"{claims[missing[0]]!r}"
        )
    kept = sorted(
        (entry for entry in entries if entry.subset in wanted),
        key=lambda entry: (entry.subset, entry.utterance_id),
    )
    return replace(
        listing,
        entries=tuple(kept),
        rejects=tuple(reject for reject in rejects if reject.subset in wanted),
    )


def _speaker(utterance_id: str) -> str:
    """The speaker that an id of either corpus begins with."""
    match = _FIRST_OF_ID.match(utterance_id)
    return match[0] if match is not None else ""
