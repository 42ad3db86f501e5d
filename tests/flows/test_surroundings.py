"""What has nothing to do with the work does not stop it, or is named."""

import http.server
import os
import pwd
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager

import pytest

from featurize.stage import PipelineError
from flows import embedded_server
from flows.embedded_server import (
    EmbeddedServer,
    PrefectApi,
    cause_in_log,
    start_server,
    wait_until_ready,
)
from flows.surroundings import settle_environment


@contextmanager
def answering(status, content_type="text/html", path=None):
    """An HTTP server that gives every request, or those of a path, the same answer."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if path in (None, self.path) else 404)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_loopback_is_out_of_the_reach_of_proxies(empty_folder):
    environment = {"http_proxy": "http://proxy:3128", "NO_PROXY": "intranet,localhost"}
    settle_environment(environment)
    assert environment["NO_PROXY"] == "intranet,localhost,127.0.0.1,::1"
    assert environment["no_proxy"] == "localhost,127.0.0.1,::1"
    assert environment["http_proxy"] == "http://proxy:3128"


@pytest.fixture
def stranger(monkeypatch, tmp_path):
    """A user id that the machine does not know."""

    def unknown(_user_id):
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"spikeline-{os.getuid()}"


def test_a_user_id_without_a_home_gets_one(empty_folder, stranger):
    environment = {}
    settle_environment(environment)
    assert environment["HOME"] == str(stranger)
    assert stat.S_IMODE(stranger.stat().st_mode) == 0o700
    settle_environment(environment)
    assert environment["HOME"] == str(stranger)


def test_a_home_of_someone_elses_making_is_refused(empty_folder, stranger):
    stranger.symlink_to(empty_folder)
    with pytest.raises(PipelineError, match="is someone else's; set HOME"):
        settle_environment({})


def test_a_home_that_cannot_be_written_is_read_and_another_written(
    empty_folder, stranger, monkeypatch, caplog
):
    """HOME=/ is what containers give an unknown user id; rights do not stop root."""
    home = empty_folder / "mounted"
    (home / ".aws").mkdir(parents=True)
    (home / ".aws/credentials").write_text("[default]\n")
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != home and may(path, mode))
    environment = {"HOME": str(home)}
    settle_environment(environment)
    assert environment["HOME"] == str(stranger)
    assert environment["AWS_SHARED_CREDENTIALS_FILE"] == str(home / ".aws/credentials")
    assert "AWS_CONFIG_FILE" not in environment
    assert f"the home folder {home} cannot be written" in caplog.text


def test_a_home_that_can_be_written_stays(empty_folder, stranger):
    environment = {"HOME": str(empty_folder / "not yet there")}
    settle_environment(environment)
    assert environment["HOME"] == str(empty_folder / "not yet there")
    assert not stranger.exists()


def test_socks_is_left_out_with_a_word(empty_folder, caplog):
    environment = {"ALL_PROXY": "socks5://127.0.0.1:1080", "https_proxy": "http://proxy:3128"}
    settle_environment(environment)
    assert "ALL_PROXY" not in environment
    assert environment["https_proxy"] == "http://proxy:3128"
    assert "ALL_PROXY names a SOCKS proxy" in caplog.text


def test_addresses_lose_line_ends_of_another_system(empty_folder):
    environment = {"PREFECT_API_URL": "http://127.0.0.1:4200/api\r", "RAY_ADDRESS": " auto\n"}
    settle_environment(environment)
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    assert environment["RAY_ADDRESS"] == "auto"


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "AWS_CA_BUNDLE"])
def test_certificates_that_are_gone_are_named(empty_folder, name):
    with pytest.raises(PipelineError, match=f"{name}=/opt/gone/ca.pem: no such file; unset it"):
        settle_environment({name: "/opt/gone/ca.pem"})


@pytest.mark.parametrize(
    ("file", "content"),
    [("pyproject.toml", b"[tool.black\n"), (".env", b"NAME=caf\xe9\n"), ("prefect.toml", b"=")],
)
def test_settings_files_that_do_not_parse_are_named(empty_folder, file, content):
    (empty_folder / file).write_bytes(content)
    with pytest.raises(PipelineError, match=rf"{file} cannot be read .*start the command in"):
        settle_environment({})


def test_settings_files_that_parse_do_not_matter(empty_folder):
    (empty_folder / "pyproject.toml").write_text("[project]\nname = 'theirs'\n")
    (empty_folder / ".env").write_text("NAME=café\n", encoding="utf-8")
    environment = {"PREFECT_API_URL": "http://127.0.0.1:4200/api"}
    settle_environment(environment)
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"


@pytest.mark.parametrize("status", [403, 503])
def test_the_answer_of_a_proxy_is_not_a_server(monkeypatch, empty_folder, status):
    """A proxy stands in the environment and on the way: neither makes a server ready."""
    with answering(status) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("PREFECT_API_URL", "http://prefect.invalid:4200/api")
        with pytest.raises(PipelineError, match="no Prefect server answers at"):
            PrefectApi().ready()


def test_an_api_on_loopback_is_not_asked_of_the_proxy(monkeypatch, empty_folder):
    with answering(503) as proxy, answering(200, "application/json", "/api/health") as server:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("PREFECT_API_URL", f"{server}/api")
        api = PrefectApi()
        api.ready()
    assert api.api_url == f"{server}/api"


def test_an_address_without_api_is_told_so(monkeypatch, empty_folder):
    with answering(200, "application/json", "/api/health") as server:
        monkeypatch.setenv("PREFECT_API_URL", server)
        with pytest.raises(PipelineError, match=f"not the address of the API; use {server}/api"):
            PrefectApi().ready()


@pytest.mark.integration
def test_a_server_that_cannot_start_says_why(monkeypatch, tmp_path):
    home = tmp_path / "home"
    home.write_text("a file where a folder belongs")
    monkeypatch.setenv("PREFECT_HOME", str(home))
    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")  # as commands do
    server = start_server()
    with pytest.raises(
        PipelineError,
        match=r"did not start: .*(Not a directory|File exists|unable to open database)",
    ):
        wait_until_ready(server)
    assert "Fatal Python error" not in server.log.read_text()


def test_a_server_that_takes_too_long_is_not_said_to_have_failed(monkeypatch, tmp_path):
    monkeypatch.setattr(embedded_server, "STARTUP_TIMEOUT_S", 0.0)
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as process:
        server = EmbeddedServer(process, "http://127.0.0.1:9/api", tmp_path / "log")
        with pytest.raises(PipelineError, match=r"not answer within 0 s .* may be too busy"):
            wait_until_ready(server)
    assert process.returncode is not None


@pytest.mark.integration
def test_servers_that_start_at_once_on_a_fresh_home_all_start(monkeypatch, tmp_path):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    servers = [start_server() for _ in range(3)]
    try:
        for server in servers:
            wait_until_ready(server)
    finally:
        for server in servers:
            server.stop()


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (
            "Traceback:\n  File x\nsqlite3.DatabaseError: file is not a database\n\nbye\n",
            "sqlite3.DatabaseError: file is not a database",
        ),
        (
            "ERROR:    Application startup failed. Exiting.\n",
            "ERROR:    Application startup failed. Exiting.",
        ),
        ("just words\n", "just words"),
        ("", ""),
    ],
)
def test_the_cause_in_a_log(tmp_path, log, cause):
    (tmp_path / "log").write_text(log)
    assert cause_in_log(tmp_path / "log") == cause


def test_closed_output_is_said(empty_folder):
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {sys.executable} -P -m flows.cli recipes >&-"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "standard output is closed; the result is not shown" in done.stderr
    assert "bug" not in done.stderr


def test_a_hangup_is_an_interrupt_with_a_message(empty_folder):
    script = (
        "import sys, os, signal, flows.cli as cli, flows.surroundings as s\n"
        "s.interrupt_on_hangup()\n"
        "cli.app = lambda **_: os.kill(os.getpid(), signal.SIGHUP) or signal.pause()\n"
        "sys.exit(cli.run([]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=1200,
        # Whoever runs the tests may itself ignore hangups.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    assert done.returncode == 130, done.stderr
    assert "interrupted; finished stages" in done.stderr


def test_nohup_stays_nohup(empty_folder):
    script = (
        "import os, signal, flows.surroundings as s\n"
        "s.interrupt_on_hangup()\n"
        "os.kill(os.getpid(), signal.SIGHUP)\n"
        "print('still here')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert done.stdout == "still here\n", done.stderr
