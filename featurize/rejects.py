"""Utterances that are left out: a row of ``rejects.parquet`` each, with the reason."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import pyarrow as pa

from featurize.rejected import RejectReason
from featurize.stage import Location, write_table

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
