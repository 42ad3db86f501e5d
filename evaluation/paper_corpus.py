"""Which corpus of the paper's results a feature set is, so that its claims get a verdict."""

from typing import Literal

from featurize.copies import recorded_hours
from featurize.schema import FeaturizeManifest

PaperCorpus = Literal["timit", "librispeech-100h"]

# Training speech of TIMIT without and with the sentences that all speakers read.
_TIMIT_HOURS = (2.5, 4.5)
_TIMIT_SPEAKERS = 400
_LIBRISPEECH_HOURS = (90.0, 110.0)


def paper_corpus(manifest: FeaturizeManifest) -> PaperCorpus | None:
    """The corpus by its layout, hours and speakers of training speech; None for any other."""
    layout = manifest.config.get("corpus")
    train = [manifest.subsets[name] for name in manifest.splits.get("train", ())]
    hours = recorded_hours([subset.hours for subset in train], manifest.config)
    speakers = sum(subset.num_speakers for subset in train)
    if layout == "timit" and _within(hours, _TIMIT_HOURS) and speakers >= _TIMIT_SPEAKERS:
        return "timit"
    names = manifest.splits.get("train", ())
    is_clean_100 = tuple(names) == ("train-clean-100",) and _within(hours, _LIBRISPEECH_HOURS)
    return "librispeech-100h" if layout == "librispeech" and is_clean_100 else None


def _within(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= value <= bounds[1]
