"""Named recipes: everything a pipeline run needs except where its corpus lies.

A recipe is data. ``--set key=value`` changes a copy of it (``flows.overrides``); the stages
below never see more than their own configuration.
"""

import itertools
from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from evaluation.config import EvaluateConfig, ViterbiConfig, WordSearchConfig
from featurize.corpora.synthetic import SyntheticConfig
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.stage import FanOut, PipelineError, TypedConfig
from flows.suggestions import did_you_mean
from flows.tracking_config import TrackingConfig
from training.align.align_config import AlignConfig, TargetsConfig
from training.models.model_config import SPIKING_MODELS, ModelConfig, ModelName
from training.train_config import CurriculumStage, DensityConfig, OptimizerConfig, TrainConfig
from training.worker_config import WorkerConfig


class SweepConfig(TypedConfig):
    """Variants of one model, one training for every combination of the values given.

    An axis without values stays as the model has it.
    """

    model: ModelName = Field("v2", description="The model that is trained in several variants.")
    num_bits: tuple[int, ...] = Field(
        (), description="Numbers of bits of a spike to try, 1 to 8 each."
    )
    thresholds: tuple[int, ...] = Field(
        (), description="Thresholds of the layers to try; higher ones give fewer spikes."
    )
    encoder_thresholds: tuple[int, ...] = Field(
        (), description="Thresholds of the input encoder to try."
    )
    density_weights: tuple[float, ...] = Field(
        (), description="Weights of the spike-density penalty to try; 0 for none."
    )

    def variants(self, config: TrainConfig) -> tuple[TrainConfig, ...]:
        """The trainings in place of one: all combinations of the axes, validated.

        Args:
            config: the training that is varied; its density targets hold for every weight.
        """
        axes: tuple[tuple[str, tuple[float, ...]], ...] = (
            ("num_bits", self.num_bits),
            ("threshold", self.thresholds),
            ("encoder_threshold", self.encoder_thresholds),
            ("density", self.density_weights),
        )
        named = [[(name, value) for value in values] for name, values in axes if values]
        return tuple(_variant(config, dict(point)) for point in itertools.product(*named))


def _variant(config: TrainConfig, point: dict[str, float]) -> TrainConfig:
    content = config.model_dump()
    weight = point.pop("density", None)
    content["model"] |= point
    if weight is not None:
        content["density"] = (content["density"] or {}) | {"weight": weight} if weight else None
    return TrainConfig.model_validate(content)


