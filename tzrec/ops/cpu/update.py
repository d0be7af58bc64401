"""Kernels of the update: the gradient sums of a batch's rows into weights and states.

Arrays: table (R, D) float32 or uint16 (half floats); states (R, D) or (R,) float32; rows
(capacity,) int64 and sums (capacity, D) float32, of which the first ``count`` are in use.
Scalars are float32, in the order of `UpdateRule.constants`: ``keep`` is what decoupled weight
decay leaves of a weight, ``correction`` is ``1 / (1 - beta ** t)``. A kernel has the name of its
kind; see `tzrec.ops.cpu.rule.UpdateRule` for the formulas. Kernels with a norm or a mean of the
row are in `update_rowwise.py`.
"""

from typing import Any

import numpy as np

from tzrec.ops.cpu.jit import kernel, load, prefetch, store

# How many rows ahead memory is asked for; more than about ten misses at once queue up.
_AHEAD = 8


@kernel
def regularise(table: Any, rows: Any, count: Any, sums: Any, scale: Any, l2: Any) -> None:
    """Replaces each sum g by ``scale * g + l2 * w``."""
    dim = table.shape[1]
    for k in range(count):
        if k + _AHEAD < count:
            prefetch(table, rows[k + _AHEAD] * dim)
        row = rows[k]
        for j in range(dim):
            sums[k, j] = scale * sums[k, j] + l2 * load(table, row, j)


@kernel
def sgd(table: Any, rows: Any, count: Any, sums: Any, lr: Any, keep: Any) -> None:
    """Gradient descent."""
    dim = table.shape[1]
    for k in range(count):
        if k + _AHEAD < count:
            prefetch(table, rows[k + _AHEAD] * dim)
        row = rows[k]
        for j in range(dim):
            store(table, row, j, keep * load(table, row, j) - lr * sums[k, j])


@kernel
def adagrad(
    table: Any,
    accumulator: Any,
    rows: Any,
    count: Any,
    sums: Any,
    lr: Any,
    keep: Any,
    eps: Any,
) -> None:
    """Adagrad with an accumulator per element, (R, D)."""
    dim = table.shape[1]
    for k in range(count):
        if k + _AHEAD < count:
            prefetch(table, rows[k + _AHEAD] * dim)
            prefetch(accumulator, rows[k + _AHEAD] * dim)
        row = rows[k]
        for j in range(dim):
            g = sums[k, j]
            s = accumulator[row, j] + g * g
            accumulator[row, j] = s
            store(table, row, j, keep * load(table, row, j) - lr * g / (np.sqrt(s) + eps))


@kernel
def adam(
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
    """Lazy Adam."""
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
            step = lr * (m * correction1) / (np.sqrt(v * correction2) + eps)
            store(table, row, j, keep * load(table, row, j) - step)


@kernel
def adadelta(
    table: Any,
    square: Any,
    delta: Any,
    rows: Any,
    count: Any,
    sums: Any,
    lr: Any,
    rho: Any,
    eps: Any,
) -> None:
    """Adadelta; square averages g², delta averages the squared steps, both (R, D)."""
    dim = table.shape[1]
    rest = np.float32(1) - rho
    for k in range(count):
        if k + _AHEAD < count:
            prefetch(table, rows[k + _AHEAD] * dim)
            prefetch(square, rows[k + _AHEAD] * dim)
            prefetch(delta, rows[k + _AHEAD] * dim)
        row = rows[k]
        for j in range(dim):
            g = sums[k, j]
            v = rho * square[row, j] + rest * g * g
            u = delta[row, j]
            step = np.sqrt(u + eps) / np.sqrt(v + eps) * g
            square[row, j] = v
            delta[row, j] = rho * u + rest * step * step
            store(table, row, j, load(table, row, j) - lr * step)


@kernel
def rmsprop(
    table: Any,
    square: Any,
    rows: Any,
    count: Any,
    sums: Any,
    lr: Any,
    alpha: Any,
    eps: Any,
) -> None:
    """RMSprop; square averages g², (R, D)."""
    dim = table.shape[1]
    rest = np.float32(1) - alpha
    for k in range(count):
        if k + _AHEAD < count:
            prefetch(table, rows[k + _AHEAD] * dim)
            prefetch(square, rows[k + _AHEAD] * dim)
        row = rows[k]
        for j in range(dim):
            g = sums[k, j]
            v = alpha * square[row, j] + rest * g * g
            square[row, j] = v
            store(table, row, j, load(table, row, j) - lr * g / (np.sqrt(v) + eps))
