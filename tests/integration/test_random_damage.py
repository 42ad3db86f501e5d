"""Random corpora with random damage: what came in is what went out and what was rejected."""

import codecs
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import kaldiio
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurize.featurize import featurize, plan_featurize
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.import_kaldi import import_kaldi
from featurize.import_kaldi_config import KaldiImportConfig, KaldiSubset
from featurize.kaldi_archives import read_integer_vectors
from featurize.schema import FeaturizeManifest
from featurize.shards import iter_rows
from featurize.stage import FanOut, Location, StageResult, read_manifest
from tests.featurize.test_import_kaldi import PHONES, kaldi_folder
from tests.training.test_textgrids import grid
from training.align.align import align
from training.align.align_config import AlignConfig

SPLITS = {
    "librispeech": SplitsConfig(
        train=("train-synthetic",), dev=("dev-synthetic",), test=("test-synthetic",)
    ),
    "timit": SplitsConfig(train=("train",), dev=("dev",), test=("test",)),
}
MANY = settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Utterance:
    """An utterance of a corpus on disk, to be damaged.

    Args:
        audio: its file.
        transcript: the file that holds its words.
    """

    def __init__(self, audio: Path, transcript: Path) -> None:
        self.audio, self.transcript = audio, transcript
        self.phones = next(
            audio.with_suffix(suffix)
            for suffix in (".PHN", ".phn")
            if audio.with_suffix(suffix).exists()
        )
        is_timit = transcript.suffix == ".TXT"
        self.name = f"{audio.parent.name}_{audio.stem}" if is_timit else audio.stem

    def rewrite(self, change: Callable[[bytes], bytes]) -> None:
        """Change its line of the transcript, the rest of the file stays."""
        name = self.audio.stem.encode()
        is_timit = self.transcript.suffix == ".TXT"
        lines = self.transcript.read_bytes().splitlines(keepends=True)
        self.transcript.write_bytes(
            b"".join(
                change(line) if is_timit or line.split(b" ")[0] == name else line for line in lines
            )
        )


def _silent(utterance: Utterance) -> None:
    utterance.audio.write_bytes(b"")


