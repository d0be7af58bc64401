import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from tzrec.errors import DataError
from tzrec.modules import jagged

LENGTHS = [2, 0, 3]
VALUES = torch.arange(10.0).view(5, 2)


@pytest.fixture(params=[torch.int32, torch.int64])
def lengths(request: pytest.FixtureRequest) -> torch.Tensor:
    return torch.tensor(LENGTHS, dtype=request.param)


def test_max_length_is_at_least_one(lengths: torch.Tensor) -> None:
    assert jagged.max_length(lengths) == 3
    assert jagged.max_length(torch.zeros_like(lengths)) == 1
    assert jagged.max_length(lengths[:0]) == 1


@pytest.mark.parametrize("num_steps", [1, 2, 3, 5])
def test_pad_cuts_and_fills(lengths: torch.Tensor, num_steps: int) -> None:
    expected = np.zeros((3, num_steps, 2), np.float32)
    start = 0
    for row, length in enumerate(LENGTHS):
        for step in range(min(length, num_steps)):
            expected[row, step] = VALUES[start + step].numpy()
        start += length
    np.testing.assert_array_equal(jagged.pad(VALUES, lengths, num_steps).numpy(), expected)


def test_pad_of_nothing(lengths: torch.Tensor) -> None:
    empty = jagged.pad(VALUES[:0], torch.zeros_like(lengths), 1)
    assert torch.equal(empty, torch.zeros(3, 1, 2))


def test_reverse_turns_the_steps_of_each_row(lengths: torch.Tensor) -> None:
    padded = jagged.pad(VALUES, lengths, 4).requires_grad_()
    turned = jagged.reverse(padded, lengths)
    assert turned.shape == padded.shape
    expected = torch.cat([VALUES[[1, 0]], VALUES[[4, 3, 2]]])
    assert torch.equal(jagged.unpad(turned, lengths), expected)
    jagged.unpad(turned, lengths).sum().backward()
    assert padded.grad is not None
    assert padded.grad.sum(2).tolist() == [[2, 2, 0, 0], [0, 0, 0, 0], [2, 2, 2, 0]]


def test_unpad_inverts_pad(lengths: torch.Tensor) -> None:
    assert torch.equal(jagged.unpad(jagged.pad(VALUES, lengths, 3), lengths), VALUES)


def test_mask(lengths: torch.Tensor) -> None:
    mask = jagged.mask(torch.zeros(3, 4, 1), lengths)
    assert mask.tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]]


@pytest.mark.parametrize("mean", [False, True])
def test_pool(lengths: torch.Tensor, mean: bool) -> None:
    rows = [VALUES[:2], VALUES[2:2], VALUES[2:]]
    expected = [row.sum(0) / (max(len(row), 1) if mean else 1) for row in rows]
    torch.testing.assert_close(jagged.pool(VALUES, lengths, mean), torch.stack(expected))


@pytest.mark.parametrize("mean", [False, True])
def test_gradient_of_pool(lengths: torch.Tensor, mean: bool) -> None:
    values = VALUES.double().requires_grad_()
    assert gradcheck(lambda v: jagged.pool(v, lengths, mean), (values,))


def test_gradients_of_pad_and_unpad_are_each_other(lengths: torch.Tensor) -> None:
    values = VALUES.clone().requires_grad_()
    upstream = torch.randn(3, 3, 2)
    jagged.pad(values, lengths, 3).backward(upstream)
    assert torch.equal(values.grad, torch.cat([upstream[0, :2], upstream[2]]))
    padded = torch.randn(3, 3, 2, requires_grad=True)
    jagged.unpad(padded, lengths).backward(VALUES + 1)
    expected = torch.zeros(3, 3, 2)
    expected[0, :2], expected[2] = VALUES[:2] + 1, VALUES[2:] + 1
    assert torch.equal(padded.grad, expected)


def test_cat_steps_compares_lengths(lengths: torch.Tensor) -> None:
    both = jagged.cat_steps([VALUES, VALUES + 1], [lengths, lengths.clone()], ["a", "b"])
    assert torch.equal(both, torch.cat([VALUES, VALUES + 1], dim=1))
    for other in ([3, 0, 2], [2, 0, 2]):
        values = VALUES[: sum(other)]
        with pytest.raises(DataError, match="a and b of one JAGGED_SEQUENCE group differ"):
            jagged.cat_steps([VALUES, values], [lengths, lengths.new_tensor(other)], ["a", "b"])


def test_cut_windows() -> None:
    windows = torch.eye(3)
    assert torch.equal(jagged.cut_windows(windows, torch.zeros(1, 2, 1), "s"), windows[:, :2])
    with pytest.raises(DataError, match=r"s has a row of 4 steps.*windows_len, 3"):
        jagged.cut_windows(windows, torch.zeros(1, 4, 1), "s")


def test_functions_compile() -> None:
    for name in ["max_length", "pad", "unpad", "mask", "pool", "cat_steps", "cut_windows"]:
        torch.jit.script(getattr(jagged, name))
