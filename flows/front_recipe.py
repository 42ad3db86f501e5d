"""The recipe ``front``: who runs for the lead in accuracy at equal multiplications.

An entry is one training of one family at one budget; the front is drawn over all that are finished.
Budgets are of audited multiplications per second of speech: frame rates differ. A dense model has
the largest size whose count is within its budget; a model that sends events is trained towards it.
"""

from collections.abc import Iterator
from typing import Self

from pydantic import Field, model_validator

from evaluation.config import EvaluateConfig, WordSearchConfig
from evaluation.front import Aid
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.stage import PipelineError, TypedConfig
from training.align.align_config import AlignConfig, TargetsConfig
from training.models.counting import NetworkShape, closed_form
from training.models.leaky_config import LeakyConfig
from training.models.model_config import ModelConfig, ModelName
from training.train_config import (
    BudgetConfig,
    CurriculumStage,
    OptimizerConfig,
    SpecAugmentConfig,
    TrainConfig,
    WeightAveragingConfig,
)

BUDGETS_M = (1.0, 2.5, 5.0, 10.0, 17.0, 25.0)
"""Millions of multiplications per second of speech."""
UNBOUNDED = 0.0
"""The budget of an entry that has none: the dense network of the paper's size."""


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
        description="Name of the entry that it differs from in one thing; empty for what stands "
        "for itself.",
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


def _features(
    name: str,
    train: tuple[str, ...],
    num_bins: int = 40,
    joined: int = 1,
    speeds: tuple[float, ...] = (),
) -> FrontFeatures:
    """Filterbank frames of 10 ms, so many of them joined into one; training copies at speeds."""
    targets = (
        TargetsConfig(kind="senones", num_senones=1000)
        if joined == 1
        else TargetsConfig(kind="senones", states_per_phone=1, num_senones=400)
    )
    return FrontFeatures(
        name=name,
        featurize=FeaturizeConfig(
            corpus="librispeech",
            splits=SplitsConfig(train=train, dev=("dev-mini",), test=("test-mini",)),
            labels="phones",
            cmvn="speaker",
            utterances_per_shard=128,
            num_bins=num_bins,
            speed_factors=speeds,
            stack=joined,
            stride=joined,
        ),
        align=AlignConfig(targets=targets),
    )


def num_outputs(features: FrontFeatures) -> int:
    """O of a network with these frame targets, at most."""
    return features.align.targets.num_senones


def largest_size(
    config: ModelConfig,
    features: FrontFeatures,
    budget_m: float,
    densities: tuple[float, float] = (1.0, 1.0),
) -> int:
    """The largest H at which a model's audited count is within a budget.

    Args:
        config: the model, whatever its size.
        features: frame rate and numbers of features and targets.
        budget_m: millions of multiplications a second.
        densities: share of the encoder's and of the layers' outputs that are not zero; 1 for what
            is dense.
    """
    per_frame = 1e6 * budget_m * features.featurize.stored_frame_shift_s

    def cost(hidden_size: int) -> float:
        sized = config.model_copy(update={"hidden_size": hidden_size})
        shape = NetworkShape(sized, features.featurize.num_features, num_outputs(features))
        of_inputs, of_layers = densities
        shares = (of_inputs, *[of_layers] * config.num_layers)
        return closed_form(shape, [a * n for a, n in zip(shares, shape.site_sizes, strict=True)])

    if cost(1) > per_frame:
        raise PipelineError(
            f"{config.model} on {features.name}: no size is within {budget_m:g} M "
            "multiplications a second"
        )
    low, high = 1, 8192
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle) <= per_frame else (low, middle - 1)
    return low


_COSINE = OptimizerConfig(
    learning_rate=3e-3, min_learning_rate=5e-5, rule="cosine", max_gradient_norm=5.0
)


