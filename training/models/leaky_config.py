"""Configuration of v3: each of its parts is an option of its own."""

from pydantic import Field

from featurize.stage import TypedConfig


class LeakyConfig(TypedConfig):
    """What v3 adds to v2; with every option off it is v2."""

    residue_leak: bool = Field(
        True,
        description="Let a learned share of each residue, one for a layer (or the encoder), remain "
        "after each frame; else all of it does, as in v2.",
    )
    initial_residue_leak: float = Field(
        0.9, gt=0, lt=1, description="The share that remains before training."
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
