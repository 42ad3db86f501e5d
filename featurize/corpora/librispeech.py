"""The LibriSpeech reader: the directory layout as distributed, any subset names.

``ROOT/SPEAKERS.TXT`` and ``ROOT/subset/speaker/chapter/`` with ``speaker-chapter-NNNN.flac`` and
one ``speaker-chapter.trans.txt``. The audio may be in any format of ``featurize.audio``, told by
its extension (``AUDIO_EXTENSIONS``). A TIMIT-style ``speaker-chapter-NNNN.PHN`` beside it is taken
as its alignment; the synthetic corpus writes them.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from featurize.corpora.entry import CorpusEntry, CorpusListing
from featurize.corpora.listing import (
    CorpusFile,
    FolderScanner,
    list_files,
    names_for_message,
    read_texts,
    warn_of_unused,
)
from featurize.corpora.registry import CorpusReader
from featurize.corpora.unpacked import scan_folders
from featurize.reject_reasons import RejectReason
from featurize.stage import Location, PipelineError
from featurize.text_file import text_lines

SPEAKERS_FILE = "SPEAKERS.TXT"
AUDIO_EXTENSIONS = frozenset({".flac", ".wav", ".sph", ".ogg", ".oga", ".opus", ".mp3"})
_NESTED_FOLDER = "LibriSpeech"
_MAX_SPEAKERS_BYTES = 16 * 2**20
_UTTERANCE_ID = re.compile(r"(\d+)-(\d+)-\d+", re.ASCII)


def find_root(root: Location) -> Location:
    """The folder that holds SPEAKERS.TXT: the root itself or its ``LibriSpeech`` child."""
    if not root.is_dir():
        raise PipelineError(f"corpus root {root} is not a folder; check the path")
    for candidate in (root, root.child(_NESTED_FOLDER)):
        if candidate.child(SPEAKERS_FILE).exists():
            return candidate
    names = names_for_message(child.name for child in root.children())
    raise PipelineError(
        f"{root} is not a LibriSpeech root: it has no {SPEAKERS_FILE} (it holds: {names}); give "
        "the folder that holds SPEAKERS.TXT and the subsets"
    )


def subsets_of(root: Location) -> tuple[str, ...]:
    """The names of the folders below a LibriSpeech root, sorted."""
    base = find_root(root)
    return tuple(child.name for child in base.children() if child.is_dir())


def subsets_with_speakers(root: Location) -> tuple[str, ...]:
    """Those of the folders that hold a speaker's folder, which has a number for a name."""
    base = find_root(root)
    return tuple(
        name
        for name in subsets_of(root)
        if any(child.name.isdecimal() for child in base.child(name).children())
    )


def scan(root: Location, subsets: Sequence[str]) -> CorpusListing:
    """List the utterances of some subsets.

    Args:
        root: a folder with SPEAKERS.TXT and the subsets, or the folder above, local or on S3.
        subsets: names of subset folders, such as ``train-clean-100``.

    Returns:
        The listing; its root is the folder that holds SPEAKERS.TXT.
    """
    base = find_root(root)
    speakers = read_speakers(base.child(SPEAKERS_FILE))
    scanner = _Scanner(base, speakers)
    for subset in dict.fromkeys(subsets):
        scanner.scan_subset(subset)
    return scanner.listing()


def read_speakers(location: Location) -> frozenset[str]:
    """The speaker ids of SPEAKERS.TXT: ``ID | SEX | SUBSET | MINUTES | NAME``, ``;`` comments."""
    with location.open_read() as stream:
        content = stream.read(_MAX_SPEAKERS_BYTES + 1)
    if len(content) > _MAX_SPEAKERS_BYTES:
        raise PipelineError(f"{location} is too large to be LibriSpeech's speaker table")
    speakers = set()
    for number, line in enumerate(text_lines(content, "replace"), start=1):
        if not line.strip() or line.lstrip().startswith(";"):
            continue
        fields = [field.strip() for field in line.split("|", 4)]
        if len(fields) < 4 or not fields[0]:
            raise PipelineError(
                f"{location}, line {number}: expected 'ID | SEX | SUBSET | MINUTES | NAME', found "
                f"{line[:60]!r}; mend the line or take it out"
            )
        speakers.add(fields[0])
    return frozenset(speakers)


