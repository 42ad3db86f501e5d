"""The synthetic corpus: read speech from eSpeak NG in LibriSpeech's or TIMIT's own layout.

Everything downstream reads it through the same readers as the real corpora. The same
configuration gives the same bytes (and modification times) whatever the number of processes: a
speaker is made by one worker from seeds of its own.
"""

import json
import logging
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from featurize.corpora.espeak import require_espeak
from featurize.corpora.grammar import Part
from featurize.corpora.synthetic_speakers import plan_speakers
from featurize.stage import Location, PipelineError, Progress, TypedConfig, available_cores
from spikeline_start import module_command

SAMPLE_RATE_HZ = 16_000
MARKER_NAME = "synthetic.json"

# Changes whenever the same configuration would give other speech.
_GENERATOR_VERSION = 2
SUBSETS: dict[Part, str] = {
    "train": "train-synthetic",
    "dev": "dev-synthetic",
    "test": "test-synthetic",
}
# A fixed modification time keeps the corpus digest the same when the corpus is made again.
MODIFIED_AT = 1_600_000_000

_WORKER_MODULE = "featurize.corpora.synthetic_worker"
_log = logging.getLogger(__name__)

Layout = Literal["librispeech", "timit"]


class SyntheticConfig(TypedConfig):
    """What determines a synthetic corpus."""

    layout: Layout = Field(
        default="librispeech",
        description="Folder layout to write, as LibriSpeech or TIMIT is distributed.",
    )
    minutes: float = Field(
        default=30.0,
        gt=0,
        le=60_000,
        description="Minutes of speech to write, over all speakers and subsets.",
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**31,
        description="Seed of sentences and voices: the same seed writes the same corpus.",
    )
    num_speakers: int = Field(
        default=40,
        ge=10,
        le=240,
        description="Speakers; eight tenths train, one tenth dev, one tenth test.",
    )
    noise_dbfs: float | None = Field(
        default=-60.0,
        ge=-96.0,
        le=-20.0,
        description="Level of added white noise, dB relative to full scale; null for none.",
    )


class SyntheticSummary(TypedConfig):
    """What a finished synthetic corpus holds; also the content of its marker file."""

    generator_version: int
    config: SyntheticConfig
    num_utterances: dict[str, int]
    minutes: dict[str, float]
    num_speakers: dict[str, int]


class SpeakerResult(TypedConfig):
    """What a worker says of one finished speaker."""

    index: int = Field(description="The speaker's position in the plan.")
    num_utterances: int = Field(description="How many utterances of this speaker were written.")
    num_samples: int = Field(description="Samples written, at 16 kHz.")


class WorkerOrder(TypedConfig):
    """What a worker reads from its standard input."""

    config: SyntheticConfig = Field(description="The corpus of which this worker writes a share.")
    folder: str = Field(description="Root folder below which the worker writes.")
    speakers: tuple[int, ...] = Field(description="Positions in the plan of this worker's share.")


def synthesize_corpus(
    target: Location | Path | str,
    config: SyntheticConfig,
    *,
    num_processes: int | None = None,
    progress: Progress | None = None,
) -> SyntheticSummary:
    """Write a synthetic corpus, or find that it is there already.

    The corpus appears whole or not at all: it is written beside the target and renamed.

    Args:
        target: the corpus root, a local path.
        config: with the layout ``librispeech`` the subsets are train-, dev- and test-synthetic;
            with ``timit`` they are TRAIN and TEST, whose dev and test speakers bear names from
            TIMIT's lists. Each speaker, a triple of voice, speed and pitch, has at least one
            sentence, whatever the minutes.
        num_processes: processes to fan out over; default: the cores this process may use.
        progress: called with (speakers done, speakers in all).

    Returns:
        The summary that stands in the corpus's marker file.

    Raises:
        PipelineError: when the target is not local, or holds something else.
    """
    root = Location.of(target)
    if not root.is_local:
        raise PipelineError(
            f"synthetic corpus {root}: write it to a local folder first, then copy it to S3"
        )
    final = Path(root.path)
    existing = _existing_summary(final, config)
    if existing is not None:
        return existing
    require_espeak()
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.with_name(f".{final.name}.{uuid.uuid4().hex}.partial")
    try:
        results = _run_workers(config, partial, num_processes, progress)
        summary = _summary(config, results)
        if config.layout == "librispeech":
            write_file(partial / "SPEAKERS.TXT", _speakers_file(config, results))
        write_file(partial / MARKER_NAME, summary.model_dump_json(indent=1) + "\n")
        _publish(partial, final, config)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    spoken = ", ".join(f"{name} {value:.1f} min" for name, value in summary.minutes.items())
    _log.debug("synthesised %s: %s", final, spoken)
    return summary


def _existing_summary(final: Path, config: SyntheticConfig) -> SyntheticSummary | None:
    """The summary of the corpus that stands there, None where nothing does."""
    if not final.exists() or (final.is_dir() and not any(final.iterdir())):
        return None
    marker = final / MARKER_NAME
    if not marker.is_file():
        raise PipelineError(
            f"{final} holds something that is not a synthetic corpus; choose another folder"
        )
    try:
        found = SyntheticSummary.model_validate_json(marker.read_bytes())
    except ValidationError as error:
        raise PipelineError(f"{marker} is damaged; remove {final} and run again") from error
    if found.config != config or found.generator_version != _GENERATOR_VERSION:
        differing = {
            name: value
            for name, value in found.config.model_dump().items()
            if value != getattr(config, name)
        } or {"generator_version": found.generator_version}
        raise PipelineError(
            f"{final} holds a synthetic corpus with other settings ({json.dumps(differing)}); "
            "choose another folder, or remove it"
        )
    return found


