import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import run
from flows.recipes import RECIPES

SPIKELINE = [sys.executable, "-m", "flows.cli"]


def spikeline(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SPIKELINE, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=1200,
    )


def assert_one_line(text: str) -> None:
    assert text.startswith("spikeline: ")
    assert text.count("\n") == 1
    assert "Traceback" not in text


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("recipes",),
        ("demo",),
        ("corpus",),
        ("corpus", "synthesize"),
        ("featurize",),
        ("train",),
        ("evaluate",),
        ("pipeline",),
        ("transcribe",),
        ("export",),
    ],
)
def test_every_command_has_help(
    command: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, "--help"]) == 0
    shown = capfd.readouterr()
    assert "Usage: spikeline" in shown.out
    assert shown.err == ""


def test_help_and_version_import_no_stage() -> None:
    code = (
        "import sys; from flows.cli import run; run(['--help']); run(['--version']);"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "spikeline 0." in done.stdout
    loaded = set(done.stdout.splitlines()[-1].split())
    assert {"torch", "prefect", "ray", "pyarrow", "numpy"}.isdisjoint(loaded)


def test_nothing_typed_shows_help_and_fails(capfd: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Usage: spikeline" in capfd.readouterr().err


def test_recipes_are_listed_with_explanations() -> None:
    table = spikeline("recipes", COLUMNS="80")
    assert table.returncode == 0
    assert all(len(line) <= 80 for line in table.stdout.splitlines())
    assert len(table.stdout.splitlines()) <= 24, "fits a terminal"
    for recipe in RECIPES.values():
        assert recipe.name in table.stdout
    assert table.stderr == ""
    one = spikeline("recipes", "timit", COLUMNS="80")
    text = " ".join(one.stdout.split())
    assert RECIPES["timit"].explanation in text
    assert all(line in text for line in RECIPES["timit"].deviations)
    assert "did you mean timit" in spikeline("recipes", "timt").stderr


def test_help_is_grouped_with_an_example_each() -> None:
    shown = spikeline("--help", COLUMNS="80").stdout
    for group in ("From speech to a comparison", "One stage of it", "With finished results"):
        assert group in shown
    # What a terminal of 24 lines shows of it holds every command.
    assert "recipes" in "\n".join(shown.splitlines()[-23:])
    for name in ("featurize", "train", "evaluate", "transcribe", "verify"):
        of_one = spikeline(name, "--help").stdout
        assert "Example: spikeline" in of_one
    for command in (["featurize"], ["corpus", "split"], ["align", "compare"], ["corpus"]):
        shown = spikeline(*command, "--help").stdout
        assert not re.search("<(bool|str|float|int|list)", shown), "types are said in words"


def test_recipes_as_json_are_one_object() -> None:
    done = spikeline("recipes", "--json")
    listed = json.loads(done.stdout)["recipes"]
    assert [recipe["name"] for recipe in listed] == list(RECIPES)


def mistakes() -> list[tuple[list[str], str]]:
    featurize = ["featurize", "--runs", "{tmp}/runs"]
    pipeline = ["pipeline", "--recipe", "demo", "--corpus", "{tmp}", "--runs", "{tmp}/runs"]
    train = ["train", "--recipe", "timit", "--runs", "{tmp}/runs", "--features", "{tmp}"]
    evaluate = ["evaluate", "--recipe", "timit", "--runs", "r", "--features", "{tmp}"]
    elsewhere = ["evaluate", "--model", "{tmp}", "--corpus", "{tmp}"]
    return [
        (["trian"], "did you mean 'train'"),
        (["recipes", "--jsn"], "--json"),
        (["train", "--recipe", "timit"], "--features"),
        ([*featurize, "--recipe", "timt", "--corpus", "{tmp}"], "did you mean timit"),
        ([*featurize, "--recipe", "timit", "--corpus", "{tmp}/absent"], "no such folder"),
        ([*featurize, "--recipe", "timit", "--corpus", "ftp://host/x"], "s3://"),
        ([*featurize, "--recipe", "timit", "--corpus", "s3://"], "bucket name"),
        ([*pipeline, "--set", "train.hiden_size=3"], "train.model.hidden_size"),
        ([*pipeline, "--set", "train.seed=-1"], "greater than or equal to 0"),
        ([*pipeline, "--set", "train.seed"], "write key=value"),
        ([*pipeline, "--workers", "0"], "--workers"),
        ([*pipeline, "--workers", "two"], "--workers"),
        (train, "no finished feature set there"),
        ([*train, "--model-name", "v9"], "no model 'v9'"),
        ([*evaluate, "--model", "{tmp}"], "no finished trained model there"),
        ([*elsewhere, "--features", "{tmp}"], "either --features or"),
        ([*elsewhere, "--set", "featurize.num_bins=80"], "--set featurize.num_bins=80: another"),
        (
            [*evaluate, "--model", "{tmp}", "--set", "models=v2"],
            "models: a setting of train, whose",
        ),
        ([*train, "--set", "featurize.num_bins=80"], "leave this out, or run featurize with it"),
        ([*train, "--set", "evaluate.split=dev"], "train takes as it is, or does without"),
        (["corpus", "synthesize", "{tmp}/c", "--layout", "tmit"], "did you mean timit"),
        (["corpus", "synthesize", "{tmp}/c", "--minutes", "-1"], "minutes"),
        (["corpus", "synthesize", "s3://bucket/c"], "local folder"),
        (["demo", "--runs", "s3://bucket/c"], "local folder"),
        (["hub", "pull", "a/b", "--out", "s3://bucket/m"], "name a folder of this machine"),
        (["hub", "push", "s3://bucket/m", "a/b"], "name a folder of this machine"),
        (["transcribe", "--microphone", "--nbest", "3"], "are of files"),
        ([*pipeline, "--set", "evaluate.viterbi.prior_scale=20"], "less than or equal to 10"),
        ([*pipeline, "--set", "evaluate.viterbi.insertion_penalty=nan"], "insertion_penalty"),
        (["front", "--corpus", "{tmp}", "--runs", "{tmp}/r", "--seeds", "nan"], "whole numbers"),
        (["demo", "--set", "train.model.model=gru"], "twice"),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"), mistakes(), ids=[" ".join(m[0])[:60] for m in mistakes()]
)
def test_a_mistake_is_one_line_that_says_what_to_do(
    arguments: list[str], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    filled = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    assert run(filled) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    assert_one_line(shown.err)
    assert said.lower() in shown.err.lower()


def test_mistakes_look_the_same_from_outside(tmp_path: Path) -> None:
    done = spikeline("pipeline", "--recipe", "nope", "--corpus", str(tmp_path), "--runs", "r")
    assert done.returncode == 2
    assert done.stdout == ""
    assert_one_line(done.stderr)


def test_missing_credentials_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    done = spikeline(
        *("featurize", "--recipe", "timit", "--corpus", "s3://bucket/x", "--runs", str(tmp_path)),
        AWS_EC2_METADATA_DISABLED="true",
        AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "absent"),
        AWS_CONFIG_FILE=str(tmp_path / "absent"),
    )
    assert done.returncode == 2
    assert_one_line(done.stderr)
    assert "AWS_ACCESS_KEY_ID" in done.stderr


def test_a_dead_prefect_server_is_one_line(tmp_path: Path) -> None:
    done = spikeline(
        *("featurize", "--recipe", "timit", "--corpus", str(tmp_path), "--runs", str(tmp_path)),
        PREFECT_API_URL="http://127.0.0.1:9/api",
    )
    assert done.returncode == 2
    assert_one_line(done.stderr)
    assert "unset PREFECT_API_URL" in done.stderr


def test_a_bug_is_one_line_with_a_log(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(as_json: bool) -> None:
        raise ZeroDivisionError("frames")

    monkeypatch.setattr("flows.recipe_commands.list_recipes", broken)
    assert run(["recipes"]) == 1
    shown = capfd.readouterr().err
    assert_one_line(shown)
    Path(shown.split()[-1]).unlink()


def test_an_interrupt_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.recipe_commands.list_recipes", interrupted)
    assert run(["recipes"]) == 130
    assert_one_line(capfd.readouterr().err)


def test_synthesize_says_where_and_json_stands_alone(tmp_path: Path) -> None:
    arguments = ["corpus", "synthesize", str(tmp_path / "c"), "--minutes", "0.5"]
    first = spikeline(*arguments, "--speakers", "10", "--json")
    assert first.returncode == 0
    result = json.loads(first.stdout)
    assert result["location"] == str(tmp_path / "c")
    assert 0.25 < sum(result["minutes"].values()) < 1.0
    again = spikeline(*arguments, "--speakers", "10")
    assert str(tmp_path / "c") in again.stdout
    assert "next: spikeline" in again.stdout
