"""The recipe ``front``, and its flow on a little synthetic speech."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from featurize.featurize_config import SplitsConfig
from featurize.stage import PipelineError
from flows.cli import run
from flows.front_command import parse_seeds
from flows.front_entries import BUDGETS_M, front_recipe, largest_size, num_outputs
from flows.front_recipe import FrontEntry, FrontRecipe
from training.models.counting import NetworkShape, closed_form
from training.models.model_config import ModelConfig
from training.train_config import BudgetConfig, CurriculumStage

RECIPE = front_recipe()


def test_every_dense_entry_is_the_largest_within_its_budget():
    by_name = {features.name: features for features in RECIPE.features}
    dense = [entry for entry in RECIPE.entries if not entry.train.model.is_event_based]
    families = {entry.family for entry in dense}
    plain = {"gru", "lstm", "ligru"}
    kinds = {f"ligru-{kind}" for kind in ("taught", "longer", "pruned", "projected", "int8")}
    assert families == plain | kinds | {"gru-pruned", "gru-int8"}
    for entry in dense:
        if not entry.budget_m:
            continue
        features = by_name[entry.features]
        costs = []
        for extra in (0, 1):
            size = entry.train.model.hidden_size + extra
            config = entry.train.model.model_copy(update={"hidden_size": size})
            shape = NetworkShape(config, features.featurize.num_features, num_outputs(features))
            frame = closed_form(shape, [float(n) for n in shape.site_sizes])
            costs.append(frame / features.featurize.stored_frame_shift_s / 1e6)
        assert costs[0] <= entry.budget_m < costs[1], entry.name
    # by hand: 9 H^2 + (3 * 40 + 1000) H products a frame of 10 ms
    assert 9 * 88**2 + 1120 * 88 <= 170_000 < 9 * 89**2 + 1120 * 89
    assert largest_size(ModelConfig(model="gru"), by_name["10ms"], 17.0) == 88


def test_every_spiking_entry_is_trained_towards_its_budget():
    for entry in RECIPE.entries:
        if not entry.train.model.is_event_based or not entry.budget_m:
            continue
        assert entry.train.budget.multiplications_per_s == 1e6 * entry.budget_m


def test_every_family_stands_at_every_budget():
    budgets: dict[str, set[float]] = {}
    for entry in RECIPE.entries:
        if entry.features == "30ms-speeds" and entry.budget_m:
            budgets.setdefault(entry.family, set()).add(entry.budget_m)
    for family in ("gru", "lstm", "ligru", "v1", "v2", "v3", "conventional"):
        assert budgets[family] == set(BUDGETS_M), family
    for family in ("egru", "deltagru"):
        assert budgets[family] == set(BUDGETS_M) - {17.0}, family


def test_entries_are_chosen_by_family_and_budget():
    chosen = RECIPE.chosen(("v3",), (5.0,))
    assert [e.name for e in chosen.entries] == [
        "v3-30ms-speeds-5M",
        "v3-10ms-5M",
        "v3-20ms-5M",
        "v3-30ms-5M",
        "v3-30ms-2.6h-5M",
    ]
    assert RECIPE.chosen((), ()) == RECIPE
    with pytest.raises(PipelineError, match="--family v9: families are adlif, conventional"):
        RECIPE.chosen(("v9",), ())
    with pytest.raises(PipelineError, match=r"--budget 3: budgets are 0, 1, 2\.5"):
        RECIPE.chosen((), (3.0,))


def test_what_is_claimed_has_three_seeds_and_chosen_seeds_are_of_every_entry():
    seeds = {entry.name: entry.num_seeds for entry in RECIPE.entries}
    claimed = {
        f"{family}-30ms-speeds-{budget}M"
        for family in ("gru", "ligru", "v3")
        for budget in ("2.5", "5", "10", "17")
    }
    claimed |= {f"ligru-projected-30ms-speeds-{budget}M" for budget in ("2.5", "5")}
    variants = {entry.name for entry in RECIPE.entries if entry.variant_of is not None}
    assert {name for name, number in seeds.items() if number > 1} == claimed | variants
    assert all(RECIPE.entry(str(RECIPE.entry(name).variant_of)) for name in variants)
    chosen = RECIPE.with_seeds((4, 7))
    assert chosen.seeds == (4, 7)
    assert {entry.num_seeds for entry in chosen.entries} == {2}


def test_pruned_entries_are_larger_and_of_the_same_budgets():
    for entry in RECIPE.entries:
        if not entry.family.endswith("-pruned"):
            continue
        whole = RECIPE.entry(entry.name.replace("-pruned", "")).train.model
        kept = entry.train.model.weight_density * entry.train.model.hidden_size**2
        assert kept == pytest.approx(whole.hidden_size**2, rel=0.5), entry.name
        assert entry.aids == {"pruning"}


def test_ablations_leave_parts_out_at_the_same_budget():
    by_family = {
        e.family: e for e in RECIPE.entries if (e.budget_m, e.features) == (5, "30ms-speeds")
    }
    full = by_family["v3"].train
    for family, changed in (
        ("v3-no-leak", {"residue_leak"}),
        ("v3-running-range", {"learned_levels"}),
        ("v3-no-projection", set()),
    ):
        other = by_family[family].train
        assert other.model_copy(update={"model": full.model}) == full
        options = other.model.leaky.model_dump().items() - full.model.leaky.model_dump().items()
        assert {name for name, _ in options} == changed
    assert by_family["v3-no-projection"].train.model.projection_size is None
    assert by_family["v2-projected"].train.model == full.model.model_copy(
        update={"model": "v2", "max_range": 2.0, "encoder_max_range": 4.0}
    )
    assert full.model.projection_size == 16


def test_names_are_unique_and_features_exist():
    entry = RECIPE.entries[0]
    with pytest.raises(ValueError, match="is there twice"):
        FrontRecipe.model_validate(RECIPE.model_dump() | {"entries": (entry, entry)})
    lost = entry.model_copy(update={"features": "5ms"})
    with pytest.raises(ValueError, match="no features 5ms"):
        FrontRecipe.model_validate(RECIPE.model_dump() | {"entries": (lost,)})


def test_taught_entries_are_others_with_a_teacher_that_is_there():
    taught = [entry for entry in RECIPE.entries if entry.teacher is not None]
    assert {entry.family for entry in taught} == {"ligru-taught", "v3-taught"}
    for entry in taught:
        plain = RECIPE.entry(entry.name.replace("-taught", ""))
        assert entry.train == plain.train
        assert RECIPE.entry(str(entry.teacher)).features == entry.features
    with pytest.raises(PipelineError, match="no entry v4"):
        RECIPE.entry("v4")


def test_seeds_are_whole_numbers():
    assert parse_seeds("0, 3,0") == (0, 3)
    for wrong in ("x", "0.5", "nan", "-1", "", "0,,1"):
        with pytest.raises(PipelineError, match=f"--seeds {wrong}: write whole numbers"):
            parse_seeds(wrong)


def tiny() -> FrontRecipe:
    """Two entries, one towards a budget, on the synthetic corpus."""
    (features,) = (features for features in RECIPE.features if features.name == "10ms")
    features = features.model_copy(
        update={
            "featurize": features.featurize.model_copy(
                update={
                    "splits": SplitsConfig(
                        train=("train-synthetic",),
                        dev=("dev-synthetic",),
                        test=("test-synthetic",),
                    ),
                    "utterances_per_shard": 8,
                }
            ),
            "align": features.align.model_copy(update={"num_gaussian_rounds": 2}),
        }
    )
    curriculum = (CurriculumStage(num_epochs=2, chunk_frames=100),)
    base = RECIPE.chosen(("gru", "v3"), (5.0,)).entries

    def small(entry: FrontEntry) -> FrontEntry:
        changes = {
            "model": entry.train.model.model_copy(update={"hidden_size": 8}),
            "curriculum": curriculum,
            "budget": BudgetConfig(multiplications_per_s=1e6, first_epoch=1, approach_epochs=1)
            if entry.family == "v3"
            else None,
        }
        training = entry.train.model_copy(update=changes)
        num_seeds = 2 if entry.family == "v3" else 1
        return entry.model_copy(update={"train": training, "num_seeds": num_seeds})

    gru, v3 = (small(entry) for entry in base if entry.features == "10ms")
    as_taught = {"family": "v3-taught", "teacher": "gru-10ms-5M", "num_seeds": 1}
    taught = v3.model_copy(update=as_taught)
    rounded = gru.model_copy(update={"family": "gru-int8", "weight_bits": 8})
    return FrontRecipe(
        features=(features,),
        entries=(gru, v3, taught, rounded),
        seeds=(0, 1),
        evaluate=RECIPE.evaluate.model_copy(update={"words": None}),
    )


def trained_config(folder: Path, name: str) -> dict[str, Any]:
    file = folder / "runs/training" / name / "manifest.json"
    config: dict[str, Any] = json.loads(file.read_text())["config"]
    return config


@pytest.mark.integration
def test_the_front_goes_on_where_it_was_stopped(
    prefect_server: str,
    synthetic_corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("flows.front_command.front_recipe", tiny)
    page = tmp_path / "page.md"
    arguments = ["front", "--corpus", str(synthetic_corpus / "librispeech")]
    arguments += ["--runs", str(tmp_path / "runs"), "--record", str(page), "--json"]

    def command(*more: str) -> dict[str, int]:
        monkeypatch.setattr(sys, "argv", ["spikeline", *arguments, *more])
        assert run([*arguments, *more]) == 0
        return json.loads(capfd.readouterr().out)

    def trained() -> set[str]:
        return {path.parent.name for path in (tmp_path / "runs/training").glob("*/manifest.json")}

    nothing = command("--found")
    assert (nothing["runs"], nothing["missing"]) == (0, 4)  # rounded weights are no training
    first = command("--family", "v3-taught", "--seeds", "1")
    # with its teacher, of the first seed, which is scored with weights of eight bits as well
    assert (first["runs"], first["missing"]) == (3, 3)
    assert "gru-int8-10ms-5M" in page.read_text()
    before = trained()
    learnt = [
        config["distillation"]
        for name in before
        if (config := trained_config(tmp_path, name))["model"]["model"] == "v3"
    ]
    assert [lesson["teacher"] in before for lesson in learnt] == [True]
    assert "partial" in page.read_text()
    whole = command()
    assert (whole["runs"], whole["missing"]) == (6, 0)
    assert len(trained()) == 5
    assert before < trained()
    text = page.read_text()
    assert "partial" not in text
    assert "v3-10ms-5M" in text
    assert "![page_per.png](page_per.png)" in text
    assert (tmp_path / "page_per.png").is_file()
    rows = list(csv.DictReader((tmp_path / "page.csv").open()))
    assert len(rows) == 6
    assert {row["training_fingerprint"] for row in rows} == trained()
    assert all(0 < float(row["per"]) < 2 for row in rows)
    # a seed that the recipe does not have is scored and shown, too
    third = command("--family", "v3", "--seeds", "3")
    assert (third["runs"], third["missing"]) == (7, 0)
