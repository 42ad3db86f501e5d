"""The TIMIT reader: LDC's layout, in upper or lower case or any mix.

``ROOT/TRAIN|TEST/DR?/SPEAKER/UTTERANCE.WAV`` with ``.PHN``, ``.WRD`` and ``.TXT`` beside it. The
SA sentences, which every speaker reads, are left out, as the field does. Subsets:

- ``train``: all of TRAIN (462 speakers);
- ``dev``: the 50 speakers of the standard development list, from TEST;
- ``test``: the 24 speakers of the core test set, from TEST;
- ``test-complete``: all of TEST (168 speakers; it contains the two above).

Transcripts are given in LibriSpeech's form: upper case, letters and apostrophes; other
punctuation is dropped and a hyphen or dash divides words.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

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
from featurize.corpora.text import normalise_text
from featurize.corpora.timit_speakers import CORE_TEST_SPEAKERS, DEV_SPEAKERS
from featurize.reject_reasons import RejectedUtterance
from featurize.stage import Location, PipelineError

# Subset: the folder it lies in, and its speakers where not all of the folder's.
SUBSETS: Mapping[str, tuple[str, frozenset[str] | None]] = {
    "train": ("TRAIN", None),
    "dev": ("TEST", frozenset(DEV_SPEAKERS)),
    "test": ("TEST", frozenset(CORE_TEST_SPEAKERS)),
    "test-complete": ("TEST", None),
}

# Copies beside the originals, such as SX1.WAV.wav, do not match.
_FILE_NAME = re.compile(r"(S[AIX]\d{1,6})\.(WAV|PHN|TXT|WRD)", re.ASCII | re.IGNORECASE)
_SPEAKER = re.compile(r"[MF][A-Z]{3}\d", re.ASCII)
_TEXT = re.compile(r"\d+\s+\d+\s+(.*)", re.ASCII | re.DOTALL)


def find_root(root: Location) -> Location:
    """The folder that holds TRAIN and TEST: the root, or up to two folders named TIMIT below it."""
    if not root.is_dir():
        raise PipelineError(f"corpus root {root} is not a folder; check the path")
    base = root
    for _ in range(3):
        children = {child.name.upper(): child for child in base.children()}
        if "TRAIN" in children or "TEST" in children:
            return base
        if "TIMIT" not in children:
            break
        base = children["TIMIT"]
    names = names_for_message(child.name for child in base.children())
    raise PipelineError(
        f"{root} is not a TIMIT root: it has no TRAIN or TEST folder (it holds: {names}); give "
        "the folder that holds TRAIN and TEST"
    )


def whole_folders(root: Location) -> tuple[str, ...]:
    """The subsets that are all of a folder which is there: ``train``, ``test-complete``."""
    present = {child.name.upper() for child in find_root(root).children()}
    return tuple(
        name
        for name, (folder, speakers) in SUBSETS.items()
        if speakers is None and folder in present
    )


def scan(root: Location, subsets: Sequence[str]) -> CorpusListing:
    """List the utterances of some subsets.

    Args:
        root: the folder with TRAIN and TEST, or one above, local or on S3.
        subsets: of ``train``, ``dev``, ``test``, ``test-complete``. An utterance belongs to the
            first of them that claims it, so ``dev`` and ``test-complete`` do not overlap.

    Returns:
        The listing; utterance ids are ``SPEAKER_SENTENCE`` in upper case, chapters the regions.
    """
    for subset in subsets:
        if subset not in SUBSETS:
            raise PipelineError(
                f"TIMIT has no subset {subset!r}; it has: {names_for_message(SUBSETS)}"
            )
    base = find_root(root)
    folders = {child.name.upper(): child.name for child in base.children()}
    scanner = _Scanner(base)
    for folder in dict.fromkeys(SUBSETS[subset][0] for subset in subsets):
        if folder not in folders:
            raise PipelineError(
                f"{base} has no {folder} folder; it has: {names_for_message(folders.values())}"
            )
        wanted = [subset for subset in dict.fromkeys(subsets) if SUBSETS[subset][0] == folder]
        scanner.scan_folder(folders[folder], wanted)
    return scanner.listing()


class _Scanner(FolderScanner):
    def scan_folder(self, folder: str, subsets: Sequence[str]) -> None:
        """List TRAIN or TEST, and deal its speakers to the subsets wanted."""
        utterances: dict[tuple[str, str], dict[str, CorpusFile]] = defaultdict(dict)
        unused: list[CorpusFile] = []
        for file in list_files(self.root, folder):
            match = _FILE_NAME.fullmatch(file.name)
            if match is None:
                unused.append(file)
                continue
            if match[1].upper().startswith("SA"):
                continue
            subset = _subset_of(_speaker_of(file), subsets)
            if subset is None:
                continue
            self.files[file.path] = file
            kinds = utterances[file.folder, match[1].upper()]
            kind = match[2].upper()
            if kind not in kinds:
                kinds[kind] = file
            elif kind == "WAV":
                identity = f"{_speaker_of(file)}_{match[1].upper()}"
                self._reject(identity, subset, file.path, "duplicate_utterance", "two WAV files")
        warn_of_unused(self.root.child(folder), unused)
        texts = read_texts(
            self.root, [kinds["TXT"] for kinds in utterances.values() if "TXT" in kinds]
        )
        for (_, sentence), kinds in utterances.items():
            any_file = next(iter(kinds.values()))
            speaker = _speaker_of(any_file)
            subset = _subset_of(speaker, subsets)
            assert subset is not None  # others were passed over above
            identity = f"{speaker}_{sentence}"
            try:
                self.entries.append(self._entry(identity, subset, kinds, texts))
            except RejectedUtterance as refused:
                path = kinds.get("WAV", any_file).path
                self._reject(identity, subset, path, refused.reason, refused.detail)

    def _entry(
        self,
        identity: str,
        subset: str,
        kinds: Mapping[str, CorpusFile],
        texts: Mapping[str, bytes | None],
    ) -> CorpusEntry:
        audio = kinds.get("WAV")
        if audio is None:
            raise RejectedUtterance("missing_audio", f"{', '.join(sorted(kinds))} without WAV")
        folders = audio.folder.split("/")
        speaker = folders[-1].upper()
        if _SPEAKER.fullmatch(speaker) is None:
            raise RejectedUtterance("unknown_speaker", f"{speaker!r} is not a TIMIT speaker name")
        if identity in self._seen:
            raise RejectedUtterance("duplicate_utterance", "the speaker has this sentence already")
        if "TXT" not in kinds:
            raise RejectedUtterance("missing_transcript", "no TXT file beside the audio")
        text = _parse_text(texts[kinds["TXT"].path])
        self._seen.add(identity)
        alignment = kinds.get("PHN")
        return CorpusEntry(
            utterance_id=identity,
            speaker_id=speaker,
            chapter_id=folders[-2].upper() if len(folders) > 1 else "",
            subset=subset,
            text=text,
            audio=audio.path,
            alignment=alignment.path if alignment is not None else None,
        )


def _speaker_of(file: CorpusFile) -> str:
    return file.folder.rsplit("/", 1)[-1].upper()


def _subset_of(speaker: str, subsets: Sequence[str]) -> str | None:
    """The first of the subsets that claims the speaker."""
    for subset in subsets:
        speakers = SUBSETS[subset][1]
        if speakers is None or speaker in speakers:
            return subset
    return None


def _parse_text(content: bytes | None) -> str:
    """The words of a ``.TXT`` file: two sample numbers, then the prompt."""
    if content is None:
        raise RejectedUtterance("malformed_transcript", "the TXT file cannot be read")
    try:
        decoded = content.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise RejectedUtterance("malformed_transcript", "the TXT file is not UTF-8") from error
    if re.fullmatch(r"\d+\s+\d+", decoded, re.ASCII):
        raise RejectedUtterance("empty_transcript", "no words after the sample numbers")
    match = _TEXT.fullmatch(decoded)
    if match is None:
        raise RejectedUtterance(
            "malformed_transcript", f"expected 'START END WORDS', found {decoded[:60]!r}"
        )
    text = normalise_text(match[1])
    if not text:
        raise RejectedUtterance("empty_transcript", "no words after the sample numbers")
    return text


READER = CorpusReader(
    "timit",
    scan,
    lambda _: ("test",),
    whole_subsets=whole_folders,
    recognises=lambda root: bool(find_root(root)),
)
