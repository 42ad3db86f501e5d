"""One process of the synthesis: ``python -m featurize.corpora.synthetic_worker``.

It reads its order from standard input and prints one line of JSON per finished speaker.
"""

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from featurize.corpora.espeak import SAMPLE_RATE_HZ as ESPEAK_RATE_HZ
from featurize.corpora.espeak import EspeakVoice, Speech, SpokenSegment
from featurize.corpora.grammar import draw_sentence, transcript
from featurize.corpora.synthetic import (
    SAMPLE_RATE_HZ,
    SUBSETS,
    SpeakerResult,
    SyntheticConfig,
    WorkerOrder,
    write_file,
)
from featurize.corpora.synthetic_speakers import SyntheticSpeaker, plan_speakers
from featurize.resampling import resample

_UTTERANCES_PER_CHAPTER = 100


@dataclass(frozen=True)
class _Utterance:
    """One utterance at 16 kHz: (num_samples,) int16, with phones and words on its clock."""

    samples: NDArray[np.int16]
    sentence: str
    phones: tuple[SpokenSegment, ...]
    words: tuple[SpokenSegment, ...]


def synthesize_speaker(
    config: SyntheticConfig, speaker: SyntheticSpeaker, folder: Path
) -> SpeakerResult:
    """Read sentences in one voice until the speaker's share of the minutes is full."""
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
                write(folder, speaker, num_written, utterances)
                num_written += len(utterances)
                utterances.clear()
    return SpeakerResult(index=speaker.index, num_utterances=num_written, num_samples=num_samples)


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

    def moved(segments: Sequence[SpokenSegment]) -> list[SpokenSegment]:
        def at(sample: int) -> int:
            return lead + round(sample * SAMPLE_RATE_HZ / ESPEAK_RATE_HZ)

        return [SpokenSegment(at(start), at(end), name) for start, end, name in segments]

    phones = moved(speech.phones)
    # eSpeak itself begins or ends in silence with some phones only.
    if phones[0].name == "h#":
        del phones[0]
    if phones[-1].name == "h#":
        del phones[-1]
    phones.insert(0, SpokenSegment(0, phones[0].start_sample, "h#"))
    phones.append(SpokenSegment(phones[-1].end_sample, len(samples), "h#"))
    return _Utterance(samples, sentence, tuple(phones), tuple(moved(speech.words)))


def _write_librispeech(
    root: Path, speaker: SyntheticSpeaker, first: int, utterances: Sequence[_Utterance]
) -> None:
    """Write one chapter of a speaker: FLAC and ``.PHN`` files and the chapter's transcript."""
    chapter = str(100_000 + 100 * speaker.index + first // _UTTERANCES_PER_CHAPTER)
    prefix = f"{speaker.librispeech_id}-{chapter}"
    folder = root / SUBSETS[speaker.part] / speaker.librispeech_id / chapter
    lines = []
    for number, utterance in enumerate(utterances):
        name = f"{prefix}-{number:04d}"
        _write_audio(folder / f"{name}.flac", utterance.samples, "FLAC")
        write_file(folder / f"{name}.PHN", _segment_lines(utterance.phones))
        lines.append(f"{name} {transcript(utterance.sentence)}\n")
    write_file(folder / f"{prefix}.trans.txt", "".join(lines))


def _write_timit(
    root: Path, speaker: SyntheticSpeaker, first: int, utterances: Sequence[_Utterance]
) -> None:
    """Write a speaker's utterances as SI sentences: RIFF, phones, words and text."""
    part = "TRAIN" if speaker.part == "train" else "TEST"
    folder = root / part / speaker.region / speaker.timit_id
    for number, utterance in enumerate(utterances, start=first + 1):
        base = folder / f"SI{number}"
        _write_audio(base.with_suffix(".WAV"), utterance.samples, "WAV")
        write_file(base.with_suffix(".PHN"), _segment_lines(utterance.phones))
        write_file(base.with_suffix(".WRD"), _segment_lines(utterance.words))
        text = utterance.sentence.capitalize()
        write_file(base.with_suffix(".TXT"), f"0 {len(utterance.samples)} {text}.\n")


def _segment_lines(segments: Sequence[SpokenSegment]) -> str:
    return "".join(f"{start} {end} {name}\n" for start, end, name in segments)


def _write_audio(path: Path, samples: NDArray[np.int16], container: str) -> None:
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, SAMPLE_RATE_HZ, subtype="PCM_16", format=container)
    write_file(path, encoded.getvalue())


def main() -> None:
    """Carry out the order on standard input."""
    order = WorkerOrder.model_validate_json(sys.stdin.read())
    speakers = plan_speakers(order.config.num_speakers, order.config.seed)
    for index in order.speakers:
        result = synthesize_speaker(order.config, speakers[index], Path(order.folder))
        sys.stdout.write(result.model_dump_json() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
