"""Kaldi's features and alignments as a feature set: the paper's own fMLLR and tied states.

What Kaldi made is taken as it is: rows of ``feats.scp`` are the features, and each frame's target
is its pdf, the tied state of the model that aligned it. Which one it is, the alignment's own folder
says (``ali.*.gz`` and ``final.mdl``), or two archives per subset::

    ali-to-pdf final.mdl "ark:gunzip -c ali.*.gz |" ark:pdfs.ark
    ali-to-phones --per-frame=true final.mdl "ark:gunzip -c ali.*.gz |" ark:phones.ark

Which phone a pdf is of is counted over the frames of the train split (with position suffixes and
stress removed); pdfs that several phones share count for the one they are most often of. A
pdf's contexts and its part of the phone stand in the model's own file, which is not read: the pdfs
of a phone are one state in the search, scored by the best of them.

Shape legend: T frames, F features.
"""

import hashlib
import random
import re
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from featurize.cmvn import cmvn_statistics
from featurize.import_kaldi_config import KaldiImportConfig
from featurize.kaldi_archives import BadRecord, read_lines, read_matrix
from featurize.kaldi_subset import SubsetTables, check_frame_shift, marks_of_subset, read_subset
from featurize.moments import MomentSums, add_moments
from featurize.phones import PHONE_48_TO_39
from featurize.plan_shards import shard_name
from featurize.rejects import Reject, check_reject_share, check_sums, count_rejects, write_rejects
from featurize.schema import (
    IMPORT_STAGE,
    SCHEMA_VERSION,
    SHARDS_FOLDER,
    FeatureRow,
    FeaturizeManifest,
    LabelInventory,
    ShardInfo,
    StateInventory,
    SubsetInfo,
)
from featurize.shard_writer import PackedRow, pack_row, unpacked_features, write_shard
from featurize.stage import (
    Location,
    PipelineError,
    StageResult,
    fingerprint,
    run_stage,
    software_versions,
    timestamp,
)
from featurize.utterance_index import index_shard, write_index

STAGE_VERSION = 1
SAMPLE_RATE_HZ = 16000
DURATION_TOLERANCE_S = 0.1
"""Of utt2dur; a window that does not fit at the end costs less."""
_MAX_PDFS = 100_000
_NOT_SCORED = frozenset({"SIL", "SPN", "NSN", "LAU"})


def import_kaldi(config: KaldiImportConfig, runs: Location, *, force: bool = False) -> StageResult:
    """Import at ``runs/import/<fingerprint>``, or find it imported.

    Raises:
        PipelineError: when a table cannot be read, or too many utterances are unusable.
    """
    name = import_fingerprint(config)

    def work(location: Location) -> FeaturizeManifest:
        return _Import(config, location).run(name)

    return run_stage(runs.child(IMPORT_STAGE, name), name, work, force=force)


def import_fingerprint(config: KaldiImportConfig) -> str:
    """Name of an import: its configuration, and all that it reads."""
    return fingerprint(
        {"version": STAGE_VERSION, "config": config, "tables": _tables_digest(config)}
    )


def _tables_digest(config: KaldiImportConfig) -> str:
    digest = hashlib.sha256(Location.of(config.phone_table).read_bytes())
    for subset in config.subsets:
        for mark in marks_of_subset(subset, config.root):
            digest.update(mark)
    return digest.hexdigest()


def base_phone(name: str) -> str:
    """A phone without its position in the word and its stress: ``AH0_B`` is ``AH``."""
    bare = re.sub(r"_[BIES]$", "", name)
    return bare.rstrip("0123456789") or bare


def read_phone_table(file: Location) -> dict[int, str]:
    """Number to base phone."""
    table: dict[int, str] = {}
    for number, line in enumerate(read_lines(file), start=1):
        fields = line.split()
        if len(fields) != 2 or not fields[1].isdecimal():
            raise PipelineError(f"{file}, line {number} is not 'PHONE NUMBER'")
        if fields[0] != "<eps>" and not fields[0].startswith("#"):
            table[int(fields[1])] = base_phone(fields[0])
    return table


