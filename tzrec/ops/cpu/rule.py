"""`UpdateRule`: how the rows of an embedding table move."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

Kind = Literal["sgd", "adagrad", "rowwise_adagrad", "adam"]
WeightDecayMode = Literal["none", "l2", "decoupled"]


@dataclasses.dataclass(frozen=True)
class UpdateRule:
    """An optimizer of embedding rows with its constants.

    The gradient g of a row is the sum over all occurrences of the row in the batch. Rows that
    the batch does not hold are not touched: neither weight nor states. For each row w once, in
    this order:

    1. ``g += embedding_l2 * w``
    2. ``g = clip(g, -max_gradient, max_gradient)``, element by element
    3. with weight_decay_mode ``l2``: ``g += weight_decay * w``; with ``decoupled``:
       ``w *= 1 - lr * weight_decay``
    4. the formula of ``kind``:

       * sgd: ``w -= lr * g``
       * adagrad: ``s += g²``, ``w -= lr * g / (sqrt(s) + eps)``
       * rowwise_adagrad: the same with one s per row, ``s += mean(g²)``
       * adam: ``m = β₁ m + (1-β₁) g``, ``v = β₂ v + (1-β₂) g²``,
         ``w -= lr * (m / (1-β₁ᵗ)) / (sqrt(v / (1-β₂ᵗ)) + eps)`` where t counts the backward
         passes of the table's collection, not of the row (as FBGEMM and
         `torch.optim.SparseAdam` do). m and v of an absent row do not decay.

    These are the formulas of FBGEMM's table-batched embeddings.

    Attributes:
        kind: formula.
        lr: learning rate; schedules change the copy in the optimizer's param group.
        eps: keeps the denominator from zero.
        beta1: decay of Adam's first moment.
        beta2: decay of Adam's second moment.
        weight_decay: factor, applied to the rows of the batch.
        weight_decay_mode: where ``weight_decay`` enters.
        initial_accumulator_value: what Adagrad's s starts from.
        max_gradient: bound of the clipping, infinite = none.
        embedding_l2: L2 penalty on the rows of the batch, each row counted once.
    """

    kind: Kind
    lr: float
    eps: float = 1e-8
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    weight_decay_mode: WeightDecayMode = "none"
    initial_accumulator_value: float = 0.0
    max_gradient: float = math.inf
    embedding_l2: float = 0.0

    @property
    def changes_gradient(self) -> bool:
        """True when an L2 penalty or clipping comes before the optimizer's own formula."""
        return self.embedding_l2 != 0 or not math.isinf(self.max_gradient)

    @property
    def decays(self) -> bool:
        """True when weight decay has an effect."""
        return self.weight_decay != 0 and self.weight_decay_mode != "none"
