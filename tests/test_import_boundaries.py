"""DESIGN section 2: imports run one way, and Prefect and Ray stay where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("featurize", "training", "evaluation", "flows")
# What training and evaluation may take from featurize: the contract of the shards, and the
# machinery that every stage shares.
SHARED_FEATURIZE = {
    "schema",
    "cmvn",  # normalises what is read
    "shards",
    "shard_writer",  # benchmarks train on random shards
    "shard_labels",
    "labels",
    "lexicon",  # words are recognised by the pronunciations that training used
    "stage",
}
# The recogniser that listens makes its features itself.
LISTENING_FEATURIZE = {"fbank", "frames", "resampling"}
LISTENING = "evaluation/engine/"
RAY_MODULES = {"training/ray_trainer.py", "featurize/stage/ray_session.py"}


def python_files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported_modules(source: str) -> set[str]:
    """Every module a source imports, at any depth, inside functions and type checks too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            assert node.module is not None
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def top_levels(path: Path) -> set[str]:
    return {module.split(".")[0] for module in imported_modules(path.read_text())}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


ALL_FILES = [path for package in (*LAYERS, "infra") for path in python_files(package)]


def test_every_layer_has_files() -> None:
    assert {relative(path).split("/")[0] for path in ALL_FILES} >= set(LAYERS)


def test_the_reader_of_imports_sees_nested_and_from_imports() -> None:
    source = "def f():\n    import ray.train\nfrom featurize import fbank\n"
    assert imported_modules(source) == {"ray.train", "featurize", "featurize.fbank"}


@pytest.mark.parametrize("path", ALL_FILES, ids=relative)
def test_imports_run_one_way(path: Path) -> None:
    package = relative(path).split("/")[0]
    if package == "infra":
        return
    above = set(LAYERS[LAYERS.index(package) + 1 :]) | {"infra", "tests"}
    assert not top_levels(path) & above


@pytest.mark.parametrize("path", ALL_FILES, ids=relative)
def test_prefect_only_in_flows_and_infra(path: Path) -> None:
    if relative(path).split("/")[0] not in ("flows", "infra"):
        assert "prefect" not in top_levels(path)


@pytest.mark.parametrize("path", ALL_FILES, ids=relative)
def test_ray_only_where_it_starts_workers(path: Path) -> None:
    if relative(path) not in RAY_MODULES and not relative(path).startswith("infra/"):
        assert "ray" not in top_levels(path)


@pytest.mark.parametrize(
    "path", [*python_files("training"), *python_files("evaluation")], ids=relative
)
def test_training_and_evaluation_take_only_the_contract_from_featurize(path: Path) -> None:
    taken = {
        module.split(".")[1]
        for module in imported_modules(path.read_text())
        if module.startswith("featurize.")
    }
    listens = relative(path).startswith(LISTENING)
    assert taken <= SHARED_FEATURIZE | (LISTENING_FEATURIZE if listens else set())


def test_an_exported_engine_runs_without_torch() -> None:
    """What the recogniser imports, and all that these import, is free of slow packages."""
    script = (
        "import sys, evaluation.engine.recognizer, evaluation.engine.audio_file\n"
        "print([name for name in ('torch', 'pyarrow', 'scipy.signal') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
