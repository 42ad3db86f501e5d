"""The fault matrix: every row, by the name that ``--row`` takes."""

from tests.faults.rows import contention, disk, driver, prefect_server, s3, workers
from tests.faults.rows.row import Row, SkippedRow

__all__ = ["ROWS", "Row", "SkippedRow"]

ROWS: dict[str, Row] = {
    **driver.ROWS,
    **workers.ROWS,
    **prefect_server.ROWS,
    **s3.ROWS,
    **disk.ROWS,
    **contention.ROWS,
}
