"""What the benchmarks share: contestants timed in turns, a process's memory, a record's page.

``torch.utils.benchmark`` takes the times: it sets the number of threads, warms up before every
turn and waits for a GPU. Contestants take turns, so that whatever else the machine does falls on
all of them alike; a ratio is the median over rounds of the peer's time / ours.

A record is a page in ``evaluation/results/``. What a person wrote below its heading ``## Notes``
stays there when the figures above are measured again.
"""

import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from torch.utils.benchmark import Timer

from evaluation.machine import processor
from featurize.stage import software_versions, timestamp
from tests.harness.run_state import commit

Step = Callable[[], object]

RecordOption = Annotated[
    Path | None, typer.Option("--record", help="Page to write, in evaluation/results/.")
]
SmallOption = Annotated[
    bool, typer.Option("--small", help="Toy sizes: shows that it runs; its figures mean nothing.")
]

_NOTES = "\n## Notes\n"


def times_in_turns(
    steps: Mapping[str, Step], num_rounds: int, num_threads: int = 1, **options: Any
) -> pd.DataFrame:
    """Seconds of every step: a row per round, a column per contestant.

    Args:
        steps: by name.
        num_rounds: rounds; in each every step runs twice unmeasured, then once measured.
        num_threads: of PyTorch while a step runs.
        **options: more of ``torch.utils.benchmark.Timer``, such as another clock.
    """
    timers = {
        name: Timer("step()", globals={"step": step}, num_threads=num_threads, **options)
        for name, step in steps.items()
    }
    rounds = [
        {name: timer.timeit(1).mean for name, timer in timers.items()} for _ in range(num_rounds)
    ]
    return pd.DataFrame(rounds)


def ratios(times: pd.DataFrame, ours: Sequence[str], peers: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each of ours beside each peer, times in milliseconds."""
    rows = []
    for our in ours:
        for peer in peers:
            ratio = times[peer] / times[our]
            low, high = ratio.quantile(0.25), ratio.quantile(0.75)
            rows.append(
                {
                    "Ours": our,
                    "Peer": peer,
                    "Ours, ms": 1e3 * times[our].median(),
                    "Peer, ms": 1e3 * times[peer].median(),
                    "Peer / ours": f"{ratio.median():.2f}",
                    "Middle half of rounds": f"{low:.2f} to {high:.2f}",
                }
            )
    return rows


def _shown(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 100 else f"{value:.3g}"


def markdown(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as a markdown table; a number has three digits that count."""
    shown = [{name: _shown(value) for name, value in row.items()} for row in rows]
    return pd.DataFrame(shown).fillna("").to_markdown(index=False, disable_numparse=True)


def publish(
    title: str,
    facts: Sequence[str],
    sections: Mapping[str, str],
    packages: Sequence[str],
    record: Path | None,
) -> None:
    """Print what was measured, and write it to a record where one is named.

    Args:
        title: first heading.
        facts: what is the same for all figures, a sentence each.
        sections: heading to table or text.
        packages: whose versions matter.
        record: the page; its notes are kept.
    """
    module = Path(sys.argv[0]).stem
    versions = software_versions(*packages)
    lines = [
        f"# {title}",
        "",
        "```",
        shlex.join(["python", "-m", f"tests.benchmarks.{module}", *sys.argv[1:]]),
        "```",
        "",
        f"- measured {timestamp()}, commit {commit()}",
        f"- {processor()}; {', '.join(f'{name} {version}' for name, version in versions.items())}",
        *(f"- {fact}" for fact in facts),
    ]
    for heading, text in sections.items():
        lines += ["", f"## {heading}", "", text]
    page = "\n".join(lines) + "\n"
    sys.stdout.write(page)
    if record is not None:
        before = record.read_text(encoding="utf-8") if record.exists() else ""
        notes = _NOTES + before.split(_NOTES, 1)[1] if _NOTES in before else ""
        record.write_text(page + notes, encoding="utf-8")


def forget_peak() -> None:
    """Set this process's peak of memory back to what it holds now (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib(pid: int | str = "self") -> float:
    """The most memory that a process has had resident, in MiB (Linux); 0 for one that is gone.

    Unlike ``ru_maxrss`` it holds nothing of the process that started it.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(peaks[0]) / 1024 if peaks else 0.0
