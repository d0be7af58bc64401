"""Pareto-efficient weights of several losses (Lin et al., PE-LTR, RecSys 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tzrec.errors import ConfigError

Array = npt.NDArray[np.float64]

# Keeps the small system regular; among weights that are equally good it takes the most even ones.
_RIDGE = 1e-9
_TOLERANCE = 1e-12


def pareto_weights(gram: Array, lower_bounds: Sequence[float]) -> Array:
    """Returns the weights of the losses whose common step hurts none, as far as bounds allow.

    ::

        min_w | sum_i w_i g_i |^2      with sum_i w_i = 1 and w_i >= c_i

    Without bounds the sum is the shortest vector in the convex hull of the gradients, which is
    a descent direction of every loss, or 0 at a Pareto-stationary point (Désidéri 2012). A loss
    without gradient (all its rows weigh 0) is hurt by no step: it gets its bound only, where
    the bare minimum would give it all and stop the others.

    Args:
        gram: (n, n), inner products ``g_i . g_j`` of the gradients.
        lower_bounds: c, not negative, their sum below 1.

    Returns:
        w (n,). If a gradient is not finite, or all are 0, what the bounds leave is spread evenly.

    Raises:
        ConfigError: the bounds are negative or leave nothing.
    """
    bounds = np.asarray(lower_bounds, dtype=np.float64)
    left = 1.0 - bounds.sum()
    if (bounds < 0).any() or left <= 0:
        raise ConfigError(
            f"pareto_min_loss_weight is {bounds.tolist()}; none may be negative, and their sum "
            "must be below 1"
        )
    even = np.full(len(bounds), 1.0 / len(bounds))
    largest = gram.diagonal().max() if np.isfinite(gram).all() else 0.0
    if largest <= 0.0:
        return bounds + left * even
    moving = gram.diagonal() > 0.0
    # w = c + left * v with v in the simplex: the hull of the points left * g_i + sum_j c_j g_j.
    points = (left * np.eye(len(bounds)) + bounds)[moving]
    weights = bounds.copy()
    weights[moving] += left * _shortest_in_hull(points @ (gram / largest) @ points.T)
    return weights


def _shortest_in_hull(gram: Array) -> Array:
    """Returns the weights v >= 0, sum 1, of the point nearest to 0 in the hull of points.

    The direction of ``argmin_{u >= 0} u' G u + (sum u - 1)^2`` is that of v: for u = s v the
    best s leaves q / (1 + q) with q = v' G v, which grows with q. The minimum is found by the
    active set method of Lawson and Hanson (1974), in exact arithmetic in finitely many steps.

    Args:
        gram: G (n, n), inner products of the points.
    """
    n = len(gram)
    system = gram + 1.0 + _RIDGE * np.eye(n)
    u = np.zeros(n)
    free = np.zeros(n, dtype=bool)
    for _ in range(10 * n):
        slope = np.where(free, -np.inf, 1.0 - system @ u)
        entering = int(slope.argmax())
        if slope[entering] <= _TOLERANCE:
            break
        free[entering] = True
        while True:
            target = np.zeros(n)
            target[free] = np.linalg.solve(system[np.ix_(free, free)], np.ones(free.sum()))
            blocked = free & (target <= 0.0)
            if not blocked.any():
                break
            ratio = np.where(blocked, u / np.maximum(u - target, 1e-300), np.inf)
            step = ratio.min()
            u = u + step * (target - u)
            free &= ~((ratio <= step) & blocked)
            u[~free] = 0.0
        u = target
    return u / u.sum()
