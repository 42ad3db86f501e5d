"""One run of the align stage: its inputs, and what it asks of them."""

from collections.abc import Callable
from dataclasses import dataclass, field

from featurize.labels import WordPhones
from featurize.schema import FeatureRow, FeaturizeManifest, LabelInventory, StateInventory
from featurize.stage import Location, PipelineError, TypedConfig
from training.align.align_config import AlignConfig
from training.align.forced import Transcript
from training.align.stacking import Stacking

SILENCE = "SIL"
"""Name of the symbol of silence; it is not scored."""


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


@dataclass(frozen=True)
class AlignJob:
    """What is aligned, and how.

    Attributes:
        config: how to align.
        features: the feature set.
        manifest: its manifest.
        words: how its labels fall into words; None where phones were heard rather than looked up.
        on_progress: called as the work goes on.
        labels: the symbols of the aligned feature set.
    """

    config: AlignConfig
    features: Location
    manifest: FeaturizeManifest
    words: WordPhones | None
    on_progress: OnProgress | None
    labels: LabelInventory = field(init=False)

    def __post_init__(self) -> None:
        labels = aligned_inventory(self.manifest.labels, has_words=self.words is not None)
        object.__setattr__(self, "labels", labels)

    def tell(self, step: str, num_done: int, num_all: int) -> None:
        """Say how far a step of the work is."""
        if self.on_progress is not None:
            self.on_progress(AlignProgress(step=step, num_done=num_done, num_all=num_all))

    def transcript(self, row: FeatureRow) -> Transcript:
        """The phones of an utterance, with silence possible between its words.

        Raises:
            PipelineError: when its labels are not those of the lexicon.
        """
        if self.words is None:
            return Transcript.of_phones(row.labels)
        words = self.words(row.text)
        if [phone for word in words for phone in word] != row.labels.tolist():
            raise PipelineError(
                f"{row.utterance_id}: its labels are not what the lexicon says of its words; the "
                "lexicon changed since the features were made: featurize again"
            )
        return Transcript.of_words(words, silence=self.labels.symbols.index(SILENCE))

    def min_silence_frames(self, stacking: Stacking) -> int:
        """The shortest silence, in frames before stacking."""
        return round(self.config.min_silence_s / stacking.frame_shift_s)


def aligned_inventory(labels: LabelInventory, *, has_words: bool) -> LabelInventory:
    """The symbols of an aligned feature set: where words are looked up, silence comes last."""
    if not has_words:
        return labels.model_copy(update={"kind": "alignment"})
    return LabelInventory(
        kind="alignment",
        symbols=(*labels.symbols, SILENCE),
        scored_as=(*labels.scored_as, None),
    )


def silent_symbols(labels: LabelInventory) -> list[int]:
    """Ids of the symbols of silence."""
    return [i for i, symbol in enumerate(labels.symbols) if symbol in (SILENCE, "sil")]


def silent_targets(labels: LabelInventory, states: StateInventory | None) -> list[int]:
    """Frame targets that are silence."""
    silences = silent_symbols(labels)
    if states is None:
        return silences
    return [state for state, phone in enumerate(states.phones) if phone in silences]
