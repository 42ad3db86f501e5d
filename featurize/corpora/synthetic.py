"""The synthetic corpus: read speech from eSpeak NG in LibriSpeech's or TIMIT's own layout.

Everything downstream reads it through the same readers as the real corpora. The same
configuration gives the same bytes (and modification times) whatever the number of processes: a
speaker is made by one job from seeds of its own.
"""

import io
import json
import logging
import multiprocessing
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from featurize.corpora.espeak import SAMPLE_RATE_HZ as ESPEAK_RATE_HZ
from featurize.corpora.espeak import EspeakVoice, Segment, Speech
from featurize.corpora.grammar import Part, draw_sentence, transcript
from featurize.corpora.synthetic_speakers import SyntheticSpeaker, plan_speakers
from featurize.errors import PipelineError
from featurize.locations import Location
from featurize.resampling import resample
from featurize.typed_config import TypedConfig

SAMPLE_RATE_HZ = 16_000
MARKER_NAME = "synthetic.json"

# Changes whenever the same configuration would give other speech.
_GENERATOR_VERSION = 2
_SUBSETS: dict[Part, str] = {
    "train": "train-synthetic",
    "dev": "dev-synthetic",
    "test": "test-synthetic",
}
_UTTERANCES_PER_CHAPTER = 100
# A fixed modification time keeps the corpus digest the same when the corpus is made again.
_MODIFIED_AT = 1_600_000_000

_log = logging.getLogger(__name__)

Layout = Literal["librispeech", "timit"]
Progress = Callable[[int, int], None]


class SyntheticConfig(TypedConfig):
    """What determines a synthetic corpus."""

    layout: Layout = Field(default="librispeech", description="The folder layout to write.")
    minutes: float = Field(default=30.0, gt=0, le=60_000, description="Minutes of audio.")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of sentences and voices.")
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


@dataclass(frozen=True)
class _Job:
    config: SyntheticConfig
    speaker: SyntheticSpeaker
    folder: str


@dataclass(frozen=True)
class _SpeakerResult:
    speaker: SyntheticSpeaker
    num_utterances: int
    num_samples: int


@dataclass(frozen=True)
class _Utterance:
    """One utterance at 16 kHz: (num_samples,) int16, with phones and words on its clock."""

    samples: NDArray[np.int16]
    sentence: str
    phones: tuple[Segment, ...]
    words: tuple[Segment, ...]