class _Scanner(FolderScanner):
    """Gathers entries and rejects over the subsets of one corpus."""

    def __init__(self, root: Location, speakers: frozenset[str]) -> None:
        super().__init__(root)
        self.speakers = speakers

    def scan_subset(self, subset: str) -> None:
        """List one subset."""
        if not subset or "/" in subset or subset.startswith("."):
            raise PipelineError(f"subset {subset!r}: a subset is the name of a folder in the root")
        if not self.root.child(subset).is_dir():
            present = (c.name for c in self.root.children() if c.is_dir())
            raise PipelineError(
                f"no subset {subset!r} in {self.root}; it has: {names_for_message(present)}"
            )
        audio, alignments, transcripts = self._files_by_kind(subset)
        contents = read_texts(self.root, transcripts)
        for file in transcripts:
            self._scan_chapter(subset, file, contents[file.path], audio[file.folder], alignments)
        for folder in audio.values():
            for utterance_id, file in folder.items():
                detail = "no line of the chapter's .trans.txt names this audio"
                self._reject(utterance_id, subset, file.path, "missing_transcript", detail)

    def _files_by_kind(
        self, subset: str
    ) -> tuple[dict[str, dict[str, CorpusFile]], dict[str, CorpusFile], list[CorpusFile]]:
        """Audio by folder and utterance, alignments by folder and utterance, transcripts."""
        audio: dict[str, dict[str, CorpusFile]] = defaultdict(dict)
        alignments: dict[str, CorpusFile] = {}
        transcripts: list[CorpusFile] = []
        unused: list[CorpusFile] = []
        for file in list_files(self.root, subset):
            self.files[file.path] = file
            stem, extension = PurePosixPath(file.path).stem, PurePosixPath(file.path).suffix.lower()
            if extension in AUDIO_EXTENSIONS:
                if stem in audio[file.folder]:
                    self._reject(stem, subset, file.path, "duplicate_utterance", "two audio files")
                else:
                    audio[file.folder][stem] = file
            elif extension == ".phn":
                alignments[f"{file.folder}/{stem}"] = file
            elif file.name.endswith(".trans.txt"):
                transcripts.append(file)
            else:
                unused.append(file)
        warn_of_unused(self.root.child(subset), unused)
        return audio, alignments, transcripts

    def _scan_chapter(
        self,
        subset: str,
        file: CorpusFile,
        content: bytes | None,
        audio: dict[str, CorpusFile],
        alignments: Mapping[str, CorpusFile],
    ) -> None:
        """Match one chapter's transcript with its audio; audio that is matched is taken out."""
        if content is None:
            detail = "the file cannot be read"
            self._reject(file.name, subset, file.path, "malformed_transcript", detail)
            return
        for number, line in enumerate(content.split(b"\n"), start=1):
            if not line.strip():
                continue
            where = f"line {number} of {file.name}"
            utterance_id, text, fault = _parse_line(line, file.name.removesuffix(".trans.txt"))
            found = audio.pop(utterance_id, None)
            path = file.path if found is None else found.path
            if fault is not None:
                fault = (fault[0], f"{where}: {fault[1]}")
            elif utterance_id in self._seen:
                fault = ("duplicate_utterance", f"{where} names it again; the first is kept")
                path = file.path
            else:
                self._seen.add(utterance_id)
                fault = self._fault_of(utterance_id, found)
            if fault is not None:
                self._reject(utterance_id or f"{file.name}:{number}", subset, path, *fault)
                continue
            speaker, chapter, _ = utterance_id.split("-")
            assert found is not None
            alignment = alignments.get(f"{found.folder}/{utterance_id}")
            self.entries.append(
                CorpusEntry(
                    utterance_id=utterance_id,
                    speaker_id=speaker,
                    chapter_id=chapter,
                    subset=subset,
                    text=text,
                    audio=path,
                    alignment=alignment.path if alignment is not None else None,
                )
            )

    def _fault_of(
        self, utterance_id: str, audio: CorpusFile | None
    ) -> tuple[RejectReason, str] | None:
        """Why an utterance with a well-formed line cannot be used, if it cannot."""
        if audio is None:
            detail = f"no audio file {utterance_id}.flac (or of another format) is there"
            return "missing_audio", detail
        speaker = utterance_id.split("-")[0]
        if speaker not in self.speakers:
            return "unknown_speaker", f"speaker {speaker} is not in {SPEAKERS_FILE}"
        return None


def _parse_line(line: bytes, chapter: str) -> tuple[str, str, tuple[RejectReason, str] | None]:
    """Split a transcript line into id and text, or say what is wrong with it.

    A faulty line still gives the id it starts with, where it has one, so that the utterance is
    rejected once: for its line, and not again for lacking one.
    """
    try:
        decoded = line.decode("utf-8").strip()
        not_utf8 = False
    except UnicodeDecodeError:
        decoded, not_utf8 = line.decode("utf-8", "replace").strip(), True
    head, _, text = decoded.partition(" ")
    match = _UTTERANCE_ID.match(decoded)
    claimed = match[0] if match is not None else ""
    if not_utf8:
        return claimed, "", ("malformed_transcript", "not UTF-8")
    if match is None or head != claimed or f"{match[1]}-{match[2]}" != chapter:
        detail = f"expected '{chapter}-NNNN WORDS', found {decoded[:60]!r}"
        return claimed, "", ("malformed_transcript", detail)
    words = " ".join(text.split())
    if not words:
        return claimed, "", ("empty_transcript", "no words after the id")
    return claimed, words, None


def scored_subsets(folders: Sequence[Location]) -> tuple[str, ...]:
    """Every subset with speech at the folders."""
    found = sorted({name for folder in folders for name in subsets_with_speakers(folder)})
    if not found:
        where = ", ".join(map(str, folders))
        raise PipelineError(f"{where} has no subset with speech in LibriSpeech's layout")
    return tuple(found)


READER = CorpusReader(
    "librispeech",
    scan,
    scored_subsets,
    functools.partial(scan_folders, scan, subsets_of),
    recognises=lambda root: bool(find_root(root)),
)
