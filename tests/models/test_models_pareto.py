"""Pareto weights of a model's losses: against explicit gradients, with our tables, refusals."""

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from models_contract import group, make_batch, make_model, make_rows
from scipy.optimize import minimize

from tzrec.errors import Unsupported
from tzrec.models.model import TrainWrapper
from tzrec.optim.optimizer import build_optimizer
from tzrec.options import Options
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.distributed.process_group import process_group
from tzrec.training.distributed.wrap import distribute

LABELS = ["clk", "watch", "kind"]
NAMES = ["binary_cross_entropy_ctr", "l2_loss_watch", "softmax_cross_entropy_kind"]
SEQUENCE = """sequence_groups { feature_names: ["item", "click__item"] }
  sequence_encoders { pooling_encoder {} }"""
DROPOUT = "variational_dropout { regularization_lambda: 0.3 }"
TRAIN = """sparse_optimizer { sgd_optimizer { lr: 0.1 } constant_learning_rate {} }
dense_optimizer { sgd_optimizer { lr: 0.1 momentum: 0 } constant_learning_rate {} }"""


def _text(bounds=(0, 0, 0), more="", *, pareto=True):
    a, b, c = (f"pareto_min_loss_weight: {bound}" if bound else "" for bound in bounds)
    return (
        group("all", "user item tags price", more=SEQUENCE)
        + f"""mmoe {{ expert_mlp {{ hidden_units: 8 activation: "nn.Tanh" }} num_expert: 2
      task_towers {{ tower_name: "ctr" label_name: "clk" {a}
        losses {{ binary_cross_entropy {{}} }} }}
      task_towers {{ tower_name: "watch" label_name: "watch" losses {{ l2_loss {{}} }} {b} }}
      task_towers {{ tower_name: "kind" label_name: "kind" num_class: 3 {c}
        losses {{ softmax_cross_entropy {{}} }} }} }} """
        + more
        + ("use_pareto_loss_weight: true" if pareto else "")
    )


def _wrapper(*args, **kwargs):
    return TrainWrapper(make_model(_text(*args, **kwargs), labels=LABELS))


def _batch(wrapper, seed=0):
    return make_batch(wrapper.model.features, make_rows(32, seed))


def _weights_by_hand(wrapper, batch, bounds):
    """Gradients of a plain model, one loss at a time, and a general solver."""
    rows = []
    for name in NAMES:
        wrapper.zero_grad()
        wrapper.model.loss(wrapper.model.predict(batch), batch)[name].backward()
        gradients = [p.grad if p.grad is not None else p * 0 for p in wrapper.parameters()]
        rows.append(torch.cat([g.detach().double().flatten() for g in gradients]).numpy())
    wrapper.zero_grad()
    gram = np.array(rows) @ np.array(rows).T
    found = minimize(
        lambda w: w @ gram @ w / gram.max(),
        np.full(3, 1 / 3),
        bounds=[(bound, 1) for bound in bounds],
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return found.x


def _total(wrapper, batch):
    total, (losses, _, _) = wrapper(batch)
    return float(total), np.array([float(losses[name]) for name in NAMES])


@pytest.mark.parametrize("bounds", [(0, 0, 0), (0.2, 0.05, 0.5)])
def test_the_total_weighs_by_the_gradients_of_all_parameters(bounds):
    wrapper = _wrapper(bounds)
    batch = _batch(wrapper)
    weights = _weights_by_hand(wrapper, batch, bounds)
    assert (weights > 0.01).sum() > 1
    total, losses = _total(wrapper, batch)
    assert total == pytest.approx(weights @ losses, rel=1e-3)
    assert total != pytest.approx(losses.sum(), rel=0.1)


def test_bounds_are_least_weights():
    wrapper = _wrapper((0, 0.99, 0))
    total, losses = _total(wrapper, _batch(wrapper))
    assert 0.99 * losses[1] < total <= 0.99 * losses[1] + 0.01 * losses.max() + 1e-6


def test_the_gradient_is_that_of_the_weighted_sum():
    wrapper, plain = _wrapper(), _wrapper(pareto=False)
    batch = _batch(wrapper)
    weights = _weights_by_hand(wrapper, batch, (0, 0, 0))
    wrapper(batch)[0].backward()
    losses = plain.model.loss(plain.model.predict(batch), batch)
    sum(w * losses[name] for w, name in zip(weights, NAMES, strict=True)).backward()
    for (name, p), q in zip(wrapper.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=0.02, atol=2e-4, msg=name)


def test_half_precision_weighs_about_the_same():
    exact = _wrapper()
    half = TrainWrapper(exact.model, mixed_precision="BF16")
    batch = _batch(exact)
    expected, _ = exact(batch)
    found, _ = half(batch)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0)
    found.backward()
    assert all(torch.isfinite(p.grad).all() for p in exact.parameters())


def test_evaluation_takes_the_sum():
    wrapper = _wrapper()
    batch = _batch(wrapper)
    wrapper.eval()
    total, losses = _total(wrapper, batch)
    assert total == pytest.approx(losses.sum())
    wrapper.train()
    with torch.no_grad():
        assert _total(wrapper, batch)[0] == pytest.approx(losses.sum())


def test_penalties_are_not_weighed():
    wrapper = _wrapper((0.2, 0.2, 0.2), DROPOUT)
    total, (losses, _, _) = wrapper(_batch(wrapper))
    penalty = float(losses["all_feature_p_loss"])
    rest = [float(losses[name]) for name in NAMES]
    assert penalty > 0
    assert min(rest) <= float(total) - penalty <= max(rest)


@pytest.fixture(scope="module")
def _group():
    with process_group(Options()):
        yield


def _distributed(*args, kernels="auto", steps=1, **kwargs):
    config = text_format.Parse(f"{TRAIN} gradient_accumulation_steps: {steps}", TrainConfig())
    model = distribute(
        _wrapper(*args, **kwargs),
        train_config=config,
        device=torch.device("cpu"),
        kernels=kernels,
    )
    return model, build_optimizer(model, config)


@pytest.mark.usefixtures("_group")
@pytest.mark.parametrize("accumulation", [1, 2])
def test_row_gradients_of_our_tables_count_and_are_left_alone(accumulation):
    """Trains as the plain model does, whose tables have dense gradients."""
    plain = _wrapper((0, 0.1, 0))
    dense = torch.optim.SGD(plain.parameters(), lr=0.1)
    model, optimizer = _distributed((0, 0.1, 0), steps=accumulation)
    for seed in range(4):
        batch = _batch(plain, seed)
        expected = plain(batch)[0]
        (expected / accumulation).backward()
        if (seed + 1) % accumulation == 0:
            dense.step()
            dense.zero_grad()
        optimizer.zero_grad()
        found, _ = model(batch)
        assert float(found) == pytest.approx(float(expected), rel=1e-4)
        optimizer.backward(found)
        optimizer.step()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("_group")
def test_tables_that_show_no_gradient_are_refused():
    model, _ = _distributed(kernels="torchrec")
    with pytest.raises(Unsupported, match="use_pareto_loss_weight compares the gradients"):
        model(_batch(_wrapper()))
    plain, _ = _distributed(kernels="torchrec", pareto=False)
    plain(_batch(_wrapper()))
