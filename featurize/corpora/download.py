"""Fetching subsets of LibriSpeech, through torchaudio, which knows their checksums."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from featurize.corpora.librispeech import SPEAKERS_FILE
from featurize.stage import Location, PipelineError, held_lease

SUBSETS = (
    *("dev-clean", "dev-other", "test-clean", "test-other"),
    *("train-clean-100", "train-clean-360", "train-other-500"),
)
_FOLDER = "LibriSpeech"


def download_librispeech(target: Location, subsets: Sequence[str]) -> tuple[Location, list[str]]:
    """Fetch subsets into ``TARGET/LibriSpeech``; those that are there already are left alone.

    A subset appears when its archive has the right SHA-256 and is unpacked.

    Args:
        subsets: of :data:`SUBSETS`.

    Returns:
        The corpus root, and the subsets that were fetched now.
    """
    if not target.is_local:
        raise PipelineError(f"{target}: download to a local folder, then copy it to S3")
    for subset in subsets:
        if subset not in SUBSETS:
            raise PipelineError(f"LibriSpeech has no subset {subset!r}: {', '.join(SUBSETS)}")
    root = Path(target.path, _FOLDER)
    fetched = []
    with held_lease(target.child(_FOLDER)):
        for subset in dict.fromkeys(subsets):
            if not (root / subset).is_dir():
                _fetch(root, subset)
                fetched.append(subset)
    return Location.of(root), fetched


def _fetch(root: Path, subset: str) -> None:
    from torchaudio.datasets import LIBRISPEECH

    # torchaudio takes a folder that is there for a whole one, hence a folder of its own: what an
    # interrupted unpacking left is removed, the archive, which appears when it is whole, is kept.
    partial = root.with_name(f".{subset}.partial")
    unpacked = partial / _FOLDER
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        LIBRISPEECH(partial, url=subset, folder_in_archive=_FOLDER, download=True)
        root.mkdir(exist_ok=True)
        for file in unpacked.iterdir():
            if file.is_file() and (file.name == SPEAKERS_FILE or not (root / file.name).exists()):
                shutil.move(file, root / file.name)
        (unpacked / subset).rename(root / subset)
    except (OSError, RuntimeError, EOFError) as error:
        raise PipelineError(f"cannot fetch {subset}: {error}; try again later") from error
    shutil.rmtree(partial)
