"""One corpus in other layouts: as JSON lines, as a Kaldi data folder, as lhotse's manifests."""

import csv
import json
from pathlib import Path

import soundfile

from featurize.corpora.entry import CorpusListing


def write_json_lines(listing: CorpusListing, folder: Path) -> None:
    """NeMo's fields: path, text in lower case, duration; the speaker beside them."""
    for subset, entries in _by_subset(listing).items():
        lines = [
            {
                "id": entry.utterance_id,
                "audio_filepath": _audio(listing, entry),
                "text": entry.text.lower(),
                "duration": round(soundfile.info(_audio(listing, entry)).duration, 2),
                "speaker": int(entry.speaker_id),
            }
            for entry in entries
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        _place(folder, f"{subset}.jsonl").write_text(text)


def write_csv(listing: CorpusListing, folder: Path, delimiter: str = ",") -> None:
    """One table with a column for the subset, as a spreadsheet saves it."""
    with _place(folder, "everything.csv").open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(["Audio", "Text", "Speaker", "Subset", "id"])
        for entry in listing.entries:
            text = entry.text.capitalize() + "."
            row = (_audio(listing, entry), text, entry.speaker_id, entry.subset, entry.utterance_id)
            writer.writerow(row)


def write_kaldi(listing: CorpusListing, folder: Path) -> None:
    """Data folders as Kaldi's recipe for LibriSpeech makes them, but for their speakers."""
    for subset, entries in _by_subset(listing).items():
        tables = {
            "wav.scp": [f"{e.utterance_id} flac -c -d -s {_audio(listing, e)} |" for e in entries],
            "text": [f"{e.utterance_id} {e.text}" for e in entries],
            "utt2spk": [f"{e.utterance_id} {e.speaker_id}" for e in entries],
        }
        for name, lines in tables.items():
            _place(folder, subset, name).write_text("".join(f"{line}\n" for line in lines))


def write_lhotse(listing: CorpusListing, folder: Path, *, as_cuts: bool) -> None:
    """Through lhotse itself."""
    from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet

    for subset, entries in _by_subset(listing).items():
        recordings = RecordingSet.from_recordings(
            Recording.from_file(_audio(listing, e), recording_id=e.utterance_id) for e in entries
        )
        supervisions = SupervisionSet.from_segments(
            SupervisionSegment(
                id=e.utterance_id,
                recording_id=e.utterance_id,
                start=0.0,
                duration=recordings[e.utterance_id].duration,
                text=e.text,
                speaker=e.speaker_id,
            )
            for e in entries
        )
        if as_cuts:
            cuts = CutSet.from_manifests(recordings=recordings, supervisions=supervisions)
            cuts.to_file(_place(folder, f"librispeech_cuts_{subset}.jsonl.gz"))
        else:
            recordings.to_file(_place(folder, f"librispeech_recordings_{subset}.jsonl.gz"))
            supervisions.to_file(_place(folder, f"librispeech_supervisions_{subset}.jsonl.gz"))


def _by_subset(listing: CorpusListing) -> dict[str, list]:
    subsets: dict[str, list] = {}
    for entry in listing.entries:
        subsets.setdefault(entry.subset, []).append(entry)
    return subsets


def _audio(listing: CorpusListing, entry) -> str:
    return listing.root.child(entry.audio).path


def _place(folder: Path, *parts: str) -> Path:
    place = folder.joinpath(*parts)
    place.parent.mkdir(parents=True, exist_ok=True)
    return place
