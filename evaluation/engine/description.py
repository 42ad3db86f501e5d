"""What an engine file says of its network, its features and its labels.

Everything here is checked when it is read, so that the compiled step, which checks nothing, never
sees a size that does not fit. No import here needs torch or pyarrow.
"""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from evaluation.graph.search import SearchWeights
from evaluation.graph.search_graph import GraphSize
from featurize.stage import TypedConfig
from training.constants import UNQUANTIZED_BITS

FORMAT_VERSION: Literal[3] = 3

Precision = Literal["float32", "int8"]


class FrontEndConfig(TypedConfig):
    """From samples to the frames that the network reads."""

    sample_rate_hz: int = Field(
        ge=8000,
        le=48000,
        description="Sampling rate of the features; audio at other rates is converted.",
    )
    features: Literal["fbank", "mfcc"] = Field(
        description="Kind of features that the network was trained on."
    )
    num_bins: int = Field(ge=4, le=128, description="Mel filters per frame.")
    num_ceps: int = Field(ge=1, le=128, description="Cepstra per frame; used with mfcc alone.")
    frame_length_s: float = Field(
        ge=0.001,
        le=0.2,
        description="Length of the window that a frame is computed from, in seconds.",
    )
    frame_shift_s: float = Field(
        ge=0.001, le=0.2, description="Time from one window to the next, in seconds."
    )
    deltas: Literal[0, 1, 2] = Field(
        description="How many orders of time differences are appended to a frame."
    )
    stack: int = Field(ge=1, le=16, description="Consecutive frames that are joined into one.")
    stride: int = Field(
        ge=1, le=16, description="Frames from the start of one stack to that of the next."
    )
    feature_dtype: Literal["float16", "float32"] = Field(
        description="Precision that training read; features are rounded to it."
    )
    cmvn: Literal["none", "global", "speaker"] = Field(
        description="Normalisation in training; by speaker, a file has its own statistics, and of "
        "a stream a running estimate stands in, from the training set's on."
    )
    mean: tuple[float, ...] = Field(description="Subtracted from a frame, one value per feature.")
    std: tuple[float, ...] = Field(description="What a frame is divided by, one value per feature.")

    @property
    def num_features(self) -> int:
        """F, values of a frame that the network reads."""
        static = self.num_bins if self.features == "fbank" else self.num_ceps
        return static * (1 + self.deltas) * self.stack

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.mean) != self.num_features or len(self.std) != self.num_features:
            raise ValueError(f"mean and std must have {self.num_features} values each")
        if not all(0 < value < math.inf for value in self.std):
            raise ValueError("std must be positive and finite")
        if not all(math.isfinite(value) for value in self.mean):
            raise ValueError("mean must be finite")
        return self


class SymbolTable(TypedConfig):
    """The symbols that the network puts out."""

    # ``characters``, ``phones`` or ``alignment``
    kind: Literal["characters", "phones", "alignment"]
    symbols: tuple[str, ...]  # symbol of each id; CTC has one output more, the blank
    word_boundary: int | None = None  # id of the space between words, None where there is none
    # what an evaluation counts each symbol as, None where it counts none; as which it is written;
    # empty where each is itself
    scored_as: tuple[str | None, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scored_as and len(self.scored_as) != len(self.symbols):
            raise ValueError("symbols and scored_as are of different lengths")
        return self


class LeakyDescription(TypedConfig):
    """What an engine of v3 has that one of v2 has not."""

    has_leak: bool = Field(
        description="Whether a part of each residue is lost from frame to frame."
    )


class SearchDescription(TypedConfig):
    """A search through a graph without the graph's numbers."""

    size: GraphSize = Field(description="Sizes of the graph's arrays.")
    weights: SearchWeights = Field(description="Chosen on dev, or the defaults.")
    chosen_by: str = Field(
        "", description="Fingerprint of the evaluation that chose the weights; empty for defaults."
    )


class EngineDescription(TypedConfig):
    """An engine without its numbers."""

    format_version: Literal[3] = FORMAT_VERSION
    precision: Precision = Field(description="Precision in which the weights are stored.")
    model: Literal["conventional", "v1", "v2", "v3"] = Field(
        description="Which spiking recurrence the layers run."
    )
    v3: LeakyDescription | None = Field(
        None, description="The options of v3; empty for the other models."
    )
    projection_size: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="Neurons of the input encoder, where a learned map of the features comes "
        "before it; empty where the encoder reads the features.",
    )
    num_layers: int = Field(ge=1, le=16, description="Number of recurrent layers (L).")
    num_features: int = Field(ge=1, le=65536, description="Values per input frame (F).")
    hidden_size: int = Field(ge=1, le=8192, description="Neurons per layer (H).")
    num_outputs: int = Field(ge=1, le=1_000_000, description="Scores per frame (O).")
    num_bits: int = Field(description="Bits of a spike; 32 for no quantisation.")
    objective: Literal["ctc", "frame"] = Field(
        description="What a frame's scores mean: CTC, or one label per frame."
    )
    frame_shift_s: float = Field(gt=0, description="Seconds between frames of the network.")
    labels: SymbolTable = Field(description="Symbols that the outputs stand for.")
    output_names: tuple[str, ...] = Field(
        (), description="What each score is of: a symbol, a state of one, or the blank."
    )
    symbol_search: SearchDescription | None = Field(
        None, description="How symbols are found; empty for the best output of each frame (CTC)."
    )
    word_search: SearchDescription | None = Field(
        None, description="How words are found; empty where only symbols are."
    )
    target_delay: int = Field(
        0,
        ge=0,
        le=1000,
        description="Frames after the one it names that the network has heard; the scores of a "
        "stream's first frames name nothing.",
    )
    front_end: FrontEndConfig | None = Field(
        None, description="How to make frames of samples; empty where only frames come in."
    )
    trained_as: str = Field("", description="Fingerprint of the training run.")
    trained_on: str = Field(
        "", max_length=2000, description="On what speech, in a sentence; empty where not known."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (1 <= self.num_bits <= 8 or self.num_bits == UNQUANTIZED_BITS):
            raise ValueError(f"num_bits={self.num_bits} is none of 1 to 8 and {UNQUANTIZED_BITS}")
        if self.precision == "int8" and self.num_bits == UNQUANTIZED_BITS:
            raise ValueError(
                "8-bit weights are multiplied by integer levels, and unquantised spikes have none; "
                "use precision=float32"
            )
        if (self.v3 is not None) != (self.model == "v3"):
            raise ValueError("v3 holds the options of model=v3; the other models have none")
        for search in (self.symbol_search, self.word_search):
            if search is not None and search.size.num_outputs != self.num_outputs:
                raise ValueError(
                    f"a search of {search.size.num_outputs} outputs, of a network with "
                    f"{self.num_outputs}"
                )
        if self.objective == "ctc" and self.num_outputs != len(self.labels.symbols) + 1:
            raise ValueError(
                f"CTC has {self.num_outputs} outputs for {len(self.labels.symbols)} symbols and "
                "the blank"
            )
        if self.front_end is not None and self.front_end.num_features != self.num_features:
            raise ValueError(
                f"the front end makes {self.front_end.num_features} features a frame, the network "
                f"reads {self.num_features}"
            )
        return self

    @property
    def site_sizes(self) -> tuple[int, ...]:
        """Neurons of the encoder and of every layer."""
        return (self.projection_size or self.num_features, *[self.hidden_size] * self.num_layers)

    @property
    def num_drives(self) -> int:
        """Rows of W per neuron."""
        return 1 if self.model == "conventional" else 2
