"""Published models to and from the Hugging Face hub, through its own library.

A pulled folder holds JSON, safetensors and Markdown, nothing that is executed, and is taken only
whole, with the checksums of its manifest.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evaluation.published import CARD_NAME, ENGINE_NAME, published_engine
from featurize.stage import Location, PipelineError, damage_error, find_damage, read_manifest
from flows.command import command
from training.manifest import TrainManifest

_FILES = ["manifest.json", "manifest-copy.json", "*.safetensors", ENGINE_NAME, CARD_NAME]


def run_push(folder: str, repository: str, private: bool, as_json: bool) -> None:
    """Upload a published model, to a new repository or one's own."""
    source = Location.of(folder)
    if not source.is_local:
        raise PipelineError(f"{folder}: name a folder of this machine")
    if published_engine(source) is None:
        raise PipelineError(
            f"{folder} is no model to give away; write one with spikeline export --format folder"
        )
    _check_whole(source)
    with command(as_json) as running, _on_the_hub(repository) as api:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=source.path,
            allow_patterns=_FILES,
            commit_message=f"Model {read_manifest(source, TrainManifest).fingerprint}",
        )
        running.finish({"repository": repository, "commit": done.oid}, f"{repository}: {done.oid}")


def run_pull(repository: str, out: str, revision: str | None, as_json: bool) -> None:
    """Download a published model to a new folder."""
    if not Location.of(out).is_local:
        raise PipelineError(f"--out {out}: name a folder of this machine")
    target = Path(Location.of(out).path)
    if target.exists():
        raise PipelineError(f"--out {out} is there already; name a new folder")
    with command(as_json) as running, _on_the_hub(repository) as api:
        with tempfile.TemporaryDirectory(prefix="spikeline-pull-") as folder:
            api.snapshot_download(
                repository, revision=revision, local_dir=folder, allow_patterns=_FILES
            )
            shutil.rmtree(Path(folder, ".cache"), ignore_errors=True)
            found = Location.of(folder)
            if published_engine(found) is None:
                raise PipelineError(f"{repository} holds no model of spikeline: no {ENGINE_NAME}")
            _check_whole(found)
            # Beside the target, of which nothing is there until all is.
            with tempfile.TemporaryDirectory(
                prefix=".spikeline-", dir=_made(target.parent)
            ) as near:
                shutil.copytree(folder, Path(near, target.name)).rename(target)
        running.finish({"repository": repository, "folder": out}, f"{repository}: {out}")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _check_whole(folder: Location) -> None:
    checksums = read_manifest(folder, TrainManifest).checksums
    for damage in find_damage(folder, checksums):
        raise damage_error(folder, damage)


@contextmanager
def _on_the_hub(repository: str) -> Iterator[Any]:
    """The hub's client; what fails there is one line."""
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.utils import disable_progress_bars
    except ImportError:
        raise PipelineError(
            "the hub needs the packages of the hub extra: pip install 'spikeline[hub]'"
        ) from None
    disable_progress_bars()
    try:
        yield HfApi(library_name="spikeline")
    except PipelineError:
        raise
    except (OSError, ValueError, *HfHubHTTPError.__bases__) as error:  # of whichever client it uses
        said = " ".join(str(error).split()) or type(error).__name__
        raise PipelineError(
            f"{repository}: {said}; check the name, the network, and the token in HF_TOKEN"
        ) from error