def _training(features: FrontFeatures, model: ModelConfig) -> TrainConfig:
    """The training that all families share: chunks of about 3 s, 60 ms or less of look-ahead.

    Three speeds are three times the speech: as many steps in a third of the epochs.
    """
    is_fine = features.featurize.stride == 1
    num_epochs = 3 if features.featurize.speed_factors else 8
    return TrainConfig(
        model=model,
        objective="frame",
        target_delay=5 if is_fine else 2,
        curriculum=(CurriculumStage(num_epochs=num_epochs, chunk_frames=300 if is_fine else 150),),
        batch_size=16,
        optimizer=_COSINE,
    )


_DENSE: tuple[ModelName, ...] = ("gru", "lstm", "ligru")


def _dense_entry(
    name: ModelName, features: FrontFeatures, budget_m: float, weight_density: float | None = None
) -> FrontEntry:
    """The largest network within a budget, pruned to a share of its weights or whole."""
    model = ModelConfig(model=name, weight_density=weight_density)
    size = largest_size(model, features, budget_m)
    # What small networks lack is capacity; larger ones overfit five hours, pruned ones less.
    dropout = 0.0 if size < 256 else 0.2 if weight_density is None else 0.1
    sized = model.model_copy(update={"hidden_size": size, "dropout": dropout})
    return FrontEntry(
        family=name,
        budget_m=budget_m,
        features=features.name,
        train=_training(features, sized),
        tuned="size by the budget; dropout of the GRU on dev at 5 and 17 M/s, two each (LOG.md)",
    )


def _unbounded_lstm(features: FrontFeatures) -> FrontEntry:
    model = ModelConfig(model="lstm", hidden_size=550, dropout=0.2)
    return FrontEntry(
        family="lstm",
        budget_m=UNBOUNDED,
        features=features.name,
        train=_training(features, model),
        tuned="nothing: the paper's size and dropout",
    )


_EXPECTED_DENSITIES = (0.92, 0.085)
"""What trainings towards a budget came to (LOG.md): the encoder is dense, of the layers one output
in twelve is not zero."""
_PROJECTED_DENSITIES = (0.93, 0.11)
"""The same behind a projection, whose encoder leaves more of the budget to the layers."""


def spiking_entry(
    name: ModelName, features: FrontFeatures, budget_m: float, weight_density: float | None = None
) -> FrontEntry:
    """The paper's models, and v3 with all its options but the projection."""
    model = (
        ModelConfig(model="v3", encoder_threshold=2, threshold=7, weight_density=weight_density)
        if name == "v3"
        else ModelConfig(model=name, encoder_threshold=2, encoder_max_range=4.0, max_range=2.0)
    )
    tuned = "dropout, projection and frame rate of v3 on dev, some ten trainings (LOG.md)"
    return _towards_budget(name, model, features, budget_m, tuned)


_LEAK_AND_LEVELS = LeakyConfig(residue_leak="layer", cell_bound=None, unsigned_levels=False)
"""What the ablations left of v3: one leak for each layer, and learned levels."""


def _projected_entry(features: FrontFeatures, budget_m: float) -> FrontEntry:
    """v3 as the ablations leave it, its encoder behind a projection of the features to 16."""
    model = ModelConfig(
        model="v3",
        encoder_threshold=2,
        threshold=3,
        projection_size=16,
        v3=_LEAK_AND_LEVELS,
    )
    tuned = "options and projection of v3 on dev at 5 M/s, some ten trainings (LOG.md)"
    return _towards_budget("v3-projected", model, features, budget_m, tuned)


def _towards_budget(
    family: str, model: ModelConfig, features: FrontFeatures, budget_m: float, tuned: str
) -> FrontEntry:
    """A spiking network trained towards a budget: wide, because what is silent costs nothing."""
    densities = _EXPECTED_DENSITIES if model.projection_size is None else _PROJECTED_DENSITIES
    size = 20 * round(largest_size(model, features, budget_m, densities) / 20)
    # Large ones overfit five hours, three speeds of them less.
    dropout = (0.05 if features.featurize.speed_factors else 0.1) * (2 if size >= 600 else 1)
    sized = {"hidden_size": size, "dropout": dropout}
    changes = {
        "budget": BudgetConfig(multiplications_per_s=1e6 * budget_m, first_epoch=0),
        "weight_averaging": WeightAveragingConfig(),
    }
    return FrontEntry(
        family=family,
        budget_m=budget_m,
        features=features.name,
        train=_training(features, model.model_copy(update=sized)).model_copy(update=changes),
        tuned=tuned,
    )


