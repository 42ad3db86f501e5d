"""Where a browser finds the report of an evaluation.

A page of the Prefect UI may not open a file. Whoever serves the reports (``make up`` does) says so
in the environment of the worker.
"""

import os

from featurize.stage import Location

REPORTS_URL = "SPIKELINE_REPORTS_URL"
REPORTS_ROOT = "SPIKELINE_REPORTS_ROOT"
REPORT_NAME = "report.html"


def report_address(evaluation: Location) -> str:
    """The address of an evaluation's report: served where it can be, else its file."""
    report = evaluation.child(REPORT_NAME).uri
    url, root = os.environ.get(REPORTS_URL), os.environ.get(REPORTS_ROOT, "")
    if url and report.startswith(f"{root}/evaluation/"):
        return url + report.removeprefix(root)
    return f"file://{report}" if evaluation.is_local else report
