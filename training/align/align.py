"""The align stage: a feature set with phone labels in, the same with frame targets out.

The result at ``runs/align/<fingerprint>`` is a feature set like any other: the same shards with
the alignment column filled, silence among the symbols, and a manifest that says which features it
came from. An utterance that cannot be aligned becomes a row of ``rejects.parquet``.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from featurize.cmvn import Normaliser
from featurize.labels import WordPhones, word_phones
from featurize.rejects import REJECTS_NAME, Reject, write_rejects
from featurize.schema import (
    SCHEMA_VERSION,
    THREE_STATE_SHIFT_S,
    AlignmentInfo,
    FeatureDtype,
    FeatureRow,
    FeaturizeManifest,
    LabelInventory,
    ShardInfo,
    StateInventory,
    SubsetInfo,
)
from featurize.shard_writer import pack_row, write_shard
from featurize.shards import iter_rows, read_rows, shards_of
from featurize.stage import (
    Location,
    PipelineError,
    StageResult,
    TypedConfig,
    fingerprint,
    read_manifest,
    run_stage,
    software_versions,
    timestamp,
)
from training.align.align_config import AlignConfig
from training.align.flat_start import EstimationUtterance, GaussianModel, estimate_gaussians
from training.align.forced import Transcript, align_utterance
from training.align.outcome import AlignedLabels, Unaligned
from training.align.scorers import GaussianScorer, NetworkScorer, Scorer
from training.align.stacking import Stacking
from training.align.states import FrameTargets, phone_state_inventory
from training.align.textgrids import TextGrids, textgrids_digest
from training.align.tying import ContextStatistics, tie_states
from training.manifest import TrainProgress
from training.train import train
from training.worker_config import WorkerConfig

logger = logging.getLogger(__name__)

STAGE = "align"
STAGE_VERSION = 1
SILENCE = "SIL"
"""Name of the symbol of silence; it is not scored."""
_BATCH_SIZE = 16


class AlignProgress(TypedConfig):
    """How far a running alignment is.

    Attributes:
        step: what it is doing, in a few words.
        num_done: of ``num_all`` parts of that step.
    """

    step: str
    num_done: int
    num_all: int


OnProgress = Callable[[AlignProgress], None]


def align_fingerprint(config: AlignConfig, features: FeaturizeManifest) -> str:
    """Name of an alignment: its configuration and its features."""
    parts = {"version": STAGE_VERSION, "config": config, "features": features.fingerprint}
    if config.textgrids is not None:
        parts["textgrids"] = textgrids_digest(Location.of(config.textgrids))
    return fingerprint(parts)


def align(
    config: AlignConfig,
    features: Location,
    runs: Location,
    workers: WorkerConfig,
    *,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> StageResult:
    """Align a feature set at ``runs/align/<fingerprint>``, or find it aligned.

    Each network round builds on the finished alignment of the round before, and on a network
    trained on that: both are results of their own, found when they are there.

    Args:
        config: how to align.
        features: a finished feature set with phone labels.
        runs: root of all stages' results.
        workers: where the networks are trained.
        force: align again even if finished.
        on_progress: called as the work goes on.

    Raises:
        PipelineError: when the features are unfinished or have no phone labels, their lexicon
            changed, or a subset has no utterance left.
    """
    manifest = read_manifest(features, FeaturizeManifest)
    words = word_phones(manifest)
    name = align_fingerprint(config, manifest)

    def work(location: Location) -> FeaturizeManifest:
        run = _AlignRun(config, features, manifest, words, location, on_progress)
        if config.textgrids is not None:
            return run.imported(name, Location.of(config.textgrids))
        if not config.num_network_rounds:
            scorer, states = run.estimate()
            return run.write(name, run.aligner(scorer, states), states)
        before = config.model_copy(update={"num_network_rounds": config.num_network_rounds - 1})
        aligned = align(before, features, runs, workers, on_progress=on_progress)
        trained = train(
            config.network, aligned.location, runs, workers, on_progress=_told(on_progress)
        )
        states = read_manifest(aligned.location, FeaturizeManifest).states
        network = NetworkScorer.of(trained.location)
        return run.write(name, run.aligner(network, states), states)

    return run_stage(runs.child(STAGE, name), name, work, force=force)


def _told(on_progress: OnProgress | None) -> Callable[[TrainProgress], None] | None:
    if on_progress is None:
        return None

    def tell(progress: TrainProgress) -> None:
        step = f"training a network, epoch {progress.epoch + 1} of {progress.num_epochs}"
        on_progress(AlignProgress(step=step, num_done=progress.step, num_all=progress.num_steps))

    return tell


Aligner = Callable[[Sequence[FeatureRow]], Iterator[AlignedLabels | Unaligned]]


@dataclass
class _Tally:
    """Counts of an alignment while it is written."""

    row_shift_s: float
    score: float = 0.0
    num_rows: int = 0
    num_silent_rows: int = 0
    num_phones: int = 0

    def add(self, found: AlignedLabels, silent_targets: list[int], silences: list[int]) -> None:
        """Take in an utterance."""
        self.score += found.score * len(found.alignment_T)
        self.num_rows += len(found.alignment_T)
        self.num_silent_rows += int(np.isin(found.alignment_T, silent_targets).sum())
        self.num_phones += int((~np.isin(found.labels_P, silences)).sum())

    def summary(self, features: str, config: AlignConfig) -> AlignmentInfo:
        """What the manifest says of the alignment."""
        voiced_s = (self.num_rows - self.num_silent_rows) * self.row_shift_s
        return AlignmentInfo(
            features=features,
            config=config.model_dump(mode="json"),
            log_likelihood=self.score / self.num_rows,
            silence_share=self.num_silent_rows / self.num_rows,
            mean_phone_s=voiced_s / max(1, self.num_phones),
        )


class _AlignRun:
    """One run of the stage: its inputs, and where its result goes."""

    def __init__(
        self,
        config: AlignConfig,
        features: Location,
        manifest: FeaturizeManifest,
        words: WordPhones | None,
        target: Location,
        on_progress: OnProgress | None,
    ) -> None:
        self.config = config
        self.features = features
        self.manifest = manifest
        self.words = words
        self.target = target
        self.on_progress = on_progress
        self.labels = aligned_inventory(manifest.labels, has_words=words is not None)

    def _tell(self, step: str, num_done: int, num_all: int) -> None:
        if self.on_progress is not None:
            self.on_progress(AlignProgress(step=step, num_done=num_done, num_all=num_all))

    def _transcript(self, row: FeatureRow) -> Transcript:
        if self.words is None:
            return Transcript.of_phones(row.labels)
        words = self.words(row.text)
        if [phone for word in words for phone in word] != row.labels.tolist():
            raise PipelineError(
                f"{row.utterance_id}: its labels are not what the lexicon says of its words; the "
                "lexicon changed since the features were made: featurize again"
            )
        return Transcript.of_words(words, silence=self.labels.symbols.index(SILENCE))

    def _min_silence_frames(self, stacking: Stacking) -> int:
        return round(self.config.min_silence_s / stacking.frame_shift_s)

    def estimate(self) -> tuple[GaussianScorer, StateInventory | None]:
        """Estimate Gaussians on the training utterances, from a flat start, and tie the states."""
        stacking, normalise = Stacking.of(self.manifest), Normaliser(self.manifest.cmvn)
        train = self.manifest.splits["train"]
        total = sum(shard.num_utterances for shard in shards_of(self.manifest, train))
        every = -(-total // self.config.num_estimation_utterances)
        rows = iter_rows(self.features, self.manifest, train)
        utterances = [
            EstimationUtterance(
                stacking.frames(normalise(row)).astype(np.float16), self._transcript(row)
            )
            for number, row in enumerate(rows)
            if number % every == 0
        ]
        model = estimate_gaussians(
            utterances,
            len(self.labels.symbols),
            3 if stacking.frame_shift_s <= THREE_STATE_SHIFT_S else 1,
            self._min_silence_frames(stacking),
            self.config,
            lambda done, rounds: self._tell("estimating Gaussians", done, rounds),
        )
        return GaussianScorer(model, stacking, normalise), self._tie(model, utterances)

    def _tie(
        self, model: GaussianModel, utterances: Sequence[EstimationUtterance]
    ) -> StateInventory | None:
        """The configured targets; None for phones."""
        targets, num_symbols = self.config.targets, len(self.labels.symbols)
        num_parts = min(targets.states_per_phone, model.states_per_phone)
        if targets.kind == "phones":
            return None
        if targets.kind == "states":
            return phone_state_inventory(num_symbols, num_parts)
        self._tell("tying states", 0, 1)
        statistics = ContextStatistics(num_symbols, model.projection.matrix_XD.shape[1])
        for utterance in utterances:
            found = utterance.alignment
            if found is not None:
                x_tD = model.project(utterance.wide_frames_tf)
                statistics.add(
                    x_tD, found.phones_P, found.places_t, model.states_per_phone, num_parts
                )
        silences = _silences(self.labels)
        return tie_states(statistics, num_parts, targets.num_senones, targets.min_frames, silences)

    def imported(self, name: str, folder: Location) -> FeaturizeManifest:
        """Take every utterance's phones and times from its TextGrid."""
        if self.words is None:
            raise PipelineError("align.textgrids is for phones from a lexicon, not TIMIT's own")
        grids = TextGrids(folder, self.manifest, self.labels.symbols, SILENCE)
        return self.write(name, lambda rows: map(grids, rows), None)

    def write(
        self, name: str, aligner: Aligner, states: StateInventory | None
    ) -> FeaturizeManifest:
        """Align every utterance, write the feature set, and say what it holds.

        Args:
            name: fingerprint of the result.
            aligner: what aligns utterances.
            states: what the frame targets are; None for the phones themselves.
        """
        tally = _Tally(self.manifest.frame_shift_s)
        shards: list[ShardInfo] = []
        rejects: list[Reject] = []
        num_samples: Counter[str] = Counter()
        speakers: dict[str, set[str]] = {subset: set() for subset in self.manifest.subsets}
        for number, shard in enumerate(self.manifest.shards):
            self._tell("aligning", number, len(self.manifest.shards))
            packed = []
            rows = read_rows(
                self.features,
                shard,
                inventory=self.manifest.labels,
                states=self.manifest.states,
            )
            for row, found in zip(rows, aligner(rows), strict=True):
                if isinstance(found, Unaligned):
                    rejects.append(
                        Reject(row.utterance_id, row.subset, "", found.reason, found.detail)
                    )
                    continue
                tally.add(found, _silent_states(self.labels, states), _silences(self.labels))
                packed.append(pack_row(_with_targets(row, found), _dtype(row)))
                num_samples[row.subset] += row.num_samples
                speakers[row.subset].add(row.speaker_id)
            if packed:
                group_size = int(str(self.manifest.config["row_group_size"]))
                info = write_shard(self.target, shard.file, shard.subset, packed, group_size)
                shards.append(info)
        write_rejects(self.target, rejects)
        rate = self.manifest.sample_rate_hz
        subsets = {
            subset: _subset_info(shards, subset, speakers[subset], num_samples[subset] / rate)
            for subset in self.manifest.subsets
        }
        empty = [subset for subset, info in subsets.items() if not info.num_utterances]
        if empty:
            raise PipelineError(
                f"no utterance of subset {empty[0]!r} could be aligned ({rejects[0].reason}: "
                f"{rejects[0].detail}); {self.target.child(REJECTS_NAME)} lists each"
            )
        return self._manifest(name, tuple(shards), subsets, rejects, tally, states)

    def aligner(self, scorer: Scorer, states: StateInventory | None) -> Aligner:
        """Finds the best path by a scorer, and the frame targets on it."""
        targets = FrameTargets(states, len(self.labels.symbols))
        stacking, num_parts = scorer.stacking, scorer.sequence.states_per_phone

        def align_rows(rows: Sequence[FeatureRow]) -> Iterator[AlignedLabels | Unaligned]:
            # Rows of similar length stand together, so that batches pad little.
            batches = (rows[i : i + _BATCH_SIZE] for i in range(0, len(rows), _BATCH_SIZE))
            scores = (scored for batch in batches for scored in scorer(batch))
            for row, scores_tS in zip(rows, scores, strict=True):
                found = align_utterance(
                    scores_tS,
                    self._transcript(row),
                    scorer.sequence,
                    self._min_silence_frames(stacking),
                )
                if found is None:
                    detail = f"{len(scores_tS)} frames are too few for {row.labels.size} phones"
                    yield Unaligned("too_short", detail)
                    continue
                targets_t = targets(found.phones_P, found.places_t, num_parts)
                yield AlignedLabels(
                    found.phones_P,
                    targets_t[stacking.middle_frames(len(row.features))],
                    found.score / len(scores_tS),
                )

        return align_rows

    def _manifest(
        self,
        name: str,
        shards: tuple[ShardInfo, ...],
        subsets: dict[str, SubsetInfo],
        rejects: Sequence[Reject],
        tally: _Tally,
        states: StateInventory | None,
    ) -> FeaturizeManifest:
        return self.manifest.model_copy(
            update={
                "stage": STAGE,
                "schema_version": SCHEMA_VERSION,
                "fingerprint": name,
                "upstream": {"features": self.manifest.fingerprint},
                "created_at": timestamp(),
                "versions": software_versions("spikeline", "numpy", "pyarrow", "torchaudio"),
                "labels": self.labels,
                "subsets": subsets,
                "shards": shards,
                "reject_counts": dict(Counter(str(reject.reason) for reject in rejects)),
                "aligned": tally.summary(self.features.uri, self.config),
                "states": states,
            }
        )


