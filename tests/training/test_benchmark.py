from training.benchmark import BenchTrainingConfig, bench_training


def test_every_model_is_measured_on_batches_read_from_shards():
    config = BenchTrainingConfig(
        batch_size=3, num_frames=12, hidden_size=8, num_warmups=1, num_steps=2, num_threads=1
    )
    result = bench_training(config)
    assert [rate.model for rate in result.rates] == list(config.models)
    assert all(rate.step_s > 0 and rate.frames_per_s > 0 for rate in result.rates)
    lstm = result.rates[-1]
    assert lstm.faster_than_lstm == 1.0
    assert lstm.reading_share == result.read_batch_s / lstm.step_s


def test_without_the_lstm_there_is_no_ratio():
    config = BenchTrainingConfig(
        models=("v1",), batch_size=2, num_frames=5, hidden_size=4, num_warmups=1, num_steps=1
    )
    assert bench_training(config).rates[0].faster_than_lstm is None
