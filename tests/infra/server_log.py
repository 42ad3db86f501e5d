"""What a log of Prefect's holds that went wrong."""

import re

_RECORD = re.compile(r"(?m)^(?=\d\d:\d\d:\d\d\.\d{3} \| )")
_BAD = re.compile(r"^\S+ \| (ERROR|CRITICAL)\s|Traceback \(most recent call last\)")
# SQLite refuses a transaction that another overtook; Prefect tries again, and loses nothing.
_TRIED_AGAIN = "database is locked"


def errors_in(log: str) -> list[str]:
    """The records of errors, each with its traceback."""
    records = _RECORD.split(log)
    return [r for r in records if _BAD.search(r) and _TRIED_AGAIN not in r]
