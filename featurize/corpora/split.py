"""Dealing one table of utterances to the subsets train, dev and test."""

import hashlib
from collections.abc import Iterator

from pydantic import Field, ValidationError

from featurize.corpora.manifest import read_table, subset_of
from featurize.corpora.stated import StatedUtterance, first_fault
from featurize.stage import Location, PipelineError, TypedConfig

FEWEST_SPEAKERS = 10
"""From so many speakers on each belongs to one subset, so that tests are of speakers not heard."""
_SUBSETS = ("test", "dev", "train")


class SplitShares(TypedConfig):
    """How much of a table goes to dev and test; the rest is for training."""

    dev: float = Field(
        0.1,
        gt=0,
        lt=0.5,
        description="Share of the utterances for dev, by which settings are chosen.",
    )
    test: float = Field(
        0.1,
        gt=0,
        lt=0.5,
        description="Share of the utterances for test, on which errors are counted.",
    )
    seed: int = Field(0, ge=0, description="Seed of the draw: another number gives other subsets.")


def split_table(table: Location, shares: SplitShares) -> tuple[dict[str, int], bool]:
    """Write ``train.jsonl``, ``dev.jsonl`` and ``test.jsonl`` beside a table of utterances.

    Args:
        table: JSON lines or CSV, as the reader ``manifest`` takes it.
        shares: of the speakers, or of the utterances where there are fewer than ten speakers.

    Returns:
        Number of utterances by subset, and whether they were dealt by speaker.
    """
    targets = {name: table.parent.child(f"{name}.jsonl") for name in _SUBSETS}
    if subset_of(table) in targets:
        raise PipelineError(
            f"{table} would be a table of its own subset beside those dealt; rename it, such as to "
            "speech.csv"
        )
    for target in targets.values():
        if target.exists():
            raise PipelineError(f"{target} is there already; remove it to deal anew")
    utterances = list(_utterances(table))
    by_speaker = len({one.speaker_id for one in utterances}) >= FEWEST_SPEAKERS
    keys = [one.speaker_id if by_speaker else one.name for one in utterances]
    owner = _dealt(sorted(set(keys)), shares, "speakers" if by_speaker else "utterances")
    dealt: dict[str, list[StatedUtterance]] = {name: [] for name in _SUBSETS}
    for one, key in zip(utterances, keys, strict=True):
        dealt[owner[key]].append(one)
    for name, chosen in dealt.items():
        lines = [one.model_dump_json(exclude_defaults=True, exclude={"subset"}) for one in chosen]
        targets[name].write_bytes("".join(f"{line}\n" for line in lines).encode())
    return {name: len(dealt[name]) for name in reversed(_SUBSETS)}, by_speaker


def _utterances(table: Location) -> Iterator[StatedUtterance]:
    for number, content in read_table(table):
        try:
            yield StatedUtterance.of(content)
        except ValidationError as error:
            raise PipelineError(f"{table}, line {number}: {first_fault(error)}") from error


def _dealt(keys: list[str], shares: SplitShares, noun: str) -> dict[str, str]:
    """A subset for each key, in an order that the seed draws."""
    numbers = {"test": round(shares.test * len(keys)), "dev": round(shares.dev * len(keys))}
    if min(numbers.values()) < 1:
        raise PipelineError(
            f"{len(keys)} {noun} are too few for shares of {shares.dev:g} and "
            f"{shares.test:g}; raise --dev and --test, or record more"
        )
    drawn = sorted(keys, key=lambda key: hashlib.sha256(f"{shares.seed} {key}".encode()).digest())
    names = [name for name in ("test", "dev") for _ in range(numbers[name])]
    names += ["train"] * (len(keys) - len(names))
    return dict(zip(drawn, names, strict=True))
