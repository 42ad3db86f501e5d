"""Utterances that are left out: a row of ``rejects.parquet`` each, with the reason.

Every stage that can lose one holds what came in against what went out and what was left out, subset
by subset, and fails where a split has lost more than the configured share.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from featurize.reject_reasons import RejectReason
from featurize.stage import Location, PipelineError, is_of_the_store, write_table

REJECTS_NAME = "rejects.parquet"


REJECT_SCHEMA = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Reject:
    """An utterance left out, and why."""

    utterance_id: str
    subset: str
    path: str
    reason: RejectReason
    detail: str


def write_rejects(location: Location, rejects: Iterable[Reject]) -> None:
    """Write ``rejects.parquet`` below a stage's location, a row each in the order given."""
    write_table(location.child(REJECTS_NAME), REJECT_SCHEMA, map(asdict, rejects))


RejectCounts = Counter[tuple[str, str]]
"""Rejects by subset and reason."""


def count_rejects(rejects: Iterable[Reject]) -> RejectCounts:
    """Number of rejects of each subset for each reason."""
    return Counter((reject.subset, str(reject.reason)) for reject in rejects)


def read_reject_counts(location: Location) -> RejectCounts:
    """As :func:`count_rejects`, of a finished stage."""
    file = location.child(REJECTS_NAME)
    try:
        with file.open_read() as stream:
            table = pq.read_table(stream, columns=["subset", "reason"])
    except (OSError, pa.ArrowException) as error:
        if is_of_the_store(error):
            raise
        raise PipelineError(
            f"{file} is missing or damaged; redo it with: spikeline repair {location}"
        ) from error
    return Counter(
        zip(table.column("subset").to_pylist(), table.column("reason").to_pylist(), strict=True)
    )


def check_sums(
    location: Location, came_in: Mapping[str, int], kept: Mapping[str, int], rejects: RejectCounts
) -> None:
    """Hold a stage's utterances in against those out and left out, by subset."""
    left_out: Counter[str] = Counter()
    for (subset, _), count in rejects.items():
        left_out[subset] += count
    for subset in sorted({*came_in, *kept, *left_out}):
        before, after, lost = came_in.get(subset, 0), kept.get(subset, 0), left_out[subset]
        if before != after + lost:
            raise PipelineError(
                f"{location}: subset {subset!r} has {before} utterances, of which {after} were "
                f"kept and {lost} left out; that does not add up: verify the stage before, and run "
                "this one again with --force"
            )


def check_reject_share(
    location: Location,
    splits: Mapping[str, Sequence[str]],
    kept: Mapping[str, int],
    rejects: RejectCounts,
    max_share: float,
) -> None:
    """Hold the rejects of each split against the share that may be left out.

    Args:
        location: of the stage, whose rejects are written.
        splits: split to its subsets; a subset of none counts by itself.
        kept: utterances of each subset in the result.
        rejects: those that are not.
        max_share: of a split's utterances.
    """
    split_of = {subset: split for split, subsets in splits.items() for subset in subsets}
    lost: dict[str, Counter[str]] = {}
    for (subset, reason), count in rejects.items():
        lost.setdefault(split_of.get(subset, subset), Counter())[reason] += count
    for split in sorted(lost):
        num_lost = lost[split].total()
        total = num_lost + sum(
            count for subset, count in kept.items() if split_of.get(subset, subset) == split
        )
        if num_lost > max_share * total:
            reasons = ", ".join(f"{reason} {count}" for reason, count in lost[split].most_common(3))
            raise PipelineError(
                f"{num_lost} of {total} utterances of {split} rejected ({num_lost / total:.1%}), "
                f"more than max_reject_share={max_share:.1%}; most often: {reasons}. "
                f"{location.child(REJECTS_NAME)} lists each with its reason; mend them or raise "
                "max_reject_share"
            )
