"""A causal transformer in plain NumPy, one step and one head at a time."""

import numpy as np


def _norm(state, name, x):
    centred = x - x.mean(-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return normal * state[f"{name}.weight"] + state[f"{name}.bias"]


def _linear(state, name, x):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def transform(state, steps, *, heads=1, prefix=""):
    """States (T, D) of one history (T, D), oldest first; an empty one is a step of zeros."""
    steps = np.asarray(steps, np.float64)
    steps = steps if len(steps) else np.zeros((1, steps.shape[1]))
    positions = state[f"{prefix}positions"]
    most, dim = positions.shape
    steps = steps[-most:]
    x = steps * np.sqrt(dim) + positions[: len(steps)][::-1]
    size, layer = dim // heads, 0
    while f"{prefix}layers.{layer}.norm1.weight" in state:
        name = f"{prefix}layers.{layer}"
        query, key, value = np.split(
            _linear(state, f"{name}.in_proj", _norm(state, f"{name}.norm1", x)), 3, axis=1
        )
        parts = []
        for h in range(heads):
            at = slice(h * size, (h + 1) * size)
            rows = []
            for t in range(len(x)):
                scores = query[t, at] @ key[: t + 1, at].T / np.sqrt(size)
                weights = np.exp(scores - scores.max())
                rows.append(weights / weights.sum() @ value[: t + 1, at])
            parts.append(np.array(rows))
        x = x + _linear(state, f"{name}.out_proj", np.concatenate(parts, 1))
        hidden = np.maximum(_linear(state, f"{name}.linear1", _norm(state, f"{name}.norm2", x)), 0)
        x = x + _linear(state, f"{name}.linear2", hidden)
        layer += 1
    return _norm(state, f"{prefix}norm", x)
