"""An evaluation gives the same bytes in this process and in several others."""

from evaluation.config import EvaluateConfig, ViterbiConfig
from evaluation.evaluate import evaluate
from featurize.stage import FanOut, Location


def content_of(location):
    names = ("hypotheses.parquet", "multiplications.parquet", "metrics.json")
    return {name: location.child(name).read_bytes() for name in names}


def test_two_processes_give_the_bytes_of_one(write_features, write_model, tmp_path):
    features = write_features()
    models = [write_model(model) for model in ("v2", "gru")]
    config = EvaluateConfig(
        batch_size=2,
        num_bootstrap=100,
        decoder="viterbi",
        viterbi=ViterbiConfig(tune_max_utterances=9),
    )
    told = []
    results = [
        evaluate(
            config,
            models,
            features,
            Location.of(tmp_path / f"runs-{fan_out.kind}"),
            fan_out=fan_out,
            progress=told.append,
        )
        for fan_out in (FanOut(kind="sequential"), FanOut(kind="processes", num_workers=2))
    ]
    here, apart = (content_of(result.location) for result in results)
    assert here == apart
    assert b'"viterbi":{"bigram_weight"' in here["metrics.json"].replace(b" ", b"").replace(
        b"\n", b""
    )
    assert len(told) == 2 * 2 * 6
    assert [one.num_done for one in told[:6]] == [2, 4, 6, 8, 10, 11]
