"""Losses against their formulas in NumPy."""

import numpy as np
import pytest
import torch

from tzrec.errors import ConfigError
from tzrec.loss.binary_cross_entropy import BinaryCrossEntropy
from tzrec.loss.focal_loss import BinaryFocalLoss
from tzrec.loss.jrc_loss import JRCLoss
from tzrec.loss.l2_loss import L2Loss
from tzrec.loss.softmax_cross_entropy import SoftmaxCrossEntropy

RNG = np.random.default_rng(0)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_binary_cross_entropy(smoothing):
    logits, labels = RNG.normal(size=50) * 3, RNG.integers(0, 2, 50)
    y, p = labels * (1 - smoothing) + smoothing / 2, _sigmoid(logits)
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    loss = BinaryCrossEntropy(smoothing)(torch.tensor(logits), torch.tensor(labels))
    np.testing.assert_allclose(loss, expected, rtol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_softmax_cross_entropy(smoothing):
    logits, labels = RNG.normal(size=(50, 4)), RNG.integers(0, 4, 50)
    target = np.eye(4)[labels] * (1 - smoothing) + smoothing / 4
    expected = -(target * np.log(_softmax(logits))).sum(1)
    loss = SoftmaxCrossEntropy(smoothing)(torch.tensor(logits), torch.tensor(labels))
    np.testing.assert_allclose(loss, expected, rtol=1e-12)


def test_l2_loss():
    loss = L2Loss()(torch.tensor([1.0, -2.0]), torch.tensor([3, -2]))
    np.testing.assert_array_equal(loss, [4.0, 0.0])


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.5), (0.0, 0.25), (1.5, 0.9)])
def test_focal_loss_and_its_gradient(gamma, alpha):
    x, y = RNG.normal(size=50) * 2, RNG.integers(0, 2, 50)
    p = _sigmoid(x)
    w = alpha * y * (1 - p) ** gamma + (1 - alpha) * (1 - y) * p**gamma
    logits = torch.tensor(x, requires_grad=True)
    loss = BinaryFocalLoss(gamma, alpha)(logits, torch.tensor(y))
    np.testing.assert_allclose(
        loss.detach(), -w * (y * np.log(p) + (1 - y) * np.log(1 - p)), rtol=1e-12
    )
    loss.sum().backward()
    # The weight is a constant, so the gradient is that of the weighted cross entropy.
    np.testing.assert_allclose(logits.grad, w * (p - y), rtol=1e-12)


def _jrc(logits, labels, sessions, alpha):
    """The definition, row by row: a softmax over the row and its opponents."""
    total = []
    for i in range(len(labels)):
        rivals = [
            j for j in range(len(labels)) if sessions[j] == sessions[i] and labels[j] != labels[i]
        ]
        ranking = _softmax(logits[[i, *rivals], labels[i]])[0]
        total.append(
            -alpha * np.log(_softmax(logits[i])[labels[i]]) - (1 - alpha) * np.log(ranking)
        )
    return np.array(total)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_jrc_loss(alpha):
    logits, labels = RNG.normal(size=(60, 2)) * 3, RNG.integers(0, 2, 60)
    # Sessions of all sizes, some with one class only.
    sessions = RNG.geometric(0.2, 60) * 10**12
    args = torch.tensor(labels), torch.tensor(sessions)
    loss = JRCLoss(alpha)(torch.tensor(logits), *args)
    np.testing.assert_allclose(loss, _jrc(logits, labels, sessions, alpha), rtol=1e-10, atol=1e-12)


def test_jrc_gradient():
    labels, sessions = torch.tensor([1, 0, 0, 1, 1]), torch.tensor([7, 7, 7, 8, 9])
    logits = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: JRCLoss(0.3)(x, labels, sessions).sum(), (logits,))


def test_jrc_survives_extreme_logits():
    logits = torch.tensor([[-300.0, 300.0], [300.0, -300.0], [0.0, 400.0]], requires_grad=True)
    loss = JRCLoss(0.5)(logits, torch.tensor([1, 0, 0]), torch.tensor([1, 1, 1]))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: BinaryCrossEntropy(1.5),
        lambda: SoftmaxCrossEntropy(-0.1),
        lambda: BinaryFocalLoss(gamma=-1),
        lambda: BinaryFocalLoss(alpha=1.0),
        lambda: JRCLoss(alpha=1.1),
    ],
)
def test_knobs_out_of_range(make):
    with pytest.raises(ConfigError, match="must"):
        make()
