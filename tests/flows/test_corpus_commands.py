"""Looking at a corpus, dealing one table to three, and fetching LibriSpeech."""

import hashlib
import http.server
import json
import shutil
import tarfile
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import soundfile
import torch
import torchaudio.datasets.librispeech as their_librispeech

from featurize.check import SubsetCheck
from featurize.corpora.scan import scan_corpus
from featurize.corpora.stated import StatedUtterance
from featurize.rejects import Reject
from featurize.stage import Location
from flows.cli import run
from flows.corpus_commands import too_many


def record(folder, names, seconds=1.0):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in names:
        soundfile.write(folder / f"{name}.wav", rng.normal(0, 0.1, round(16_000 * seconds)), 16_000)
    return folder


def answer(capfd, *arguments, code=0):
    assert run([*map(str, arguments), "--json"]) == code
    return json.loads(capfd.readouterr().out)


def test_check_says_what_featurization_would_find_and_writes_nothing(tmp_path, capfd):
    folder = record(tmp_path / "mine", ["a", "b", "broken", "short"])
    soundfile.write(folder / "other.wav", np.zeros(8_000), 8_000)
    (folder / "broken.wav").write_bytes((folder / "broken.wav").read_bytes()[:9_000])
    soundfile.write(folder / "short.wav", np.zeros(100), 16_000)
    (folder / "train.csv").write_text(
        "audio,text,speaker\na.wav,One,ann\nb.wav,Two,bob\nbroken.wav,Three,ann\n"
        "short.wav,Four,ann\nmissing.wav,Five,ann\nother.wav,Six,ann\na.wav,7 up,ann\n"
    )
    before = sorted(path.name for path in tmp_path.rglob("*"))
    told = answer(capfd, "corpus", "check", folder, code=2)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    (subset,) = told["subsets"]
    assert told["reader"] == "manifest"
    assert (subset["name"], subset["num_utterances"], subset["num_speakers"]) == ("train", 3, 2)
    assert subset["hours"] == pytest.approx(3 / 3600)
    assert subset["num_resampled"] == 1
    assert subset["rejects"] == {
        "missing_audio": 1,
        "truncated_audio": 1,
        "too_short": 1,
        "duplicate_utterance": 1,
    }
    assert not told["accepted"]
    assert run(["corpus", "check", str(folder)]) == 2
    shown = capfd.readouterr()
    assert "57.1% of train would be rejected" in shown.err
    assert "missing: missing_audio" in shown.out


def test_check_by_a_recipe_judges_a_split_as_a_run_does(tmp_path, capfd, synthetic_corpus):
    shutil.copytree(synthetic_corpus / "timit", tmp_path / "timit")
    audio = sorted(path for path in (tmp_path / "timit" / "TEST").rglob("*.WAV"))
    sentence = next(path for path in audio if not path.stem.startswith("SA"))
    sentence.write_bytes(sentence.read_bytes()[:2000])
    check = ["corpus", "check", tmp_path / "timit", "--recipe", "demo"]
    told = answer(capfd, *check, code=2)
    (lost,) = (subset for subset in told["subsets"] if subset["rejects"])
    share = 1 / (1 + lost["num_utterances"])
    assert answer(capfd, *check, "--set", f"featurize.max_reject_share={share + 0.001}")["accepted"]
    # A split of several subsets is judged as one.
    checks = [SubsetCheck(n, kept, 1, 1.0, 0, (), {}) for n, kept in (("a", 9), ("b", 190))]
    (bad,) = (Reject(r["utterance_id"], "a", "", r["reason"], "") for r in told["rejects"])
    checks[0] = replace(checks[0], rejects=(bad,))
    assert too_many(checks, {}, 0.01) == [("a", 0.1)]
    assert too_many(checks, {"train": ("a", "b")}, 0.01) == []
    assert too_many(checks, {"train": ("a", "b")}, 0.001) == [("train", 0.005)]


def test_check_takes_a_recipes_labels_and_subsets(tmp_path, capfd, synthetic_corpus):
    corpus = synthetic_corpus / "timit"
    told = answer(capfd, "corpus", "check", corpus, "--recipe", "demo")
    assert [subset["name"] for subset in told["subsets"]] == ["train", "dev", "test"]
    assert told["accepted"]


def test_check_of_nothing_known_is_a_mistake(tmp_path, capfd):
    assert run(["corpus", "check", str(tmp_path)]) == 2
    assert "laid out as none of" in capfd.readouterr().err
    assert run(["corpus", "check", str(tmp_path / "none")]) == 2
    assert run(["corpus", "check", str(tmp_path), "--reader", "kaldy"]) == 2


