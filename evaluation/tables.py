"""The Parquet tables of an evaluation, written as the utterances come."""

from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from evaluation.multiplications import TermCount
from evaluation.scoring import EditCounts, Transcript, WordScore
from featurize.schema import FeatureRow
from featurize.stage import Location

HYPOTHESIS_SCHEMA = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("speaker_id", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("reference", pa.string(), nullable=False),
        pa.field("hypothesis", pa.string(), nullable=False),
        pa.field("errors", pa.int64(), nullable=False),
        pa.field("reference_length", pa.int64(), nullable=False),
        pa.field("substitutions", pa.int64(), nullable=False),
        pa.field("insertions", pa.int64(), nullable=False),
        pa.field("deletions", pa.int64(), nullable=False),
        pa.field("word_errors", pa.int64(), nullable=True),
        pa.field("num_words", pa.int64(), nullable=True),
        pa.field("reference_words", pa.string(), nullable=True),
        pa.field("hypothesis_words", pa.string(), nullable=True),
        pa.field("num_frames", pa.int64(), nullable=False),
    ]
)
"""One row per utterance and model; counts are of symbols (phones or characters)."""

MULTIPLICATION_SCHEMA = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("num_frames", pa.int64(), nullable=False),
        pa.field("term", pa.string(), nullable=False),
        pa.field("nonzeros", pa.int64(), nullable=False),
        pa.field("fan_out", pa.int64(), nullable=False),
        pa.field("multiplications", pa.int64(), nullable=False),
        pa.field("additions", pa.int64(), nullable=False),
    ]
)
"""One row per utterance, model and term; exact integers over the utterance's frames."""

_ROWS_PER_GROUP = 4096


class TableWriter:
    """A Parquet file that appears when complete, from rows given one at a time.

    Args:
        location: the file.
        schema: its columns.
    """

    def __init__(self, location: Location, schema: pa.Schema) -> None:
        self._schema = schema
        self._object = location.open_write()
        self._rows: list[dict[str, object]] = []

    def __enter__(self) -> "TableWriter":
        stream = self._object.__enter__()
        self._writer = pq.ParquetWriter(stream, self._schema, compression="zstd")
        return self

    def add(self, row: dict[str, object]) -> None:
        """Append a row."""
        self._rows.append(row)
        if len(self._rows) >= _ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._flush()
            # Also after an error, though the object is dropped: an open writer would complain.
            self._writer.close()
        except BaseException as failure:
            # The object must not appear with half its rows.
            self._object.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._object.__exit__(kind, error, traceback)


def hypothesis_row(
    row: FeatureRow,
    model: str,
    transcripts: tuple[Transcript, Transcript],
    symbols: EditCounts,
    words: WordScore | None,
) -> dict[str, object]:
    """A row of ``hypotheses.parquet``; ``transcripts`` are reference and hypothesis."""
    reference, hypothesis = transcripts
    return {
        "utterance_id": row.utterance_id,
        "speaker_id": row.speaker_id,
        "subset": row.subset,
        "model": model,
        "reference": reference.text,
        "hypothesis": hypothesis.text,
        "errors": symbols.errors,
        "reference_length": symbols.reference_length,
        "substitutions": symbols.substitutions,
        "insertions": symbols.insertions,
        "deletions": symbols.deletions,
        "word_errors": None if words is None else words.edits.errors,
        "num_words": None if words is None else words.edits.reference_length,
        "reference_words": None if words is None else " ".join(words.reference),
        "hypothesis_words": None if words is None else " ".join(words.hypothesis),
        "num_frames": len(row.features),
    }


def multiplication_row(
    utterance_id: str, model: str, num_frames: int, term: TermCount
) -> dict[str, object]:
    """A row of ``multiplications.parquet``."""
    return {
        "utterance_id": utterance_id,
        "model": model,
        "num_frames": num_frames,
        "term": term.term,
        "nonzeros": term.nonzeros,
        "fan_out": term.fan_out,
        "multiplications": term.multiplications,
        "additions": term.additions,
    }