def aligned_inventory(labels: LabelInventory, *, has_words: bool) -> LabelInventory:
    """The symbols of an aligned feature set: where words are looked up, silence comes last."""
    if not has_words:
        return labels.model_copy(update={"kind": "alignment"})
    return LabelInventory(
        kind="alignment",
        symbols=(*labels.symbols, SILENCE),
        scored_as=(*labels.scored_as, None),
    )


def _silences(labels: LabelInventory) -> list[int]:
    return [i for i, symbol in enumerate(labels.symbols) if symbol in (SILENCE, "sil")]


def _silent_states(labels: LabelInventory, states: StateInventory | None) -> list[int]:
    """Frame targets that are silence."""
    silences = _silences(labels)
    if states is None:
        return silences
    return [state for state, phone in enumerate(states.phones) if phone in silences]


def _with_targets(row: FeatureRow, found: AlignedLabels) -> FeatureRow:
    return replace(row, labels=found.labels_P, alignment=found.alignment_T)


def _dtype(row: FeatureRow) -> FeatureDtype:
    return "float16" if row.features.dtype.itemsize == 2 else "float32"


def _subset_info(
    shards: Sequence[ShardInfo], subset: str, speakers: set[str], seconds: float
) -> SubsetInfo:
    own = [shard for shard in shards if shard.subset == subset]
    return SubsetInfo(
        num_utterances=sum(shard.num_utterances for shard in own),
        num_speakers=len(speakers),
        num_frames=sum(shard.num_frames for shard in own),
        hours=seconds / 3600,
    )
