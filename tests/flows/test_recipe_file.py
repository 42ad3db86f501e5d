"""Recipes of one's own: written to edit, read back the same, and each mistake with its line."""

import pytest

from featurize.stage import PipelineError
from flows.cli import run
from flows.recipe_file import recipe_text
from flows.recipes import RECIPES, recipe_named


def read(tmp_path, text, name="mine.yaml"):
    file = tmp_path / name
    file.write_text(text)
    return recipe_named(str(file))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_that_is_written_to_edit_is_read_back_the_same(tmp_path, name):
    assert read(tmp_path, recipe_text(RECIPES[name])) == RECIPES[name]


def test_show_prints_the_file(tmp_path, capfd):
    assert run(["recipes", "show", "own-speech"]) == 0
    assert read(tmp_path, capfd.readouterr().out) == RECIPES["own-speech"]


def test_a_file_changes_what_it_is_based_on(tmp_path):
    recipe = read(
        tmp_path,
        "based_on: mini-librispeech\n"
        "featurize:\n  splits: {train: [train-clean-100], dev: [dev-clean]}\n"
        "models: [gru, adlif]\n"
        "train:\n  batch_size: 32\n  optimizer: {learning_rate: 1e-3}\n"
        "seeds: []\nseeded_models: []\n",
    )
    base = RECIPES["mini-librispeech"]
    assert recipe.name == "mine"
    assert recipe.model_names == ("gru", "adlif")
    assert {model.batch_size for model in recipe.models} == {32}
    assert {model.optimizer.learning_rate for model in recipe.models} == {1e-3}
    assert recipe.models[0].optimizer.rule == base.models[0].optimizer.rule == "cosine"
    assert recipe.featurize.splits.train == ("train-clean-100",)
    assert recipe.featurize.splits.test == base.featurize.splits.test
    assert recipe.featurize.num_bins == base.featurize.num_bins
    assert recipe.evaluate == base.evaluate


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("based_on: [demo]\n", r"line 1: no recipe \"\['demo'\]\""),
        ("based_on: mini-librispech\n", r"line 1: no recipe 'mini-librispech' \(did you mean"),
        ("based_on: demo\nfeaturize:\n  num_bins: many\n", "line 3: featurize.num_bins"),
        ("based_on: demo\n\nfeaturise: {}\n", "line 3: featurise"),
        ("based_on: demo\nfeaturize: {num_bins: 40,\n  num_bns: 3}\n", "line 3: featurize.num_bns"),
        ("based_on: demo\ntrain:\n  batch_size: 8\n  optimizer:\n    rule: x\n", "line 5: models"),
        ("based_on: demo\nmodels:\n- v2\n- v9\n", "line 2: no model 'v9'"),
        ("models: [v2]\n", "line 1: .*add based_on"),
        ("based_on: demo\nseeds: [1, 1]\n", "line 2: seeds"),
        ("name: x\nexplanation: y\n", "line 1: featurize: Field required"),
        ("based_on: demo\nseeds: [1\nworkers: {}\n", "line 3: "),
        ("based_on: demo\n  seeds: 3\n", "line 2: "),
        ("seeds: [0]\nseeds: [1]\n", "line 2: seeds a second time"),
        ("a: &x [1]\nb: *x\n", "line 1: anchors"),
        ("a: !!python/object/apply:os.system [x]\n", "line 1: could not determine"),
        ("- demo\n", "line 1: write settings"),
        ("", "line 1: write settings"),
        ("[" * 5000, "not YAML|line 1"),
        ("a: \x00", "not YAML"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path, text, said):
    with pytest.raises(PipelineError, match=said) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "mine.yaml") in str(caught.value)


def test_a_missing_file_and_a_huge_one_are_refused(tmp_path):
    with pytest.raises(PipelineError, match="check the path"):
        recipe_named(str(tmp_path / "none.yaml"))
    with pytest.raises(PipelineError, match="too large"):
        read(tmp_path, "#" * (2**20 + 1))


def test_the_command_line_takes_a_file_where_it_takes_a_recipe(tmp_path, capfd):
    (tmp_path / "mine.yaml").write_text("based_on: demo\nseeds: [x]\n")
    options = ["--corpus", str(tmp_path), "--runs", str(tmp_path / "runs")]
    assert run(["pipeline", "--recipe", str(tmp_path / "mine.yaml"), *options]) == 2
    assert "mine.yaml, line 2: seeds" in capfd.readouterr().err