@pytest.mark.parametrize("num_speakers", [3, 12])
def test_split_deals_a_table_by_speaker_where_there_are_enough(tmp_path, capfd, num_speakers):
    names = [f"u{number}" for number in range(60)]
    record(tmp_path / "wavs", names, 0.2)
    rows = [f"wavs/{name}.wav;Hello.;s{n % num_speakers}" for n, name in enumerate(names)]
    (tmp_path / "speech.csv").write_text("\n".join(["audio;text;speaker", *rows]))
    told = answer(capfd, "corpus", "split", tmp_path / "speech.csv", "--dev", 0.2)
    assert told["by_speaker"] == (num_speakers == 12)
    assert sum(told["utterances"].values()) == 60
    listing = scan_corpus("manifest", Location.of(tmp_path), ("train", "dev", "test"))
    assert sorted(entry.utterance_id for entry in listing.entries) == sorted(names)
    subsets = {subset: set() for subset in told["utterances"]}
    for entry in listing.entries:
        subsets[entry.subset].add(entry.speaker_id)
    if told["by_speaker"]:
        assert sum(map(len, subsets.values())) == num_speakers
    lines = [(tmp_path / f"{name}.jsonl").read_bytes().splitlines() for name in subsets]
    assert [len(subset) for subset in lines] == list(told["utterances"].values())
    assert all(StatedUtterance.of(line).text == "Hello." for subset in lines for line in subset)
    assert run(["corpus", "split", str(tmp_path / "speech.csv")]) == 2
    assert "there already" in capfd.readouterr().err


def test_check_after_a_split_does_not_count_the_dealt_table_again(tmp_path, capfd):
    names = [f"u{number}" for number in range(30)]
    record(tmp_path / "wavs", names, 0.2)
    rows = "".join(f"wavs/{name}.wav,Hello\n" for name in names)
    (tmp_path / "speech.csv").write_text("audio,text\n" + rows)
    answer(capfd, "corpus", "split", tmp_path / "speech.csv")
    told = answer(capfd, "corpus", "check", tmp_path)
    assert {one["name"]: one["num_utterances"] for one in told["subsets"]} == {
        "train": 24,
        "dev": 3,
        "test": 3,
    }
    assert told["accepted"]
    # A table that holds one utterance more than the others is a subset of its own.
    record(tmp_path / "wavs", ["more"], 0.2)
    with (tmp_path / "speech.csv").open("a") as table:
        table.write("wavs/more.wav,Hello\n")
    told = answer(capfd, "corpus", "check", tmp_path, code=2)
    assert "speech" in {one["name"] for one in told["subsets"]}
    assert not told["accepted"]


def test_split_of_too_little_or_of_a_broken_table_is_a_mistake(tmp_path, capfd):
    table = tmp_path / "speech.csv"
    for content, said in (
        ("audio,text\na.wav,Hello\n", "too few"),
        ("audio,text\na.wav,\n", "line 2: text"),
    ):
        table.write_text(content)
        assert run(["corpus", "split", str(table)]) == 2
        assert said in capfd.readouterr().err
    assert run(["corpus", "split", str(tmp_path / "none.csv")]) == 2


@pytest.fixture
def openslr(tmp_path, synthetic_corpus, monkeypatch):
    """A server with one archive in LibriSpeech's layout, and torchaudio sent there."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    source = synthetic_corpus / "librispeech"
    archive = shelf / "dev-clean.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source / "SPEAKERS.TXT", "LibriSpeech/SPEAKERS.TXT")
        tar.add(source / "dev-synthetic", "LibriSpeech/dev-clean")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = partial(Quiet, directory=str(shelf))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def fetch(url, target, hash_prefix):
        assert len(hash_prefix) == 64  # torchaudio knows one for each archive
        here = f"http://127.0.0.1:{server.server_port}/{url.rsplit('/', 1)[1]}"
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        torch.hub.download_url_to_file(here, target, hash_prefix=digest, progress=False)

    monkeypatch.setattr(their_librispeech, "download_url_to_file", fetch)
    yield archive
    server.shutdown()
    thread.join()
    server.server_close()


def test_download_fetches_once_and_what_comes_is_a_corpus(tmp_path, capfd, openslr):
    target = tmp_path / "data"
    leftover = target / ".dev-clean.partial" / "LibriSpeech" / "dev-clean"
    leftover.mkdir(parents=True)  # of an unpacking that was interrupted
    told = answer(capfd, "corpus", "download", target, "dev-clean")
    assert told == {"corpus": str(target / "LibriSpeech"), "fetched": ["dev-clean"]}
    assert sorted(path.name for path in target.iterdir()) == ["LibriSpeech"]
    assert len(scan_corpus("librispeech", Location.of(told["corpus"]), ["dev-clean"]).entries) > 0
    openslr.unlink()
    assert answer(capfd, "corpus", "download", target, "dev-clean")["fetched"] == []


def test_another_archive_than_the_checksum_says_is_refused(tmp_path, capfd, openslr, monkeypatch):
    def fetch(url, target, hash_prefix):
        options = {"hash_prefix": hash_prefix, "progress": False}
        torch.hub.download_url_to_file(openslr.as_uri(), target, **options)

    monkeypatch.setattr(their_librispeech, "download_url_to_file", fetch)
    assert run(["corpus", "download", str(tmp_path / "data"), "dev-clean"]) == 2
    assert "cannot fetch dev-clean: invalid hash value" in capfd.readouterr().err
    assert not (tmp_path / "data" / "LibriSpeech").exists()


def test_a_subset_that_librispeech_lacks_is_a_mistake(tmp_path, capfd):
    assert run(["corpus", "download", str(tmp_path), "train-clean-5"]) == 2
    assert "train-clean-360" in capfd.readouterr().err
