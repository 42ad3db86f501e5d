"""The recipe ``front``: who runs for the lead in accuracy at equal multiplications.

A dense model has the largest size whose count is within its budget; a model that sends events is
trained towards it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from evaluation.config import EvaluateConfig, WordSearchConfig
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.stage import PipelineError
from flows.front_recipe import FrontEntry, FrontFeatures, FrontRecipe
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
    """The training that all families share: chunks of 3 to 4.5 s, 60 ms or less of look-ahead.

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
_LIF: tuple[ModelName, ...] = ("v1", "v2", "v3", "conventional")


def _dense_entry(model: ModelConfig, features: FrontFeatures, budget_m: float) -> FrontEntry:
    """The largest network within a budget."""
    size = largest_size(model, features, budget_m)
    # What networks of these sizes lack is capacity (LOG.md); pruned ones are larger and overfit.
    dropout = 0.0 if size < 350 else 0.1
    sized = model.model_copy(update={"hidden_size": size, "dropout": dropout})
    return FrontEntry(
        family=model.model,
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
_PROJECTION = 16
"""Values to which the features of a frame are projected (72 of 30 ms; of other frames untried)."""
_PROJECTED_DENSITIES = (0.93, 0.11)
"""The same behind a projection, whose encoder leaves more of the budget to the layers."""
_V2_RANGES: dict[str, object] = {"max_range": 2.0, "encoder_max_range": 4.0}


def _with(model: ModelConfig, changes: dict[str, object]) -> ModelConfig:
    return ModelConfig.model_validate(model.model_dump() | changes)


def spiking_entry(
    name: ModelName, features: FrontFeatures, budget_m: float, weight_density: float | None = None
) -> FrontEntry:
    """A LIF network trained towards a budget: wide, because what is silent costs nothing."""
    model = ModelConfig(model=name, encoder_threshold=2, weight_density=weight_density)
    if name == "v3":
        model, densities = _with(model, {"projection_size": _PROJECTION}), _PROJECTED_DENSITIES
        tuned = (
            "options, projection, dropout, layers and frames on dev, some thirty trainings at 2.5 "
            "to 17 M/s (LOG.md, v3-options.md)"
        )
    else:
        model, densities = _with(model, _V2_RANGES), _EXPECTED_DENSITIES
        tuned = (
            "ranges and encoder's threshold of v2 on dev, on frames of 10 ms (LOG.md); nothing on "
            "these"
        )
    size = 20 * round(largest_size(model, features, budget_m, densities) / 20)
    # Large ones overfit five hours, three speeds of them less.
    dropout = (0.05 if features.featurize.speed_factors else 0.1) * (2 if size >= 600 else 1)
    sized = {"hidden_size": size, "dropout": dropout}
    changes = {
        "budget": BudgetConfig(multiplications_per_s=1e6 * budget_m, first_epoch=0),
        "weight_averaging": WeightAveragingConfig(),
    }
    return FrontEntry(
        family=name,
        budget_m=budget_m,
        features=features.name,
        train=_training(features, model.model_copy(update=sized)).model_copy(update=changes),
        tuned=tuned,
    )


_ABLATIONS: dict[str, dict[str, object]] = {
    "v3-no-leak": {"v3": LeakyConfig(residue_leak=False)},
    "v3-running-range": {"v3": LeakyConfig(learned_levels=False), **_V2_RANGES},
    # 400 is what the budget then has room for (``_EXPECTED_DENSITIES``)
    "v3-no-projection": {"projection_size": None, "hidden_size": 400},
    "v2-projected": {"model": "v2", **_V2_RANGES},
}
"""v3 at ``_ABLATED_AT_M`` with one of leak, learned levels and projection as in v2; and without
leak and learned levels, which is v2."""
_ABLATED_AT_M = 5.0


def _ablation_entries(full: FrontEntry) -> Iterator[FrontEntry]:
    """What the parts of v3 are worth: all but one of them, or but two, at one budget."""
    for family, changes in _ABLATIONS.items():
        model = _with(full.train.model, changes)
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


_EVENT_SIZES: dict[ModelName, dict[float, int]] = {
    "deltagru": {1.0: 64, 2.5: 128, 5.0: 128, 10.0: 256, 25.0: 400},
    "egru": {1.0: 64, 2.5: 128, 5.0: 240, 10.0: 420, 25.0: 640},
}
"""Sizes by budget. How many of an EGRU's outputs are events follows from its size: 2 x 128 and
2 x 256 spend 2.4 and 6.0 million whatever their budget (LOG.md), so those from 5 on are larger."""


def _event_entries(features: FrontFeatures) -> Iterator[FrontEntry]:
    """Other models that send events, towards some budgets; binary ones multiply nothing."""
    for family, sizes in _EVENT_SIZES.items():
        for budget, size in sizes.items():
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


def _pruned(entry: FrontEntry, features: FrontFeatures) -> FrontEntry:
    """A larger network of the same budget, most of whose weights training leaves out."""
    model = entry.train.model.model
    if model in _DENSE:
        pruned = ModelConfig(model=model, weight_density=0.3)
        larger = _dense_entry(pruned, features, entry.budget_m)
    else:
        larger = spiking_entry(model, features, entry.budget_m, 0.3)
    tuned = (
        "as whole ones; share of weights kept: 0.3, tried at 5 M/s, for v3 without its projection "
        "(LOG.md)"
    )
    return larger.model_copy(update={"tuned": tuned})


def _projected(entry: FrontEntry, features: FrontFeatures) -> FrontEntry:
    """A dense network behind the projection that v3 has: the budget has room for a larger one."""
    model = ModelConfig(model=entry.train.model.model, projection_size=_PROJECTION)
    return _dense_entry(model, features, entry.budget_m)


def _longer(entry: FrontEntry, _: FrontFeatures) -> FrontEntry:
    """The same network, trained nearly three times as long, on features with masks."""
    (stage,) = entry.train.curriculum
    longer = {
        "curriculum": (stage.model_copy(update={"num_epochs": 8}),),
        "spec_augment": SpecAugmentConfig(),
    }
    tuned = "as trained for three epochs; nothing for eight"
    return entry.model_copy(update={"train": entry.train.model_copy(update=longer), "tuned": tuned})


def _taught(entry: FrontEntry, _: FrontFeatures) -> FrontEntry:
    """The same network, which learns from the v3 of 17 million beside the targets."""
    tuned = "as without a teacher, whose share of the objective, 0.7, was tried once (LOG.md)"
    return entry.model_copy(update={"teacher": f"v3-{entry.features}-17M", "tuned": tuned})


def _rounded(entry: FrontEntry, _: FrontFeatures) -> FrontEntry:
    """The same trained networks with weights of 8 bits."""
    return entry.model_copy(update={"variant_of": entry.name, "weight_bits": 8})


_CLAIMED = ("gru", "ligru", "v3")
"""Families of which something is claimed, at ``_CLAIMED_AT_M``, and which have all seeds there."""
_CLAIMED_AT_M = (2.5, 5.0, 10.0, 17.0)


@dataclass(frozen=True)
class _Treatment:
    """What is done to some entries beside what is done to all."""

    name: str  # what it adds to the family's name
    change: Callable[[FrontEntry, FrontFeatures], FrontEntry]
    at_m: dict[str, tuple[float, ...]]  # budgets of each family that has it
    num_seeds: int | None = 1  # None for those of the entry


_TREATMENTS = (
    _Treatment("projected", _projected, {"ligru": (2.5, 5.0)}, None),
    _Treatment(
        "pruned", _pruned, {"gru": (5.0,), "ligru": (2.5, 5.0, 10.0, 17.0), "v3": (2.5, 5.0)}
    ),
    # Of v3 at 17 million it takes three quarters of an hour, and was worth little on dev (LOG.md).
    _Treatment("longer", _longer, {"ligru": (5.0, 17.0), "v3": (5.0,)}),
    _Treatment("taught", _taught, {"ligru": (5.0,), "v3": (5.0,)}),
    _Treatment("int8", _rounded, dict.fromkeys(("gru", "ligru", "v3"), (5.0, 17.0)), None),
)
"""What a sceptic would try, with the strongest rival and with v3. The projection stands where it
may gain a dense network something; that an average of the weights, which spiking networks have,
gains it nothing is in LOG.md."""

_COMPARED_AT_M = 5.0
"""The budget at which GRU and v3 are also trained on other frames and on less speech."""


def _claimed(entry: FrontEntry) -> FrontEntry:
    """The entry, with all seeds where something is claimed of it."""
    is_claimed = entry.family in _CLAIMED and entry.budget_m in _CLAIMED_AT_M
    return entry.model_copy(update={"num_seeds": 3}) if is_claimed else entry


def _treated(entries: list[FrontEntry], features: FrontFeatures) -> Iterator[FrontEntry]:
    """Entries with one treatment each."""
    plain = {(entry.family, entry.budget_m): entry for entry in entries}
    for treatment in _TREATMENTS:
        for family, budgets in treatment.at_m.items():
            for budget in budgets:
                entry = plain[family, budget]
                seeds = treatment.num_seeds or entry.num_seeds
                named = {"family": f"{family}-{treatment.name}", "num_seeds": seeds}
                yield treatment.change(entry, features).model_copy(update=named)


def front_recipe() -> FrontRecipe:
    """The recipe as it stands.

    GRU, LSTM, Li-GRU and the LIF networks stand at all budgets, EGRU and DeltaGRU at all but 17
    million; RadLIF and adLIF, whose layers only add, have none. All have the frames that GRU and v3
    do best on, and three speeds of speech. What frames, speeds and hours are worth is
    shown for GRU and v3.
    """
    five_hours = ("train-mini", "train-more")
    main = _features("30ms-speeds", five_hours, num_bins=24, joined=3, speeds=(0.9, 1.1))
    others = (
        _features("10ms", five_hours),
        _features("20ms", five_hours, joined=2),
        _features("30ms", five_hours, num_bins=24, joined=3),
        _features("30ms-2.6h", ("train-mini",), num_bins=24, joined=3),
    )
    dense = [ModelConfig(model=name) for name in _DENSE]
    plain = [_dense_entry(model, main, budget) for model in dense for budget in BUDGETS_M]
    plain += [spiking_entry(name, main, budget) for name in _LIF for budget in BUDGETS_M]
    plain = [_claimed(entry) for entry in plain]
    entries = [*plain, _unbounded_lstm(main), *_event_entries(main), *_treated(plain, main)]
    for features in others:
        entries.append(_dense_entry(ModelConfig(model="gru"), features, _COMPARED_AT_M))
        entries.append(spiking_entry("v3", features, _COMPARED_AT_M))
    entries += _ablation_entries(spiking_entry("v3", main, _ABLATED_AT_M))
    return FrontRecipe(
        features=(main, *others),
        entries=tuple(entries),
        evaluate=EvaluateConfig(words=WordSearchConfig(tune_max_utterances=20)),
    )