def synthesize_corpus(
    target: Location | Path | str,
    layout: Layout = "librispeech",
    minutes: float = 30.0,
    seed: int = 0,
    *,
    num_speakers: int = 40,
    noise_dbfs: float | None = -60.0,
    num_processes: int | None = None,
    progress: Progress | None = None,
) -> SyntheticSummary:
    """Write a synthetic corpus, or find that it is there already.

    The corpus appears whole or not at all: it is written beside the target and renamed.

    Args:
        target: the corpus root, a local path.
        layout: ``librispeech`` writes the subsets train-, dev- and test-synthetic; ``timit``
            writes TRAIN and TEST, whose dev and test speakers bear names from TIMIT's lists.
        minutes: of audio over all speakers; each speaker has at least one sentence.
        seed: of everything that is drawn.
        num_speakers: (voice, speed, pitch) triples.
        noise_dbfs: level of added white noise, None for none.
        num_processes: processes to fan out over; default: the cores this process may use.
        progress: called with (speakers done, speakers in all).

    Returns:
        The summary that stands in the corpus's marker file.

    Raises:
        PipelineError: when the arguments are out of range, or the target holds something else.
    """
    config = _config(layout, minutes, seed, num_speakers, noise_dbfs)
    root = Location.of(target)
    if not root.is_local:
        raise PipelineError(
            f"synthetic corpus {root}: write it to a local folder first, then copy it to S3"
        )
    final = Path(root.path)
    existing = _existing_summary(final, config)
    if existing is not None:
        return existing
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.with_name(f".{final.name}.{uuid.uuid4().hex}.partial")
    try:
        results = _run_jobs(config, partial, num_processes, progress)
        summary = _summary(config, results)
        if config.layout == "librispeech":
            _write(partial / "SPEAKERS.TXT", _speakers_file(results))
        _write(partial / MARKER_NAME, summary.model_dump_json(indent=1) + "\n")
        _publish(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _log.info("synthesised %s: %s", final, summary.minutes)
    return summary


def _config(
    layout: Layout, minutes: float, seed: int, num_speakers: int, noise_dbfs: float | None
) -> SyntheticConfig:
    try:
        return SyntheticConfig(
            layout=layout,
            minutes=minutes,
            seed=seed,
            num_speakers=num_speakers,
            noise_dbfs=noise_dbfs,
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise PipelineError(f"synthetic corpus: {field}: {first['msg']}") from error


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


def _publish(partial: Path, final: Path) -> None:
    if final.is_dir():
        final.rmdir()  # _existing_summary saw that it is empty
    try:
        partial.rename(final)
    except OSError as error:
        raise PipelineError(f"{final} appeared while it was being written; run again") from error


def _run_jobs(
    config: SyntheticConfig, folder: Path, num_processes: int | None, progress: Progress | None
) -> list[_SpeakerResult]:
    """Synthesise all speakers in fresh processes, whose eSpeak state nobody else has touched."""
    jobs = [
        _Job(config, speaker, str(folder))
        for speaker in plan_speakers(config.num_speakers, config.seed)
    ]
    workers = min(num_processes or len(os.sched_getaffinity(0)), len(jobs))
    context = multiprocessing.get_context("spawn")
    results = []
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(_synthesize_speaker, job) for job in jobs]
        try:
            for future in as_completed(futures):
                results.append(future.result())
                if progress is not None:
                    progress(len(results), len(jobs))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return sorted(results, key=lambda result: result.speaker.index)


def _synthesize_speaker(job: _Job) -> _SpeakerResult:
    """Read sentences in one voice until the speaker's share of the minutes is full."""
    config, speaker = job.config, job.speaker
    rng = np.random.default_rng([config.seed, 1, speaker.index])
    budget = config.minutes * 60 * SAMPLE_RATE_HZ / config.num_speakers
    write = _write_librispeech if config.layout == "librispeech" else _write_timit
    num_samples = 0
    utterances: list[_Utterance] = []
    num_written = 0
    with EspeakVoice(
        speaker.voice,
        rate_wpm=speaker.rate_wpm,
        pitch=speaker.pitch,
        pitch_range=speaker.pitch_range,
        seed=int(rng.integers(2**31)),
    ) as voice:
        while num_samples < budget:
            sentence = draw_sentence(rng, speaker.part)
            utterance = _make_utterance(voice.say(sentence), sentence, config, rng)
            num_samples += len(utterance.samples)
            utterances.append(utterance)
            if len(utterances) == _UTTERANCES_PER_CHAPTER or num_samples >= budget:
                write(Path(job.folder), speaker, num_written, utterances)
                num_written += len(utterances)
                utterances.clear()
    return _SpeakerResult(speaker, num_written, num_samples)


def _make_utterance(
    speech: Speech, sentence: str, config: SyntheticConfig, rng: np.random.Generator
) -> _Utterance:
    """Resample, put silence at the ends, vary the level, add noise, and move the times along."""
    lead, trail = (int(n) for n in rng.integers(1_600, 4_000, size=2))
    gain = float(rng.uniform(0.45, 0.85))
    spoken = resample(speech.samples.astype(np.float32), ESPEAK_RATE_HZ, SAMPLE_RATE_HZ)
    audio = np.concatenate([np.zeros(lead, np.float32), gain * spoken, np.zeros(trail, np.float32)])
    if config.noise_dbfs is not None:
        noise_rms = 32_768 * 10 ** (config.noise_dbfs / 20)
        audio += noise_rms * rng.standard_normal(len(audio), dtype=np.float32)
    samples = np.clip(np.rint(audio), -32_768, 32_767).astype(np.int16)

    def moved(segments: Sequence[Segment]) -> list[Segment]:
        def at(sample: int) -> int:
            return lead + round(sample * SAMPLE_RATE_HZ / ESPEAK_RATE_HZ)

        return [Segment(at(start), at(end), name) for start, end, name in segments]

    phones = moved(speech.phones)
    # eSpeak itself begins or ends in silence with some phones only.
    if phones[0].name == "h#":
        del phones[0]
    if phones[-1].name == "h#":
        del phones[-1]
    phones.insert(0, Segment(0, phones[0].start_sample, "h#"))
    phones.append(Segment(phones[-1].end_sample, len(samples), "h#"))
    return _Utterance(samples, sentence, tuple(phones), tuple(moved(speech.words)))


def _write_librispeech(
    root: Path, speaker: SyntheticSpeaker, first: int, utterances: Sequence[_Utterance]
) -> None:
    """Write one chapter of a speaker: FLAC and ``.PHN`` files and the chapter's transcript."""
    chapter = str(100_000 + 100 * speaker.index + first // _UTTERANCES_PER_CHAPTER)
    prefix = f"{speaker.librispeech_id}-{chapter}"
    folder = root / _SUBSETS[speaker.part] / speaker.librispeech_id / chapter
    lines = []
    for number, utterance in enumerate(utterances):
        name = f"{prefix}-{number:04d}"
        _write_audio(folder / f"{name}.flac", utterance.samples, "FLAC")
        _write(folder / f"{name}.PHN", _segment_lines(utterance.phones))
        lines.append(f"{name} {transcript(utterance.sentence)}\n")
    _write(folder / f"{prefix}.trans.txt", "".join(lines))


def _write_timit(
    root: Path, speaker: SyntheticSpeaker, first: int, utterances: Sequence[_Utterance]
) -> None:
    """Write a speaker's utterances as SI sentences: RIFF, phones, words and text."""
    part = "TRAIN" if speaker.part == "train" else "TEST"
    folder = root / part / speaker.region / speaker.timit_id
    for number, utterance in enumerate(utterances, start=first + 1):
        base = folder / f"SI{number}"
        _write_audio(base.with_suffix(".WAV"), utterance.samples, "WAV")
        _write(base.with_suffix(".PHN"), _segment_lines(utterance.phones))
        _write(base.with_suffix(".WRD"), _segment_lines(utterance.words))
        text = utterance.sentence.capitalize()
        _write(base.with_suffix(".TXT"), f"0 {len(utterance.samples)} {text}.\n")


def _segment_lines(segments: Sequence[Segment]) -> str:
    return "".join(f"{start} {end} {name}\n" for start, end, name in segments)


def _write_audio(path: Path, samples: NDArray[np.int16], container: str) -> None:
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, SAMPLE_RATE_HZ, subtype="PCM_16", format=container)
    _write(path, encoded.getvalue())


def _write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("ascii") if isinstance(content, str) else content)
    os.utime(path, (_MODIFIED_AT, _MODIFIED_AT))


