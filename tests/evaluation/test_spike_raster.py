import numpy as np
import pytest

from evaluation.spike_raster import SHOWN_DURATION_S, capture_raster, choose_shown, unstacked
from featurize.schema import FeaturizeManifest, LabelInventory
from featurize.shards import iter_rows
from featurize.stage import read_manifest
from training.batching import collate
from training.losses import greedy_ctc_labels
from training.trained_model import load_model

ALIGNED = LabelInventory(
    kind="alignment",
    symbols=("sil", "cl", "aa", "ao", "q"),
    scored_as=("sil", "sil", "aa", "aa", None),
)


def test_the_utterance_nearest_in_length_is_shown(write_features):
    features = write_features(frame_shift_s=0.15)
    manifest = read_manifest(features, FeaturizeManifest)
    subsets = ("clean-dev", "clean-test")
    shown = choose_shown(features, manifest, subsets)
    rows = list(iter_rows(features, manifest, subsets))
    off = [abs(len(row.features) * 0.15 - SHOWN_DURATION_S) for row in rows]
    best = rows[int(np.argmin(off))]
    assert shown.utterance_id == best.utterance_id
    assert np.array_equal(shown.features, best.features)


def test_what_is_kept_is_what_the_network_did(write_features, write_model):
    features = write_features(frame_shift_s=0.03)
    manifest = read_manifest(features, FeaturizeManifest)
    recogniser = load_model(write_model("v2"))
    row = choose_shown(features, manifest, ("clean-test",))
    cmvn = recogniser.manifest.cmvn
    batch = collate([row], cmvn)
    output = recogniser.network(batch.x_TBF, batch.lengths_B)
    (greedy,) = greedy_ctc_labels(output.log_probs_TBO, batch.lengths_B)
    raster = capture_raster(recogniser, "v2", row, cmvn, lambda _: list(greedy), manifest)
    assert [site.shape for site in raster.site_outputs] == [
        (len(row.features), size) for size in (7, 9, 9)
    ]
    for kept, sent in zip(raster.site_outputs, output.site_outputs, strict=True):
        assert np.array_equal(kept, sent[:, 0].detach().numpy())
    assert [timed.symbol for timed in raster.hypothesis] == [
        manifest.labels.symbols[label] for label in greedy
    ]
    times = [t for timed in raster.hypothesis for t in (timed.start_s, timed.end_s)]
    assert times == sorted(times)
    assert times[-1] <= raster.duration_s == pytest.approx(0.03 * len(row.features))
    assert np.array_equal(raster.spectrogram_tF, row.features)


def test_the_reference_is_the_corpus_alignment(write_features, write_model):
    features = write_features(ALIGNED)
    manifest = read_manifest(features, FeaturizeManifest)
    recogniser = load_model(write_model("v1", ALIGNED, objective="frame"))
    row = choose_shown(features, manifest, ("clean-test",))
    raster = capture_raster(
        recogniser, "v1", row, recogniser.manifest.cmvn, lambda _: [0], manifest
    )
    assert [timed.symbol for timed in raster.reference] == [
        ALIGNED.symbols[label] for label in row.labels
    ]
    assert raster.reference[-1].end_s == pytest.approx(raster.duration_s)
    assert [(timed.start_s, timed.end_s) for timed in raster.hypothesis] == [
        (0.0, pytest.approx(raster.duration_s))
    ]


def stacked(stack, stride, blocks, num_rows):
    """Rows whose frame t holds the static value t in its first column and deltas of -1 beside."""
    frames = np.full((num_rows * stride + stack, blocks, 2), -1.0)
    frames[:, 0] = np.arange(len(frames))[:, None]
    rows = [frames[n * stride : n * stride + stack].reshape(-1) for n in range(num_rows)]
    return np.array(rows, np.float16)


@pytest.mark.parametrize(
    ("stack", "stride", "deltas", "expected"),
    [
        (1, 1, 0, [0, 1, 2, 3]),
        (3, 3, 0, range(12)),
        (3, 1, 2, [0, 1, 2, 3]),
        (4, 2, 1, range(8)),
        (1, 2, 0, [0, 2, 4, 6]),
    ],
)
def test_spectrograms_are_unstacked_in_time_order(stack, stride, deltas, expected):
    rows = stacked(stack, stride, 1 + deltas, 4)
    frames = unstacked(rows, {"stack": stack, "stride": stride, "deltas": deltas})
    assert frames.shape[1] == 2
    assert frames[:, 0].tolist() == list(expected)


def test_rows_that_are_not_whole_frames_are_refused():
    with pytest.raises(ValueError, match="7 features are not 3 frames"):
        unstacked(np.zeros((2, 7)), {"stack": 3})
