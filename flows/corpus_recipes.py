"""Recipes of TIMIT and LibriSpeech: the paper's experiments, and ours with what was learnt since.

What was learnt (``evaluation/results/LOG.md``): a network that hears 50 ms on before it names a
frame errs several points less at no multiplication; ranges that follow what fires run away, and
must be bounded or learned; a price on multiplications that holds from the first step on leads to
the budget and keeps dense spikes from driving one another out of range.
"""

from evaluation.config import EvaluateConfig, ViterbiConfig, WordSearchConfig
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from flows.recipe_config import ALL_MODELS, Recipe, trainings_of
from training.align.align_config import AlignConfig, TargetsConfig
from training.models.model_config import ModelConfig
from training.train_config import (
    BudgetConfig,
    CurriculumStage,
    OptimizerConfig,
    TrainConfig,
    WeightAveragingConfig,
)
from training.worker_config import WorkerConfig

_PAPER_TRAININGS = trainings_of(
    ALL_MODELS,
    TrainConfig(
        model=ModelConfig(hidden_size=550, num_layers=2, dropout=0.2),
        objective="frame",
        curriculum=tuple(
            CurriculumStage(num_epochs=epochs, chunk_frames=frames)
            for epochs, frames in ((5, 100), (4, 200), (4, 400), (4, 800), (7, 1000))
        ),
        batch_size=64,
        optimizer=OptimizerConfig(learning_rate=1e-3, min_learning_rate=1.25e-4),
    ),
)

_SENONES = AlignConfig(targets=TargetsConfig(kind="senones", num_senones=1000))

_RULES = (
    "the learning rate is halved after an epoch whose dev error did not improve; the authors halve "
    "it after two consecutive epochs of less than 0.5% relative gain",
    "a quantiser's range is the largest potential of a whole batch, averaged over steps; the "
    "authors' is the largest of a frame, averaged over frames (range_update=timestep)",
)

_OURS = (
    "v3 and v2 towards 17 million multiplications per second of speech, beside GRU and LSTM of the "
    "same size; settings were chosen on 5 hours of LibriSpeech, not on this corpus",
    "a network names a frame after it has heard five more (50 ms)",
    "8 epochs of chunks of 300 frames, Adam at 3e-3 along a cosine, gradients clipped at a norm "
    "of 5, in place of 24 epochs of growing chunks at a halved rate",
    "dropout of 0.1 in the spiking models, in place of 0.2",
    "scored and kept is an average of the weights over some hundred steps",
    "v2's ranges are bounded, at 2 in the layers and 4 in the encoder; v3 learns them, and its "
    "encoder reads a learned projection of the features to 16 values, chosen for frames of 30 ms "
    "with 72; encoders have a threshold of their own, 2 of 31 levels",
)


def _our_trainings(batch_size: int) -> tuple[TrainConfig, ...]:
    """v3, v2, GRU and LSTM of one size, by what the front's trainings taught."""
    ours = {"hidden_size": 550, "dropout": 0.1, "encoder_threshold": 2}
    models = (
        ModelConfig(model="v3", projection_size=16, **ours),
        ModelConfig(model="v2", max_range=2.0, encoder_max_range=4.0, **ours),
        ModelConfig(model="gru", hidden_size=550, dropout=0.2),
        ModelConfig(model="lstm", hidden_size=550, dropout=0.2),
    )
    return tuple(
        TrainConfig(
            model=model,
            objective="frame",
            target_delay=5,
            curriculum=(CurriculumStage(num_epochs=8, chunk_frames=300),),
            batch_size=batch_size,
            optimizer=OptimizerConfig(
                learning_rate=3e-3, min_learning_rate=5e-5, rule="cosine", max_gradient_norm=5.0
            ),
            budget=BudgetConfig(multiplications_per_s=17e6, first_epoch=0),
            weight_averaging=WeightAveragingConfig(),
        )
        for model in models
    )


def librispeech_100h() -> Recipe:
    """LibriSpeech with what was learnt."""
    paper = librispeech_100h_paper()
    return Recipe(
        name="librispeech-100h",
        explanation=(
            "LibriSpeech (train-clean-100, dev-clean, test-clean) with what was learnt since the "
            "paper: v3 and v2 trained towards 17 million multiplications per second of speech, "
            "beside a GRU and an LSTM of 2 x 550; 40 filterbank values per 10 ms frame, some 1000 "
            "tied states of phones in context named 50 ms later. The paper's own settings: "
            "librispeech-100h-paper."
        ),
        deviations=(*_OURS, *(text for text in paper.deviations if text != _RULES[0])),
        featurize=paper.featurize,
        align=paper.align,
        models=_our_trainings(batch_size=64),
        evaluate=EvaluateConfig(viterbi=ViterbiConfig(tune_on_dev=True), words=WordSearchConfig()),
        workers=WorkerConfig(num_workers=2),
    )


def timit() -> Recipe:
    """TIMIT with what was learnt."""
    paper = timit_paper()
    return Recipe(
        name="timit",
        explanation=(
            "TIMIT (48 phones scored as 39, the standard core test and dev speakers) with what was "
            "learnt since the paper: v3 and v2 trained towards 17 million multiplications per "
            "second of speech, beside a GRU and an LSTM of 2 x 550; some 1000 tied states of "
            "phones in context named 50 ms later. The paper's own settings: timit-paper."
        ),
        deviations=(
            *_OURS,
            "batches of 16 in place of 64",
            *(text for text in paper.deviations if text != _RULES[0]),
        ),
        featurize=paper.featurize,
        align=paper.align,
        models=_our_trainings(batch_size=16),
        evaluate=EvaluateConfig(viterbi=ViterbiConfig(tune_on_dev=True)),
    )


def librispeech_100h_paper() -> Recipe:
    """The paper's LibriSpeech experiment."""
    return Recipe(
        name="librispeech-100h-paper",
        explanation=(
            "The paper's LibriSpeech experiment: train-clean-100, dev-clean, test-clean; 40 "
            "filterbank values per 10 ms frame, two layers of 550, dropout 0.2, Adam at 1e-3 "
            "halved down to 1.25e-4, batches of 64, 24 epochs of growing chunk length. Frame "
            "targets are some 1000 tied states of phones in context. All five models."
        ),
        deviations=(
            "alignment and tied states by the align stage (Gaussians from a flat start, all "
            "pronunciations of CMUdict) in place of Kaldi's tri4b; fbank in place of fMLLR",
            "phones over triphones and a phone bigram of the training labels; words over a graph "
            "of CMUdict and a trigram of the training transcripts in place of an HMM graph and "
            "the corpus' language model; for that one fetch 3-gram.pruned.1e-7.arpa.gz (or "
            "4-gram.arpa.gz) and librispeech-lexicon.txt from OpenSLR resource 11 and set "
            "evaluate.words.language_model and evaluate.words.lexicon",
            *_RULES,
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
        models=_PAPER_TRAININGS,
        evaluate=EvaluateConfig(words=WordSearchConfig()),
        workers=WorkerConfig(num_workers=2),
    )


def timit_paper() -> Recipe:
    """The paper's TIMIT experiment."""
    return Recipe(
        name="timit-paper",
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
            *_RULES,
        ),
        featurize=FeaturizeConfig(
            corpus="timit",
            splits=SplitsConfig(train=("train",), dev=("dev",), test=("test",)),
            labels="phones",
            cmvn="speaker",
        ),
        align=_SENONES,
        models=_PAPER_TRAININGS,
        evaluate=EvaluateConfig(),
    )
