"""Imports run one way, and Prefect and Ray stay where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("featurize", "training", "evaluation", "flows")
# What reads a corpus and makes features of it: nothing above needs it, because what it made is
# read through its schema, shards and labels.
MAKING_FEATURES = {
    "audio",
    "featurize_config",
    "corpora",
    "features",
    "featurize",
    "import_kaldi",
    "kaldi_archives",
    "make_shard",
    "mel",
    "phones",
    "plan_shards",
    "repair",
    "speed",
}
# The recogniser that listens makes its features itself.
MAKING_FRAMES = {"fbank", "frames", "resampling"}
LISTENING = "evaluation/engine/"
RAY_MODULES = {"training/ray_trainer.py", "featurize/stage/ray_cluster.py"}


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
def test_training_and_evaluation_make_no_features(path: Path) -> None:
    taken = {
        module.split(".")[1]
        for module in imported_modules(path.read_text())
        if module.startswith("featurize.")
    }
    listens = relative(path).startswith(LISTENING)
    assert not taken & (MAKING_FEATURES if listens else MAKING_FEATURES | MAKING_FRAMES)


@pytest.mark.parametrize("path", ALL_FILES, ids=relative)
def test_what_every_stage_stands_on_has_one_door(path: Path) -> None:
    """Other packages import from ``featurize.stage`` itself, and it imports nothing of theirs."""
    modules = [
        node.module
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module is not None
    ]
    if relative(path).startswith("featurize/stage/"):
        ours = [name for name in modules if name.split(".")[0] in (*LAYERS, "infra")]
        assert all(name.startswith("featurize.stage") for name in ours)
    else:
        assert not [name for name in modules if name.startswith("featurize.stage.")]


@pytest.mark.parametrize("path", python_files("training"), ids=relative)
def test_no_training_needs_the_alignment(path: Path) -> None:
    """Aligning trains networks; training and its models know nothing of alignments."""
    if not relative(path).startswith("training/align/"):
        modules = imported_modules(path.read_text())
        assert not {module for module in modules if module.startswith("training.align")}


def test_an_exported_engine_runs_without_torch() -> None:
    """What the recogniser imports, and all that these import, is free of slow packages."""
    script = (
        "import sys, evaluation.engine.transcriber, evaluation.engine.audio_file\n"
        "slow = ('torch', 'pyarrow', 'scipy.signal', 'fsspec', 'asyncio')\n"
        "print([name for name in slow if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", python_files("evaluation/engine"), ids=relative)
def test_the_engine_stands_below_what_scores_with_it(path: Path) -> None:
    """Scoring imports the engine; the engine nothing of scoring's but the search they share."""
    modules = {
        node.module
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module is not None
    }
    taken = {".".join(name.split(".")[:2]) for name in modules if name.startswith("evaluation.")}
    assert taken <= {"evaluation.engine", "evaluation.graph"}


@pytest.mark.parametrize(("before", "is_frozen"), [("", True), ("import torch", False)])
def test_numba_and_the_collector_are_touched_in_the_engines_own_process_alone(
    before: str, is_frozen: bool
) -> None:
    script = f"{before}\nimport gc, evaluation.engine.kernels\nprint(gc.get_freeze_count() > 0)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(is_frozen)
