"""How many requests S3 gets for a row group, which bounds how many workers it can feed."""

import secrets

import pytest

from featurize.shards import read_rows
from featurize.stage import Location
from tests.harness.random_features import write_random_features
from tests.harness.s3 import FaultProxy, S3Process, find_rclone

# Two for its size, one for its bytes.
READS_PER_GROUP = 3

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(find_rclone() is None, reason="rclone is not installed"),
]


@pytest.fixture
def proxy(tmp_path, monkeypatch):
    (tmp_path / "bucket").mkdir()
    key, secret = secrets.token_hex(10), secrets.token_hex(20)
    server = S3Process(tmp_path, key, secret)
    counting = FaultProxy(server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", counting.endpoint)
    yield counting
    counting.stop()
    server.stop()


def test_a_row_group_of_a_known_shard_takes_so_many_requests(proxy):
    features = Location.of(f"s3://bucket/{secrets.token_hex(4)}")
    manifest = write_random_features(features, num_utterances=128, num_frames=1200)
    shard = manifest.shards[0]
    read_rows(features, shard, [0])  # and the footer
    for group in (1, 2, 3):
        before = proxy.num_requests
        assert len(read_rows(features, shard, [group])) == 8
        assert proxy.num_requests - before == READS_PER_GROUP
