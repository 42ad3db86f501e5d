"""The build steps of the container files, in a bare Debian: no container engine is needed.

What a build would do is done in a folder that holds the release of the base image and becomes the
root: COPY copies, RUN runs there. Both stages of a file share the folder.
"""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
CONTAINERS = REPOSITORY / "infra" / "containers"
PACKAGES = "python3,python3-venv,python-is-python3,ca-certificates"
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
TIMEOUT_S = 3600


def instructions(kind):
    """Name and rest of each, continuation lines joined."""
    text = (CONTAINERS / f"Containerfile.{kind}").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [line.split(None, 1) for line in joined.splitlines() if line.strip()]


def mirror():
    """The mirror that this machine's own packages come from."""
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    found = re.search(r"^URIs:\s*(\S+)", sources.read_text(), re.M) if sources.exists() else None
    return [found[1]] if found else []


@pytest.fixture
def root(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("a bare Debian is made by root only")
    if shutil.which("debootstrap") is None:
        pytest.skip("debootstrap is not installed (apt-get install debootstrap)")
    folder = tmp_path / "root"
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm"]
    subprocess.run([*command, str(folder), *mirror()], check=True, stdout=subprocess.DEVNULL)
    for file in ("etc/resolv.conf", "etc/hosts", CERTIFICATES):
        shutil.copy(f"/{file}", folder / file)
    mounted = []
    try:
        for kind, place in (("proc", "proc"), ("tmpfs", "dev/shm")):
            subprocess.run(["mount", "-t", kind, kind, str(folder / place)], check=True)
            mounted.append(folder / place)
        yield folder
    finally:
        for place in reversed(mounted):
            subprocess.run(["umount", "--lazy", str(place)], check=True)
        shutil.rmtree(folder)


class Build:
    """What the instructions so far have set."""

    def __init__(self, root):
        proxies = {k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")}
        self.root = root
        self.folder = "/"
        self.user = []
        self.variables = {
            **{"HOME": "/root", "LANG": "C.UTF-8", "PIP_CERT": f"/{CERTIFICATES}"},
            **{"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            **proxies,
        }

    def run(self, command):
        done = subprocess.run(
            [
                *("chroot", *self.user, str(self.root), "/bin/bash", "-o", "pipefail", "-c"),
                f"cd {self.folder} && {command}",
            ],
            env=self.variables,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    def copy(self, words):
        if words[0].startswith("--from="):
            return  # the stages share the folder
        *sources, target = words
        place = self.root / self.folder.lstrip("/") / target
        for source in sources:
            path = REPOSITORY / source
            if path.is_dir():
                shutil.copytree(path, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, place / path.name)

    def follow(self, name, rest):
        match name:
            case "WORKDIR":
                self.folder = rest
                (self.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "ARG" | "ENV":
                for word in shlex.split(rest):
                    key, _, value = word.partition("=")
                    self.variables[key] = value.replace("$PATH", self.variables["PATH"])
            case "COPY":
                self.copy(shlex.split(rest))
            case "RUN":
                self.run(rest)
            case "USER":
                self.user = [f"--userspec={rest}"]
                self.variables["HOME"] = "/home/spikeline"
            case "FROM" | "SHELL" | "EXPOSE" | "HEALTHCHECK" | "CMD":
                pass
            case _:
                raise AssertionError(f"{name} is not followed here")


@pytest.mark.cluster
@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_build_steps_give_an_installation_that_works(kind, root):
    build = Build(root)
    for name, rest in instructions(kind):
        build.follow(name, rest)
    assert "mini-librispeech" in build.run("spikeline recipes")
    assert build.run("python -c 'import os; print(os.getuid())'").strip() == "10001"
    build.run("python -P -c 'import infra.worker, training.ray_trainer, torchaudio'")
    assert not any((root / "usr/bin" / name).exists() for name in ("g++", "cmake"))


def test_what_is_copied_is_not_ignored():
    for kind in ("cpu", "cuda"):
        ignore = (CONTAINERS / f"Containerfile.{kind}.dockerignore").read_text().splitlines()
        copied = [shlex.split(rest) for name, rest in instructions(kind) if name == "COPY"]
        sources = {word for words in copied if "--from" not in words[0] for word in words[:-1]}
        assert sources == {line[1:] for line in ignore if line.startswith("!")}