class Recipe(TypedConfig):
    """A named pipeline."""

    name: str = Field(description="Name by which the recipe is chosen.")
    explanation: str = Field(min_length=1, description="What it trains, on what, in plain words.")
    deviations: tuple[str, ...] = Field(
        (), description="Where it differs from Ponghiran & Roy, AAAI 2022, a sentence each."
    )
    featurize: FeaturizeConfig = Field(
        description="How speech and transcripts become features and labels."
    )
    align: AlignConfig | None = Field(
        None,
        description="Find frame targets from phone labels before training; empty: train on the "
        "features as they are.",
    )
    models: tuple[TrainConfig, ...] = Field(
        min_length=1, description="The models to train, with all settings of each one's training."
    )
    seeds: tuple[int, ...] = Field(
        (), description="Train once with each of these seeds; empty: once, with the model's own."
    )
    seeded_models: tuple[ModelName, ...] = Field(
        (), description="Models trained with every seed, the others with the first; empty: all."
    )
    sweep: SweepConfig | None = Field(
        None, description="Variants trained in place of one model; empty for none."
    )
    evaluate: EvaluateConfig = Field(description="How the trained models are decoded and scored.")
    synthetic: SyntheticConfig | None = Field(
        None, description="Synthesise this corpus where none is given; empty: a corpus is needed."
    )
    fan_out: FanOut = Field(
        default_factory=FanOut,
        description="Where feature shards are made, and how many at once; never changes the "
        "result.",
    )
    workers: WorkerConfig = Field(
        default_factory=WorkerConfig,
        description="Where training runs and with how many workers; never changes the result.",
    )
    tracking: TrackingConfig = Field(
        default_factory=TrackingConfig,
        description="Where metrics go beside the results, for TensorBoard.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = self.model_names
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(
                f"models names {repeated[0]} twice; name each model once, and seeds to train it "
                "more than once"
            )
        if len(set(self.seeds)) != len(self.seeds) or any(seed < 0 for seed in self.seeds):
            raise ValueError(f"seeds={self.seeds}: use different numbers from 0")
        if self.sweep is not None:
            if self.sweep.model not in names:
                raise ValueError(f"sweep.model={self.sweep.model} is none of the recipe's models")
            self.sweep.variants(self.models[names.index(self.sweep.model)])
        return self

    @model_validator(mode="after")
    def _check_targets(self) -> Self:
        labels = self.featurize.labels
        if self.align is not None and labels != "phones":
            raise ValueError(f"align needs featurize.labels=phones, not {labels}")
        has_frame_targets = labels == "alignment" or self.align is not None
        if not has_frame_targets and "frame" in {m.objective for m in self.models}:
            raise ValueError(
                f"objective=frame needs featurize.labels=alignment, not {labels}; or labels=phones "
                "with align={}"
            )
        return self

    @property
    def model_names(self) -> tuple[str, ...]:
        """The models, in order."""
        return tuple(config.model.model for config in self.models)

    @property
    def trainings(self) -> tuple[TrainConfig, ...]:
        """Every training: the models, one of them varied, with their seeds."""
        found: list[TrainConfig] = []
        for config in self.models:
            kind = config.model.model
            swept = self.sweep is not None and self.sweep.model == kind
            variants = self.sweep.variants(config) if self.sweep and swept else (config,)
            everywhere = not self.seeded_models or kind in self.seeded_models
            seeds = self.seeds if everywhere else self.seeds[:1]
            for variant in variants:
                found += [variant.model_copy(update={"seed": seed}) for seed in seeds] or [variant]
        return tuple(found)


ALL_MODELS = ("conventional", "v1", "v2", "gru", "lstm")
"""The paper's models and its baselines."""

_PAPER_CURRICULUM = tuple(
    CurriculumStage(num_epochs=epochs, chunk_frames=frames)
    for epochs, frames in ((5, 100), (4, 200), (4, 400), (4, 800), (7, 1000))
)

_SENONES = AlignConfig(targets=TargetsConfig(kind="senones", num_senones=1000))


def _trainings(
    models: tuple[str, ...], template: TrainConfig, spiking: Mapping[str, float] | None = None
) -> tuple[TrainConfig, ...]:
    """The same training for each model, but for what the spiking ones have of their own."""

    def model(name: str) -> ModelConfig:
        own = dict(spiking or {}) if name in SPIKING_MODELS else {}
        return template.model.for_model(name).model_copy(update=own)

    return tuple(template.model_copy(update={"model": model(name)}) for name in models)


def _demo() -> Recipe:
    return Recipe(
        name="demo",
        explanation=(
            "Half an hour of synthetic speech (made here, no download), exact frame targets, "
            "a small spiking recogniser (v2) beside a GRU of the same size. Ends in minutes on "
            "two CPU cores with error rates and multiplications per frame."
        ),
        deviations=(
            "synthetic speech in place of TIMIT",
            "phone targets from the synthesiser in place of senones from a Kaldi alignment",
            "Viterbi over a phone bigram in place of an HMM decoding graph",
            "a smaller network and a short curriculum, to end in minutes",
        ),
        featurize=FeaturizeConfig(
            corpus="timit",
            splits=SplitsConfig(train=("train",), dev=("dev",), test=("test",)),
            labels="alignment",
            utterances_per_shard=128,
        ),
        models=_trainings(
            ("v2", "gru"),
            TrainConfig(
                model=ModelConfig(hidden_size=128, dropout=0.1),
                objective="frame",
                curriculum=(
                    CurriculumStage(num_epochs=3, chunk_frames=100),
                    CurriculumStage(num_epochs=2, chunk_frames=200),
                ),
                batch_size=32,
                optimizer=OptimizerConfig(learning_rate=3e-3, max_gradient_norm=5.0),
            ),
        ),
        evaluate=EvaluateConfig(viterbi=ViterbiConfig(tune_on_dev=True, tune_max_utterances=60)),
        synthetic=SyntheticConfig(layout="timit", minutes=30.0, seed=0),
    )


def _mini_librispeech() -> Recipe:
    return Recipe(
        name="mini-librispeech",
        explanation=(
            "All five models on a Mini LibriSpeech of train-mini, dev-mini and test-mini "
            "(2.6, 0.3 and 0.6 hours of read speech), frame targets by this pipeline's own "
            "alignment (400 phones in context, tied), three frames joined into one, and a penalty "
            "on spikes. Three seeds of v2, GRU and LSTM. An hour or so on two CPU cores."
        ),
        deviations=(
            "2.6 hours of training speech in place of 100",
            "24 filterbank values; three 10 ms frames joined into one 30 ms step",
            "frame targets are 400 tied phones in context, one state each, from this pipeline's "
            "alignment of CMUdict's pronunciations, in place of senones from Kaldi's",
            "a network names a frame after it has heard two more (60 ms)",
            "a smaller network, batch and curriculum; the learning rate falls along a cosine",
            "no dropout in the spiking models, which underfit so little speech with it",
            "spikes of the layers are penalised above a density of 6%, and the encoder has a "
            "threshold of its own: 2 of 31 levels",
            "the quantisers' ranges are bounded, at 2 in the layers and 4 in the encoder, else "
            "they run away",
            "phones over triphones and a phone bigram, and for words a beam search with a language "
            "model of the training transcripts, in place of an HMM decoding graph",
        ),
        featurize=FeaturizeConfig(
            corpus="librispeech",
            splits=SplitsConfig(train=("train-mini",), dev=("dev-mini",), test=("test-mini",)),
            labels="phones",
            num_bins=24,
            stack=3,
            stride=3,
            cmvn="speaker",
            utterances_per_shard=128,
        ),
        align=AlignConfig(
            targets=TargetsConfig(kind="senones", states_per_phone=1, num_senones=400)
        ),
        models=_trainings(
            ALL_MODELS,
            TrainConfig(
                model=ModelConfig(
                    hidden_size=256, encoder_threshold=2, encoder_max_range=4.0, max_range=2.0
                ),
                objective="frame",
                target_delay=2,
                curriculum=(
                    CurriculumStage(num_epochs=3, chunk_frames=100),
                    CurriculumStage(num_epochs=7, chunk_frames=200),
                ),
                batch_size=16,
                optimizer=OptimizerConfig(
                    learning_rate=4e-3,
                    min_learning_rate=5e-5,
                    rule="cosine",
                    max_gradient_norm=5.0,
                ),
                density=DensityConfig(weight=7.0, targets=(0.06,)),
            ),
            spiking={"dropout": 0.0},
        ),
        seeds=(0, 1, 2),
        seeded_models=("v2", "gru", "lstm"),
        evaluate=EvaluateConfig(
            viterbi=ViterbiConfig(tune_on_dev=True, tune_max_utterances=30),
            words=WordSearchConfig(beam_size=50, tune_max_utterances=20),
        ),
    )


def _mini_librispeech_sweep() -> Recipe:
    recipe = _mini_librispeech()
    content = recipe.model_dump() | {
        "name": "mini-librispeech-sweep",
        "explanation": (
            "What accuracy costs: v2 at several thresholds of its layers and its encoder, with and "
            "without a penalty on spikes, beside a GRU, as mini-librispeech trains them. Scored on "
            "dev-mini, because it is there to choose by. Ends on the settings no other beats."
        ),
        "models": [c.model_dump() for c in recipe.models if c.model.model in ("v2", "gru")],
        "seeds": (),
        "seeded_models": (),
        "sweep": SweepConfig(
            thresholds=(1, 3), encoder_thresholds=(2, 7), density_weights=(0.0, 7.0)
        ),
        "evaluate": recipe.evaluate.model_copy(update={"split": "dev", "words": None}),
    }
    return Recipe.model_validate(content)


def _librispeech_100h() -> Recipe:
    return Recipe(
        name="librispeech-100h",
        explanation=(
            "The paper's LibriSpeech experiment: train-clean-100, dev-clean, test-clean; 40 "
            "filterbank values per 10 ms frame, two layers of 550, dropout 0.2, Adam at 1e-3 "
            "halved down to 1.25e-4, batches of 64, 24 epochs of growing chunk length. Frame "
            "targets are some 1000 tied states of phones in context. All five models."
        ),
        deviations=(
            "alignment and tied states by the align stage (Gaussians from a flat start, first "
            "pronunciation of CMUdict) in place of Kaldi's tri4b; fbank in place of fMLLR",
            "phones over triphones and a phone bigram of the training labels; words by beam search "
            "over CMUdict and a trigram of the training transcripts in place of an HMM graph and "
            "the corpus' language model; for that one fetch 3-gram.pruned.1e-7.arpa.gz (or "
            "4-gram.arpa.gz) and librispeech-lexicon.txt from OpenSLR resource 11 and set "
            "evaluate.words.language_model and evaluate.words.lexicon",
        ),
        featurize=FeaturizeConfig(
            corpus="librispeech",
            splits=SplitsConfig(
                train=("train-clean-100",), dev=("dev-clean",), test=("test-clean",)
            ),
            labels="phones",
            cmvn="speaker",
            utterances_per_shard=512,
        ),
        align=_SENONES,
        models=_trainings(
            ALL_MODELS,
            TrainConfig(
                model=ModelConfig(hidden_size=550, num_layers=2, dropout=0.2),
                objective="frame",
                curriculum=_PAPER_CURRICULUM,
                batch_size=64,
                optimizer=OptimizerConfig(learning_rate=1e-3, min_learning_rate=1.25e-4),
            ),
        ),
        evaluate=EvaluateConfig(words=WordSearchConfig()),
        workers=WorkerConfig(num_workers=2),
    )


def _timit() -> Recipe:
    return Recipe(
        name="timit",
        explanation=(
            "The paper's TIMIT experiment: 48 phones scored as 39, the standard core test and dev "
            "speakers; two layers of 550, dropout 0.2, Adam at 1e-3 halved down to 1.25e-4, "
            "batches of 64, 24 epochs of growing chunk length. Frame targets are some 1000 tied "
            "states of phones in context. All five models."
        ),
        deviations=(
            "alignment and tied states by the align stage (Gaussians from a flat start over the "
            "phones of the .PHN files) in place of Kaldi's; fbank in place of fMLLR",
            "decoded over triphones and a phone bigram of the training labels in place of Kaldi's "
            "decoding graph",
        ),
        featurize=FeaturizeConfig(
            corpus="timit",
            splits=SplitsConfig(train=("train",), dev=("dev",), test=("test",)),
            labels="phones",
            cmvn="speaker",
        ),
        align=_SENONES,
        models=_trainings(
            ALL_MODELS,
            TrainConfig(
                model=ModelConfig(hidden_size=550, num_layers=2, dropout=0.2),
                objective="frame",
                curriculum=_PAPER_CURRICULUM,
                batch_size=64,
                optimizer=OptimizerConfig(learning_rate=1e-3, min_learning_rate=1.25e-4),
            ),
        ),
        evaluate=EvaluateConfig(),
    )


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _demo(),
        _mini_librispeech(),
        _mini_librispeech_sweep(),
        _librispeech_100h(),
        _timit(),
    )
}


def recipe_named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        PipelineError: naming the recipes there are.
    """
    if name not in RECIPES:
        raise PipelineError(
            f"no recipe {name!r}{did_you_mean(name, RECIPES)}; recipes: {', '.join(RECIPES)}"
        )
    return RECIPES[name]
