"""What a spiking recogniser did on one utterance, kept to be drawn.

Shape legend: T rows of features, t frames before stacking, F features per row, H neurons.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.decoding import Decoder
from evaluation.time_alignment import Span, align_symbols, phone_runs, phone_scores
from featurize.schema import CmvnStatistics, FeatureRow, FeaturizeManifest, LabelInventory
from featurize.shards import read_columns, read_numbered
from featurize.stage import Location
from training.batching import collate
from training.trained_model import TrainedModel

SHOWN_DURATION_S = 3.0
"""The utterance nearest to this length is shown: long enough for words, short enough to see."""


@dataclass(frozen=True)
class TimedSymbol:
    """A symbol and when it was heard, seconds from the start."""

    symbol: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class SpikeRaster:
    """One utterance through one spiking recogniser."""

    label: str  # the recogniser's name in its evaluation
    utterance_id: str
    text: str  # what was said, as the corpus has it
    duration_s: float  # length of the utterance
    # features as extracted, in time order, before normalisation
    spectrogram_tF: NDArray[np.float32]
    feature_kind: str  # ``fbank`` or ``mfcc``
    # (T, H) of the encoder and every layer; zero where nothing fired
    site_outputs: tuple[NDArray[np.float32], ...]
    hypothesis: tuple[TimedSymbol, ...]  # what was recognised, and when
    reference: tuple[TimedSymbol, ...]  # the corpus's own alignment; empty where it has none


def choose_shown(
    features: Location, manifest: FeaturizeManifest, subsets: Sequence[str]
) -> FeatureRow:
    """The utterance to show, by its length alone and the same for every model.

    Args:
        subsets: what is scored; at least one utterance.
    """
    tables = read_columns(features, manifest, subsets, ["num_frames"])
    num_frames = np.concatenate([table["num_frames"].to_numpy() for table in tables])
    number = int(np.abs(num_frames * manifest.frame_shift_s - SHOWN_DURATION_S).argmin())
    return next(read_numbered(features, manifest, subsets, range(number, number + 1)))


def capture_raster(
    recogniser: TrainedModel,
    label: str,
    row: FeatureRow,
    cmvn: CmvnStatistics,
    decode: Decoder,
    features: FeaturizeManifest,
) -> SpikeRaster:
    """Run one utterance and keep what its sites sent on.

    Args:
        features: the manifest of the feature set that ``row`` is from.
    """
    batch = collate([row], cmvn)
    with torch.inference_mode():
        output = recogniser.network(batch.x_TBF, batch.lengths_B)
    # A delayed model names a frame some frames later.
    log_probs_TO = output.log_probs_TBO[recogniser.target_delay :, 0].numpy()
    is_ctc = recogniser.manifest.config.objective == "ctc"
    blank = log_probs_TO.shape[1] - 1 if is_ctc else None
    shift_s = features.frame_shift_s

    def timed(spans: Sequence[Span], labels: LabelInventory) -> tuple[TimedSymbol, ...]:
        return tuple(
            TimedSymbol(labels.symbols[s.symbol_id], s.start * shift_s, s.end * shift_s)
            for s in spans
        )

    return SpikeRaster(
        label=label,
        utterance_id=row.utterance_id,
        text=row.text,
        duration_s=len(row.features) * shift_s,
        spectrogram_tF=unstacked(row.features, features.config),
        feature_kind=str(features.config.get("features", "fbank")),
        site_outputs=tuple(site[:, 0].numpy() for site in output.site_outputs),
        # A model may put out more than the features' labels have.
        hypothesis=timed(
            align_symbols(
                phone_scores(log_probs_TO, recogniser.manifest.states), decode(log_probs_TO), blank
            ),
            recogniser.manifest.labels,
        ),
        reference=(
            ()
            if row.alignment is None
            else timed(phone_runs(row.alignment, features.states), features.labels)
        ),
    )


def unstacked(features_TF: NDArray[np.floating], config: dict[str, object]) -> NDArray[np.float32]:
    """Static features of single frames in time order, from rows of stacked frames and deltas.

    Args:
        features_TF: rows as stored, ``stack`` frames each, every frame its static values first.
        config: the featurize configuration of the manifest; what it lacks counts as 1 or 0.

    Returns:
        (t, values per frame); where rows overlap, each frame once.
    """
    stack, stride = _setting(config, "stack", 1), _setting(config, "stride", 1)
    blocks = 1 + _setting(config, "deltas", 0)
    if features_TF.shape[1] % (stack * blocks):
        raise ValueError(
            f"{features_TF.shape[1]} features are not {stack} frames of {blocks} blocks each"
        )
    frames = features_TF.astype(np.float32).reshape(len(features_TF), stack, blocks, -1)
    # Without stacking a stride leaves frames out, and each row is one frame.
    fresh = frames[:, : min(stack, stride), 0]
    return fresh.reshape(-1, fresh.shape[-1])


def _setting(config: dict[str, object], name: str, default: int) -> int:
    value = config.get(name, default)
    assert isinstance(value, int)
    return value
