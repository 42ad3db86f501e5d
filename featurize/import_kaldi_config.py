"""Configuration of the import of Kaldi's features and alignments."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from featurize.schema import FeatureDtype
from featurize.stage import InFingerprint, TypedConfig


class KaldiSubset(TypedConfig):
    """One data folder of Kaldi's, with its alignment."""

    name: str = Field(min_length=1, description="Name of the subset in the feature set.")
    split: Literal["train", "dev", "test"] = Field(
        description="What the subset is used for: to train, to choose the best epoch (dev) or "
        "to score."
    )
    data: str = Field(
        description="Folder with feats.scp and utt2spk; text and utt2dur, if they are there."
    )
    alignment: str | None = Field(
        None,
        description="Folder of Kaldi's alignment of it: ali.*.gz and the final.mdl that made "
        "them. This, or pdfs and phones.",
    )
    pdfs: str | None = Field(
        None, description="Archive of each frame's pdf, from ali-to-pdf; plain or gzip."
    )
    phones: str | None = Field(
        None,
        description="Archive of each frame's phone, from ali-to-phones --per-frame=true; plain or "
        "gzip.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        archives = [self.pdfs is not None, self.phones is not None]
        if any(archives) if self.alignment is not None else not all(archives):
            raise ValueError(
                f"subset {self.name!r}: give either alignment alone, or both pdfs and phones"
            )
        return self


class KaldiImportConfig(TypedConfig):
    """Everything that determines an imported feature set."""

    subsets: tuple[KaldiSubset, ...] = Field(
        min_length=1, description="Kaldi data folders to import, each as a subset of its own."
    )
    phone_table: str = Field(description="Kaldi's phones.txt: a phone and its number a line.")
    root: Annotated[str | None, InFingerprint.EVEN_WHEN_OFF] = Field(
        None, description="Where relative paths in feats.scp begin; empty: at that file's folder."
    )
    frame_shift_s: float = Field(
        0.010,
        gt=0,
        le=0.2,
        description="Seconds from one frame to the next in the features that are imported.",
    )
    cmvn: Literal["none", "global", "speaker"] = Field(
        "global", description="Normalisation on reading; fMLLR features are normalised already."
    )
    feature_dtype: FeatureDtype = Field(
        "float16",
        description="Precision in which features are stored: float16 halves their size on disk.",
    )
    utterances_per_shard: int = Field(
        512, ge=1, le=65536, description="Most utterances in one shard file of the feature set."
    )
    row_group_size: int = Field(
        8,
        ge=1,
        le=4096,
        description="Utterances of similar length that are stored, and later read, together.",
    )
    max_reject_share: float = Field(
        0.01, ge=0, le=1, description="The import fails past this share of unusable utterances."
    )
    seed: int = Field(0, ge=0, description="Seed of the assignment of utterances to shards.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [subset.name for subset in self.subsets]
        if len(set(names)) != len(names):
            raise ValueError("subsets: a name is given twice; name each subset once")
        if {"train", "dev"} - {subset.split for subset in self.subsets}:
            raise ValueError("subsets: at least one is needed with split=train and one with dev")
        return self
