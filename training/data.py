"""Training data: batches streamed from Parquet shards with bounded memory."""

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from featurize.cmvn import Normaliser
from featurize.labels import frames_needed
from featurize.schema import FeatureRow, FeaturizeManifest
from featurize.shard_labels import read_label_columns
from featurize.shards import read_rows
from featurize.stage import Location, PipelineError
from training.batch_plan import GlobalBatch, IndexedRow, TrainingSequence, plan_epoch, worker_slice
from training.batching import Batch, Example, delayed, pad
from training.collectives import rank, world_size
from training.spec_augment import spec_augment
from training.train_config import TrainConfig

MAX_TOO_SHORT_SHARE = 0.01
"""Of a split's utterances, that may be left out because CTC cannot fit their labels."""

logger = logging.getLogger(__name__)

_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class GlobalStep:
    """One worker's part of a global batch.

    Attributes:
        number: step within the epoch, from 0.
        num_steps: steps of the epoch.
        global_size: sequences of the global batch.
        local: this worker's slice of them; may be empty.
        num_targets: targets of the global batch, at least 1 (CTC: labels, frame: named frames).
        num_frames: frames of the global batch.
        num_whole_utterances: sequences of the global batch that begin an utterance.
        batch: this worker's sequences; one empty sequence where the slice is empty.
    """

    number: int
    num_steps: int
    global_size: int
    local: slice
    num_targets: int
    num_frames: int
    num_whole_utterances: int
    batch: Batch


@dataclass(frozen=True)
class SplitIndex:
    """The usable utterances of a split.

    Attributes:
        rows: what the batch plan needs, in shard order.
        num_too_short: utterances left out because CTC cannot fit their labels.
    """

    rows: tuple[IndexedRow, ...]
    num_too_short: int


class RowCache:
    """The most recently read row groups, decoded.

    Args:
        features: the feature set.
        manifest: its manifest.
        max_rows: rows kept at most (one row group at least).
    """

    def __init__(self, features: Location, manifest: FeaturizeManifest, max_rows: int) -> None:
        self._features = features
        self._manifest = manifest
        self._max_rows = max_rows
        self._num_rows = 0
        self._groups: OrderedDict[tuple[int, int], list[FeatureRow]] = OrderedDict()

    def row(self, where: IndexedRow) -> FeatureRow:
        """The row at a place of the index."""
        key = (where.shard, where.row_group)
        if key not in self._groups:
            rows = read_rows(
                self._features,
                self._manifest.shards[where.shard],
                [where.row_group],
                inventory=self._manifest.labels,
                states=self._manifest.states,
            )
            self._groups[key] = rows
            self._num_rows += len(rows)
            while self._num_rows > self._max_rows and len(self._groups) > 1:
                _, dropped = self._groups.popitem(last=False)
                self._num_rows -= len(dropped)
        self._groups.move_to_end(key)
        return self._groups[key][where.row]


def index_split(
    features: Location, manifest: FeaturizeManifest, split: str, objective: str
) -> SplitIndex:
    """Index a split by its label columns alone, without reading features.

    Raises:
        PipelineError: when the split is empty, or has no alignment for the frame objective.
    """
    subsets = set(manifest.splits.get(split, ()))
    rows: list[IndexedRow] = []
    num_too_short = 0
    for shard, info in enumerate(manifest.shards):
        if info.subset not in subsets:
            continue
        for entry in read_label_columns(features, info):
            if objective == "frame":
                if entry.alignment is None:
                    raise PipelineError(
                        f"objective=frame needs alignments and {info.file} has none; featurize "
                        "with labels=alignment, or use objective=ctc"
                    )
                num_targets = entry.num_frames
            else:
                num_targets = len(entry.labels)
                if frames_needed(entry.labels) > entry.num_frames:
                    num_too_short += 1
                    continue
            rows.append(
                IndexedRow(shard, entry.row_group, entry.row, entry.num_frames, num_targets)
            )
    if not rows:
        raise PipelineError(f"the {split} split of {features} has no usable utterance")
    total = num_too_short + len(rows)
    if num_too_short > MAX_TOO_SHORT_SHARE * total:
        raise PipelineError(
            f"{num_too_short} of {total} utterances of {split} have more labels than CTC fits into "
            f"their frames, more than {MAX_TOO_SHORT_SHARE:.0%}; featurize with a shorter "
            "frame_shift_s or stride, or use objective=frame"
        )
    if num_too_short:
        logger.warning(
            "%s: %d of %d utterances left out: more labels than CTC fits into their frames",
            split,
            num_too_short,
            total,
        )
    return SplitIndex(tuple(rows), num_too_short)


