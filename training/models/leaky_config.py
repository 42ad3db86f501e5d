"""Configuration of v3: each of its four parts is an option of its own."""

from typing import Literal

from pydantic import Field

from featurize.stage import TypedConfig


class LeakyConfig(TypedConfig):
    """What v3 adds to v2; with every option off it is v2."""

    residue_leak: Literal["none", "layer", "neuron"] = Field(
        "neuron",
        description="What remains of a residue after each frame, learned: one share for a layer "
        "(or the encoder), one for each neuron, or none, which keeps all of it as v2 does.",
    )
    initial_residue_leak: float = Field(
        0.9, gt=0, lt=1, description="The share that remains before training."
    )
    cell_bound: float | None = Field(
        0.9,
        gt=0,
        le=1,
        description="Largest cell drive as a share of the range, so that potentials hardly exceed "
        "the range; empty for no bound.",
    )
    unsigned_levels: bool = Field(
        True,
        description="Layers have 2^num_bits - 1 positive levels in place of half as many of "
        "either sign; their potentials are never negative. The encoder keeps its sign.",
    )
    learned_levels: bool = Field(
        True,
        description="Learn the range, hence the step, and the threshold of every site; else the "
        "range follows the potentials as in v2.",
    )
    initial_range: float = Field(
        2.0, gt=0, description="Range of the layers before training, where it is learned."
    )
    encoder_initial_range: float = Field(4.0, gt=0, description="The same for the input encoder.")