def _cut(utterance: Utterance) -> None:
    content = utterance.audio.read_bytes()
    utterance.audio.write_bytes(content[: len(content) * 2 // 3])


def _garbage(utterance: Utterance) -> None:
    utterance.audio.write_bytes(os.urandom(3000))


def _gone(utterance: Utterance) -> None:
    utterance.audio.unlink()


def _dangling(utterance: Utterance) -> None:
    utterance.audio.unlink()
    utterance.audio.symlink_to(utterance.audio.parent / "nowhere")


def _not_utf8(utterance: Utterance) -> None:
    utterance.rewrite(lambda line: line.rstrip() + b" \xff\n")


def _untimed(utterance: Utterance) -> None:
    utterance.phones.unlink()


def _mistimed(utterance: Utterance) -> None:
    utterance.phones.write_text("0 10 h#\n5 20 aa\n")


def _of_longer_audio(utterance: Utterance) -> None:
    samples, rate = soundfile.read(utterance.audio, dtype="int16")
    form = "WAV" if utterance.audio.suffix.lower() == ".wav" else "FLAC"
    soundfile.write(utterance.audio, samples[: len(samples) // 3], rate, format=form)


def _marked(utterance: Utterance) -> None:
    content = utterance.transcript.read_bytes().removeprefix(codecs.BOM_UTF8)
    utterance.transcript.write_bytes(codecs.BOM_UTF8 + content.replace(b"\n", b"\r\n"))


def _accompanied(utterance: Utterance) -> None:
    utterance.audio.with_name("._" + utterance.audio.name).write_bytes(b"\0\5\x16\7")
    utterance.audio.with_name("Thumbs.db").write_bytes(b"x")


def _sound(_: Utterance) -> None:
    pass


# What is done to an utterance, and what it is then rejected for; None for none.
DAMAGE: dict[Callable[[Utterance], None], str | None] = {
    _sound: None,
    _marked: None,
    _accompanied: None,
    _silent: "zero_length_audio",
    _cut: "truncated_audio",
    _garbage: "unreadable_audio",
    _gone: "missing_audio",
    _dangling: "missing_audio",
    _not_utf8: "malformed_transcript",
    _untimed: "missing_alignment",
    _mistimed: "bad_alignment",
    _of_longer_audio: "bad_alignment",
}


def utterances_of(root: Path, layout: str) -> dict[str, list[Utterance]]:
    """By subset, from the file names alone."""
    if layout == "librispeech":
        return {
            subset: [
                Utterance(audio, next(audio.parent.glob("*.trans.txt")))
                for audio in sorted((root / subset).rglob("*.flac"))
            ]
            for subset in SPLITS[layout].subsets
        }
    from featurize.corpora.timit_speakers import DEV_SPEAKERS

    found: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    for audio in sorted(root.rglob("*.WAV")):
        if audio.stem.startswith("SA"):
            continue
        is_dev = audio.parent.name in DEV_SPEAKERS
        subset = "train" if "TRAIN" in audio.parts else "dev" if is_dev else "test"
        found[subset].append(Utterance(audio, audio.with_suffix(".TXT")))
    return found


def thinned(corpus: Path, layout: str, target: Path) -> dict[str, list[Utterance]]:
    """A copy with few speakers a subset."""
    kept: dict[str, set[str]] = {}
    for subset, utterances in utterances_of(corpus / layout, layout).items():
        kept[subset] = {str(u.audio.relative_to(corpus / layout)) for u in utterances[:4]}
    shutil.copytree(corpus / layout, target)
    for utterances in utterances_of(target, layout).values():
        for utterance in utterances:
            if str(utterance.audio.relative_to(target)) not in set().union(*kept.values()):
                if layout == "librispeech":
                    utterance.rewrite(lambda _: b"")
                else:
                    utterance.transcript.unlink()
                utterance.audio.unlink()
                for file in utterance.audio.parent.glob(utterance.audio.stem + ".*"):
                    file.unlink()
    return utterances_of(target, layout)


def in_and_out(result: StageResult) -> tuple[dict[str, Counter[str]], dict[str, str]]:
    """Utterances of each subset that went out, by id, and of those rejected the reason."""
    manifest = read_manifest(result.location, FeaturizeManifest)
    kept = {
        subset: Counter(row.utterance_id for row in iter_rows(result.location, manifest, [subset]))
        for subset in manifest.subsets
    }
    for subset, info in manifest.subsets.items():
        assert info.num_utterances == kept[subset].total()
    rows = pq.read_table(result.location.child("rejects.parquet").path).to_pylist()
    assert Counter(row["reason"] for row in rows) == Counter(manifest.reject_counts)
    assert len({row["utterance_id"] for row in rows}) == len(rows)
    return kept, {row["utterance_id"]: row["reason"] for row in rows}


def check(result: StageResult, expected: dict[str, dict[str, str | None]]) -> None:
    """Hold a result against what must have become of each utterance of each subset."""
    kept, rejected = in_and_out(result)
    for subset, utterances in expected.items():
        assert kept[subset] == Counter(name for name, reason in utterances.items() if not reason)
    lost = [(name, why) for of_one in expected.values() for name, why in of_one.items() if why]
    assert rejected == dict(lost)


@pytest.mark.parametrize("layout", ["librispeech", "timit"])
@given(data=st.data())
@MANY
def test_featurize_accounts_for_every_utterance(synthetic_corpus, layout, data) -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        by_subset = thinned(synthetic_corpus, layout, corpus)
        shards = data.draw(st.integers(1, 4))
        config = FeaturizeConfig(
            corpus=layout, splits=SPLITS[layout], labels="alignment", max_reject_share=1.0,
            utterances_per_shard=shards,
        )  # fmt: skip
        runs = Location.of(Path(folder, "runs"))
        before = plan_featurize(config, Location.of(corpus), runs).fingerprint
        expected: dict[str, dict[str, str | None]] = {}
        for subset, utterances in by_subset.items():
            # The first of each stays: a subset without any is no feature set.
            expected[subset] = {utterances[0].name: None}
            for utterance in utterances[1:]:
                damage = data.draw(st.sampled_from(list(DAMAGE)))
                damage(utterance)
                expected[subset][utterance.name] = DAMAGE[damage]
        result = featurize(config, Location.of(corpus), runs, fan_out=FanOut(kind="sequential"))
        # What neither costs an utterance nor changes one is no other corpus.
        is_damaged = any(reason for of_one in expected.values() for reason in of_one.values())
        assert (result.fingerprint != before) == is_damaged
        check(result, expected)


GRIDS: dict[str, str | None] = {
    "sound": None,
    "gone": "missing_alignment",
    "garbage": "bad_alignment",
    "cut": "bad_alignment",
    "of longer audio": "bad_alignment",
    "strange phone": "bad_alignment",
}


@pytest.fixture(scope="module")
def phones(synthetic_corpus, tmp_path_factory) -> StageResult:
    """A feature set of phones, to be aligned."""
    config = FeaturizeConfig(splits=SPLITS["librispeech"], labels="phones")
    runs = Location.of(tmp_path_factory.mktemp("damaged-grids"))
    corpus = Location.of(synthetic_corpus / "librispeech")
    return featurize(config, corpus, runs, fan_out=FanOut(kind="sequential"))


def write_grid(file: Path, damage: str, seconds: float) -> None:
    """A TextGrid of audio of some length."""
    name = "Q" if damage == "strange phone" else "AA1"
    seconds += 0.5 if damage == "of longer audio" else 0.0
    content = grid([(0.0, seconds / 2, "sil"), (seconds / 2, seconds, name)])
    if damage == "garbage":
        content = "no grid"
    if damage != "gone":
        file.write_text(content[: len(content) // 2] if damage == "cut" else content)


@given(data=st.data())
@MANY
def test_alignment_accounts_for_every_utterance(phones, data) -> None:
    manifest = read_manifest(phones.location, FeaturizeManifest)
    with tempfile.TemporaryDirectory() as folder:
        expected: dict[str, dict[str, str | None]] = {}
        for row in iter_rows(phones.location, manifest, manifest.subsets):
            of_subset = expected.setdefault(row.subset, {})
            damage = data.draw(st.sampled_from(list(GRIDS))) if of_subset else "sound"
            of_subset[row.utterance_id] = GRIDS[damage]
            file = Path(folder, "grids", f"{row.utterance_id}.TextGrid")
            file.parent.mkdir(exist_ok=True)
            write_grid(file, damage, row.num_samples / manifest.sample_rate_hz)
        config = AlignConfig(textgrids=str(Path(folder, "grids")), max_reject_share=1.0)
        result = align(config, phones.location, Location.of(Path(folder, "runs")))
        check(result, expected)


TABLES: dict[str, str | None] = {
    "sound": None,
    "not in feats.scp": "unreadable_features",
    "not in utt2spk": "unknown_speaker",
    "not in text": "missing_transcript",
    "not in pdfs": "missing_alignment",
    "not in phones": "missing_alignment",
    "too few pdfs": "bad_alignment",
    "strange phone": "bad_alignment",
    "of longer audio": "bad_alignment",
    "at another byte": "unreadable_features",
    "of a missing archive": "unreadable_features",
}


def damage_tables(folder: Path, damages: dict[str, str]) -> None:
    """Damage one folder of Kaldi's, an utterance each in its own way."""
    archives = {
        name: dict(read_integer_vectors(Location.of(folder / f"{name}.ark")))
        for name in ("pdfs", "phones")
    }
    seconds = {key: 0.01 * len(pdfs) + 0.015 for key, pdfs in archives["pdfs"].items()}
    for key, damage in damages.items():
        if damage.startswith("not in ") and damage[7:] in archives:
            del archives[damage[7:]][key]
        elif damage == "too few pdfs":
            archives["pdfs"][key] = archives["pdfs"][key][:-1]
        elif damage == "strange phone":
            archives["phones"][key] = archives["phones"][key] + 77
        elif damage == "of longer audio":
            seconds[key] += 1.0
    (folder / "utt2dur").write_text("".join(f"{key} {s:.3f}\n" for key, s in seconds.items()))
    for name, vectors in archives.items():
        kaldiio.save_ark(str(folder / f"{name}.ark"), vectors)
    for table in ("feats.scp", "utt2spk", "text"):
        lines = [
            f"{key} {_damaged_entry(damages[key], rest) if table == 'feats.scp' else rest}\n"
            for key, rest in (
                line.split(" ", 1) for line in (folder / table).read_text().splitlines()
            )
            if damages[key] != f"not in {table}"
        ]
        (folder / table).write_text("".join(lines))


def _damaged_entry(damage: str, entry: str) -> str:
    """Of feats.scp."""
    if damage == "at another byte":
        return entry.rsplit(":", 1)[0] + ":3"
    return "/nowhere/gone.ark:5" if damage == "of a missing archive" else entry


@given(data=st.data())
@MANY
def test_an_import_accounts_for_every_utterance(data) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, subsets, expected = Path(folder), [], {}
        (root / "phones.txt").write_text(PHONES)
        for name, split in (("tr", "train"), ("cv", "dev")):
            keys = [f"{name}{n % 2}-{n:03d}" for n in range(6)]
            kaldi_folder(root, name, keys, np.random.default_rng(len(subsets)))
            drawn = st.sampled_from(list(TABLES))
            damages = {key: data.draw(drawn) if key != keys[0] else "sound" for key in keys}
            damage_tables(root / name, damages)
            expected[name] = {key: TABLES[damage] for key, damage in damages.items()}
            subsets.append(
                KaldiSubset(
                    name=name, split=split, data=str(root / name),
                    pdfs=str(root / name / "pdfs.ark"), phones=str(root / name / "phones.ark"),
                )
            )  # fmt: skip
        config = KaldiImportConfig(
            subsets=tuple(subsets), phone_table=str(root / "phones.txt"), max_reject_share=1.0
        )
        check(import_kaldi(config, Location.of(root / "runs")), expected)
