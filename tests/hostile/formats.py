"""Every format that comes from outside: a sound specimen, how it is damaged, and who reads it.

A reader is the pipeline's own, taken as far as the pipeline would go with what it read. What it
may raise is a ``PipelineError``, a rejected utterance or a validation error: all others are
findings.
"""

import gzip
import hashlib
import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from featurize.corpora import librispeech, manifest, timit
from featurize.corpora.archive import ExtractionLimits, extract_archive
from featurize.corpora.entry import CorpusEntry
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.lexicon import load_lexicon
from featurize.make_shard import make_shard
from featurize.plan_shards import ShardPlan
from featurize.schema import SHARD_SCHEMA, FeaturizeManifest
from featurize.shards import read_columns, read_rows
from featurize.stage import Location, read_manifest
from featurize.stage.integrity import content_digest
from tests.harness.tiny import FEATURES
from tests.hostile.mutations import mutate_bytes, mutate_json, mutate_text

Reader = Callable[[bytes, Path], str]
Damager = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        specimens: sound inputs.
        damage: makes a bad input of a sound one.
        read: reads an input, with a folder of its own for what it writes; says in a word what
            became of it ("read", or the reason of a rejected utterance).
    """

    specimens: tuple[bytes, ...]
    damage: Damager
    read: Reader


def _sound(format: str, subtype: str, rate: int = 16_000, channels: int = 1) -> bytes:
    rng = np.random.default_rng(1)
    samples = rng.normal(0, 0.1, (6_000, channels))
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=format, subtype=subtype)
    return stream.getvalue()


def _write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _featurize_one(folder: Path, audio: str, config: FeaturizeConfig, **fields: Any) -> str:
    """Take one utterance all the way into a shard, and read that again."""
    entry = CorpusEntry(
        utterance_id="1-7-0001",
        speaker_id="1",
        chapter_id="7",
        subset=config.splits.train[0],
        text="ABC",
        audio=audio,
        **fields,
    )
    target = Location.of(folder / "out")
    plan = ShardPlan(0, entry.subset, (entry,), Location.of(folder), target, config)
    result = make_shard(plan)
    if result.shard is None:
        return result.rejects[0].reason
    read_rows(target, result.shard)
    return "read"


def _read_audio(name: str, data: bytes, folder: Path) -> str:
    _write(folder, name, data)
    return _featurize_one(folder, name, FEATURES)


_PHN = b"0 400 h#\n400 900 dh\n900 1200 ix\n1200 1500 q\n1500 1900 aa\n1900 2000 h#\n"
_TIMIT = FeaturizeConfig(
    corpus="timit",
    splits=SplitsConfig(train=("train",), dev=("dev",)),
    labels="alignment",
    num_bins=12,
)


def _read_phn(data: bytes, folder: Path) -> str:
    _write(folder, "a.wav", _sound("WAV", "PCM_16"))
    _write(folder, "a.phn", data)
    return _featurize_one(folder, "a.wav", _TIMIT, alignment="a.phn")


_TRANSCRIPT = b"1-7-0000 ANNA'S BOOK\n1-7-0001 IS ON\n1-7-0002 THE SHELF AND STAYS\n"
_SPEAKERS = (
    b"; ID | SEX | SUBSET | MINUTES | NAME\n1 | F | tiny | 25.03 | A Reader\n2 | M | tiny | 1 | N\n"
)


def _read_transcript(data: bytes, folder: Path) -> str:
    """The chapter's text, TIMIT's prompt and the speaker table are all one input."""
    chapter = folder / "tiny" / "1" / "7"
    for number in range(3):
        _write(chapter, f"1-7-000{number}.flac", b"")
    speakers, _, rest = data.partition(b"\f")
    transcript, _, prompt = rest.partition(b"\f")
    _write(chapter, "1-7.trans.txt", transcript)
    _write(folder, "SPEAKERS.TXT", speakers)
    _write(folder, "TRAIN/DR1/FCJF0/SX37.WAV", b"")
    _write(folder, "TRAIN/DR1/FCJF0/SX37.TXT", prompt)
    timit.scan(Location.of(folder), ["train"])
    listing = librispeech.scan(Location.of(folder), ["tiny"])
    assert len(listing.entries) + len(listing.rejects) >= 3
    return listing.rejects[0].reason if listing.rejects else "read"


def _archive() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("c/SPEAKERS.TXT", f"c/{'long/' * 30}t.txt", "c/\u00e4.flac"):
            info = tarfile.TarInfo(name)
            info.size = 700
            tar.addfile(info, io.BytesIO(b"x" * 700))
    return gzip.compress(stream.getvalue(), 1, mtime=0)


def _damage_archive(data: bytes, rng: random.Random) -> bytes:
    """Damage inside the gzip stream, mostly; a tar header's checksum is made to fit, mostly."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    content = bytearray(mutate_bytes(gzip.decompress(data), rng))
    if rng.random() < 0.4:
        block = 512 * rng.randrange(max(1, len(content) // 512))
        name = rng.choice((b"../escaped", b"/tmp/escaped", b"c/../../escaped", b"a\0b", b".", b""))
        content[block : block + len(name) + 1] = name + b"\0"
    if rng.random() < 0.4 and len(content) >= 512:
        block = 512 * rng.randrange(len(content) // 512)
        content[block + 156 : block + 157] = rng.choice(
            (b"1", b"2", b"3", b"5", b"6", b"L", b"S", b"x")
        )
    for block in range(0, len(content) - 511, 512):
        if rng.random() < 0.9 and content[block + 257 : block + 262] == b"ustar":
            content[block + 148 : block + 156] = b" " * 8
            content[block + 148 : block + 156] = b"%06o\0 " % sum(content[block : block + 512])
    return gzip.compress(bytes(content), 1, mtime=0)


_LIMITS = ExtractionLimits(max_members=100, max_member_bytes=2**20, max_total_bytes=2**20)


def _read_archive(data: bytes, folder: Path) -> str:
    archive = _write(folder, "c.tar.gz", data)
    target = folder / "extracted"
    try:
        extract_archive(Location.of(archive), Location.of(target), _LIMITS)
    finally:
        assert {p.name for p in folder.iterdir()} <= {"c.tar.gz", "extracted"}, "litter"
        assert not any(p.is_symlink() for p in folder.rglob("*")), "a link was made"
    return "read"


class _Workshop:
    """Finished results of all stages, made once; readers work on copies."""

    def __init__(self, folder: Path) -> None:
        from featurize.featurize import featurize
        from featurize.stage import FanOut
        from tests.harness.tiny import HERE, TRAINING, make_corpus
        from training.train import train

        corpus = Location.of(make_corpus(folder / "corpus"))
        runs = Location.of(folder / "runs")
        self.features = featurize(
            FEATURES, corpus, runs, fan_out=FanOut(kind="sequential")
        ).location
        self.model = train(TRAINING, self.features, runs, HERE).location

    def copy(self, source: Location, folder: Path) -> Location:
        target = folder / source.name
        shutil.copytree(source.path, target)
        return Location.of(target)


def _reseal_manifest(content: dict[str, Any]) -> dict[str, Any]:
    content["manifest_sha256"] = content_digest(content, "manifest_sha256")
    return content


def _read_feature_manifest(workshop: _Workshop, data: bytes, folder: Path) -> str:
    from tests.harness.tiny import TRAINING
    from training.data import TrainingData

    features = workshop.copy(workshop.features, folder)
    features.child("manifest.json").write_bytes(data)
    manifest = read_manifest(features, FeaturizeManifest)
    for step in TrainingData(features, manifest, TRAINING).train_steps(0):
        assert step.batch.x_TBF.dim() == 3
    return "read"


def _read_model_manifest(workshop: _Workshop, data: bytes, folder: Path) -> str:
    from training.trained_model import load_model

    model = workshop.copy(workshop.model, folder)
    model.child("manifest.json").write_bytes(data)
    load_model(model)
    return "read"


def _rewrite_parquet(data: bytes, rng: random.Random) -> bytes:
    """Damage to bytes, or a well-formed file whose values lie."""
    if rng.random() < 0.6:
        return mutate_bytes(data, rng)
    table = pq.read_table(io.BytesIO(data))
    columns = table.to_pydict()
    name = rng.choice(table.column_names)
    column = columns[name]
    at = rng.randrange(len(column))
    kind = table.schema.field(name).type
    if pa.types.is_integer(kind):
        column[at] = rng.choice((0, -1, 2**31 - 1, column[at] + 1, -(2**31)))
    elif pa.types.is_list(kind):
        column[at] = rng.choice(([], [-1], [2**31 - 1] * 3, [0] * 10_000))
    elif pa.types.is_binary(kind):
        column[at] = rng.choice(
            (b"", b"\0", column[at][:-1], column[at] + b"\0\0", b"\xff" * len(column[at]))
        )
    else:
        column[at] = rng.choice(("", "float16", "object", "\x1b[31m" + "x" * 100_000, "../up"))
    schema = SHARD_SCHEMA if rng.random() < 0.8 else table.schema.remove_metadata()
    if rng.random() < 0.1:
        columns.pop(name)
        schema = schema.remove(schema.get_field_index(name))
    stream = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), stream, write_page_checksum=True)
    return stream.getvalue()


def _read_parquet(workshop: _Workshop, data: bytes, folder: Path) -> str:
    from featurize.shard_labels import read_targets
    from featurize.utterance_index import index_shard

    features = workshop.copy(workshop.features, folder)
    manifest = read_manifest(features, FeaturizeManifest)
    features.child(manifest.shards[0].file).write_bytes(data)
    shard = manifest.shards[0].model_copy(
        update={"num_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    )
    manifest = manifest.model_copy(update={"shards": (shard, *manifest.shards[1:])})
    verdicts: list[BaseException] = []
    for reader in (
        lambda: read_rows(features, shard, inventory=manifest.labels),
        lambda: list(read_columns(features, manifest, manifest.subsets, ["utterance_id"])),
        lambda: list(read_targets(features, shard)),
        lambda: index_shard(features, shard),
    ):
        try:
            reader()
        except Exception as error:
            if not is_refusal(error):
                raise
            verdicts.append(error)
    if verdicts:
        raise verdicts[0]
    return "read"


def _damage_checkpoint(data: bytes, rng: random.Random) -> bytes:
    """A packet of the three files of a checkpoint; checksums are made to fit, mostly."""
    packet = {name: bytes.fromhex(value) for name, value in json.loads(data).items()}
    name = rng.choice(sorted(packet))
    if name == "state.json":
        packet[name] = mutate_json(packet[name], rng)
    else:
        packet[name] = mutate_bytes(packet[name], rng)
        if rng.random() < 0.8:
            state = json.loads(packet["state.json"])
            state["sha256"][name] = hashlib.sha256(packet[name]).hexdigest()
            packet["state.json"] = json.dumps(state).encode()
    return json.dumps({name: value.hex() for name, value in packet.items()}).encode()


def _checkpoint(workshop: _Workshop) -> bytes:
    newest = workshop.model.child("checkpoints").children()[-1]
    return json.dumps({f.name: f.read_bytes().hex() for f in newest.children()}).encode()


def _read_checkpoint(workshop: _Workshop, data: bytes, folder: Path) -> str:
    """Resume from it, and take the best weights as the end of training does."""
    import torch

    from tests.harness.tiny import TRAINING
    from training.checkpoint import CheckpointStore
    from training.models.build import build_network

    run = Location.of(folder / "run")
    for name, value in json.loads(data).items():
        run.child("checkpoints", "epoch-0002", name).write_bytes(bytes.fromhex(value))
    manifest = read_manifest(workshop.features, FeaturizeManifest)
    network = build_network(TRAINING.model, manifest.num_features, len(manifest.labels.symbols) + 1)
    optimizer = torch.optim.AdamW(network.parameters())
    store = CheckpointStore(run)
    state = store.newest()
    assert state is not None
    store.restore(state, network, None, optimizer)
    store.weights_of(state.epoch)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return "read"


_LEXICON = b";;; comment\nHELLO HH AH0 L OW1\nHELLO(2) HH EH0 L OW1\nANNA AE1 N AH0 # name\n"


def _read_lexicon(data: bytes, folder: Path) -> str:
    lexicon = load_lexicon(str(_write(folder, "lexicon.txt", data)))
    lexicon.lookup("ANNA'S")
    return "read"


_ARPA = rb"""\data\
ngram 1=5
ngram 2=3

\1-grams:
-1.2	<unk>	0
-99	<s>	-0.3
-0.7	</s>
-0.5	HELLO	-0.2
-0.9	ANNA	-0.1

\2-grams:
-0.3	<s> HELLO
-0.4	HELLO ANNA
-0.2	ANNA </s>

\end\
"""


def _read_arpa(data: bytes, folder: Path) -> str:
    from evaluation.arpa import read_arpa

    model = read_arpa(Location.of(_write(folder, "a.arpa", data)))
    model.perplexity([["HELLO", "ANNA", "NOWHERE"]])
    return "read"


def _damage_arpa(data: bytes, rng: random.Random) -> bytes:
    damaged = mutate_text(data, rng)
    if rng.random() < 0.2:
        return mutate_bytes(gzip.compress(damaged, 1, mtime=0), rng)
    return damaged


def _read_config(data: bytes, folder: Path) -> str:
    """Settings as typed after ``--set``, and whole configurations as stored in manifests."""
    from flows.overrides import apply_overrides
    from flows.recipes import recipe_named
    from training.train_config import TrainConfig

    content, _, assignment = data.partition(b"\f")
    TrainConfig.model_validate_json(content)
    apply_overrides(recipe_named("demo"), [assignment.decode("utf-8", "replace")])
    return "read"


def _damage_config(data: bytes, rng: random.Random) -> bytes:
    content, _, assignment = data.partition(b"\f")
    if rng.random() < 0.5:
        return mutate_json(content, rng) + b"\f" + assignment
    return content + b"\f" + mutate_text(assignment, rng)


_TABLES = tuple(
    table.encode()
    for table in (
        '{"audio": "a.wav", "text": "abc", "start": 0.1, "duration": 0.2, "speaker": 3}\n\f',
        "\fAudio;Text;Start\na.wav;abc;0.1\n",
    )
)


def _read_table(data: bytes, folder: Path) -> str:
    _write(folder, "a.wav", b"")
    lines, _, cells = data.partition(b"\f")
    _write(folder, "tiny.jsonl", lines)
    _write(folder, "other.csv", cells or b"audio,text\n")
    listing = manifest.scan(Location.of(folder), ["tiny", "other"])
    return listing.rejects[0].reason if listing.rejects else "read"


_ASSIGNMENTS = (
    b"train.optimizer.learning_rate=5e-4",
    b'train.curriculum=[{"num_epochs": 2}]',
    b"models=v2,gru",
    b"featurize.num_bins=80",
)


def make_formats(folder: Path, names: frozenset[str]) -> dict[str, Format]:
    """The formats named, with what their readers need made below a folder."""
    flac = (_sound("FLAC", "PCM_16"), _sound("FLAC", "PCM_24", 22_050, 2))
    wav = (_sound("WAV", "PCM_16"), _sound("WAV", "FLOAT", 8_000, 2), _sound("WAV", "MS_ADPCM"))
    sphere = (_sound("NIST", "PCM_16"),)
    corpus = b"\f".join((_SPEAKERS, _TRANSCRIPT, b"0 46797 She had your dark suit.\n"))
    formats = {
        "FLAC": Format(flac, mutate_bytes, partial(_read_audio, "a.flac")),
        "WAV": Format(wav, mutate_bytes, partial(_read_audio, "a.wav")),
        "MP3": Format(
            (_sound("MP3", "MPEG_LAYER_III"),), mutate_bytes, partial(_read_audio, "a.mp3")
        ),
        "table": Format(_TABLES, mutate_text, _read_table),
        "SPHERE": Format(sphere, mutate_bytes, partial(_read_audio, "a.wav")),
        "transcript": Format((corpus,), mutate_text, _read_transcript),
        ".PHN": Format((_PHN,), mutate_text, _read_phn),
        "archive": Format((_archive(),), _damage_archive, _read_archive),
        "lexicon": Format((_LEXICON,), mutate_text, _read_lexicon),
        "ARPA": Format((_ARPA,), _damage_arpa, _read_arpa),
    }
    if names - set(formats):
        from tests.harness.tiny import TRAINING

        settings = tuple(TRAINING.model_dump_json().encode() + b"\f" + a for a in _ASSIGNMENTS)
        formats["configuration"] = Format(settings, _damage_config, _read_config)
        shop = _Workshop(folder)
        shard = shop.features.child("shards", "shard-00000.parquet").read_bytes()
        sealed = partial(mutate_json, reseal=_reseal_manifest)
        formats |= {
            "Parquet": Format((shard,), _rewrite_parquet, partial(_read_parquet, shop)),
            "manifest": Format(
                (shop.features.child("manifest.json").read_bytes(),),
                sealed,
                partial(_read_feature_manifest, shop),
            ),
            "model manifest": Format(
                (shop.model.child("manifest.json").read_bytes(),),
                sealed,
                partial(_read_model_manifest, shop),
            ),
            "checkpoint": Format(
                (_checkpoint(shop),), _damage_checkpoint, partial(_read_checkpoint, shop)
            ),
        }
    return {name: formats[name] for name in formats if name in names}


NAMES = (
    "FLAC", "WAV", "MP3", "SPHERE", "transcript", "table", ".PHN", "archive", "lexicon", "ARPA",
    "configuration", "Parquet", "manifest", "model manifest", "checkpoint",
)  # fmt: skip


def is_refusal(error: BaseException) -> bool:
    """Whether an error is one that a person is meant to read."""
    from pydantic import ValidationError

    from featurize.stage import PipelineError

    return isinstance(error, PipelineError | ValidationError)
