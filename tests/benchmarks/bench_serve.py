"""How many people can one server listen to in real time?

``make bench-serve MODEL=engine.spikes SPEECH=/data/LibriSpeech/test-mini``. Clients in this process
speak recordings to a real server, each at the speed of speech, all at once; a client that has
finished speaks the next recording, until the time is up. Every final hypothesis is held against
what ``transcribe`` finds in the same samples. What counts is how long after its last sample a
client has the final hypothesis: a server that cannot keep up is later and later.
"""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import typer
from numpy.typing import NDArray

from evaluation.engine.transcriber import Transcriber
from flows.event_driven_commands import load_engine
from flows.options import EngineSource
from spikeline_start import module_command
from tests.benchmarks.harness import RecordOption, SmallOption, markdown, publish
from tests.harness.processes import descendants
from tests.harness.serving import Answer, converse, running

Recording = tuple[int, NDArray[np.int16]]


def recordings(folder: Path, number: int) -> list[Recording]:
    """The first files below a folder, in order of their names."""
    paths = sorted(path for form in ("flac", "wav", "WAV") for path in folder.rglob(f"*.{form}"))
    read = [soundfile.read(path, dtype="int16") for path in paths[:number]]
    return [(rate, samples) for samples, rate in read]


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has taken (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def speak_all(
    url: str, speech: list[Recording], num_streams: int, seconds: float
) -> list[tuple[int, Answer]]:
    """All streams at once; the recording and the answer of each that was finished."""
    ends_s = time.monotonic() + seconds
    waiting = [(n * len(speech)) // num_streams for n in range(num_streams)]

    async def client(at: int) -> list[tuple[int, Answer]]:
        heard = []
        while time.monotonic() < ends_s:
            rate, samples = speech[at]
            heard.append((at, await converse(url, samples, rate, block=rate // 10, pace=1.0)))
            at = (at + 1) % len(speech)
        return heard

    found = await asyncio.gather(*(client(at) for at in waiting))
    return [one for some in found for one in some]


def main(
    model: Annotated[str, typer.Option(help="An engine file or a training run.")],
    speech: Annotated[Path, typer.Option(help="Folder of recordings.")],
    streams: Annotated[list[int], typer.Option(help="Streams at once; repeatable.")] = [50],  # noqa: B006
    seconds: Annotated[float, typer.Option(help="How long new recordings are begun.")] = 60.0,
    record: RecordOption = None,
    small: SmallOption = False,
) -> None:
    """Measure a server."""
    if small:
        streams, seconds = [2], 0.1
    spoken = recordings(speech, 3 if small else 200)
    data = load_engine(EngineSource(model))
    transcriber = Transcriber(data)
    expected = []
    for rate, samples in spoken:
        one = transcriber.another(rate)
        one.feed(samples / np.float32(32768))
        expected.append(one.result().text)
    rows = []
    command = module_command("flows.cli", "serve", "--model", model, "--port", "0")
    with running([*command, "--max-streams", str(max(streams))]) as server:
        tree = [server.process.pid, *descendants(server.process.pid)]
        for number in streams:
            busy_s, began_s = sum(map(cpu_seconds, tree)), time.monotonic()
            answers = asyncio.run(speak_all(server.socket_url, spoken, number, seconds))
            busy_s = sum(map(cpu_seconds, tree)) - busy_s
            late = np.array([answer.late_s for _, answer in answers])
            right = [
                bool(answer.messages) and answer.last.get("text") == expected[at]
                for at, answer in answers
            ]
            rows.append(
                {
                    "Streams at once": number,
                    "Recordings": len(answers),
                    "As transcribe heard them": f"{np.mean(right):.1%}",
                    "Final hypothesis, s after the last sample: median": float(np.median(late)),
                    "95%": float(np.quantile(late, 0.95)),
                    "most": float(late.max()),
                    "Cores used by the server": busy_s / (time.monotonic() - began_s),
                }
            )
    publish(
        "Streams at once",
        [
            f"{model}; {len(spoken)} recordings, spoken in real time, 100 ms a message",
            f"{len(os.sched_getaffinity(0))} cores for the server and the clients together",
        ],
        {"How late the final hypothesis comes": markdown(rows)},
        ["numba", "numpy", "uvicorn", "websockets", "kaldi-decoder"],
        record,
    )


if __name__ == "__main__":
    sys.exit(typer.run(main))
