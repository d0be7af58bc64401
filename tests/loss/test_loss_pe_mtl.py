"""Pareto weights against a search over all supports."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

from tzrec.errors import ConfigError
from tzrec.loss.pe_mtl_loss import pareto_weights


def _smallest(gram, bounds):
    """The minimum over w >= bounds, sum 1: the best of the stationary points of all faces."""
    n, left = len(bounds), 1 - bounds.sum()
    best = np.inf
    for size in range(1, n + 1):
        for support in itertools.combinations(range(n), size):
            spread = np.zeros((n, size))
            spread[list(support), range(size)] = left
            system = np.block(
                [
                    [spread.T @ gram @ spread, np.ones((size, 1))],
                    [np.ones((1, size)), np.zeros((1, 1))],
                ]
            )
            right = np.append(-spread.T @ gram @ bounds, 1)
            v = np.linalg.lstsq(system, right, rcond=None)[0][:size]
            if (v >= -1e-9).all() and abs(v.sum() - 1) < 1e-6:
                w = bounds + spread @ v
                best = min(best, w @ gram @ w)
    return best


@pytest.mark.parametrize("total", [0.0, 0.3, 0.95])
def test_the_shortest_sum_of_gradients(total):
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = rng.integers(2, 6)
        gradients = rng.normal(size=(n, rng.integers(1, 7))) * 10 ** rng.uniform(-2, 2, (n, 1))
        gram = gradients @ gradients.T
        bounds = rng.random(n)
        bounds *= total / bounds.sum()
        w = pareto_weights(gram, bounds)
        assert w.sum() == pytest.approx(1)
        assert (w >= bounds - 1e-12).all()
        assert w @ gram @ w == pytest.approx(_smallest(gram, bounds), abs=1e-8 * gram.max())


def test_agrees_with_a_general_solver():
    rng = np.random.default_rng(1)
    bounds = np.array([0.1, 0.0, 0.3])
    for _ in range(10):
        gradients = rng.normal(size=(3, 4))
        gram = gradients @ gradients.T
        found = minimize(
            lambda w, gram=gram: w @ gram @ w,
            np.full(3, 1 / 3),
            bounds=[(low, 1) for low in bounds],
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            method="SLSQP",
            options={"ftol": 1e-14},
        )
        np.testing.assert_allclose(pareto_weights(gram, bounds), found.x, atol=1e-4)


def test_two_tasks_in_closed_form():
    """Désidéri: orthogonal gradients weigh by the inverse of their squares."""
    np.testing.assert_allclose(pareto_weights(np.diag([1.0, 4.0]), [0, 0]), [0.8, 0.2], atol=1e-6)
    # The shorter of two gradients of one direction.
    gram = np.outer([1.0, 3.0], [1.0, 3.0])
    np.testing.assert_allclose(pareto_weights(gram, [0, 0]), [1, 0], atol=1e-6)
    np.testing.assert_allclose(pareto_weights(gram, [0, 0.25]), [0.75, 0.25], atol=1e-6)


def test_equal_gradients_weigh_alike():
    np.testing.assert_allclose(pareto_weights(np.ones((4, 4)), [0] * 4), [0.25] * 4, atol=1e-6)


@pytest.mark.parametrize("gram", [np.zeros((2, 2)), np.full((2, 2), np.nan), np.diag([1, np.inf])])
def test_gradients_that_say_nothing_weigh_alike(gram):
    np.testing.assert_allclose(pareto_weights(gram, [0.2, 0.6]), [0.3, 0.7])


def test_a_loss_without_gradient_does_not_stop_the_others():
    gram = np.diag([0.0, 1.0, 4.0])
    np.testing.assert_allclose(pareto_weights(gram, [0, 0, 0]), [0, 0.8, 0.2], atol=1e-6)
    np.testing.assert_allclose(pareto_weights(gram, [0.1, 0, 0]), [0.1, 0.72, 0.18], atol=1e-6)
    np.testing.assert_allclose(pareto_weights(np.diag([0.0, 3.0]), [0.2, 0.3]), [0.2, 0.8])


@pytest.mark.parametrize("bounds", [[0.5, 0.5], [0.9, 0.2], [-0.1, 0.2]])
def test_bounds_leave_something(bounds):
    with pytest.raises(ConfigError, match="pareto_min_loss_weight"):
        pareto_weights(np.eye(2), bounds)
