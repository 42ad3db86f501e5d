"""The reports, and nothing else, reach a browser."""

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurize.stage import Location
from infra.report_server import report_server


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    evaluation = tmp_path / "evaluation" / "0123456789abcdef"
    evaluation.mkdir(parents=True)
    (evaluation / "report.html").write_text("<p>v2</p>")
    (evaluation / "metrics.json").write_text("{}")
    (tmp_path / "report.html").write_text("another")
    with report_server(0, Location.of(tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_report_is_served(served: str) -> None:
    with urllib.request.urlopen(f"{served}/evaluation/0123456789abcdef/report.html") as answer:
        assert answer.read() == b"<p>v2</p>"
        assert answer.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    "path",
    [
        "/evaluation/0123456789abcdef/metrics.json",
        "/evaluation/0123456789abcdee/report.html",
        "/evaluation/../report.html",
        "/evaluation/%2e%2e/report.html",
        "/report.html",
        "/",
    ],
)
def test_nothing_else_is(served: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(served + path)


def test_a_page_of_another_name_reads_nothing(served: str) -> None:
    asked = urllib.request.Request(
        f"{served}/evaluation/0123456789abcdef/report.html", headers={"Host": "evil.example:80"}
    )
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(asked)
