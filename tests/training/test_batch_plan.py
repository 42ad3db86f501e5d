import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurize.stage import PipelineError
from training.batch_plan import EpochPlan, TrainingSequence, worker_slice

lengths = st.lists(st.integers(1, 300), min_size=1, max_size=80)


def plan(frames, **changes):
    settings = {
        "batch_size": 8,
        "max_frames": None,
        "cut": False,
        "window_rows": 16,
        "seed": 0,
        "epoch": 0,
    }
    groups = np.arange(len(frames), dtype=np.int32) // 4
    drawn = EpochPlan(groups, np.array(frames, np.int32), **(settings | changes))
    batches = [[TrainingSequence(*row) for row in batch.tolist()] for batch in drawn]
    assert len(drawn) == len(batches)
    return batches


@given(frames=lengths, batch_size=st.integers(1, 20), window=st.integers(1, 100))
def test_every_utterance_once_an_epoch(frames, batch_size, window):
    batches = plan(frames, batch_size=batch_size, window_rows=window)
    seen = sorted(sequence.row for batch in batches for sequence in batch)
    assert seen == list(range(len(frames)))
    assert max(len(batch) for batch in batches) <= batch_size


@given(frames=lengths, chunk=st.integers(1, 120))
def test_chunks_cover_every_frame_once(frames, chunk):
    batches = plan(frames, max_frames=chunk, cut=True)
    covered = [np.zeros(length, dtype=int) for length in frames]
    for batch in batches:
        for row, start, stop in batch:
            assert 0 < stop - start <= chunk
            covered[row][start:stop] += 1
    assert all((frame == 1).all() for frame in covered)


@given(frames=lengths, limit=st.integers(1, 300))
def test_ctc_curriculum_takes_only_short_utterances(frames, limit):
    fitting = [number for number, length in enumerate(frames) if length <= limit]
    if not fitting:
        with pytest.raises(PipelineError, match="raise chunk_frames"):
            plan(frames, max_frames=limit)
        return
    batches = plan(frames, max_frames=limit)
    assert sorted(s.row for batch in batches for s in batch) == fitting


@given(size=st.integers(0, 100), workers=st.integers(1, 12))
def test_worker_slices_partition_the_batch(size, workers):
    parts = [worker_slice(size, rank, workers) for rank in range(workers)]
    items = list(range(size))
    assert [item for part in parts for item in items[part]] == items
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_epochs_differ_and_repeat_by_seed():
    frames = list(range(10, 90))
    assert plan(frames, epoch=0) == plan(frames, epoch=0)
    assert plan(frames, epoch=0) != plan(frames, epoch=1)
    assert plan(frames, seed=1) != plan(frames, seed=0)


def test_batches_hold_like_lengths():
    rng = np.random.default_rng(0)
    frames = rng.integers(10, 1000, 512).tolist()
    batches = plan(frames, batch_size=16, window_rows=512)
    padded = sum(len(b) * max(s.stop for s in b) for b in batches)
    assert sum(frames) / padded > 0.85


def test_an_epoch_does_not_end_on_a_few_row_groups():
    """A few rows more than a window: two windows of half of them each."""
    batches = plan([10] * 72, batch_size=4, window_rows=64)
    for part in (batches[:9], batches[9:]):
        assert len({sequence.row // 4 for batch in part for sequence in batch}) == 9
