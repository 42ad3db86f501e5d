"""``python -m tests.hostile.run``: many damaged inputs of every format, and a table of what became
of them. A child that dies or hangs is replaced, and the input it was reading is a finding.

What became of each format is kept in a state file, from which the table is written, so that the
formats can be read in several goes.
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featurize.stage import software_versions
from tests.harness.run_state import commit, keep, kept
from tests.hostile.formats import NAMES

REPOSITORY = Path(__file__).parents[2]
# Wall-clock, for what waits without using the processor; a busy machine does not come near it.
SILENCE_S = 180.0
MAX_GROWTH_MIB = 1024
STATE = Path("build/damaged-inputs.jsonl")


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


def read_damaged(
    num_inputs: int, seed: int, names: Sequence[str] = NAMES, silence_s: float = SILENCE_S
) -> dict[str, Tally]:
    """Read so many damaged inputs of each format in children, none silent for longer."""
    tallies = {name: Tally() for name in names}
    remaining = {name: [0, num_inputs] for name in names}
    while any(first < last for first, last in remaining.values()):
        for record in _child(seed, remaining, silence_s):
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


def _child(
    seed: int, remaining: dict[str, list[int]], silence_s: float
) -> Iterator[dict[str, object]]:
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
            ready, _, _ = select.select([process.stdout], [], [], silence_s)
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


def table(tallies: Mapping[str, Tally]) -> str:
    """The tallies as a markdown table; a format without one says so."""
    lines = [
        "| format | inputs | read as if sound | refused in a sentence | rejected, by reason | "
        "most memory beyond the sound ones | findings |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in NAMES:
        if name not in tallies:
            lines.append(f"| {name} | **not run** | | | | | |")
            continue
        tally = tallies[name]
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


def record(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The record of what has been run, format by format."""
    found = [results[name] for name in NAMES if name in results]
    settings = sorted({f"--inputs {r['inputs']} --seed {r['seed']}" for r in found})
    made = sorted({f"{r['machine']}; {r['versions']}; commit {r['commit']}" for r in found})
    times = sorted(r["finished"] for r in found)
    lines = [
        "# Damaged inputs",
        "",
        "```",
        *(f"python -m tests.hostile.run {setting}" for setting in settings),
        "```",
        "",
        f"- finished between {times[0]} and {times[-1]}; "
        f"{sum(r['seconds'] for r in found) / 60:.1f} minutes in all",
        *(f"- {line}" for line in made),
        "- each input in a process that may take 1 GiB more than sound inputs do, 20 s of "
        "processor time, and write nowhere but in the input's own folder",
        "",
    ]
    tallies = {
        name: Tally(Counter(r["outcomes"]), r["findings"], r["growth_mib"])
        for name, r in results.items()
    }
    return "\n".join(lines) + "\n" + table(tallies)


def main() -> None:
    """Run, print the table, and fail on any finding."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=2000, help="per format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", action="append", choices=NAMES, help="only this one")
    parser.add_argument("--state", type=Path, default=STATE, help="results so far, by format")
    parser.add_argument("--record", type=Path, help="write the table of all results to this file")
    options = parser.parse_args()
    commit()  # the one that is run, whatever is checked out meanwhile
    findings: list[str] = []
    for name in options.format or NAMES:
        started = time.monotonic()
        tally = read_damaged(options.inputs, options.seed, [name])[name]
        findings += tally.findings
        versions = software_versions("pyarrow", "soundfile", "torch", "numpy")
        result = {
            "inputs": options.inputs,
            "seed": options.seed,
            "seconds": round(time.monotonic() - started, 1),
            "machine": platform.machine(),
            "versions": ", ".join(f"{n} {v}" for n, v in versions.items()),
            "outcomes": dict(tally.outcomes),
            "findings": tally.findings,
            "growth_mib": tally.growth_mib,
        }
        keep(options.state, name, result)
        print(f"{name}: {dict(tally.outcomes)}, {result['seconds']} s", flush=True)
        for finding in tally.findings[:50]:
            print(finding, file=sys.stderr)
    text = record(kept(options.state))
    print(text)
    if options.record:
        options.record.write_text(text)
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