_ABLATIONS: dict[str, dict[str, object]] = {
    "v3-no-leak": {"v3": LeakyConfig(residue_leak="none")},
    "v3-layer-leak": {"v3": LeakyConfig(residue_leak="layer")},
    "v3-no-bound": {"v3": LeakyConfig(cell_bound=None)},
    # a signed level is twice as large: half as many levels are the same potential
    "v3-signed": {"v3": LeakyConfig(unsigned_levels=False), "threshold": 3},
    "v3-running-range": {
        "v3": LeakyConfig(learned_levels=False),
        "max_range": 2.0,
        "encoder_max_range": 4.0,
    },
    "v3-projection": {"projection_size": 16},
    "v3-leak-and-levels": {"v3": _LEAK_AND_LEVELS, "threshold": 3},
}
"""v3 at ``_ABLATED_AT_M`` with one thing changed; in the last, all but its leak and its learned
levels."""
_ABLATED_AT_M = 5.0


def _ablation_entries(full: FrontEntry) -> Iterator[FrontEntry]:
    """What each option of v3 is worth: all but one of them, at one budget."""
    for family, changes in _ABLATIONS.items():
        model = ModelConfig.model_validate(full.train.model.model_dump() | changes)
        training = full.train.model_copy(update={"model": model})
        yield full.model_copy(
            update={
                "family": family,
                "variant_of": full.name,
                "num_seeds": 3,
                "train": training,
                "tuned": "as v3, but for what the name says",
            }
        )


def _event_entries(features: FrontFeatures) -> Iterator[FrontEntry]:
    """Other models that send events, towards the same budgets; binary ones multiply nothing."""
    for family in ("deltagru", "egru"):
        for budget in BUDGETS_M:
            size = 256 if budget >= 10 else 128
            model = ModelConfig(hidden_size=size, dropout=0.1).for_model(family)
            towards = BudgetConfig(multiplications_per_s=1e6 * budget, first_epoch=0)
            training = _training(features, model)
            yield FrontEntry(
                family=family,
                budget_m=budget,
                features=features.name,
                train=training.model_copy(update={"budget": towards}),
                tuned="nothing yet",
            )
    for family in ("adlif", "radlif"):
        model = ModelConfig(hidden_size=512, dropout=0.1).for_model(family)
        yield FrontEntry(
            family=family,
            budget_m=UNBOUNDED,
            features=features.name,
            train=_training(features, model),
            tuned="nothing yet",
        )


_PRUNED = ("gru", "ligru", "v3")
"""Families that are also pruned, at ``_PRUNED_AT_M``, to ``_KEPT`` of their weights."""
_PRUNED_AT_M = (2.5, 5.0, 10.0, 17.0)
_KEPT = 0.3


def _pruned_entries(features: FrontFeatures) -> Iterator[FrontEntry]:
    """Larger networks of the same budgets, most of whose weights training leaves out."""
    for family in _PRUNED:
        entry_of = spiking_entry if family == "v3" else _dense_entry
        for budget in _PRUNED_AT_M:
            entry = entry_of(family, features, budget, _KEPT)
            changes = {
                "family": f"{family}-pruned",
                "tuned": "as whole ones; share of weights kept: 0.3, tried at 5 M/s (LOG.md)",
            }
            yield entry.model_copy(update=changes)


_FEW_BUDGETS_M = (5.0, 17.0)
"""Budgets at which weights are rounded, and those of v1 and the conventional network."""


def _rounded(entry: FrontEntry) -> FrontEntry:
    """The same trained networks with weights of 8 bits."""
    return entry.model_copy(
        update={
            "family": f"{entry.family}-int8",
            "variant_of": entry.name,
            "weight_bits": 8,
        }
    )


_TAUGHT = ("gru", "ligru", "v3")
"""Families that also learn from a trained network, at ``_TAUGHT_AT_M``."""
_TAUGHT_AT_M = (5.0, 10.0, 17.0)
_TEACHER_M = 17.0


