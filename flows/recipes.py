"""Named recipes; what a recipe is stands in ``flows.recipe_config``."""

from evaluation.config import EvaluateConfig, ViterbiConfig, WordSearchConfig
from featurize.corpora.synthetic import SyntheticConfig
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.stage import Location, PipelineError
from flows.corpus_recipes import librispeech_100h, librispeech_100h_paper, timit, timit_paper
from flows.recipe_config import ALL_MODELS as ALL_MODELS
from flows.recipe_config import Recipe as Recipe
from flows.recipe_config import SweepConfig as SweepConfig
from flows.recipe_config import trainings_of
from flows.recipe_file import FILE_ENDINGS, read_recipe
from flows.suggestions import did_you_mean
from training.align.align_config import AlignConfig, TargetsConfig
from training.models.model_config import ModelConfig
from training.train_config import CurriculumStage, DensityConfig, OptimizerConfig, TrainConfig


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
            "phones searched over a graph of a phone bigram, without contexts",
            "a smaller network and a short curriculum, to end in minutes",
        ),
        featurize=FeaturizeConfig(
            corpus="timit",
            splits=SplitsConfig(train=("train",), dev=("dev",), test=("test",)),
            labels="alignment",
            utterances_per_shard=128,
        ),
        models=trainings_of(
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
        evaluate=EvaluateConfig(viterbi=ViterbiConfig(tune_max_utterances=60)),
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
            "phones and words searched over a graph of triphones with a phone bigram, or with a "
            "language model of the training transcripts",
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
        models=trainings_of(
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
                    learning_rate=4e-3, min_learning_rate=5e-5, rule="cosine", max_gradient_norm=5.0
                ),
                density=DensityConfig(weight=7.0, targets=(0.06,)),
            ),
            spiking={"dropout": 0.0},
        ),
        seeds=(0, 1, 2),
        seeded_models=("v2", "gru", "lstm"),
        evaluate=EvaluateConfig(
            viterbi=ViterbiConfig(tune_max_utterances=30),
            words=WordSearchConfig(tune_max_utterances=20),
        ),
    )


def _of_two_models(recipe: Recipe) -> Recipe:
    models = tuple(config for config in recipe.models if config.model.model in ("v2", "gru"))
    return recipe.model_copy(update={"models": models, "seeds": (), "seeded_models": ()})


def _mini_librispeech_sweep() -> Recipe:
    recipe = _of_two_models(_mini_librispeech())
    content = recipe.model_dump() | {
        "name": "mini-librispeech-sweep",
        "explanation": (
            "What accuracy costs: v2 at several thresholds of its layers and its encoder, with and "
            "without a penalty on spikes, beside a GRU, as mini-librispeech trains them. Scored on "
            "dev-mini, because it is there to choose by. Ends on the settings no other beats."
        ),
        "sweep": SweepConfig(
            thresholds=(1, 3), encoder_thresholds=(2, 7), density_weights=(0.0, 7.0)
        ),
        "evaluate": recipe.evaluate.model_copy(update={"split": "dev", "words": None}),
    }
    return Recipe.model_validate(content)


def _own_speech() -> Recipe:
    recipe = _of_two_models(_mini_librispeech())
    content = recipe.model_dump() | {
        "name": "own-speech",
        "explanation": (
            "Recordings of your own. They are tables train, dev and test of audio and text "
            "(spikeline corpus split makes them of one). A spiking recogniser (v2) beside a GRU, "
            "trained as in mini-librispeech, frame targets of phones by this pipeline's own "
            "alignment."
        ),
        "deviations": (
            "as mini-librispeech, with speech of your own and a state for each phone, not senones",
        ),
        "featurize": recipe.featurize.model_dump()
        | {
            "corpus": "manifest",
            "splits": SplitsConfig(train=("train",), dev=("dev",), test=("test",)),
        },
        "align": AlignConfig(targets=TargetsConfig(kind="phones")),
    }
    return Recipe.model_validate(content)


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _demo(),
        _mini_librispeech(),
        _mini_librispeech_sweep(),
        _own_speech(),
        librispeech_100h(),
        librispeech_100h_paper(),
        timit(),
        timit_paper(),
    )
}


def recipe_named(name: str) -> Recipe:
    """The recipe of that name, or of a file.

    Args:
        name: built in, or path or ``s3://`` address of a YAML file (``flows.recipe_file``).
    """
    if name.endswith(FILE_ENDINGS):
        return read_recipe(Location.of(name), RECIPES)
    if name not in RECIPES:
        raise PipelineError(
            f"no recipe {name!r}{did_you_mean(name, RECIPES)}; recipes: {', '.join(RECIPES)}, or a "
            "file of your own, NAME.yaml"
        )
    return RECIPES[name]