def _publish(partial: Path, final: Path, config: SyntheticConfig) -> None:
    try:
        if final.is_dir():
            final.rmdir()  # _existing_summary saw that it is empty
        partial.rename(final)
    except OSError as error:
        # Another process may have been faster; the same corpus is as good as ours.
        if _existing_summary(final, config) is None:
            raise PipelineError(f"cannot put the corpus at {final}: {error}") from error


def _run_workers(
    config: SyntheticConfig, folder: Path, num_processes: int | None, progress: Progress | None
) -> list[SpeakerResult]:
    """Synthesise all speakers in fresh processes, in which eSpeak starts from its initial state.

    Plain subprocesses, not ``multiprocessing``: that would import the caller's main module, here
    the whole command line, in every one of them.
    """
    folder.mkdir()
    num_workers = min(num_processes or available_cores(), config.num_speakers)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    lines: queue.Queue[str | None] = queue.Queue()
    results: list[SpeakerResult] = []
    workers: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryFile("w+") as errors:
        try:
            for share in range(num_workers):
                worker = subprocess.Popen(
                    module_command(_WORKER_MODULE),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=environment,
                    text=True,
                )
                workers.append(worker)
                order = WorkerOrder(
                    config=config,
                    folder=str(folder),
                    speakers=tuple(range(share, config.num_speakers, num_workers)),
                )
                threading.Thread(target=_converse, args=(worker, order, lines), daemon=True).start()
            for line in _lines_of_all(lines, num_workers):
                results.append(SpeakerResult.model_validate_json(line))
                if progress is not None:
                    progress(len(results), config.num_speakers)
            codes = [worker.wait() for worker in workers]
            if any(codes) or len(results) != config.num_speakers:
                errors.seek(0)
                raise RuntimeError(
                    f"speech synthesis failed (exit {codes}): {errors.read()[-2000:]}"
                )
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    return sorted(results, key=lambda result: result.index)


def _converse(
    worker: subprocess.Popen[str], order: WorkerOrder, lines: "queue.Queue[str | None]"
) -> None:
    """Send a worker its order and pass on what it says, then None."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        with worker.stdin as stream:
            stream.write(order.model_dump_json())
        for line in worker.stdout:
            lines.put(line)
    except (OSError, ValueError) as error:  # it has ended; its exit code says how
        _log.debug("a synthesis worker has ended: %s", error)
    finally:
        lines.put(None)


def _lines_of_all(lines: "queue.Queue[str | None]", num_workers: int) -> Iterator[str]:
    num_open = num_workers
    while num_open:
        line = lines.get()
        if line is None:
            num_open -= 1
        else:
            yield line


def write_file(path: Path, content: bytes | str) -> None:
    """Write one file of the corpus, with the corpus's fixed modification time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("ascii") if isinstance(content, str) else content)
    os.utime(path, (MODIFIED_AT, MODIFIED_AT))


def _speakers_file(config: SyntheticConfig, results: Sequence[SpeakerResult]) -> str:
    lines = [
        "; Speakers of a synthetic corpus: eSpeak NG voices.\n",
        ";ID    | SEX | SUBSET           | MINUTES | NAME\n",
    ]
    speakers = plan_speakers(config.num_speakers, config.seed)
    for speaker, result in zip(speakers, results, strict=True):
        name = f"eSpeak {speaker.voice} {speaker.rate_wpm} wpm, pitch {speaker.pitch}"
        minutes = result.num_samples / SAMPLE_RATE_HZ / 60
        lines.append(
            f"{speaker.librispeech_id:6} | {speaker.sex} | {SUBSETS[speaker.part]:16} | "
            f"{minutes:.2f} | {name}\n"
        )
    return "".join(lines)


def _summary(config: SyntheticConfig, results: Sequence[SpeakerResult]) -> SyntheticSummary:
    num_utterances = dict.fromkeys(SUBSETS, 0)
    num_samples = dict.fromkeys(SUBSETS, 0)
    num_speakers = dict.fromkeys(SUBSETS, 0)
    speakers = plan_speakers(config.num_speakers, config.seed)
    for speaker, result in zip(speakers, results, strict=True):
        num_utterances[speaker.part] += result.num_utterances
        num_samples[speaker.part] += result.num_samples
        num_speakers[speaker.part] += 1

    def named(part: Part) -> str:
        return SUBSETS[part] if config.layout == "librispeech" else part

    return SyntheticSummary(
        generator_version=_GENERATOR_VERSION,
        config=config,
        num_utterances={named(part): count for part, count in num_utterances.items()},
        minutes={
            named(part): round(count / SAMPLE_RATE_HZ / 60, 3)
            for part, count in num_samples.items()
        },
        num_speakers={named(part): count for part, count in num_speakers.items()},
    )
