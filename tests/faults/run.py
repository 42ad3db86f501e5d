"""``python -m tests.faults.run``: rows of the fault matrix, and its table.

Results are kept one by one in a state file, from which the table is written, so that the rows can
be run in several goes.
"""

import argparse
import platform
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.machine import processor
from featurize.stage import software_versions
from tests.faults.matrix import ROWS, SkippedRow
from tests.faults.workplace import Workplace
from tests.harness.run_state import commit, keep, kept

STATE = Path("build/faults.jsonl")


def main() -> None:
    """Run rows, print the table, fail on any failed row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=20, help="random kill points per crash row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--row", action="append", choices=list(ROWS), help="only this one")
    parser.add_argument("--state", type=Path, default=STATE, help="results so far")
    parser.add_argument("--record", type=Path, help="write the table of all results to this file")
    parser.add_argument("--assemble", action="store_true", help="run nothing, write the record")
    options = parser.parse_args()
    # A shell starts what it puts in the background with SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    commit()  # the one that is run, whatever is checked out meanwhile
    num_failed = 0
    with tempfile.TemporaryDirectory(prefix="spikeline-faults-") as folder:
        place = Workplace(Path(folder), random.Random(options.seed), options.points)
        for name in () if options.assemble else options.row or ROWS:
            result = _run(name, place, options.seed)
            num_failed += result["outcome"] == "failed"
            keep(options.state, name, result)
            print(_line(name, kept(options.state)[name]), flush=True)
    if options.record:
        options.record.write_text(table(kept(options.state)))
    sys.exit(1 if num_failed else 0)


def _run(name: str, place: Workplace, seed: int) -> dict[str, Any]:
    # Each row's points depend on nothing but the seed, so that one row can be run alone.
    place.rng = random.Random(f"{seed} {name}")
    started = time.monotonic()
    try:
        outcome, said = "as undisturbed", ROWS[name].run(place)
    except SkippedRow as reason:
        outcome, said = "skipped", str(reason)
    except Exception as error:
        outcome, said = "failed", " ".join(str(error).split())[:300]
        traceback.print_exc()
    finally:
        place.end_all()
    return {
        "outcome": outcome,
        "said": said,
        "seconds": round(time.monotonic() - started),
        "points": place.num_points,
        "seed": seed,
        "machine": f"{processor()}; {platform.system()}",
        "versions": software_versions("ray", "torch", "pyarrow", "s3fs", "prefect"),
    }


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The record; a row without a result says so."""
    found = [results[name] for name in ROWS if name in results]
    settings = sorted({f"--points {r['points']} --seed {r['seed']}" for r in found})
    machines = sorted({r["machine"] for r in found})
    versions = sorted({", ".join(f"{n} {v}" for n, v in r["versions"].items()) for r in found})
    commands = [f"python -m tests.faults.run {setting}" for setting in settings]
    outcomes = Counter(r["outcome"] for r in found)
    lines = [
        "# Fault matrix",
        "",
        "```",
        *commands,
        "```",
        "",
        "Each fault is done for real to stages on a tiny corpus; afterwards every file is compared "
        "with that of an undisturbed run, bit for bit (times, rates and addresses left out). Rows "
        "were run one by one, each as its own commit and time say.",
        "",
        f"- {len(ROWS)} rows: {outcomes['as undisturbed']} as undisturbed, {outcomes['failed']} "
        f"failed, {outcomes['skipped']} skipped, {len(ROWS) - len(found)} not run",
        *(f"- {machine}" for machine in machines),
        *(f"- {version}" for version in versions),
        "",
        "| fault | outcome | what happened | seconds | points | commit | finished |",
        "|---|---|---|---|---|---|---|",
        *(_line(name, results.get(name)) for name in ROWS),
    ]
    return "\n".join(lines) + "\n"


def _line(name: str, result: Mapping[str, Any] | None) -> str:
    if result is None:
        return f"| {ROWS[name].fault} | **not run** | | | | | |"
    outcome = "**FAILED**" if result["outcome"] == "failed" else result["outcome"]
    return (
        f"| {ROWS[name].fault} | {outcome} | {result['said']} | {result['seconds']} | "
        f"{result['points']} | {result['commit']} | {result['finished']} |"
    )


if __name__ == "__main__":
    main()