def _taught(entry: FrontEntry) -> FrontEntry:
    """The same network, which learns from v3 of ``_TEACHER_M`` beside the targets."""
    changes = {
        "family": f"{entry.family}-taught",
        "num_seeds": 1,
        "teacher": f"v3-{entry.features}-{_TEACHER_M:g}M",
        "tuned": "as without a teacher, whose share of the objective, 0.7, was tried once (LOG.md)",
    }
    return entry.model_copy(update=changes)


_LONGER = ("gru", "ligru", "v3")
"""Families that are also trained longer, at ``_FEW_BUDGETS_M``."""


def _longer(entry: FrontEntry) -> FrontEntry:
    """The same network, trained nearly three times as long, on features with masks."""
    (stage,) = entry.train.curriculum
    longer = {
        "curriculum": (stage.model_copy(update={"num_epochs": 8}),),
        "spec_augment": SpecAugmentConfig(),
    }
    changes = {
        "family": f"{entry.family}-longer",
        "num_seeds": 1,
        "train": entry.train.model_copy(update=longer),
        "tuned": "as trained for three epochs; nothing for eight",
    }
    return entry.model_copy(update=changes)


_COMPARED = ("gru", "v3")
"""Families that are also trained on other frames and on less speech, at ``_COMPARED_AT_M``."""
_COMPARED_AT_M = 5.0

_CLAIMED = ("gru", "ligru", "v3", "v3-projected")
"""Families of which something is claimed, at ``_CLAIMED_AT_M``, and which have all seeds there."""
_CLAIMED_AT_M = (2.5, 5.0, 10.0, 17.0)


def _claimed(entry: FrontEntry) -> FrontEntry:
    """The entry, with all seeds where something is claimed of it."""
    is_claimed = entry.family in _CLAIMED and entry.budget_m in _CLAIMED_AT_M
    return entry.model_copy(update={"num_seeds": 3}) if is_claimed else entry


def front_recipe() -> FrontRecipe:
    """The recipe as it stands.

    All families at all budgets have the frames that GRU and v3 do best on, and three speeds of
    speech; what frames, speeds and hours are worth is shown for some.
    """
    five_hours = ("train-mini", "train-more")
    main = _features("30ms-speeds", five_hours, num_bins=24, joined=3, speeds=(0.9, 1.1))
    others = (
        _features("10ms", five_hours),
        _features("20ms", five_hours, joined=2),
        _features("30ms", five_hours, num_bins=24, joined=3),
        _features("30ms-2.6h", ("train-mini",), num_bins=24, joined=3),
    )
    entries = [_dense_entry(name, main, budget) for name in _DENSE for budget in BUDGETS_M]
    entries += [spiking_entry(name, main, budget) for name in ("v2", "v3") for budget in BUDGETS_M]
    entries += [
        spiking_entry(name, main, budget)
        for name in ("v1", "conventional")
        for budget in _FEW_BUDGETS_M
    ]
    entries += [_projected_entry(main, budget) for budget in BUDGETS_M]
    entries = [_claimed(entry) for entry in entries]
    plain = {(entry.family, entry.budget_m): entry for entry in entries}
    entries += [_unbounded_lstm(main), *_event_entries(main)]
    entries += [_taught(plain[name, budget]) for name in _TAUGHT for budget in _TAUGHT_AT_M]
    entries += [_rounded(plain[name, budget]) for name in _TAUGHT for budget in _FEW_BUDGETS_M]
    entries += [_longer(plain[name, budget]) for name in _LONGER for budget in _FEW_BUDGETS_M]
    entries += _pruned_entries(main)
    for features in others:
        for name in _COMPARED:
            entry_of = _dense_entry if name in _DENSE else spiking_entry
            entries.append(entry_of(name, features, _COMPARED_AT_M))
    entries += _ablation_entries(spiking_entry("v3", main, _ABLATED_AT_M))
    return FrontRecipe(
        features=(main, *others),
        entries=tuple(entries),
        evaluate=EvaluateConfig(words=WordSearchConfig(tune_max_utterances=20)),
    )
