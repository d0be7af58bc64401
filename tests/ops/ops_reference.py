"""The formulas of `UpdateRule`, one row and one element after the other."""

import math

import numpy as np
import torch

# (table, feature) of each lookup, in the order of the outputs.
POOLED = [("shared", "a"), ("shared", "b"), ("own", "b")]
UNPOOLED = [("shared", "a"), ("shared", "b"), ("own", "c")]


def row_gradients(kjt, uses, seed, *, rule, pooled, dims, mean=False):
    """Returns table → row → gradient under `loss_of`, occurrence by occurrence."""
    generator = torch.Generator().manual_seed(seed)
    found = {table: {} for table, _ in uses}
    for table, feature in uses:
        jt = kjt[feature]
        ids = jt.values().tolist()
        weights = jt.weights_or_none()
        count = len(jt.lengths()) if pooled else len(ids)
        output = torch.randn(count, dims[table], generator=generator).double().numpy()
        output = np.clip(output, -rule.max_gradient, rule.max_gradient)
        start = 0
        for bag, length in enumerate(jt.lengths().tolist()):
            for i in range(start, start + length):
                g = output[bag if pooled else i]
                g = g * (1.0 if weights is None else float(weights[i]))
                g = g / length if mean else g
                found[table][ids[i]] = found[table].get(ids[i], 0.0) + g
            start += length
    return found


class Reference:
    """The formulas of `UpdateRule` in float64, with a loop over rows and elements."""

    def __init__(self, rule, weight):
        self.rule = rule
        self.w = weight.double().numpy().copy()
        shape = self.w.shape
        self.m, self.v = np.zeros(shape), np.zeros(shape)
        self.s = np.full(shape, rule.initial_accumulator_value)
        self.row_v = np.zeros(len(self.w))
        self.row_s = np.full(len(self.w), rule.initial_accumulator_value)
        self.t = 0

    def step(self, gradients):
        rule = self.rule
        self.t += 1
        if rule.all_rows:
            zero = np.zeros(self.w.shape[1])
            gradients = {r: gradients.get(r, zero) for r in range(len(self.w))}
        for r, g in gradients.items():
            g = g + rule.embedding_l2 * self.w[r]
            if rule.weight_decay_mode == "l2":
                g = g + rule.weight_decay * self.w[r]
            w = self.w[r].copy()
            if rule.weight_decay_mode == "decoupled":
                w -= rule.lr * rule.weight_decay * w
            self.w[r] = w - getattr(self, rule.kind)(r, g, self.w[r].copy())

    def sgd(self, r, g, w):
        return self.rule.lr * g

    def adagrad(self, r, g, w):
        steps = []
        for j in range(len(g)):
            self.s[r, j] += g[j] * g[j]
            steps.append(self.rule.lr * g[j] / (math.sqrt(self.s[r, j]) + self.rule.eps))
        return np.array(steps)

    def rowwise_adagrad(self, r, g, w):
        self.row_s[r] += sum(x * x for x in g) / len(g)
        return self.rule.lr * g / (math.sqrt(self.row_s[r]) + self.rule.eps)

    def _direction(self, r, g):
        """m̂ / (sqrt(v̂) + eps) with a v per element."""
        rule, steps = self.rule, []
        for j in range(len(g)):
            self.m[r, j] = rule.beta1 * self.m[r, j] + (1 - rule.beta1) * g[j]
            self.v[r, j] = rule.beta2 * self.v[r, j] + (1 - rule.beta2) * g[j] * g[j]
            m_hat = self.m[r, j] / (1 - rule.beta1**self.t)
            v_hat = self.v[r, j] / (1 - rule.beta2**self.t)
            steps.append(m_hat / (math.sqrt(v_hat) + rule.eps))
        return np.array(steps)

    def _rowwise_direction(self, r, g):
        """The same with a v per row."""
        rule, steps = self.rule, []
        mean_square = sum(x * x for x in g) / len(g)
        self.row_v[r] = rule.beta2 * self.row_v[r] + (1 - rule.beta2) * mean_square
        v_hat = self.row_v[r] / (1 - rule.beta2**self.t)
        for j in range(len(g)):
            self.m[r, j] = rule.beta1 * self.m[r, j] + (1 - rule.beta1) * g[j]
            m_hat = self.m[r, j] / (1 - rule.beta1**self.t)
            steps.append(m_hat / (math.sqrt(v_hat) + rule.eps))
        return np.array(steps)

    def adam(self, r, g, w):
        return self.rule.lr * self._direction(r, g)

    def partial_rowwise_adam(self, r, g, w):
        return self.rule.lr * self._rowwise_direction(r, g)

    def _trusted(self, step, w):
        step = step + self.rule.weight_decay * w
        norm = math.sqrt(sum(x * x for x in step))
        ratio = math.sqrt(sum(x * x for x in w)) / norm if norm else 0.0
        return self.rule.lr * ratio * step

    def lamb(self, r, g, w):
        return self._trusted(self._direction(r, g), w)

    def partial_rowwise_lamb(self, r, g, w):
        return self._trusted(self._rowwise_direction(r, g), w)

    def lars_sgd(self, r, g, w):
        rule = self.rule
        weight_norm = math.sqrt(sum(x * x for x in w))
        bound = math.sqrt(sum(x * x for x in g)) + rule.weight_decay * weight_norm
        rate = rule.lr * rule.eta * weight_norm / bound if bound else 0.0
        for j in range(len(g)):
            decayed = g[j] + rule.weight_decay * w[j]
            self.m[r, j] = rule.momentum * self.m[r, j] + rate * decayed
        return self.m[r].copy()

    def adadelta(self, r, g, w):
        rule, steps = self.rule, []
        for j in range(len(g)):
            self.v[r, j] = rule.rho * self.v[r, j] + (1 - rule.rho) * g[j] * g[j]
            step = math.sqrt(self.m[r, j] + rule.eps) / math.sqrt(self.v[r, j] + rule.eps) * g[j]
            self.m[r, j] = rule.rho * self.m[r, j] + (1 - rule.rho) * step * step
            steps.append(rule.lr * step)
        return np.array(steps)

    def rmsprop(self, r, g, w):
        rule, steps = self.rule, []
        for j in range(len(g)):
            self.v[r, j] = rule.alpha * self.v[r, j] + (1 - rule.alpha) * g[j] * g[j]
            steps.append(rule.lr * g[j] / (math.sqrt(self.v[r, j]) + rule.eps))
        return np.array(steps)
