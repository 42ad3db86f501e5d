"""Kaldi data folders: ``wav.scp``, ``text``, ``utt2spk`` and, where there are any, ``segments``.

The root is a folder of data folders (``data`` of a recipe), whose names are the subsets, or one
data folder. A command in ``wav.scp`` is not run: of ``flac -c -d -s FILE |`` the file is read, any
other is refused.
"""

import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath

from pydantic import ValidationError

from featurize.corpora.entry import CorpusListing
from featurize.corpora.registry import reader_of_subsets
from featurize.corpora.stated import StatedCorpus, StatedUtterance, first_fault, require_subsets
from featurize.stage import Location, PipelineError

_RECORDINGS, _TEXT, _SPEAKERS, _SEGMENTS = "wav.scp", "text", "utt2spk", "segments"


def data_folders(root: Location) -> dict[str, Location]:
    """Data folders at a root, by name."""
    folders = {
        folder.name: folder
        for folder in (root, *root.children())
        if folder.child(_RECORDINGS).exists() and folder.child(_TEXT).exists()
    }
    if not folders:
        raise PipelineError(
            f"{root} is neither a Kaldi data folder nor a folder of them: no {_RECORDINGS} with "
            f"a {_TEXT} beside it"
        )
    return folders


def scan(root: Location, subsets: Sequence[str]) -> CorpusListing:
    """List the utterances of some data folders.

    Args:
        root: a data folder or the folder above, local or on S3.
    """
    folders = data_folders(root)
    corpus = StatedCorpus(root, subsets)
    require_subsets(root, corpus.subsets, folders)
    for subset in corpus.subsets:
        _scan_folder(corpus, subset, folders[subset])
    return corpus.listing()


def _scan_folder(corpus: StatedCorpus, subset: str, folder: Location) -> None:
    recordings = _table(corpus, folder.child(_RECORDINGS))
    texts = _table(corpus, folder.child(_TEXT), may_be_empty=True)
    speakers = _table(corpus, folder.child(_SPEAKERS)) if folder.child(_SPEAKERS).exists() else {}
    segments = (
        _table(corpus, folder.child(_SEGMENTS))
        if folder.child(_SEGMENTS).exists()
        else {name: name for name in recordings}
    )
    for name, segment in segments.items():
        text = texts.pop(name, None)
        if text is None:
            said = f"{_TEXT} does not name it"
            corpus.reject(name, subset, folder.name, "missing_transcript", said)
            continue
        recording, *times = segment.split()
        audio = _path(folder, recording, recordings)
        try:
            start, end = map(float, times[:2]) if times else (0.0, None)
            utterance = StatedUtterance.model_validate(
                {
                    "id": name,
                    "audio": audio,
                    "text": text,
                    "speaker": speakers.get(name, ""),
                    "start": start,
                    # Times have few decimals; without rounding, 2.3 - 1.1 has seventeen.
                    "duration": None if end is None else round(end - start, 6),
                }
            )
        except ValidationError as error:
            corpus.reject(name, subset, folder.name, "malformed_entry", first_fault(error))
        except ValueError:
            said = f"{_SEGMENTS}: expected 'UTTERANCE RECORDING START END'"
            corpus.reject(name, subset, folder.name, "malformed_entry", said)
        else:
            corpus.add(utterance, subset)
    for name in texts:
        corpus.reject(name, subset, folder.name, "missing_audio", f"{_TEXT} alone names it")


def _table(corpus: StatedCorpus, table: Location, *, may_be_empty: bool = False) -> dict[str, str]:
    """First word of each line to the rest of it."""
    rows: dict[str, str] = {}
    for number, line in corpus.lines(table):
        try:
            parts = line.decode("utf-8").split(maxsplit=1)
        except UnicodeDecodeError as error:
            raise PipelineError(f"{table}, line {number} is not UTF-8; save it as UTF-8") from error
        if not parts:
            continue
        if len(parts) < 2 and not may_be_empty:
            raise PipelineError(f"{table}, line {number}: nothing follows the name; mend the line")
        if parts[0] in rows:
            raise PipelineError(f"{table}, line {number}: names {parts[0][:60]!r} a second time")
        rows[parts[0]] = parts[1].strip() if len(parts) > 1 else ""
    return rows


def _path(folder: Location, recording: str, recordings: dict[str, str]) -> str:
    """A recording's file; one that ``wav.scp`` lacks comes out as missing audio."""
    path = recordings.get(recording, f"{recording} is not in {_RECORDINGS}")
    if not path.endswith("|"):
        return path
    try:
        program, *arguments = shlex.split(path.removesuffix("|"))
    except ValueError:
        program, arguments = "", []
    files = [argument for argument in arguments if not argument.startswith("-")]
    if PurePosixPath(program).name != "flac" or len(files) != 1:
        raise PipelineError(
            f"{folder.child(_RECORDINGS)}: {recording} is a command ({path[:60]!r}), and commands "
            "are not run; write the audio to files (wav-copy scp:wav.scp scp:files.scp) and list "
            "those"
        )
    return files[0]


READER = reader_of_subsets("kaldi", scan, data_folders)