class TrainingData:
    """Batches of the train and dev splits for this worker.

    Args:
        features: the feature set.
        manifest: its manifest.
        config: batch size, curriculum, augmentation, seed.
    """

    def __init__(
        self, features: Location, manifest: FeaturizeManifest, config: TrainConfig
    ) -> None:
        self.manifest = manifest
        self.config = config
        self._normalise = Normaliser(manifest.cmvn)
        self._delay = config.target_delay or 0
        self.train = index_split(features, manifest, "train", config.objective)
        self.dev = index_split(features, manifest, "dev", config.objective)
        self._cache = RowCache(features, manifest, config.shuffle_window_rows)
        self._dev_cache = RowCache(features, manifest, config.shuffle_window_rows)

    def train_steps(self, epoch: int) -> Iterator[GlobalStep]:
        """The steps of a training epoch; the next batches are read while one is used."""
        plan = plan_epoch(
            self.train.rows,
            batch_size=self.config.batch_size,
            max_frames=self.config.chunk_frames(epoch),
            cut=self.config.objective == "frame",
            window_rows=self.config.shuffle_window_rows,
            seed=self.config.seed,
            epoch=epoch,
        )
        return read_ahead(self._steps(plan, self.train, self._cache, epoch))

    def dev_steps(self) -> Iterator[GlobalStep]:
        """The dev split, whole utterances, longest first."""
        rows = self.dev.rows
        order = sorted(range(len(rows)), key=lambda number: -rows[number].num_frames)
        size = self.config.batch_size
        whole = [TrainingSequence(number, 0, rows[number].num_frames) for number in order]
        plan = [tuple(whole[start : start + size]) for start in range(0, len(whole), size)]
        return read_ahead(self._steps(plan, self.dev, self._dev_cache, None))

    def _steps(
        self, plan: Sequence[GlobalBatch], split: SplitIndex, cache: RowCache, epoch: int | None
    ) -> Iterator[GlobalStep]:
        is_ctc = self.config.objective == "ctc"
        for number, sequences in enumerate(plan):
            local = worker_slice(len(sequences), rank(), world_size())
            examples = [self._example(s, split, cache, epoch) for s in sequences[local]]
            num_frames = sum(s.stop - s.start for s in sequences)
            num_named = sum(max(0, s.stop - s.start - self._delay) for s in sequences)
            yield GlobalStep(
                number=number,
                num_steps=len(plan),
                global_size=len(sequences),
                local=local,
                num_targets=sum(split.rows[s.row].num_targets for s in sequences)
                if is_ctc
                else max(1, num_named),
                num_frames=num_frames,
                num_whole_utterances=sum(s.start == 0 for s in sequences),
                batch=pad(examples, self.manifest.num_features),
            )

    def _example(
        self, sequence: TrainingSequence, split: SplitIndex, cache: RowCache, epoch: int | None
    ) -> Example:
        row = cache.row(split.rows[sequence.row])
        features = self._normalise(row)[sequence.start : sequence.stop]
        if epoch is not None and self.config.spec_augment is not None:
            rng = np.random.default_rng([self.config.seed, epoch, *sequence])
            features = spec_augment(features, self.config.spec_augment, rng)
        alignment = row.alignment
        if alignment is not None:
            alignment = delayed(alignment[sequence.start : sequence.stop], self._delay)
        return Example(row.utterance_id, features, row.labels, alignment)


def read_ahead(steps: Iterator[GlobalStep]) -> Iterator[GlobalStep]:
    """Produce steps in a thread, a few ahead of their use; errors surface here."""
    ready: queue.Queue[GlobalStep | BaseException | None] = queue.Queue(_BATCHES_AHEAD)
    stopped = threading.Event()

    def put(item: GlobalStep | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for step in steps:
                put(step)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=produce, name="read-ahead", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
