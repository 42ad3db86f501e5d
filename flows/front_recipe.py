"""What a recipe of the front consists of; the recipe itself is in ``flows.front_entries``.

An entry is one training of one family at one budget, of audited multiplications per second of
speech: frame rates differ. The front is drawn over all entries that are finished.
"""

from typing import Self

from pydantic import Field, model_validator

from evaluation.config import EvaluateConfig
from evaluation.front import Aid
from featurize.featurize_config import FeaturizeConfig
from featurize.stage import PipelineError, TypedConfig
from training.align.align_config import AlignConfig
from training.train_config import TrainConfig


class FrontFeatures(TypedConfig):
    """A feature set of the front with its frame targets."""

    name: str = Field(min_length=1, description="Short name, such as 10ms.")
    featurize: FeaturizeConfig = Field(description="How its frames and labels are made.")
    align: AlignConfig = Field(description="How the target of each frame is found.")


class FrontEntry(TypedConfig):
    """One family at one budget."""

    family: str = Field(min_length=1, description="Name of the family in table and plot.")
    budget_m: float = Field(
        ge=0, description="Budget in millions of multiplications a second; 0 for none."
    )
    features: str = Field(description="Name of its feature set.")
    train: TrainConfig = Field(description="The training, but for its seed.")
    tuned: str = Field(
        min_length=1, description="What was tuned for it on dev, and in how many trainings."
    )
    teacher: str | None = Field(
        None,
        description="Name of the entry on the same features whose first seed is learnt from "
        "beside the targets; empty for none.",
    )

    num_seeds: int = Field(
        1,
        ge=1,
        description="How many of the recipe's seeds it is trained with, from the first on: several "
        "where something is claimed of it.",
    )
    weight_bits: int | None = Field(
        None,
        description="Bits to which its weights are rounded before it is scored; empty for none.",
    )

    variant_of: str | None = Field(
        None,
        description="Name of the entry that it is a variant of, with a part left out or rounded; "
        "empty for what stands for itself.",
    )

    @property
    def aids(self) -> frozenset[Aid]:
        """What it has beside its training on the targets."""
        there: dict[Aid, bool] = {
            "teacher": self.teacher is not None,
            "pruning": self.train.model.weight_density is not None,
            "rounding": self.weight_bits is not None,
            "masks": self.train.spec_augment is not None,
        }
        return frozenset(aid for aid, is_there in there.items() if is_there)

    @property
    def name(self) -> str:
        """Unique in the recipe."""
        budget = f"{self.budget_m:g}M" if self.budget_m else "unbounded"
        return f"{self.family}-{self.features}-{budget}"


class FrontRecipe(TypedConfig):
    """Everything that the front is made of, except where its corpus lies."""

    features: tuple[FrontFeatures, ...] = Field(
        min_length=1, description="The feature sets that entries name."
    )
    entries: tuple[FrontEntry, ...] = Field(
        min_length=1, description="Each family at each of its budgets."
    )
    seeds: tuple[int, ...] = Field(
        (0, 1, 2), min_length=1, description="Seeds of the trainings, those of an entry first."
    )
    evaluate: EvaluateConfig = Field(description="Decoding and scoring, of every run alone.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [entry.name for entry in self.entries]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"entries: {repeated[0]} is there twice")
        known = {features.name for features in self.features}
        for entry in self.entries:
            if entry.features not in known:
                raise ValueError(
                    f"entry {entry.name}: no features {entry.features}; there are "
                    f"{', '.join(sorted(known))}"
                )
        return self

    def entry(self, name: str) -> FrontEntry:
        """The entry of a name."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise PipelineError(f"the front has no entry {name}, which shall be a teacher")

    def chosen(self, families: tuple[str, ...], budgets_m: tuple[float, ...]) -> "FrontRecipe":
        """The recipe with some of its entries; nothing given chooses all."""
        all_families = {entry.family for entry in self.entries}
        all_budgets = {entry.budget_m for entry in self.entries}
        for family in families:
            if family not in all_families:
                raise PipelineError(
                    f"--family {family}: families are {', '.join(sorted(all_families))}"
                )
        for budget in budgets_m:
            if budget not in all_budgets:
                known = ", ".join(f"{b:g}" for b in sorted(all_budgets))
                raise PipelineError(f"--budget {budget:g}: budgets are {known}")
        kept = tuple(
            entry
            for entry in self.entries
            if (not families or entry.family in families)
            and (not budgets_m or entry.budget_m in budgets_m)
        )
        if not kept:
            raise PipelineError("no entry has one of these families at one of these budgets")
        return FrontRecipe.model_validate(self.model_dump() | {"entries": kept})

    def with_seeds(self, seeds: tuple[int, ...]) -> "FrontRecipe":
        """The recipe with these seeds, each of every entry."""
        entries = [entry.model_copy(update={"num_seeds": len(seeds)}) for entry in self.entries]
        return FrontRecipe.model_validate(
            self.model_dump() | {"seeds": seeds, "entries": tuple(entries)}
        )