class _Import:
    """One run: its tables, and where its result goes."""

    def __init__(self, config: KaldiImportConfig, target: Location) -> None:
        self.config = config
        self.target = target
        self.phone_table = read_phone_table(Location.of(config.phone_table))
        self.symbols = tuple(sorted(set(self.phone_table.values())))
        self._ids = {symbol: number for number, symbol in enumerate(self.symbols)}
        self.num_features = 0
        self.rejects: list[Reject] = []
        self.moments: dict[str, dict[str, MomentSums]] = {}

    def run(self, name: str) -> FeaturizeManifest:
        """Read the tables, count pdfs, write shards and rejects."""
        for config in self.config.subsets:
            check_frame_shift(config, self.config.frame_shift_s)
        subsets = [read_subset(config, self.config.root) for config in self.config.subsets]
        states = self._states(subsets)
        shards: list[ShardInfo] = []
        for subset in subsets:
            shards += self._write(subset, len(shards), len(states.phones))
        write_index(self.target, [index_shard(self.target, shard) for shard in shards])
        write_rejects(self.target, self.rejects)
        infos = {s.config.name: self._subset_info(s.config.name, shards) for s in subsets}
        came_in = {subset.config.name: len(subset.keys) for subset in subsets}
        counts = count_rejects(self.rejects)
        kept = {name: info.num_utterances for name, info in infos.items()}
        check_sums(self.target, came_in, kept, counts)
        share = self.config.max_reject_share
        check_reject_share(self.target, self._splits(), kept, counts, share)
        return self._manifest(name, shards, infos, states)

    def _phones(self, numbers: NDArray[np.int32]) -> NDArray[np.int32]:
        """Symbol ids of Kaldi's phone numbers."""
        unknown = sorted(set(numbers.tolist()) - set(self.phone_table))
        if unknown:
            raise BadRecord(f"phone {unknown[0]} is not in the phone table", "bad_alignment")
        found = [self._ids[self.phone_table[number]] for number in numbers.tolist()]
        return np.array(found, np.int32)

    def _states(self, subsets: list[SubsetTables]) -> StateInventory:
        """The phone of each pdf, by the frames of the train split."""
        highest = max(
            (int(v.max()) for s in subsets for v in s.pdfs.values() if len(v)), default=-1
        )
        if not 0 <= highest < _MAX_PDFS:
            raise PipelineError(f"the pdfs go up to {highest}; they should be 0 to some thousands")
        counts = np.zeros((highest + 1, len(self.symbols)), np.int64)
        for subset in subsets:
            if subset.config.split != "train":
                continue
            for key, pdfs in subset.pdfs.items():
                numbers = subset.phones.get(key)
                if numbers is None or len(numbers) != len(pdfs) or pdfs.min(initial=0) < 0:
                    continue
                known = np.isin(numbers, list(self.phone_table))
                np.add.at(counts, (pdfs[known], self._phones(numbers[known])), 1)
        if not counts.any():
            raise PipelineError(
                "no utterance of the train split has as many pdfs as phones; make both archives "
                "from the same alignment"
            )
        return StateInventory.in_any_context(tuple(counts.argmax(1).tolist()))

    def _write(self, subset: SubsetTables, first_number: int, num_pdfs: int) -> list[ShardInfo]:
        keys = subset.keys
        random.Random(f"{self.config.seed} {subset.config.name}").shuffle(keys)  # noqa: S311
        shards: list[ShardInfo] = []
        size = self.config.utterances_per_shard
        for start in range(0, len(keys), size):
            packed = []
            for key in keys[start : start + size]:
                try:
                    row = self._row(subset, key, num_pdfs)
                except BadRecord as problem:
                    self._reject(subset, key, problem)
                    continue
                packed.append(pack_row(row, self.config.feature_dtype))
                self._count(subset.config.name, row.speaker_id, packed[-1])
            if packed:
                file = f"{SHARDS_FOLDER}/{shard_name(first_number + len(shards))}"
                name, group = subset.config.name, self.config.row_group_size
                shards.append(write_shard(self.target, file, name, packed, group))
        if not shards:
            raise PipelineError(
                f"every utterance of subset {subset.config.name!r} is unusable, the last because: "
                f"{self.rejects[-1].detail if self.rejects else 'it has none'}"
            )
        return shards

    def _row(self, subset: SubsetTables, key: str, num_pdfs: int) -> FeatureRow:
        if key not in subset.script:
            raise BadRecord("it is in utt2spk, and not in feats.scp")
        if key not in subset.speakers:
            raise BadRecord("it is not in utt2spk", "unknown_speaker")
        if subset.texts is not None and key not in subset.texts:
            raise BadRecord("it is not in text", "missing_transcript")
        pdfs, numbers = subset.pdfs.get(key), subset.phones.get(key)
        if pdfs is None or numbers is None:
            raise BadRecord("it has no pdfs or no phones", "missing_alignment")
        features = read_matrix(subset.script[key])
        self.num_features = self.num_features or features.shape[1]
        if features.shape[1] != self.num_features:
            raise BadRecord(f"{features.shape[1]} features a frame, not {self.num_features}")
        if not len(features) == len(pdfs) == len(numbers):
            raise BadRecord(
                f"{len(features)} frames, {len(pdfs)} pdfs and {len(numbers)} phones do not fit",
                "bad_alignment",
            )
        self._check_duration(subset.durations_s.get(key), len(features))
        limit = np.finfo(self.config.feature_dtype).max
        if not np.abs(features).max() <= limit:
            raise BadRecord(f"values that {self.config.feature_dtype} does not hold")
        if not 0 <= pdfs.min() <= pdfs.max() < num_pdfs:
            raise BadRecord("a pdf's number is out of range", "bad_alignment")
        phones_T = self._phones(numbers)
        return FeatureRow(
            utterance_id=key,
            speaker_id=subset.speakers[key],
            chapter_id="",
            subset=subset.config.name,
            text="" if subset.texts is None else subset.texts[key],
            labels=phones_T[np.flatnonzero(np.diff(phones_T, prepend=-1))],
            num_samples=round(len(features) * self.config.frame_shift_s * SAMPLE_RATE_HZ),
            features=features,
            alignment=pdfs.astype(np.int32),
        )

    def _check_duration(self, seconds: str | None, num_frames: int) -> None:
        """Hold the frames against the length of the audio, where Kaldi says it."""
        if seconds is None:
            return
        try:
            duration_s = float(seconds)
        except ValueError as error:
            raise BadRecord(f"{seconds[:20]!r} in utt2dur is no number of seconds") from error
        shift_s = self.config.frame_shift_s
        if not abs(num_frames * shift_s - duration_s) <= DURATION_TOLERANCE_S + shift_s:
            raise BadRecord(
                f"{num_frames} frames every {shift_s} s are {num_frames * shift_s:.2f} s, and by "
                f"utt2dur its audio is {duration_s:.2f} s long; check frame_shift_s",
                "bad_alignment",
            )

    def _count(self, subset: str, speaker: str, packed: PackedRow) -> None:
        own = MomentSums.of(unpacked_features(packed))
        so_far = self.moments.setdefault(subset, {})
        so_far[speaker] = add_moments([so_far[speaker], own]) if speaker in so_far else own

    def _reject(self, subset: SubsetTables, key: str, problem: BadRecord) -> None:
        path = subset.script[key].file.uri if key in subset.script else ""
        self.rejects.append(Reject(key, subset.config.name, path, problem.reason, str(problem)))

    def _splits(self) -> dict[str, tuple[str, ...]]:
        return {
            split: tuple(s.name for s in self.config.subsets if s.split == split)
            for split in ("train", "dev", "test")
        }

    def _manifest(
        self,
        name: str,
        shards: list[ShardInfo],
        subsets: dict[str, SubsetInfo],
        states: StateInventory,
    ) -> FeaturizeManifest:
        config = self.config
        splits = self._splits()
        by_speaker: dict[str, list[MomentSums]] = {}
        for own in self.moments.values():
            for speaker, moments in own.items():
                by_speaker.setdefault(speaker, []).append(moments)
        train = [m for subset in splits["train"] for m in self.moments[subset].values()]
        is_timit = set(self.symbols) <= set(PHONE_48_TO_39)
        return FeaturizeManifest(
            stage=IMPORT_STAGE,
            schema_version=SCHEMA_VERSION,
            fingerprint=name,
            created_at=timestamp(),
            versions=software_versions("spikeline", "numpy", "pyarrow", "kaldiio"),
            config=config.model_dump(mode="json") | {"stack": 1, "stride": 1},
            corpus_digest=name,
            splits=splits,
            sample_rate_hz=SAMPLE_RATE_HZ,
            frame_shift_s=config.frame_shift_s,
            num_features=self.num_features,
            labels=LabelInventory(
                kind="alignment",
                symbols=self.symbols,
                scored_as=tuple(
                    PHONE_48_TO_39[s] if is_timit else None if s.upper() in _NOT_SCORED else s
                    for s in self.symbols
                ),
            ),
            cmvn=cmvn_statistics(
                config.cmvn, train, {s: add_moments(parts) for s, parts in by_speaker.items()}
            ),
            subsets=subsets,
            shards=tuple(shards),
            reject_counts=dict(Counter(str(reject.reason) for reject in self.rejects)),
            num_resampled=0,
            states=states,
        )

    def _subset_info(self, name: str, shards: list[ShardInfo]) -> SubsetInfo:
        num_frames = sum(shard.num_frames for shard in shards if shard.subset == name)
        seconds = num_frames * self.config.frame_shift_s
        return SubsetInfo.of(name, shards, len(self.moments.get(name, {})), seconds)
