"""Kernels of the update that need a norm or a mean over the row; as `update.py`.

``step`` below is the direction before the learning rate. The row is walked twice where a norm of
the step is needed: once for the states and the norms, once for the weights.
"""

from typing import Any

import numpy as np

from tzrec.ops.cpu.jit import kernel, load, prefetch, store

# How many rows ahead memory is asked for; more than about ten misses at once queue up.
_AHEAD = 8


@kernel
def rowwise_adagrad(
    table: Any,
    accumulator: Any,
    rows: Any,
    count: Any,
    sums: Any,
    lr: Any,
    keep: Any,
    eps: Any,
) -> None:
    """Adagrad with an accumulator per row, (R,)."""
    dim = table.shape[1]
    for k in range(count):
        if k + _AHEAD < count:
            prefetch(table, rows[k + _AHEAD] * dim)
            prefetch(accumulator, rows[k + _AHEAD])
        row = rows[k]
        s = accumulator[row] + _squares(sums, k) / np.float32(dim)
        accumulator[row] = s
        step = lr / (np.sqrt(s) + eps)
        for j in range(dim):
            store(table, row, j, keep * load(table, row, j) - step * sums[k, j])


@kernel
def partial_rowwise_adam(
    table: Any,
    mean: Any,
    square: Any,
    rows: Any,
    count: Any,
    sums: Any,
    lr: Any,
    keep: Any,
    eps: Any,
    beta1: Any,
    beta2: Any,
    correction1: Any,
    correction2: Any,
) -> None:
    """Lazy Adam with a second moment per row, (R,)."""
    dim = table.shape[1]
    rest1, rest2 = np.float32(1) - beta1, np.float32(1) - beta2
    for k in range(count):
        if k + _AHEAD < count:
            prefetch(table, rows[k + _AHEAD] * dim)
            prefetch(mean, rows[k + _AHEAD] * dim)
            prefetch(square, rows[k + _AHEAD])
        row = rows[k]
        v = beta2 * square[row] + rest2 * (_squares(sums, k) / np.float32(dim))
        square[row] = v
        rate = lr * correction1 / (np.sqrt(v * correction2) + eps)
        for j in range(dim):
            m = beta1 * mean[row, j] + rest1 * sums[k, j]
            mean[row, j] = m
            store(table, row, j, keep * load(table, row, j) - rate * m)


@kernel
def lamb(
    table: Any,
    mean: Any,
    square: Any,
    rows: Any,
    count: Any,
    sums: Any,
    lr: Any,
    decay: Any,
    eps: Any,
    beta1: Any,
    beta2: Any,
    correction1: Any,
    correction2: Any,
) -> None:
    """Lazy LAMB with a trust ratio per row; the sums are overwritten with the steps."""
    dim = table.shape[1]
    rest1, rest2 = np.float32(1) - beta1, np.float32(1) - beta2
    for k in range(count):
        if k + _AHEAD < count:
            prefetch(table, rows[k + _AHEAD] * dim)
            prefetch(mean, rows[k + _AHEAD] * dim)
            prefetch(square, rows[k + _AHEAD] * dim)
        row = rows[k]
        for j in range(dim):
            g = sums[k, j]
            m = beta1 * mean[row, j] + rest1 * g
            v = beta2 * square[row, j] + rest2 * g * g
            mean[row, j] = m
            square[row, j] = v
            step = (m * correction1) / (np.sqrt(v * correction2) + eps)
            sums[k, j] = step + decay * load(table, row, j)
        _trusted_step(table, row, sums, k, lr)


@kernel
def partial_rowwise_lamb(
    table: Any,
    mean: Any,
    square: Any,
    rows: Any,
    count: Any,
    sums: Any,
    lr: Any,
    decay: Any,
    eps: Any,
    beta1: Any,
    beta2: Any,
    correction1: Any,
    correction2: Any,
) -> None:
    """`lamb` with a second moment per row, (R,)."""
    dim = table.shape[1]
    rest1, rest2 = np.float32(1) - beta1, np.float32(1) - beta2
    for k in range(count):
        if k + _AHEAD < count:
            prefetch(table, rows[k + _AHEAD] * dim)
            prefetch(mean, rows[k + _AHEAD] * dim)
            prefetch(square, rows[k + _AHEAD])
        row = rows[k]
        v = beta2 * square[row] + rest2 * (_squares(sums, k) / np.float32(dim))
        square[row] = v
        factor = correction1 / (np.sqrt(v * correction2) + eps)
        for j in range(dim):
            m = beta1 * mean[row, j] + rest1 * sums[k, j]
            mean[row, j] = m
            sums[k, j] = factor * m + decay * load(table, row, j)
        _trusted_step(table, row, sums, k, lr)


@kernel
def lars_sgd(
    table: Any,
    velocity: Any,
    rows: Any,
    count: Any,
    sums: Any,
    lr: Any,
    momentum: Any,
    decay: Any,
) -> None:
    """LARS with momentum and a trust ratio per row; lr includes the trust coefficient."""
    dim = table.shape[1]
    for k in range(count):
        if k + _AHEAD < count:
            prefetch(table, rows[k + _AHEAD] * dim)
            prefetch(velocity, rows[k + _AHEAD] * dim)
        row = rows[k]
        weight_norm = _norm(table, row)
        bound = np.sqrt(_squares(sums, k)) + decay * weight_norm
        rate = lr * weight_norm / bound if bound > np.float32(0) else np.float32(0)
        for j in range(dim):
            w = load(table, row, j)
            m = momentum * velocity[row, j] + rate * (sums[k, j] + decay * w)
            velocity[row, j] = m
            store(table, row, j, w - m)


@kernel
def _trusted_step(table: Any, row: Any, sums: Any, k: Any, lr: Any) -> None:
    """Moves a row by ``lr * |w| / |step| * step``, where the step is in ``sums[k]``."""
    dim = table.shape[1]
    step_norm = np.sqrt(_squares(sums, k))
    if step_norm == np.float32(0):
        return
    rate = lr * _norm(table, row) / step_norm
    for j in range(dim):
        store(table, row, j, load(table, row, j) - rate * sums[k, j])


@kernel
def _squares(sums: Any, k: Any) -> Any:
    squares = np.float32(0)
    for j in range(sums.shape[1]):
        squares += sums[k, j] * sums[k, j]
    return squares


@kernel
def _norm(table: Any, row: Any) -> Any:
    squares = np.float32(0)
    for j in range(table.shape[1]):
        w = load(table, row, j)
        squares += w * w
    return np.sqrt(squares)
