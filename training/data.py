"""Training data: batches streamed from Parquet shards with bounded memory."""

import queue
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from featurize.cmvn import Normaliser
from featurize.schema import FeatureRow, FeaturizeManifest
from featurize.shards import read_rows
from featurize.stage import Location
from training.batch_plan import EpochPlan, GlobalBatch, TrainingSequence, worker_slice
from training.batching import Batch, Example, delayed, pad
from training.collectives import rank, world_size
from training.spec_augment import spec_augment
from training.split_index import SplitIndex, index_split
from training.train_config import TrainConfig

_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class StepPart:
    """One worker's share of a part of a global batch, the only part unless it is split."""

    number: int  # step within the epoch, from 0
    num_steps: int  # steps of the epoch
    is_first: bool  # whether this is the first part of its step
    is_last: bool  # whether it is the last, after which the gradients are applied
    frame_share: float  # of the global batch's frames that the part holds, over all workers
    global_size: int  # sequences of the global batch
    local: slice  # this worker's slice of them; may be empty
    num_targets: int  # targets of the global batch, at least 1 (CTC: labels, frame: named frames)
    num_frames: int  # frames of the global batch
    num_whole_utterances: int  # sequences of the global batch that begin an utterance
    batch: Batch  # this worker's sequences; one empty sequence where the slice is empty


class RowCache:
    """The most recently read row groups, decoded.

    Args:
        max_rows: rows kept at most (one row group at least).
    """

    def __init__(self, features: Location, manifest: FeaturizeManifest, max_rows: int) -> None:
        self._features = features
        self._manifest = manifest
        self._max_rows = max_rows
        self._num_rows = 0
        self._groups: OrderedDict[tuple[int, int], list[FeatureRow]] = OrderedDict()

    def row(self, shard: int, row_group: int, row: int) -> FeatureRow:
        """The row at a place of the index."""
        key = (shard, row_group)
        if key not in self._groups:
            rows = read_rows(
                self._features,
                self._manifest.shards[shard],
                [row_group],
                inventory=self._manifest.labels,
                states=self._manifest.states,
            )
            self._groups[key] = rows
            self._num_rows += len(rows)
            while self._num_rows > self._max_rows and len(self._groups) > 1:
                _, dropped = self._groups.popitem(last=False)
                self._num_rows -= len(dropped)
        self._groups.move_to_end(key)
        return self._groups[key][row]


class TrainingData:
    """Batches of the train and dev splits for this worker."""

    def __init__(
        self, features: Location, manifest: FeaturizeManifest, config: TrainConfig
    ) -> None:
        self.manifest = manifest
        self.config = config
        self._normalise = Normaliser(manifest.cmvn)
        self._delay = config.target_delay or 0
        self.train = index_split(features, manifest, "train", config)
        self.dev = index_split(features, manifest, "dev", config)
        self._cache = RowCache(features, manifest, config.shuffle_window_rows)
        self._dev_cache = RowCache(features, manifest, config.shuffle_window_rows)

    def train_steps(self, epoch: int) -> Iterator[StepPart]:
        """The steps of a training epoch; the next batches are read while one is used."""
        plan = EpochPlan(
            self.train.group_N,
            self.train.num_frames_N,
            batch_size=self.config.batch_size,
            max_frames=self.config.chunk_frames(epoch),
            cut=self.config.objective == "frame",
            window_rows=self.config.shuffle_window_rows,
            seed=self.config.seed,
            epoch=epoch,
        )
        return read_ahead(self._steps(plan, len(plan), self.train, self._cache, epoch))

    def dev_steps(self) -> Iterator[StepPart]:
        """The dev split, whole utterances, longest first."""
        order = np.argsort(-self.dev.num_frames_N, kind="stable").astype(np.int32)
        whole = np.stack([order, np.zeros_like(order), self.dev.num_frames_N[order]], axis=1)
        starts = range(0, len(whole), self.config.batch_size)
        plan = (whole[start : start + self.config.batch_size] for start in starts)
        return read_ahead(self._steps(plan, len(starts), self.dev, self._dev_cache, None))

    def _steps(
        self,
        plan: Iterable[GlobalBatch],
        num_steps: int,
        split: SplitIndex,
        cache: RowCache,
        epoch: int | None,
    ) -> Iterator[StepPart]:
        is_ctc = self.config.objective == "ctc"
        for number, sequences in enumerate(plan):
            rows, starts, stops = sequences.T
            lengths = stops - starts
            num_frames = int(lengths.sum())
            num_named = int(np.maximum(0, lengths - self._delay).sum())
            num_parts = 1
            if epoch is not None:
                num_parts = min(self.config.accumulate or 1, len(sequences))
            for part in range(num_parts):
                whole = worker_slice(len(sequences), part, num_parts)
                share = worker_slice(whole.stop - whole.start, rank(), world_size())
                local = slice(whole.start + share.start, whole.start + share.stop)
                own = (TrainingSequence(*sequence) for sequence in sequences[local].tolist())
                examples = [self._example(sequence, split, cache, epoch) for sequence in own]
                yield StepPart(
                    number=number,
                    num_steps=num_steps,
                    is_first=part == 0,
                    is_last=part == num_parts - 1,
                    frame_share=int(lengths[whole].sum()) / num_frames,
                    global_size=len(sequences),
                    local=local,
                    num_targets=int(split.num_targets_N[rows].sum())
                    if is_ctc
                    else max(1, num_named),
                    num_frames=num_frames,
                    num_whole_utterances=int((starts == 0).sum()),
                    batch=pad(examples, self.manifest.num_features),
                )

    def _example(
        self, sequence: TrainingSequence, split: SplitIndex, cache: RowCache, epoch: int | None
    ) -> Example:
        row = cache.row(*split.place(sequence.row))
        features = self._normalise(row)[sequence.start : sequence.stop]
        if epoch is not None and self.config.spec_augment is not None:
            rng = np.random.default_rng([self.config.seed, epoch, *sequence])
            features = spec_augment(features, self.config.spec_augment, rng)
        alignment = row.alignment
        if alignment is not None:
            alignment = delayed(alignment[sequence.start : sequence.stop], self._delay)
        return Example(row.utterance_id, features, row.labels, alignment)


def read_ahead(steps: Iterator[StepPart]) -> Iterator[StepPart]:
    """Produce steps in a thread, a few ahead of their use; errors surface here."""
    ready: queue.Queue[StepPart | BaseException | None] = queue.Queue(_BATCHES_AHEAD)
    stopped = threading.Event()

    def put(item: StepPart | BaseException | None) -> None:
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
