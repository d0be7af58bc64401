"""Causal transformer: causality, padding, positions, order, against a plain NumPy one."""

import numpy as np
import pytest
import torch
from causal_oracle import transform

from tzrec.errors import ConfigError
from tzrec.modules.causal_transformer import CausalTransformer, latest_steps


def make(dim=8, **fields):
    torch.manual_seed(0)
    module = CausalTransformer(dim, **{"max_seq_len": 5, "dropout": 0.0} | fields)
    torch.nn.init.normal_(module.positions)
    state = {name: value.double().numpy() for name, value in module.state_dict().items()}
    return module.eval(), state


def run(module, histories, dim=8):
    steps = torch.tensor(np.concatenate(histories), dtype=torch.float32).reshape(-1, dim)
    return module.latest(steps, torch.tensor([len(h) for h in histories]))


def histories(*lengths, dim=8, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, dim)) for n in lengths]


@pytest.mark.parametrize("fields", [{}, {"num_heads": 4, "num_layers": 1}, {"ffn_dim": 20}])
def test_states(fields):
    module, state = make(**fields)
    rows = histories(3, 0, 5, 1, 9)
    steps, age, lengths = run(module, rows)
    assert lengths.tolist() == [3, 1, 5, 1, 5]
    assert age.tolist() == [2, 1, 0, 0, 4, 3, 2, 1, 0, 0, 4, 3, 2, 1, 0]
    expected = [transform(state, row, heads=fields.get("num_heads", 1)) for row in rows]
    found = module(steps, age, lengths).detach()
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-3, atol=1e-4)


def test_latest_first():
    rows = histories(3, 0, 9)
    oldest, latest = make()[0], make(latest_first=True)[0]
    expected = oldest(*run(oldest, rows))
    found = latest(*run(latest, [row[::-1] for row in rows]))
    torch.testing.assert_close(found, expected)


def test_a_step_sees_none_after_it():
    module, _ = make()
    row = histories(4)[0]
    changed = row.copy()
    changed[3] += 1
    a, b = (module(*run(module, [x])) for x in (row, changed))
    torch.testing.assert_close(a[:3], b[:3])
    assert not torch.allclose(a[3], b[3])


def test_other_rows_change_nothing():
    module, _ = make()
    rows = histories(2, 5, 3)
    alone = torch.cat([module(*run(module, [row])) for row in rows])
    torch.testing.assert_close(module(*run(module, rows)), alone)


def test_no_history_at_all():
    module, _ = make()
    rows = [np.zeros((0, 8))] * 3
    found = module(*run(module, rows))
    assert found.shape == (3, 8)
    assert torch.equal(found[0], found[2])


def test_dropout_is_of_training_only():
    module, _ = make(dropout=0.5)
    inputs = run(module, histories(4, 5))
    assert torch.equal(module(*inputs), module(*inputs))
    module.train()
    assert not torch.equal(module(*inputs), module(*inputs))


def test_gradients_under_autocast_are_finite():
    module, _ = make()
    module.train()
    steps, age, lengths = run(module, histories(4, 0, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(steps, age, lengths)
    found.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


def test_which_steps_are_read():
    index, age, kept = latest_steps(torch.tensor([2, 0, 4]), 3, False)
    assert (index.tolist(), age.tolist()) == ([0, 1, 6, 3, 4, 5], [1, 0, 0, 2, 1, 0])
    assert kept.tolist() == [2, 1, 3]
    index, age, _ = latest_steps(torch.tensor([2, 0, 4]), 3, True)
    assert (index.tolist(), age.tolist()) == ([1, 0, 6, 4, 3, 2], [1, 0, 0, 2, 1, 0])


def test_heads_divide_the_size():
    with pytest.raises(ConfigError, match="num_heads is 3, it must divide the size of a step, 8"):
        make(num_heads=3)
