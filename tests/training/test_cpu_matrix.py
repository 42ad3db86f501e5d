"""Dense products of the CPU kernels against PyTorch's in double precision, and threads' shares."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.kernels import cpu, cpu_matrix

SIZES = st.sampled_from([1, 7, 32, 33, 64, 100, 130])
ROWS = st.sampled_from([0, 1, 63, 64, 65, 129, 600])


def assert_product(found, left, right):
    expected = left.double() @ right.double()
    scale = float((left.double().abs() @ right.double().abs()).max()) if expected.numel() else 1.0
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6 * scale + 1e-12)


@settings(max_examples=60, deadline=None)
@given(num_rows=ROWS, depth=SIZES, num_columns=SIZES, num_threads=st.sampled_from([1, 2, 3]))
def test_dense_products(num_rows, depth, num_columns, num_threads):
    generator = torch.Generator().manual_seed(depth)
    left = torch.randn(num_rows, depth, generator=generator)
    right = torch.randn(depth, num_columns, generator=generator)
    grad = torch.randn(num_rows, num_columns, generator=generator)
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        product = cpu_matrix.dense_product(left, right)
        gradient = cpu_matrix.dense_weight_gradient(left, grad)
    finally:
        torch.set_num_threads(before)
    assert_product(product, left, right)
    assert_product(gradient, left.T, grad)


def test_a_dense_product_takes_a_transposed_side():
    left, right = torch.randn(100, 40), torch.randn(50, 40)
    assert_product(cpu_matrix.dense_product(left, right.T), left, right.T)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([5, 5, 5, 5], [[0, 1], [2, 3]]),
        ([100, 1, 1, 1], [[0], [1, 2, 3]]),
        ([1, 2, 3, 100], [[2, 1, 0], [3]]),
        ([0, 0, 0, 0], [[0, 1], [2, 3]]),
        ([3, 9, 3, 9], [[1, 0], [3, 2]]),
        ([7], [[0]]),
        ([], []),
    ],
)
def test_threads_share_adjacent_utterances_of_equal_work(monkeypatch, lengths, expected):
    monkeypatch.setattr(cpu.threads, "num_threads", lambda: 2)
    shares = cpu._shares(torch.tensor(lengths, dtype=torch.int64), 100)
    assert [share.utterances.tolist() for share in shares] == expected


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 50), max_size=20), count=st.integers(1, 5))
def test_every_utterance_is_in_one_share_each_by_falling_length(lengths, count):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu.threads, "num_threads", lambda: count)
        shares = cpu._shares(torch.tensor(lengths, dtype=torch.int64), 50)
    assert sorted(row for share in shares for row in share.utterances) == list(range(len(lengths)))
    for share in shares:
        own = [lengths[row] for row in share.utterances]
        assert own == sorted(own, reverse=True)
