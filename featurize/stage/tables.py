"""Parquet tables of a stage, which appear when they are complete."""

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from featurize.stage.locations import Location

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_PER_GROUP = 4096


class TableWriter:
    """A Parquet file that appears when complete, from rows given one at a time."""

    def __init__(self, location: Location, schema: "pa.Schema") -> None:
        self._schema = schema
        self._object = location.open_write()
        self._rows: list[Mapping[str, object]] = []
        self._is_empty = True

    def __enter__(self) -> "TableWriter":
        import pyarrow.parquet as pq  # slow to load, and not needed where a model is only run

        stream = self._object.__enter__()
        self._writer = pq.ParquetWriter(stream, self._schema, compression="zstd")
        return self

    def add(self, row: Mapping[str, object]) -> None:
        """Append a row."""
        self._rows.append(row)
        if len(self._rows) >= _ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        # A table without rows has one group, of none.
        if self._rows or self._is_empty:
            import pyarrow as pa

            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows, self._is_empty = [], False

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


def write_table(file: Location, schema: "pa.Schema", rows: Iterable[Mapping[str, object]]) -> None:
    """Write a whole table."""
    with TableWriter(file, schema) as table:
        for row in rows:
            table.add(row)
