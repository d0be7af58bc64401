"""Optimizers of the embedding tables that TorchRec shards: which there are, by what names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_training import WeightDecayMode
from torch import nn
from torchrec import optim as torchrec_optim
from torchrec.modules.embedding_configs import PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from tzrec.errors import ConfigError, Unsupported
from tzrec.ops.cpu.rule import UpdateRule

_FROZEN = UpdateRule("sgd", 0.0)

# TorchRec cannot store the momentum of FBGEMM's lars_sgd; FBGEMM has no adadelta and no rmsprop.
_CLASSES: Mapping[str, type[torch.optim.Optimizer]] = {
    "sgd": torchrec_optim.SGD,
    "adagrad": torchrec_optim.Adagrad,
    "rowwise_adagrad": torchrec_optim.RowWiseAdagrad,
    "adam": torchrec_optim.Adam,
    "partial_rowwise_adam": torchrec_optim.PartialRowWiseAdam,
    "lamb": torchrec_optim.LAMB,
    "partial_rowwise_lamb": torchrec_optim.PartialRowWiseLAMB,
}
# Those that FBGEMM has for a CPU.
_CPU_KINDS = ("sgd", "adagrad", "rowwise_adagrad")


def refuse_inexact(
    rule: UpdateRule | None,
    device: torch.device,
    model: nn.Module,
    tables: Mapping[str, nn.Parameter],
) -> None:
    """Raises for what TorchRec's kernels would not do, or would silently leave out.

    Args:
        rule: how tables move; None = they do not.
        device: of the processes.
        model: holds the collections.
        tables: parameter name → table.

    Raises:
        ConfigError: the size of a table's rows is none that the kernels have.
        Unsupported: the optimizer cannot be had exactly.
    """
    where = "several processes" if device.type == "cpu" else "a GPU"
    odd = sorted({weight.shape[1] for weight in tables.values() if weight.shape[1] % 4})
    if odd:
        raise ConfigError(f"embedding_dim {odd[0]}: with {where} it must be a multiple of 4")
    if rule is None:
        return
    if rule.embedding_l2 != 0:
        raise Unsupported(f"embedding_l2 with {where} comes with a later version")
    kinds = _CPU_KINDS if device.type == "cpu" else tuple(_CLASSES)
    what = ""
    if rule.kind not in kinds:
        what = rule.kind
    elif device.type == "cpu" and rule.decays:
        what = f"{rule.kind} with weight_decay"
    elif device.type == "cpu" and rule.clips and _pools_means(model):
        # Row-wise shards divide by the length before they clip, table-wise ones after it.
        what = f"{rule.kind} with gradient_clipping and mean pooling"
    if what:
        raise Unsupported(
            f"sparse optimizer {what} on {'a CPU with ' if device.type == 'cpu' else ''}{where}",
            hint=f"train in one process on a CPU, or use {', '.join(kinds)}",
        )


def _pools_means(model: nn.Module) -> bool:
    return any(
        config.pooling == PoolingType.MEAN
        for module in model.modules()
        if isinstance(module, EmbeddingBagCollection)
        for config in module.embedding_bag_configs()
    )


def attach(weights: Collection[nn.Parameter], rule: UpdateRule | None) -> None:
    """Tells TorchRec's planner and sharders the optimizer of tables.

    Args:
        weights: tables.
        rule: how they move; None = they do not.
    """
    # A fifth of a second that a single process on a CPU can do without.
    from torch.distributed.optim import _apply_optimizer_in_backward

    optimizer_class, kwargs = torchrec_optimizer(rule or _FROZEN)
    for weight in weights:
        _apply_optimizer_in_backward(optimizer_class, [weight], dict(kwargs), register_hook=False)


def torchrec_optimizer(rule: UpdateRule) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """Returns the optimizer class that TorchRec knows a rule by, and its arguments."""
    kwargs: dict[str, Any] = {"lr": rule.lr, "eps": rule.eps}
    if rule.clips:
        kwargs |= {"gradient_clipping": True, "max_gradient": rule.max_gradient}
    if rule.kind == "rowwise_adagrad":
        if rule.weight_decay_mode != "none":
            modes = {"l2": WeightDecayMode.L2, "decoupled": WeightDecayMode.DECOUPLE}
            kwargs |= {
                "weight_decay": rule.weight_decay,
                "weight_decay_mode": modes[rule.weight_decay_mode],
            }
    elif rule.kind not in ("sgd", "adagrad"):
        # FBGEMM's formulas say where weight decay enters.
        kwargs |= {"beta1": rule.beta1, "beta2": rule.beta2, "weight_decay": rule.weight_decay}
    return _CLASSES[rule.kind], kwargs
