"""Who has no credentials, wrong ones or someone else's is refused, and secrets stay secret."""

import json
import logging
import os
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path

import pytest
import s3fs
from ray._raylet import AuthenticationTokenLoader

from featurize.featurize import featurize
from featurize.stage import FanOut, Location, locations, ray_session
from flows.embedded_server import start_server, wait_until_ready
from flows.failures import explain
from tests.harness.tiny import FEATURES, make_corpus

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def as_someone(monkeypatch, s3_server):
    """Come back with other credentials; the server's own again afterwards."""

    def forget():
        locations._s3_filesystem.cache_clear()
        s3fs.S3FileSystem.clear_instance_cache()

    def become(key, secret):
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        for name, value in (("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", secret)):
            if value is None:
                monkeypatch.delenv(name)
            else:
                monkeypatch.setenv(name, value)
        forget()

    yield become
    monkeypatch.undo()
    forget()


@pytest.mark.parametrize("who", ["nobody", "wrong secret", "someone else"])
def test_s3_refuses(who, as_someone, s3_server):
    file = Location.of(f"{s3_server.uri}/access/file")
    file.write_bytes(b"mine")
    right = os.environ["AWS_ACCESS_KEY_ID"]
    key, secret = {
        "nobody": (None, None),
        "wrong secret": (right, secrets.token_hex(20)),
        "someone else": (secrets.token_hex(10), secrets.token_hex(20)),
    }[who]
    as_someone(key, secret)
    for attempt in (
        file.read_bytes,
        lambda: file.write_bytes(b"theirs"),
        file.parent.children,
        file.remove,
    ):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - what a person reads is checked
            attempt()
        message, code = explain(caught.value)
        assert code == 2, message
        assert secret is None or secret not in message
    assert (s3_server.folder / "access" / "file").read_bytes() == b"mine"


def test_no_secret_in_anything_written_or_said(s3_server, tmp_path, caplog, capfd):
    secret, key = os.environ["AWS_SECRET_ACCESS_KEY"], os.environ["AWS_ACCESS_KEY_ID"]
    runs = Location.of(f"{s3_server.uri}/secrets")
    for package in ("featurize", "training"):
        caplog.set_level(logging.DEBUG, package)
    corpus = Location.of(make_corpus(tmp_path / "corpus"))
    result = featurize(FEATURES, corpus, runs, fan_out=FanOut(kind="sequential"))
    for file in (s3_server.folder / "secrets").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert secret.encode() not in content
            assert key.encode() not in content
    said = caplog.text + "".join(capfd.readouterr())
    shown = repr(result) + str(runs) + repr(runs.filesystem) + repr(runs.arrow())
    assert secret not in said + shown
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert secret.encode() not in process.read_bytes(), process
        except (FileNotFoundError, ProcessLookupError):
            continue


JOIN = """
from flows.failures import explain
from featurize.stage import ray_session
import sys
try:
    with ray_session() as ray:
        print(ray.cluster_resources())
except BaseException as error:
    print(explain(error)[0], file=sys.stderr)
    sys.exit(explain(error)[1])
"""


def _join(address, home, **credentials):
    """What becomes of a driver that joins with these credentials and no others."""
    base = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
    base |= {"RAY_ADDRESS": address, "PYTHONPATH": str(REPOSITORY), "HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-c", JOIN],
        env=base | credentials,
        capture_output=True,
        text=True,
        timeout=1200,
    )


def test_ray_refuses_whoever_lacks_its_token(tmp_path):
    """The Ray that stages start for themselves, with the token it made for this person."""
    # Another person of this machine, whose own Ray has made a token.
    (tmp_path / "someone" / ".ray").mkdir(parents=True)
    theirs = tmp_path / "someone" / ".ray" / "auth_token"
    theirs.write_text(secrets.token_hex(32))
    with ray_session(1) as ray:
        address = ray.get_runtime_context().gcs_address
        ours = AuthenticationTokenLoader.instance().get_raw_token()
        assert ours
        assert ours != theirs.read_text()
        wrong = ours[:-1] + ("0" if ours[-1] != "0" else "1")
        strangers = {
            "nobody": _join(address, tmp_path, RAY_AUTH_MODE="disabled"),
            "wrong token": _join(address, tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=wrong),
            "someone else": _join(address, tmp_path / "someone", RAY_AUTH_MODE="token"),
        }
        for who, stranger in strangers.items():
            assert stranger.returncode == 2, (who, stranger)
            assert "CPU" not in stranger.stdout, who
            assert ours not in stranger.stdout + stranger.stderr, who
        # The same with the token is let in: it was the token that they lacked.
        owner = _join(address, tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=ours)
        assert owner.returncode == 0, owner
        assert "CPU" in owner.stdout


def _status(url, credentials=None, body=None):
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    if credentials is not None:
        encoded = b64encode(credentials.encode()).decode()
        request.add_header("Authorization", f"Basic {encoded}")
    try:
        with urllib.request.urlopen(request, timeout=1200) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def test_prefect_refuses_whoever_lacks_its_password(tmp_path, monkeypatch):
    """The server as the project starts it, given a password as for any other address."""
    password, theirs = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", f"spikeline:{password}")
    server = start_server()
    try:
        wait_until_ready(server)
        strangers = {
            "nobody": None,
            "wrong password": "spikeline:guess",
            "someone else": f"someone:{theirs}",
            "someone else, by our name": f"spikeline:{theirs}",
            "no password": "spikeline:",
        }
        # Read a setting, read runs and what they made, make a flow, start something.
        attempts = {
            "admin/version": None,
            "flow_runs/filter": {},
            "artifacts/filter": {},
            "flows/": {"name": "theirs"},
            "work_pools/": {"name": "theirs", "type": "process"},
        }
        for path, body in attempts.items():
            url = f"{server.api_url}/{path}"
            for who, credentials in strangers.items():
                assert _status(url, credentials, body) == 401, (who, path)
            assert _status(url, f"spikeline:{password}", body) in (200, 201), path
        command_line = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
        assert password.encode() not in command_line
        assert password not in server.log.read_text()
    finally:
        server.stop()
