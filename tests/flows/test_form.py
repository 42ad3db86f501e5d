"""What a form's choices make of a recipe, and what its schema refuses before a run exists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate

from featurize.stage import PipelineError
from flows.form import Choices, chosen_recipe, of_epochs
from flows.overrides import check_stage
from flows.pipeline_flow import pipeline_flow
from flows.recipes import RECIPES
from flows.run_names import chosen_name, is_proposed
from flows.stage_forms import align_form, evaluate_form, featurize_form, train_form
from training.train_config import CurriculumStage

FORMS = [pipeline_flow, featurize_form, align_form, train_form, evaluate_form]


def test_what_is_left_empty_is_the_recipes_own() -> None:
    for name, recipe in RECIPES.items():
        assert chosen_recipe(name, Choices(), ()) == recipe


def test_choices_change_every_model_and_overrides_go_over_them() -> None:
    choices = Choices(models=("v2", "lstm"), size=32, epochs=2, seeds=(0, 4), workers=3)
    chosen = chosen_recipe("demo", choices, ["train.lstm.model.hidden_size=16"])
    assert chosen.model_names == ("v2", "lstm")
    assert [config.model.hidden_size for config in chosen.models] == [32, 16]
    assert {config.num_epochs for config in chosen.models} == {2}
    assert [config.seed for config in chosen.trainings] == [0, 4, 0, 4]
    assert (chosen.workers.num_workers, chosen.workers.in_process) == (3, False)


@given(
    st.lists(st.integers(min_value=1, max_value=9), min_size=1, max_size=6),
    st.integers(min_value=1, max_value=60),
)
def test_another_number_of_epochs_keeps_the_order_of_the_stages(
    counts: list[int], wanted: int
) -> None:
    stages = [
        CurriculumStage(num_epochs=count, chunk_frames=100 + number)
        for number, count in enumerate(counts)
    ]
    shared = of_epochs(stages, wanted)
    assert sum(stage.num_epochs for stage in shared) == wanted
    assert [s.chunk_frames for s in shared] == sorted(s.chunk_frames or 0 for s in shared)
    assert of_epochs(stages, sum(counts)) == tuple(stages)


@pytest.mark.parametrize(
    ("recipe", "override", "said"),
    [
        ("demo", "train.hiden_size=3", r"overrides: train.hiden_size: no such key \(did you mean"),
        ("demo", "evaluate.decoder=bean", "overrides: evaluate.decoder=bean: .*greedy"),
        ("demmo", "seeds=1", "no recipe 'demmo'.*demo"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(recipe: str, override: str, said: str) -> None:
    with pytest.raises(PipelineError, match=said):
        chosen_recipe(recipe, Choices(), [override])


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_form_is_short_described_and_offers_no_choice_of_nothing(form) -> None:
    schema = parameter_schema(form.fn).model_dump()
    fields = schema["properties"]
    assert 5 <= len(fields) <= 10
    assert schema["definitions"] == {}
    for field in fields.values():
        assert field["description"].endswith(".")
        assert "anyOf" not in field, "the UI would show a tab: Property is type None"
    needed = list(fields)[: len(schema["required"])]
    assert needed == schema["required"], "a form begins with what it needs"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("recipe", "dmeo"),
        ("models", ["transformer"]),
        ("size", 0),
        ("size", "many"),
        ("epochs", 0),
        ("seeds", [-1]),
        ("workers", 0),
        ("overrides", ["no assignment"]),
    ],
)
def test_a_wrong_value_is_refused_before_a_run_exists(field: str, value: object) -> None:
    schema = parameter_schema(pipeline_flow.fn).model_dump()
    accepted = {"recipe": "demo", "size": None, "models": ["v2"], "overrides": ["seeds=1"]}
    assert validate(accepted, schema, allow_none_with_default=True) == []
    assert validate({**accepted, field: value}, schema, allow_none_with_default=True)


def test_a_name_says_what_differs() -> None:
    assert chosen_name("demo", Choices()) == "demo"
    choices = Choices(models=("v2",), size=64, epochs=3, seeds=(1, 2))
    assert chosen_name("timit", choices, ["seeds=5"]) == (
        "timit v2 size 64 3 epochs seed 1,2 seeds=5"
    )
    assert chosen_name("demo", Choices(), ["a=1", "b=2", "c=3"]) == "demo a=1 b=2 and 1 more"


@pytest.mark.parametrize("name", ["night-run", "Half the threshold", "v2 again", "Experiment-7"])
def test_what_a_person_typed_is_kept(name: str) -> None:
    assert not is_proposed(name)


def test_names_that_prefect_makes_up_are_known() -> None:
    from prefect.utilities.names import generate_slug

    assert all(is_proposed(generate_slug(2)) for _ in range(200))
    assert is_proposed("Tasty-Avocet")


def test_what_an_alignment_is_checked_against_may_be_said_beside_it() -> None:
    """A recipe that aligns nothing itself, whose labels are others, still has an alignment."""
    check_stage("align", ["featurize.labels=phones", "align.targets.kind=senones"])
    given = ["featurize.labels=phones", "align.targets.kind=senones"]
    assert chosen_recipe("demo", Choices(), given).align is not None


def test_a_form_of_one_stage_refuses_the_settings_of_others() -> None:
    with pytest.raises(PipelineError, match=r"^overrides: featurize.num_bins: a setting of feat"):
        train_form.fn("features", overrides=("featurize.num_bins=80",))
    with pytest.raises(PipelineError, match=r"^overrides: train.seed: a setting of train"):
        evaluate_form.fn(("model",), "features", overrides=("train.seed=1",))
    given = ("evaluate.search_of=elsewhere", "evaluate.words.beam=3")
    with pytest.raises(PipelineError, match=r"^overrides: evaluate.words.beam=3: the search is"):
        evaluate_form.fn(("model",), "features", recipe="librispeech-100h", overrides=given)
