import subprocess
import sys

import pytest

from featurize.stage import PipelineError
from flows.front_entries import front_recipe, spiking_entry
from flows.recipes import ALL_MODELS, RECIPES, Recipe, SweepConfig, recipe_named


def test_the_promised_recipes_are_there() -> None:
    assert set(RECIPES) == {
        "demo",
        "mini-librispeech",
        "mini-librispeech-sweep",
        "own-speech",
        "librispeech-100h",
        "librispeech-100h-paper",
        "timit",
        "timit-paper",
    }


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_explain_themselves_and_survive_json(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.name == name
    assert len(recipe.explanation) > 40
    assert recipe.deviations
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize("name", ["librispeech-100h-paper", "timit-paper"])
def test_papers_recipes_have_the_papers_settings(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.model_names == ALL_MODELS
    assert recipe.featurize.num_bins == 40
    assert recipe.featurize.stack == 1
    for config in recipe.models:
        assert (config.model.num_layers, config.model.hidden_size) == (2, 550)
        assert config.model.dropout == 0.2
        assert (config.model.num_bits, config.model.threshold) == (6, 3)
        assert config.batch_size == 64
        assert config.num_epochs == 24
        assert [stage.num_epochs for stage in config.curriculum] == [5, 4, 4, 4, 7]
        assert config.optimizer.learning_rate == 1e-3
        assert config.optimizer.min_learning_rate == 1.25e-4


def test_timit_follows_the_papers_chunk_lengths() -> None:
    stages = RECIPES["timit-paper"].models[0].curriculum
    assert [stage.chunk_frames for stage in stages] == [100, 200, 400, 800, 1000]


@pytest.mark.parametrize("name", ["librispeech-100h", "timit"])
def test_our_recipes_train_as_the_front_does(name: str) -> None:
    """Their v3, v2 are the front's at 17 M/s, but for the batch of the larger corpus, and size."""
    recipe = RECIPES[name]
    (features,) = (features for features in front_recipe().features if features.name == "10ms")
    front = {name: spiking_entry(name, features, 17.0).train for name in ("v3", "v2")}
    assert recipe.model_names == ("v3", "v2", "gru", "lstm")
    for config in recipe.models[:2]:
        of_front = front[config.model.model]
        sized = config.model.model_copy(update={"hidden_size": of_front.model.hidden_size})
        assert config.model_copy(update={"batch_size": 16, "model": sized}) == of_front
    assert recipe.featurize == RECIPES[f"{name}-paper"].featurize
    assert {config.model.hidden_size for config in recipe.models} == {550}


@pytest.mark.parametrize("name", ["demo", "mini-librispeech", "timit-paper"])
def test_models_of_a_recipe_differ_in_the_model_alone(name: str) -> None:
    """And where a deviation says so, spiking ones in their dropout."""

    def shared(**changes: object) -> set[str]:
        return {
            config.model_copy(
                update={"model": config.model.model_copy(update={"model": "v2", **changes})}
            ).model_dump_json()
            for config in RECIPES[name].models
        }

    if any("dropout" in deviation for deviation in RECIPES[name].deviations):
        assert len(shared(dropout=0.0)) == 1
        assert len(shared()) == 2
    else:
        assert len(shared()) == 1


def trainings(recipe: Recipe) -> list[tuple[object, ...]]:
    return [
        (c.model.model, c.seed, c.model.threshold, c.density and c.density.weight)
        for c in recipe.trainings
    ]


def test_seeds_multiply_the_models_they_are_for() -> None:
    content = RECIPES["timit-paper"].model_dump() | {
        "seeds": (4, 7),
        "seeded_models": ("v2", "lstm"),
    }
    recipe = Recipe.model_validate(content)
    assert trainings(recipe) == [
        ("conventional", 4, 3, None),
        ("v1", 4, 3, None),
        ("v2", 4, 3, None),
        ("v2", 7, 3, None),
        ("gru", 4, 3, None),
        ("lstm", 4, 3, None),
        ("lstm", 7, 3, None),
    ]
    assert RECIPES["timit-paper"].trainings == RECIPES["timit-paper"].models
    everywhere = Recipe.model_validate(content | {"seeded_models": ()})
    assert len(everywhere.trainings) == 10
    with pytest.raises(ValueError, match="use different numbers"):
        Recipe.model_validate(content | {"seeds": (1, 1)})


def test_a_sweep_trains_all_combinations_of_one_model() -> None:
    sweep = SweepConfig(thresholds=(1, 5), density_weights=(0.0, 0.5))
    recipe = Recipe.model_validate(RECIPES["demo"].model_dump() | {"sweep": sweep})
    assert trainings(recipe) == [
        ("v2", 0, 1, None),
        ("v2", 0, 1, 0.5),
        ("v2", 0, 5, None),
        ("v2", 0, 5, 0.5),
        ("gru", 0, 3, None),
    ]
    assert SweepConfig().variants(RECIPES["demo"].models[0]) == RECIPES["demo"].models[:1]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (SweepConfig(model="v1"), "is none of the recipe's models"),
        (SweepConfig(num_bits=(2,), thresholds=(3,)), "silences every spike of 2 bits"),
    ],
)
def test_a_sweep_that_cannot_be_trained_is_refused(sweep: SweepConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate(RECIPES["demo"].model_dump() | {"sweep": sweep})


def test_only_the_demonstration_brings_its_own_corpus() -> None:
    assert [r.name for r in RECIPES.values() if r.synthetic is not None] == ["demo"]


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(PipelineError, match=r"did you mean timit\?.*mini-librispeech"):
        recipe_named("timt")


def test_frame_targets_need_alignments() -> None:
    content = RECIPES["demo"].model_dump()
    content["featurize"]["labels"] = "phones"
    content["align"] = None
    with pytest.raises(ValueError, match=r"featurize\.labels=alignment"):
        Recipe.model_validate(content)


def test_reading_recipes_imports_no_heavy_library() -> None:
    code = "import sys, flows.recipes, flows.overrides; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "prefect", "ray", "matplotlib"}.isdisjoint(done.stdout.split())
