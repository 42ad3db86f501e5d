"""``python -m tests.hostile.run``: many damaged inputs of every format, and a table of what became
of them. A child that dies or hangs is replaced, and the input it was reading is a finding.
"""

import argparse
import json
import platform
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from featurize.stage import software_versions, timestamp
from tests.hostile.formats import NAMES

REPOSITORY = Path(__file__).parents[2]
# Wall-clock, for what waits without using the processor; a busy machine does not come near it.
SILENCE_S = 180.0
MAX_GROWTH_MIB = 1024


@dataclass
class Tally:
    """What became of one format's inputs.

    Attributes:
        outcomes: word to number of inputs.
        findings: what must not happen, with the number of the input.
        growth_mib: most memory taken beyond that of reading sound inputs.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    growth_mib: int = 0

    @property
    def num_inputs(self) -> int:
        """Inputs read."""
        return self.outcomes.total()


def read_damaged(num_inputs: int, seed: int, names: Sequence[str] = NAMES) -> dict[str, Tally]:
    """Read so many damaged inputs of each format in bounded children."""
    tallies = {name: Tally() for name in names}
    remaining = {name: [0, num_inputs] for name in names}
    while any(first < last for first, last in remaining.values()):
        for record in _child(seed, remaining):
            tally = tallies[record["format"]]
            remaining[record["format"]][0] = record["number"] + 1
            tally.outcomes[record["outcome"]] += 1
            tally.growth_mib = max(tally.growth_mib, record.get("growth_mib", 0))
            where = f"{record['format']} input {record['number']} of seed {seed}"
            problem = _problem(record)
            if problem:
                tally.findings.append(f"{where}: {problem}")
    return tallies


def _problem(record: dict[str, object]) -> str | None:
    message = str(record.get("message", ""))
    if record["outcome"] in ("finding", "died", "hung"):
        return message
    if record["outcome"] == "refused":
        if not message.strip():
            return "refused without a word"
        if len(message) > 1500 or not message.isprintable():
            return f"refused with {len(message)} characters: {message[:200]!r}"
    if int(str(record.get("growth_mib", 0))) > MAX_GROWTH_MIB:
        return f"took {record['growth_mib']} MiB"
    return None


def _child(seed: int, remaining: dict[str, list[int]]) -> Iterator[dict[str, object]]:
    """Records of one child; ends with one more record where it died or hung."""
    ranges = {name: pair for name, pair in remaining.items() if pair[0] < pair[1]}
    with tempfile.TemporaryDirectory(prefix="spikeline-hostile-") as folder:
        specification = {"seed": seed, "folder": folder, "formats": list(ranges), "ranges": ranges}
        errors = Path(folder) / "stderr"
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.hostile.child", json.dumps(specification)],
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=REPOSITORY,
            )
        assert process.stdout is not None
        current: dict[str, object] | None = None
        is_hung = False
        while True:
            ready, _, _ = select.select([process.stdout], [], [], SILENCE_S)
            if not ready:
                process.kill()
                is_hung = True
                break
            line = process.stdout.readline()
            if not line:
                break
            record = json.loads(line)
            if record.pop("begun", False):
                current = record
            else:
                current = None
                yield record
        code = process.wait()
        if current is not None:
            tail = errors.read_text(errors="replace")[-2000:]
            outcome = "hung" if is_hung else "died"
            yield current | {"outcome": outcome, "message": f"ended with {code}: {tail}"}
        elif code:
            raise RuntimeError(f"the child ended with {code}: {errors.read_text()[-3000:]}")


def table(tallies: dict[str, Tally]) -> str:
    """The tallies as a markdown table."""
    lines = [
        "| format | inputs | read as if sound | refused in a sentence | rejected, by reason | "
        "most memory beyond the sound ones | findings |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, tally in tallies.items():
        rest = {
            word: n
            for word, n in sorted(tally.outcomes.items())
            if word not in ("read", "refused", "finding", "died", "hung")
        }
        reasons = ", ".join(f"{word} {n}" for word, n in rest.items()) or "-"
        lines.append(
            f"| {name} | {tally.num_inputs:,} | {tally.outcomes['read']:,} | "
            f"{tally.outcomes['refused']:,} | {reasons} | {tally.growth_mib} MiB | "
            f"{len(tally.findings)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run, print the table, and fail on any finding."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=2000, help="per format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", action="append", choices=NAMES)
    parser.add_argument("--record", type=Path, help="write the table to this file")
    options = parser.parse_args()
    started = time.monotonic()
    tallies = read_damaged(options.inputs, options.seed, options.format or NAMES)
    versions = ", ".join(
        f"{n} {v}" for n, v in software_versions("pyarrow", "soundfile", "torch", "numpy").items()
    )
    command = f"python -m tests.hostile.run --inputs {options.inputs} --seed {options.seed}"
    text = (
        f"# Damaged inputs\n\n```\n{command}\n```\n\n- finished {timestamp()}, in "
        f"{(time.monotonic() - started) / 60:.1f} minutes\n- {platform.machine()}; {versions}\n"
        "- each input in a process that may take 1 GiB more than sound inputs do, 20 s of "
        "processor time, and write nowhere but in the input's own folder\n\n" + table(tallies)
    )
    print(text)
    findings = [finding for tally in tallies.values() for finding in tally.findings]
    for finding in findings[:50]:
        print(finding, file=sys.stderr)
    if options.record:
        options.record.write_text(text)
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
