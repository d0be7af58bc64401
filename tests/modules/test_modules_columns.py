import numpy as np
import pytest
import torch
from torch import nn

from tzrec.batch import KeyedTensor
from tzrec.modules.columns import ColumnPlan, merge_runs, regroup

KEYS = ["a", "b", "c", "d", "e"]
WIDTHS = [1, 2, 3, 1, 2]


@pytest.mark.parametrize(
    ("groups", "widths", "pieces"),
    [
        ([[0, 1, 2, 3, 4]], [9], [[0]]),
        ([[0, 1], [2, 3, 4]], [3, 6], [[0], [1]]),
        ([[1, 2]], [1, 5, 3], [[1]]),
        ([[0, 1, 2, 3, 4], [1, 2]], [1, 5, 3], [[0, 1, 2], [1]]),
        ([[2, 1, 0]], [1, 2, 3, 3], [[2, 1, 0]]),
        ([[-1, 3, 4, -2], [3, 4, 0]], [1, 5, 3], [[-1, 2, -2], [2, 0]]),
        ([[0, 1], [1, 2]], [1, 2, 3, 3], [[0, 1], [1, 2]]),
        ([[-1], []], [9], [[-1], []]),
    ],
)
def test_merge_runs(groups: list[list[int]], widths: list[int], pieces: list[list[int]]) -> None:
    assert merge_runs(WIDTHS, groups) == (widths, pieces)


def test_merge_runs_of_nothing() -> None:
    assert merge_runs([], [[-1, -2]]) == ([], [[-1, -2]])


class Regroup(nn.Module):
    def __init__(self, keys: list[str], widths: list[int], plan: ColumnPlan) -> None:
        super().__init__()
        self.keys, self.widths, self.plan = keys, widths, plan

    def forward(self, values: torch.Tensor, extra: torch.Tensor) -> torch.Tensor:
        pooled = KeyedTensor(keys=self.keys, length_per_key=self.widths, values=values)
        columns = self.plan.regroup(pooled, [extra])
        return torch.cat([columns[0], columns[1]], dim=1)


@pytest.mark.parametrize("scripted", [False, True])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 1, 4, 2, 0], [4, 0, 1, 2, 3]])
def test_columns_are_found_by_key(order: list[int], scripted: bool) -> None:
    rng = np.random.default_rng(0)
    column = {
        key: rng.random((3, width), np.float32) for key, width in zip(KEYS, WIDTHS, strict=True)
    }
    extra = rng.random((3, 2), np.float32)
    plan = ColumnPlan.of(KEYS, WIDTHS, [[1, 2, -1, 0], [2, 3]])
    keys = [KEYS[i] for i in order]
    module: nn.Module = Regroup(keys, [WIDTHS[i] for i in order], plan)
    if scripted:
        module = torch.jit.script(torch.fx.symbolic_trace(module))
    values = torch.from_numpy(np.concatenate([column[key] for key in keys], axis=1))
    out = module(values.requires_grad_(), torch.from_numpy(extra))
    expected = [column["b"], column["c"], extra, column["a"], column["c"], column["d"]]
    np.testing.assert_array_equal(out.detach().numpy(), np.concatenate(expected, axis=1))
    out.sum().backward()
    uses = {"a": 1, "b": 1, "c": 2, "d": 1, "e": 0}
    grad = np.concatenate([np.full((3, WIDTHS[KEYS.index(k)]), uses[k]) for k in keys], axis=1)
    np.testing.assert_array_equal(values.grad.numpy(), grad)


def test_a_single_piece_is_not_copied() -> None:
    plan = ColumnPlan.of(KEYS, WIDTHS, [[1, 2], [0, 1, 2]])
    pooled = KeyedTensor(keys=KEYS, length_per_key=WIDTHS, values=torch.randn(2, 9))
    columns = plan.regroup(pooled, [])
    assert columns[0].data_ptr() == pooled.values()[:, 1:].data_ptr()
    # Models split a group into its features.
    assert columns[0].view(2, 5, 1).shape == (2, 5, 1)


def test_extended_plan_appends() -> None:
    plan = ColumnPlan.of(KEYS, WIDTHS, [[0, 1], [4]])
    assert plan.extended([[], []]) is plan
    more = plan.extended([[], [-1]])
    pooled = KeyedTensor(keys=KEYS, length_per_key=WIDTHS, values=torch.randn(2, 9))
    columns = more.regroup(pooled, [torch.ones(2, 1)])
    assert torch.equal(columns[0], pooled.values()[:, :3])
    assert torch.equal(columns[1], torch.cat([pooled["e"], torch.ones(2, 1)], dim=1))


def test_regroup_compiles() -> None:
    torch.jit.script(regroup)
