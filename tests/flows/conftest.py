"""A real Prefect server for the flow tests: the embedded one, with a home of its own."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows import embedded_server
from flows.embedded_server import PrefectApi


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an embedded Prefect API that the flows of this process use."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("PREFECT_API_URL", raising=False)
        environment.delenv("PREFECT_PROFILES_PATH", raising=False)
        environment.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        environment.setattr(embedded_server, "STARTUP_TIMEOUT_S", 1200.0)
        api = PrefectApi()
        assert api.api_url.startswith("http://127.0.0.1:")
        from prefect.settings import PREFECT_API_URL, temporary_settings

        api.ready()
        try:
            with temporary_settings({PREFECT_API_URL: api.api_url}):
                yield api.api_url
        finally:
            api.close()
            assert "PREFECT_API_URL" not in os.environ


@dataclass(frozen=True)
class Places:
    """Where the flow tests read and write."""

    corpus: str
    runs: Path


@pytest.fixture(scope="session")
def places(synthetic_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Places:
    """The synthetic corpus in TIMIT's layout, and one folder of results for all flow tests."""
    return Places(str(synthetic_corpus / "timit"), tmp_path_factory.mktemp("runs"))
