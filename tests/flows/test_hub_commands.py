"""A model to the hub and back, through the hub's own library and a hub on this machine."""

import errno
import os
import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest

from evaluation.published import shipped_model
from flows import hub_commands
from spikeline_start import module_command
from tests.harness.hub import TOKEN, running_hub

pytestmark = pytest.mark.integration
MODEL = Path(shipped_model().path)


@pytest.fixture
def hub():
    with running_hub() as started:
        yield started


@pytest.fixture
def spikeline(hub, tmp_path):
    def call(*arguments: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": token}
        return subprocess.run(
            module_command("flows.cli", *arguments),
            env={**os.environ, **own, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"},
            capture_output=True,
            text=True,
            timeout=1200,
        )

    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_pushed_model_is_pulled_byte_for_byte(hub, spikeline, tmp_path):
    pushed = spikeline("hub", "push", str(MODEL), "someone/small")
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout == f"someone/small: {hub.commit('someone/small')}\n"
    assert hub.repositories["someone/small"] == contents(MODEL)
    out = tmp_path / "pulled"
    pulled = spikeline("hub", "pull", "someone/small", "--out", str(out))
    assert pulled.returncode == 0, pulled.stderr
    assert contents(out) == contents(MODEL)
    again = spikeline("hub", "pull", "someone/small", "--out", str(out))
    assert again.returncode == 2
    assert "is there already" in again.stderr


def test_of_a_download_that_ends_early_nothing_is_there(hub, tmp_path, monkeypatch):
    hub.repositories["someone/small"] = contents(MODEL)
    for name, value in (("HF_ENDPOINT", hub.url), ("HF_HOME", str(tmp_path / "hf"))):
        monkeypatch.setenv(name, value)

    def fills_up(source, target):
        target.mkdir()
        (target / "model.spikes").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "no space left")

    class Api:
        def snapshot_download(self, repository, local_dir, **_):
            for name, content in contents(MODEL).items():
                Path(local_dir, name).write_bytes(content)

    monkeypatch.setattr(hub_commands, "_on_the_hub", lambda repository: nullcontext(Api()))
    monkeypatch.setattr(hub_commands.shutil, "copytree", fills_up)
    out = tmp_path / "deep" / "pulled"
    with pytest.raises(OSError, match="no space"):
        hub_commands.run_pull("someone/small", str(out), None, as_json=False)
    assert list(out.parent.iterdir()) == []
    monkeypatch.undo()


def test_a_damaged_or_foreign_model_is_not_taken(hub, spikeline, tmp_path):
    files = contents(MODEL)
    weights = bytearray(files["weights.safetensors"])
    weights[-1] ^= 1
    hub.repositories["someone/damaged"] = {**files, "weights.safetensors": bytes(weights)}
    hub.repositories["someone/other"] = {"README.md": b"", "model.safetensors": b"", "x.py": b""}
    for name, said in (
        ("someone/damaged", "weights.safetensors"),
        ("someone/other", "holds no model of spikeline"),
        ("someone/absent", "check the name"),
    ):
        out = tmp_path / "pulled"
        done = spikeline("hub", "pull", name, "--out", str(out))
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert not out.exists()
    assert not [request for request in hub.requests if request.endswith("x.py")]


def test_a_wrong_token_and_a_folder_that_is_no_model(hub, spikeline, tmp_path):
    done = spikeline("hub", "push", str(MODEL), "someone/small", token="hf_wrong")
    assert done.returncode == 2
    assert "the token in HF_TOKEN" in done.stderr
    assert hub.repositories == {}
    done = spikeline("hub", "push", str(tmp_path), "someone/small")
    assert done.returncode == 2
    assert "is no model to give away" in done.stderr
