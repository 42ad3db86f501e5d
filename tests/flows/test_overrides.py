import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurize.stage import PipelineError
from flows.overrides import apply_overrides, configured, known_keys
from flows.recipes import ALL_MODELS, RECIPES, Recipe

TIMIT = RECIPES["timit-paper"]
DEMO = RECIPES["demo"]


def test_train_keys_change_every_model() -> None:
    changed = apply_overrides(TIMIT, ["train.optimizer.learning_rate=5e-4"])
    assert {config.optimizer.learning_rate for config in changed.models} == {5e-4}
    assert TIMIT.models[0].optimizer.learning_rate == 1e-3


def test_a_models_own_key_changes_it_alone() -> None:
    changed = apply_overrides(TIMIT, ["train.gru.model.hidden_size=7"])
    sizes = {config.model.model: config.model.hidden_size for config in changed.models}
    assert sizes.pop("gru") == 7
    assert set(sizes.values()) == {550}


def test_other_stages_and_workers() -> None:
    changed = apply_overrides(
        TIMIT,
        [
            "featurize.num_bins=80",
            "evaluate.decoder=viterbi",
            "workers.num_workers=3",
            "fan_out.kind=ray",
        ],
    )
    assert changed.featurize.num_bins == 80
    assert changed.evaluate.decoder == "viterbi"
    assert changed.workers.num_workers == 3
    assert changed.fan_out.kind == "ray"


def test_seeds_and_sweeps_are_settings_of_the_recipe() -> None:
    changed = apply_overrides(
        DEMO,
        ["seeds=0,3", "seeded_models=v2", "sweep.thresholds=1,5", "train.v2.density.weight=0.5"],
    )
    assert [(c.model.model, c.seed, c.model.threshold) for c in changed.trainings] == [
        ("v2", 0, 1),
        ("v2", 3, 1),
        ("v2", 0, 5),
        ("v2", 3, 5),
        ("gru", 0, 3),
    ]
    assert [c.density and c.density.weight for c in changed.models] == [0.5, None]


def test_models_are_chosen_first_and_may_be_new_to_the_recipe() -> None:
    changed = apply_overrides(DEMO, ["train.lstm.seed=4", "models=v2,lstm"])
    assert changed.model_names == ("v2", "lstm")
    assert [config.seed for config in changed.models] == [0, 4]
    assert changed.models[1].curriculum == DEMO.models[0].curriculum


@given(st.lists(st.sampled_from(ALL_MODELS), min_size=1, unique=True))
def test_models_keep_the_order_given(names: list[str]) -> None:
    assert apply_overrides(TIMIT, [f"models={','.join(names)}"]).model_names == tuple(names)


def test_an_empty_part_is_filled_in() -> None:
    changed = apply_overrides(DEMO, ["train.spec_augment.num_time_masks=1"])
    assert changed.models[0].spec_augment is not None
    assert changed.models[0].spec_augment.num_time_masks == 1
    assert apply_overrides(changed, ["train.spec_augment=null"]).models[0].spec_augment is None


def test_lists_by_commas_by_json_and_of_one() -> None:
    for text in ("a,b", '["a", "b"]', "a, b"):
        changed = apply_overrides(DEMO, [f"featurize.splits.train={text}"])
        assert changed.featurize.splits.train == ("a", "b")
    assert apply_overrides(DEMO, ["evaluate.subsets=x"]).evaluate.subsets == ("x",)
    assert apply_overrides(DEMO, ["evaluate.subsets=12"]).evaluate.subsets == ("12",)


def test_structures_by_json() -> None:
    changed = apply_overrides(DEMO, ['train.curriculum=[{"num_epochs": 2, "chunk_frames": 9}]'])
    assert changed.models[0].num_epochs == 2
    assert changed.models[1].chunk_frames(0) == 9


@given(st.floats(min_value=1e-3, max_value=1e3))
def test_a_number_reads_back_as_itself(value: float) -> None:
    changed = apply_overrides(TIMIT, [f"train.optimizer.learning_rate={value!r}"])
    assert changed.models[0].optimizer.learning_rate == value


@given(st.text(max_size=30).filter(str.strip))
def test_a_text_field_takes_any_text_as_it_is(text: str) -> None:
    changed = apply_overrides(DEMO, [f"evaluate.split={text}"])
    stripped = text.strip()
    try:
        parsed = json.loads(stripped)
    except ValueError:
        parsed = stripped
    assert changed.evaluate.split == (parsed if isinstance(parsed, str) else stripped)


@given(st.text(max_size=40))
def test_whatever_is_typed_is_accepted_or_refused_in_one_line(text: str) -> None:
    try:
        changed: Recipe | str = apply_overrides(DEMO, [text])
    except PipelineError as error:
        changed = str(error)
    assert isinstance(changed, Recipe) or changed.startswith("--set ")


@given(st.sampled_from(known_keys(DEMO)), st.text(max_size=20))
def test_a_known_key_is_never_called_unknown(key: str, value: str) -> None:
    said = ""
    try:
        apply_overrides(DEMO, [f"{key}={value}"])
    except PipelineError as error:
        said = str(error)
    assert "no such key" not in said


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("train.hidden_size=3", "did you mean train.model.hidden_size"),
        ("train.model.hiden_size=3", "did you mean train.model.hidden_size"),
        ("featurise.num_bins=3", "did you mean featurize.num_bins"),
        ("num_bins=3", "did you mean featurize.num_bins"),
        ("explanation=x", "not a setting"),
        ("train=3", "no such key"),
        ("models=v2,v7", "no model 'v7'"),
        ("models=", "name at least one of"),
        ("models=v2,v2", "twice"),
        ("bogus", "write key=value"),
        ("=3", "write key=value"),
        ("evaluate.decoder=bean", "'viterbi' or 'prefix'"),
        ("featurize.num_bins=many", "valid integer"),
        ("train.model.threshold=40", "use a smaller threshold or more bits"),
        ("train.lstm.seed=1", "trains v2, gru, not lstm"),
        ("train.optimizer.min_learning_rate=1", "lower the floor"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(assignment: str, said: str) -> None:
    with pytest.raises(PipelineError) as caught:
        apply_overrides(DEMO, [assignment])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "assignments",
    [
        ["featurize.labels=alignment", "align=null"],
        ["align=null", "featurize.labels=alignment"],
    ],
)
def test_settings_that_are_valid_only_together_stand_in_any_order(assignments: list[str]) -> None:
    changed = apply_overrides(TIMIT, assignments)
    assert (changed.featurize.labels, changed.align) == ("alignment", None)


def test_what_does_not_go_together_is_refused_naming_both() -> None:
    with pytest.raises(PipelineError, match=r"--set align=null: .*labels=alignment"):
        apply_overrides(TIMIT, ["evaluate.seed=3", "align=null"])


def test_any_configuration_takes_assignments() -> None:
    changed = configured(DEMO.workers, ["num_workers=2", "in_process=false"])
    assert (changed.num_workers, changed.in_process) == (2, False)
    with pytest.raises(PipelineError, match="did you mean num_workers"):
        configured(DEMO.workers, ["num_worker=2"])
