import numpy as np
import pytest
import torch

from tzrec.modules.variational_dropout import VariationalDropout


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.fixture
def dropout() -> VariationalDropout:
    torch.manual_seed(0)
    return VariationalDropout({"a": 2, "b": 1, "c": 3}, "deep", regularization_lambda=0.5)


def test_inference_scales_by_keep_probability(dropout: VariationalDropout) -> None:
    x = torch.randn(4, 6)
    out, penalty = dropout.eval()(x)
    keep = 1 - sigmoid(dropout.feature_p.detach().double().numpy())
    np.testing.assert_allclose(out.detach(), x * np.repeat(keep, [2, 1, 3]), atol=1e-6)
    np.testing.assert_allclose(penalty.detach(), 0.5 / 4 * keep.sum(), rtol=1e-6)


def test_training_draws_one_mask_per_row_and_feature(dropout: VariationalDropout) -> None:
    x = torch.ones(3, 6)
    torch.manual_seed(7)
    out, _ = dropout(x)
    torch.manual_seed(7)
    u = np.clip(torch.rand(3, 3).double().numpy(), 1e-6, 1 - 1e-6)
    p = sigmoid(dropout.feature_p.detach().double().numpy())
    logit = np.log(p / (1 - p)) + np.log(u / (1 - u))
    mask = 1 - sigmoid(logit / 0.1)
    np.testing.assert_allclose(out.detach(), np.repeat(mask, [2, 1, 3], axis=1), atol=1e-4)


def test_share_of_dropped_rows_is_the_probability(dropout: VariationalDropout) -> None:
    with torch.no_grad():
        dropout.feature_p.copy_(torch.tensor([-1.0, 0.0, 2.0]))
    out, _ = dropout(torch.ones(20000, 6))
    dropped = (out[:, [0, 2, 3]] < 0.5).float().mean(0)
    np.testing.assert_allclose(dropped, sigmoid(np.array([-1.0, 0.0, 2.0])), atol=0.02)


def test_columns_of_entries(dropout: VariationalDropout) -> None:
    assert dropout.feature_dim_repeat.tolist() == [2, 1, 3]
    assert dropout.column_entry.tolist() == [0, 0, 1, 2, 2, 2]
    assert list(dropout.state_dict()) == ["feature_p"]


def test_state_and_gradients(dropout: VariationalDropout) -> None:
    assert list(dropout.state_dict()) == ["feature_p"]
    x = torch.randn(5, 6, requires_grad=True)
    out, penalty = dropout(x)
    (out.sum() + penalty).backward()
    assert dropout.feature_p.grad.isfinite().all()
    assert (dropout.feature_p.grad != 0).all()
    assert x.grad.isfinite().all()


def test_lambda_weighs_the_penalty() -> None:
    torch.manual_seed(0)
    one = VariationalDropout({"a": 1, "b": 1}, "g", regularization_lambda=1.0)
    two = VariationalDropout({"a": 1, "b": 1}, "g", regularization_lambda=2.0)
    two.load_state_dict(one.state_dict())
    x = torch.ones(2, 2)
    torch.testing.assert_close(one(x)[1] * 2, two(x)[1])


def test_initial_values_are_standard_normal() -> None:
    torch.manual_seed(0)
    p = VariationalDropout({str(i): 1 for i in range(5000)}, "g").feature_p.detach()
    assert abs(p.mean()) < 0.05
    assert abs(p.std() - 1) < 0.05


def test_field_without_effect_says_so(caplog: pytest.LogCaptureFixture) -> None:
    VariationalDropout({"a": 1}, "g")
    assert not caplog.records
    VariationalDropout({"a": 1}, "g", embedding_wise_variational_dropout=True)
    assert "has no effect" in caplog.text