def _speakers_file(results: Sequence[_SpeakerResult]) -> str:
    lines = [
        "; Speakers of a synthetic corpus: eSpeak NG voices.\n",
        ";ID    | SEX | SUBSET           | MINUTES | NAME\n",
    ]
    for result in results:
        speaker = result.speaker
        name = f"eSpeak {speaker.voice} {speaker.rate_wpm} wpm, pitch {speaker.pitch}"
        minutes = result.num_samples / SAMPLE_RATE_HZ / 60
        lines.append(
            f"{speaker.librispeech_id:6} | {speaker.sex} | {_SUBSETS[speaker.part]:16} | "
            f"{minutes:.2f} | {name}\n"
        )
    return "".join(lines)


def _summary(config: SyntheticConfig, results: Sequence[_SpeakerResult]) -> SyntheticSummary:
    num_utterances = dict.fromkeys(_SUBSETS, 0)
    num_samples = dict.fromkeys(_SUBSETS, 0)
    num_speakers = dict.fromkeys(_SUBSETS, 0)
    for result in results:
        num_utterances[result.speaker.part] += result.num_utterances
        num_samples[result.speaker.part] += result.num_samples
        num_speakers[result.speaker.part] += 1

    def named(part: Part) -> str:
        return _SUBSETS[part] if config.layout == "librispeech" else part

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
