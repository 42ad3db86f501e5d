"""One run of the align stage: its inputs, and what it asks of them."""

from collections.abc import Callable
from dataclasses import dataclass, field

from featurize.labels import LexiconLabeller
from featurize.schema import FeatureRow, FeaturizeManifest, LabelInventory, StateInventory
from featurize.stage import Location, PipelineError, TypedConfig
from training.align.align_config import AlignConfig
from training.align.graph import PhoneTranscript
from training.align.pronounce import Pronouncer
from training.align.stacking import Stacking

SILENCE = "SIL"
"""Name of the symbol of silence; it is not scored."""


class AlignProgress(TypedConfig):
    """How far a running alignment is."""

    step: str  # what it is doing, in a few words
    num_done: int  # of ``num_all`` parts of that step
    num_all: int


OnProgress = Callable[[AlignProgress], None]


@dataclass(frozen=True)
class AlignJob:
    """What is aligned, and how."""

    config: AlignConfig
    features: Location
    manifest: FeaturizeManifest
    labeller: LexiconLabeller | None  # what looked its phones up; None where they were heard
    on_progress: OnProgress | None  # called as the work goes on
    labels: LabelInventory = field(init=False)  # the symbols of the aligned feature set
    # how its words may be said; None where phones were heard
    pronounce: Pronouncer | None = field(init=False)

    def __post_init__(self) -> None:
        labels = aligned_inventory(self.manifest.labels, has_words=self.labeller is not None)
        object.__setattr__(self, "labels", labels)
        pronounce = None if self.labeller is None else Pronouncer(self.labeller)
        object.__setattr__(self, "pronounce", pronounce)

    @property
    def guessed(self) -> dict[str, tuple[str, ...]]:
        """Words that the lexicon lacks, and how they were pronounced."""
        return {} if self.pronounce is None else self.pronounce.guessed

    def tell(self, step: str, num_done: int, num_all: int) -> None:
        """Say how far a step of the work is."""
        if self.on_progress is not None:
            self.on_progress(AlignProgress(step=step, num_done=num_done, num_all=num_all))

    def transcript(self, row: FeatureRow) -> PhoneTranscript:
        """The words of an utterance, with silence possible around each."""
        if self.pronounce is None:
            return PhoneTranscript.of_phones(row.labels)
        words = row.text.upper().split()
        if self.pronounce.labels(words) != row.labels.tolist():
            raise PipelineError(
                f"{row.utterance_id}: its labels are not what the lexicon says of its words; the "
                "lexicon changed since the features were made: featurize again"
            )
        silence = self.labels.symbols.index(SILENCE)
        return PhoneTranscript([self.pronounce(word) for word in words], silence)

    def min_silence_frames(self, stacking: Stacking) -> int:
        """The shortest silence, in frames before stacking."""
        return round(self.config.min_silence_s / stacking.frame_shift_s)


def aligned_inventory(labels: LabelInventory, *, has_words: bool) -> LabelInventory:
    """The symbols of an aligned feature set: where words are looked up, silence comes last."""
    if not has_words:
        return labels.model_copy(update={"kind": "alignment"})
    return LabelInventory(
        kind="alignment", symbols=(*labels.symbols, SILENCE), scored_as=(*labels.scored_as, None)
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
