"""``python -m tests.faults.run``: every row of the fault matrix, and its table."""

import argparse
import platform
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from evaluation.record import processor
from featurize.stage import software_versions, timestamp
from tests.faults.matrix import ROWS, SkippedRow
from tests.faults.workplace import Workplace


def main() -> None:
    """Run rows, print the table, fail on any failed row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=20, help="random kill points per crash row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--row", action="append", choices=list(ROWS))
    parser.add_argument("--record", type=Path, help="write the table to this file")
    options = parser.parse_args()
    lines = ["| fault | outcome | what happened | seconds |", "|---|---|---|---|"]
    num_failed = 0
    with tempfile.TemporaryDirectory(prefix="spikeline-faults-") as folder:
        place = Workplace(Path(folder), random.Random(options.seed), options.points)
        for name in options.row or ROWS:
            # Each row's points depend on nothing but the seed, so that one row can be run alone.
            place.rng = random.Random(f"{options.seed} {name}")
            started = time.monotonic()
            try:
                outcome, said = "as undisturbed", ROWS[name].run(place)
            except SkippedRow as reason:
                outcome, said = "skipped", str(reason)
            except Exception as error:
                outcome, said = "**FAILED**", " ".join(str(error).split())[:300]
                num_failed += 1
                traceback.print_exc()
            seconds = time.monotonic() - started
            lines.append(f"| {ROWS[name].fault} | {outcome} | {said} | {seconds:.0f} |")
            print(lines[-1], flush=True)
    versions = ", ".join(
        f"{n} {v}" for n, v in software_versions("ray", "torch", "pyarrow", "s3fs").items()
    )
    text = (
        "# Fault matrix\n\n```\nmake faults\n```\n\nEach fault is done for real to stages on a "
        "tiny corpus; afterwards every file is compared with that of an undisturbed run, bit for "
        "bit (times, rates and addresses left out).\n\n"
        f"- finished {timestamp()}; {options.points} random kill points per crash row, seed "
        f"{options.seed}\n- {processor()}; {platform.system()}; {versions}\n\n"
        + "\n".join(lines)
        + "\n"
    )
    if options.record:
        options.record.write_text(text)
    sys.exit(1 if num_failed else 0)


if __name__ == "__main__":
    main()
