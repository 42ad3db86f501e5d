"""A working folder whose files are called like what we import, and our stages run from it."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMESAKES = ("featurize", "training", "evaluation", "flows", "infra", "prefect", "ray", "torch")


@dataclass(frozen=True)
class HostileFolder:
    """A folder of namesakes, files and packages, which say so when they are executed.

    Attributes:
        folder: what the commands stand in, and what PYTHONPATH names.
        scratch: the folder around it: corpus, runs, and the mark that a namesake leaves.
    """

    folder: Path
    scratch: Path

    @classmethod
    def made(cls, scratch: Path) -> "HostileFolder":
        here = cls(scratch / "hostile", scratch)
        source = f"import pathlib\npathlib.Path({str(here.mark)!r}).touch()\n"
        here.folder.mkdir()
        for number, name in enumerate(NAMESAKES):
            package = here.folder / name / "__init__.py"
            file = package if number % 2 else here.folder / f"{name}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(source)
        return here

    @property
    def mark(self) -> Path:
        return self.scratch / "executed"

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(self.folder),
            "PREFECT_HOME": str(self.scratch / "prefect"),
            "OMP_NUM_THREADS": "1",
        }

    def run(self, command: Sequence[str]) -> Any:
        """The JSON result of a spikeline command that is run from here."""
        done = subprocess.run(
            [*command, "--json"],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
        )
        assert not self.mark.exists(), command
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    def run_stages(self, spikeline: str) -> None:
        """Half a minute of speech made, featurized, trained on and evaluated from here."""
        corpus, runs = str(self.scratch / "corpus"), str(self.scratch / "runs")
        synthesis = ("--minutes", "0.5", "--speakers", "10", "--layout", "timit")
        self.run((spikeline, "corpus", "synthesize", corpus, *synthesis))
        recipe = ("--recipe", "demo", "--runs", runs)
        features = self.run((spikeline, "featurize", *recipe, "--corpus", corpus))["location"]
        model = self.run(
            (
                *(spikeline, "train", *recipe, "--features", features, "--set", "models=gru"),
                *("--set", "train.model.hidden_size=16"),
                *("--set", 'train.curriculum=[{"num_epochs":1,"chunk_frames":100}]'),
            )
        )["models"]["gru"]["location"]
        self.run((spikeline, "evaluate", *recipe, "--model", model, "--features", features))
