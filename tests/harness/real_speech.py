"""Real speech, where LIBRISPEECH_ROOT names a folder of it."""

import os
import shutil
from collections import defaultdict
from pathlib import Path

import pytest


def subset_folder(subset: str) -> Path:
    """A subset's folder; the test is skipped where there is none."""
    root = os.environ.get("LIBRISPEECH_ROOT")
    if not root or not Path(root, subset).is_dir():
        pytest.skip(f"LIBRISPEECH_ROOT names no folder with {subset}, real speech")
    return Path(root, subset)


def recordings(subset: str, per_speaker: int) -> list[Path]:
    """The shortest recordings of every speaker, in order of their names."""
    of_speakers = defaultdict(list)
    for path in subset_folder(subset).rglob("*.flac"):
        of_speakers[path.parent.parent.name].append(path)
    chosen = [
        path
        for paths in of_speakers.values()
        for path in sorted(paths, key=lambda p: (p.stat().st_size, p.name))[:per_speaker]
    ]
    return sorted(chosen)


def transcripts(subset: str) -> dict[str, list[str]]:
    """Words of every utterance."""
    found = {}
    for file in subset_folder(subset).rglob("*.trans.txt"):
        for line in file.read_text().splitlines():
            name, *words = line.split()
            found[name] = words
    return found


def small_corpus(folder: Path, per_speaker: dict[str, int]) -> Path:
    """A LibriSpeech of the shortest recordings of each speaker, so many of each subset."""
    for subset, num in per_speaker.items():
        words = transcripts(subset)
        for path in recordings(subset, num):
            chapter = folder / subset / path.parent.parent.name / path.parent.name
            chapter.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, chapter)
            name = f"{path.parent.parent.name}-{path.parent.name}.trans.txt"
            with (chapter / name).open("a") as file:
                file.write(f"{path.stem} {' '.join(words[path.stem])}\n")
    shutil.copy(subset_folder(subset).parent / "SPEAKERS.TXT", folder)
    return folder
