"""`UpdateRule`: how the rows of an embedding table move."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

Kind = Literal[
    "sgd",
    "adagrad",
    "rowwise_adagrad",
    "adam",
    "partial_rowwise_adam",
    "lamb",
    "partial_rowwise_lamb",
    "lars_sgd",
    "adadelta",
    "rmsprop",
]
WeightDecayMode = Literal["none", "l2", "decoupled", "own"]


@dataclasses.dataclass(frozen=True)
class UpdateRule:
    """An optimizer of embedding rows with its constants.

    The gradient g of a row is the sum over all occurrences of the row in the batch (with
    gradient accumulation: in all batches of the update). With ``max_gradient`` each element of
    the gradient of the lookup's *output* is clipped first, before mean pooling, weights and the
    sum over occurrences, as FBGEMM does.

    All formulas are lazy: rows that the batch does not hold are not touched, neither weight nor
    states, so a momentum of an absent row neither moves the row nor decays. For each row w once,
    in this order:

    1. ``g += embedding_l2 * w``
    2. with weight_decay_mode ``l2``: ``g += weight_decay * w``; with ``decoupled``:
       ``w *= 1 - lr * weight_decay``
    3. the formula of ``kind``. Squares, roots and products are by element, ``mean`` and ``|.|``
       (the Euclidean norm) over the row; ``m̂ = m / (1-β₁ᵗ)``, ``v̂ = v / (1-β₂ᵗ)``:

       * sgd: ``w -= lr * g``
       * adagrad: ``s += g²``, ``w -= lr * g / (sqrt(s) + eps)``
       * rowwise_adagrad: the same with one s per row, ``s += mean(g²)``
       * adam: ``m = β₁ m + (1-β₁) g``, ``v = β₂ v + (1-β₂) g²``,
         ``w -= lr * m̂ / (sqrt(v̂) + eps)``
       * partial_rowwise_adam: the same with one v per row, ``v = β₂ v + (1-β₂) mean(g²)``
       * lamb: m, v as adam, ``r = m̂ / (sqrt(v̂) + eps) + weight_decay * w``,
         ``w -= lr * |w| / |r| * r`` (You et al. 2020)
       * partial_rowwise_lamb: the same with the v of partial_rowwise_adam
       * lars_sgd: ``m = momentum * m + lr * eta * |w| / (|g| + weight_decay * |w|)
         * (g + weight_decay * w)``, ``w -= m`` (You et al. 2017)
       * adadelta: ``v = rho v + (1-rho) g²``, ``d = sqrt(u + eps) / sqrt(v + eps) * g``,
         ``u = rho u + (1-rho) d²``, ``w -= lr * d`` (Zeiler 2012, as `torch.optim.Adadelta`)
       * rmsprop: ``v = alpha v + (1-alpha) g²``, ``w -= lr * g / (sqrt(v) + eps)``
         (as `torch.optim.RMSprop`)

    t counts the updates of the table's collection, not of the row (as FBGEMM and
    `torch.optim.SparseAdam` do). Where lamb's or lars_sgd's denominator is zero the step is
    zero; a row that is all zeros has norm 0 and stays zero under both.

    Apart from that, and from adadelta and rmsprop, which FBGEMM lacks, these are the formulas
    of FBGEMM's table-batched embeddings.

    Attributes:
        kind: formula.
        lr: learning rate; schedules change the copy in the optimizer's param group.
        eps: keeps the denominator from zero.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        momentum: decay of lars_sgd's momentum.
        eta: trust coefficient of lars_sgd.
        rho: decay of both averages of adadelta.
        alpha: decay of the average of rmsprop.
        weight_decay: factor, applied to the rows of the batch.
        weight_decay_mode: where ``weight_decay`` enters; ``own`` = as the formula says.
        initial_accumulator_value: what Adagrad's s starts from.
        max_gradient: bound of the clipping, infinite = none.
        embedding_l2: L2 penalty on the rows of the batch, each row counted once.
        all_rows: every row of the table counts as one of the batch, most with a gradient of 0;
            so nothing is lazy.
    """

    kind: Kind
    lr: float
    eps: float = 1e-8
    beta1: float = 0.9
    beta2: float = 0.999
    momentum: float = 0.9
    eta: float = 0.001
    rho: float = 0.95
    alpha: float = 0.99
    weight_decay: float = 0.0
    weight_decay_mode: WeightDecayMode = "none"
    initial_accumulator_value: float = 0.0
    max_gradient: float = math.inf
    embedding_l2: float = 0.0
    all_rows: bool = False

    @property
    def clips(self) -> bool:
        """True when gradients of the output are clipped."""
        return not math.isinf(self.max_gradient)

    @property
    def decays(self) -> bool:
        """True when weight decay has an effect."""
        return self.weight_decay != 0 and self.weight_decay_mode != "none"

    @property
    def l2(self) -> float:
        """What w is multiplied by before it is added to the gradient."""
        decay = self.weight_decay if self.weight_decay_mode == "l2" else 0.0
        return self.embedding_l2 + decay

    def state_shapes(self, rows: int, dim: int) -> dict[str, tuple[int, ...]]:
        """Returns the states of a table of (rows, dim), by TorchRec's names.

        The first one is always ``momentum1``. ``step``, the t of bias correction, is a scalar.
        """
        whole, per_row = (rows, dim), (rows,)
        if self.kind == "sgd":
            return {}
        if self.kind in ("adagrad", "lars_sgd", "rmsprop"):
            return {"momentum1": whole}
        if self.kind == "rowwise_adagrad":
            return {"momentum1": per_row}
        if self.kind == "adadelta":
            return {"momentum1": whole, "acc_delta": whole}
        second = per_row if self.kind.startswith("partial_rowwise") else whole
        return {"momentum1": whole, "exp_avg_sq": second, "step": ()}

    def constants(self, lr: float, step: int) -> tuple[float, ...]:
        """Returns the scalar arguments of the kernel.

        Args:
            lr: learning rate of this update.
            step: t of bias correction.
        """
        keep = 1.0 - lr * (self.weight_decay if self.weight_decay_mode == "decoupled" else 0.0)
        if self.kind == "sgd":
            return lr, keep
        if self.kind in ("adagrad", "rowwise_adagrad"):
            return lr, keep, self.eps
        if self.kind == "lars_sgd":
            return lr * self.eta, self.momentum, self.weight_decay
        if self.kind == "adadelta":
            return lr, self.rho, self.eps
        if self.kind == "rmsprop":
            return lr, self.alpha, self.eps
        corrections = 1.0 / (1.0 - self.beta1**step), 1.0 / (1.0 - self.beta2**step)
        moments = (self.eps, self.beta1, self.beta2, *corrections)
        return (lr, self.weight_decay if "lamb" in self.kind else keep, *moments)
