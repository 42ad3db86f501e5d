"""Phones and their times from Praat TextGrids, as the Montreal Forced Aligner writes them.

One file per utterance, ``UTTERANCE_ID.TextGrid`` at any depth below a folder, with a tier of phones
named ``phones`` or ending in ``- phones``. Stress digits are dropped; the aligner's names of
silence, and intervals without a name, are silence. A row gets what is said at the centre of its
middle frame; where the file ends before the audio, the last interval goes on.

Files are untrusted: of bounded size, every interval checked, and whatever is wrong with one makes
that utterance a reject with the reason.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from praatio.utilities import textgrid_io

from featurize.schema import FeatureRow, FeaturizeManifest
from featurize.stage import Location, PipelineError
from training.align.outcome import AlignedLabels, Unaligned
from training.align.stacking import first_centre_s

SUFFIX = ".TextGrid"
MAX_BYTES = 4 * 2**20
MAX_FILES = 2_000_000
DURATION_TOLERANCE_S = 0.1
_SILENCES = frozenset({"", "sil", "sp", "<eps>"})
_UNKNOWN = "spn"


@dataclass(frozen=True)
class Interval:
    """A phone in time: symbol id, and where it ends, seconds."""

    phone: int
    end_s: float


class BadTextGrid(Exception):
    """A file that says nothing usable of its utterance; the message says why."""


class TextGrids:
    """The TextGrids of a feature set's utterances.

    Args:
        folder: where they are, at any depth.
        symbols: of the aligned feature set.
    """

    def __init__(
        self, folder: Location, manifest: FeaturizeManifest, symbols: tuple[str, ...], silence: str
    ) -> None:
        self._files = list_textgrids(folder)
        self._ids = {symbol.upper(): number for number, symbol in enumerate(symbols)}
        self._silence = self._ids[silence.upper()]
        self._shift_s = manifest.frame_shift_s
        self._first_centre_s = first_centre_s(manifest)
        self._sample_rate_hz = manifest.sample_rate_hz

    def __call__(self, row: FeatureRow) -> AlignedLabels | Unaligned:
        """Read an utterance's file; unaligned where it is missing or unusable."""
        file = self._files.get(row.utterance_id)
        if file is None:
            return Unaligned("missing_alignment", f"no {row.utterance_id}{SUFFIX}")
        try:
            return self._read(row, file)
        except BadTextGrid as problem:
            return Unaligned("bad_alignment", str(problem))

    def _read(self, row: FeatureRow, file: Location) -> AlignedLabels:
        intervals = self._intervals(file)
        audio_s = row.num_samples / self._sample_rate_hz
        if abs(intervals[-1].end_s - audio_s) > DURATION_TOLERANCE_S:
            raise BadTextGrid(
                f"{file.name} lasts {intervals[-1].end_s:.2f} s, the audio {audio_s:.2f} s"
            )
        ids = np.array([interval.phone for interval in intervals], np.int32)
        ends = np.array([interval.end_s for interval in intervals])
        centres = self._first_centre_s + self._shift_s * np.arange(len(row.features))
        number = np.searchsorted(ends, centres, side="right")
        # Two silences in a row are one; two equal phones are two.
        is_kept = np.ones(len(ids), bool)
        is_kept[1:] = (ids[1:] != self._silence) | (ids[:-1] != self._silence)
        return AlignedLabels(ids[is_kept], ids[np.minimum(number, len(ids) - 1)], 0.0)

    def _intervals(self, file: Location) -> list[Interval]:
        found: list[Interval] = []
        for start, end, name in read_phone_tier(file):
            last_end = found[-1].end_s if found else 0.0
            if not (math.isfinite(start) and math.isfinite(end) and start < end):
                raise BadTextGrid(f"{file.name}: an interval from {start} to {end}")
            if start < last_end - 1e-4:
                raise BadTextGrid(f"{file.name}: an interval at {start} overlaps the one before")
            if start > last_end + 1e-4:
                found.append(Interval(self._silence, start))
            found.append(Interval(self._phone(file, name), end))
        if not found:
            raise BadTextGrid(f"{file.name}: the tier of phones is empty")
        return found

    def _phone(self, file: Location, name: str) -> int:
        bare = name.strip().rstrip("012")
        if bare.lower() in _SILENCES or (bare == _UNKNOWN and _UNKNOWN.upper() not in self._ids):
            return self._silence
        number = self._ids.get(bare.upper())
        if number is None:
            raise BadTextGrid(f"{file.name}: {name[:20]!r} is no phone of the feature set")
        return number


def read_phone_tier(file: Location) -> list[tuple[float, float, str]]:
    """Start and end, seconds, and name of each interval of the tier of phones.

    Raises:
        BadTextGrid: when the file is too large or not a TextGrid with such a tier.
    """
    with file.open_read() as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise BadTextGrid(f"{file.name} is larger than {MAX_BYTES} bytes")
    try:
        text = content.decode(
            "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        )
        tiers = textgrid_io.parseTextgridStr(text, includeEmptyIntervals=True)["tiers"]
        named = [t for t in tiers if str(t["name"]).split("- ")[-1].strip() == "phones"]
        if len(named) != 1:
            raise BadTextGrid(f"{file.name} has {len(named)} tiers of phones, not one")
        return [(float(start), float(end), str(name)) for start, end, name in named[0]["entries"]]
    except BadTextGrid:
        raise
    # A parser of free text fails in as many ways as there are texts.
    except Exception as error:
        raise BadTextGrid(f"{file.name} is not a TextGrid ({type(error).__name__})") from error


def list_textgrids(folder: Location) -> dict[str, Location]:
    """Utterance id to file, for all files below a folder."""
    if not folder.is_dir():
        raise PipelineError(f"align.textgrids={folder}: no such folder")
    found: dict[str, Location] = {}
    for name in folder.files():
        if not name.endswith(SUFFIX):
            continue
        utterance_id = name.rsplit("/", 1)[-1].removesuffix(SUFFIX)
        if utterance_id in found:
            raise PipelineError(
                f"align.textgrids={folder}: {utterance_id}{SUFFIX} is there twice; keep one"
            )
        found[utterance_id] = folder.child(name)
        if len(found) > MAX_FILES:
            raise PipelineError(f"align.textgrids={folder}: more than {MAX_FILES} files")
    if not found:
        raise PipelineError(f"align.textgrids={folder}: no {SUFFIX} files there")
    return found


def textgrids_digest(folder: Location) -> str:
    """SHA-256 over names and contents, for the fingerprint of what is made from them."""
    digest = hashlib.sha256()
    for utterance_id, file in sorted(list_textgrids(folder).items()):
        digest.update(utterance_id.encode() + b"\0")
        with file.open_read() as stream:
            digest.update(hashlib.sha256(stream.read(MAX_BYTES + 1)).digest())
    return digest.hexdigest()
