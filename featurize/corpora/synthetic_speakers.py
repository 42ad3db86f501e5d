"""Who speaks in the synthetic corpus: voices, speeds and pitches, and the part each belongs to."""

from dataclasses import dataclass
from string import ascii_uppercase
from typing import Literal

import numpy as np

from featurize.corpora.grammar import Part
from featurize.corpora.timit_speakers import CORE_TEST_SPEAKERS, DEV_SPEAKERS

Sex = Literal["M", "F"]

# Variants without echo (an echo fills the closures) and without Klatt synthesis (it buzzes).
_VARIANTS: dict[Sex, tuple[str, ...]] = {
    "M": ("m1", "m3", "m4", "m6", "m7", "robert"),
    "F": ("f1", "belinda", "steph", "Annie", "linda", "Andrea"),
}


@dataclass(frozen=True)
class SyntheticSpeaker:
    """One speaker: a triple of voice, speed and pitch that no other speaker has."""

    index: int  # position in the plan, from 0
    sex: Sex
    part: Part  # train, dev or test; a speaker belongs to one
    librispeech_id: str  # the speaker's number, above all of LibriSpeech's own
    # sex and four characters. Those of dev and test speakers are taken from TIMIT's standard lists,
    # so that the TIMIT reader finds them; others are in neither list.
    timit_id: str
    region: str  # the TIMIT folder of the speaker, DR1 to DR8
    voice: str  # eSpeak's voice and variant
    rate_wpm: int
    pitch: int  # eSpeak's pitch, 0 to 99
    pitch_range: int  # eSpeak's pitch range, 0 to 99


def plan_speakers(num_speakers: int, seed: int) -> tuple[SyntheticSpeaker, ...]:
    """Draw the speakers of a corpus: eight tenths train, one tenth dev, one tenth test.

    Men and women alternate, so that each part has both.
    """
    rng = np.random.default_rng([seed, 0])
    order: dict[Sex, list[str]] = {
        sex: [variants[i] for i in rng.permutation(len(variants))]
        for sex, variants in _VARIANTS.items()
    }
    num_held_out = max(1, num_speakers // 10)
    timit_ids = _TimitIds()
    taken: set[tuple[str, int, int]] = set()
    speakers = []
    for index in range(num_speakers):
        sex: Sex = "M" if index % 2 == 0 else "F"
        # Held-out speakers come first: adding speakers to a plan then adds training speakers.
        part: Part = (
            "dev" if index < num_held_out else "test" if index < 2 * num_held_out else "train"
        )
        variants = order[sex]
        variant = variants[index // 2 % len(variants)]
        while True:
            rate_wpm, pitch = int(rng.integers(145, 186)), int(rng.integers(35, 66))
            if (variant, rate_wpm, pitch) not in taken:
                break
        taken.add((variant, rate_wpm, pitch))
        speakers.append(
            SyntheticSpeaker(
                index=index,
                sex=sex,
                part=part,
                librispeech_id=str(10_001 + index),
                timit_id=timit_ids.next(sex, part),
                region=f"DR{1 + index % 8}",
                voice=f"en-us+{variant}",
                rate_wpm=rate_wpm,
                pitch=pitch,
                pitch_range=int(rng.integers(35, 66)),
            )
        )
    return tuple(speakers)


class _TimitIds:
    """Hands out TIMIT speaker names, each once."""

    def __init__(self) -> None:
        self._listed = {"dev": list(DEV_SPEAKERS), "test": list(CORE_TEST_SPEAKERS)}
        self._num_train = 0

    def next(self, sex: Sex, part: Part) -> str:
        if part != "train":
            names = self._listed[part]
            # The lists hold fewer women than a large plan may want: then any name serves.
            name = next((name for name in names if name[0] == sex), names[0])
            names.remove(name)
            return name
        standard = {*DEV_SPEAKERS, *CORE_TEST_SPEAKERS}
        while True:
            high, low = divmod(self._num_train, 26)
            self._num_train += 1
            name = f"{sex}S{ascii_uppercase[high % 26]}{ascii_uppercase[low]}{high // 26}"
            if name not in standard:
                return name
