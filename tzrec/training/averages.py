"""Averaged dense weights (``dense_optimizer.ema``) in evaluation, export and prediction."""

from __future__ import annotations

import logging

from torch import nn

from tzrec.errors import CheckpointError
from tzrec.optim.ema import DenseEma
from tzrec.optim.sparse_parameters import split_sparse_parameters
from tzrec.protos.eval_pb2 import EvalConfig
from tzrec.protos.export_pb2 import ExportConfig
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.checkpoint.report import RestoreReport
from tzrec.training.checkpoint.restore import open_checkpoint
from tzrec.training.location import Location

logger = logging.getLogger("tzrec")


def uses_averages(section: EvalConfig | ExportConfig, train_config: TrainConfig) -> bool:
    """Returns whether the averages take the place of the dense weights.

    Args:
        section: its ``use_dense_ema`` decides when it is written.
        train_config: else whether training makes averages.
    """
    if section.HasField("use_dense_ema"):
        return section.use_dense_ema
    return train_config.dense_optimizer.HasField("ema")


def restore_weights(model: nn.Module, checkpoint: Location, *, averages: bool) -> RestoreReport:
    """Loads the weights of a checkpoint, dense ones averaged on demand, into ``model``.

    Args:
        model: in one process, not distributed.
        checkpoint: its directory.
        averages: take the averages of the dense weights.

    Raises:
        CheckpointError: the files cannot be read or do not fit, or there are no averages.
    """
    with open_checkpoint(model, checkpoint) as restorer:
        report = restorer.weights()
        if not averages:
            return report
        ema = DenseEma(_dense_parameters(model), 0.0)
        found = restorer.averages(ema)
        if found.skipped or found.missing:
            lacking = found.skipped or f"it has no averages of {', '.join(found.missing)}"
            raise CheckpointError(
                f"the averaged weights of {checkpoint} cannot be used: {lacking}",
                hint="set use_dense_ema: false in eval_config or export_config to use the "
                "weights themselves",
            )
        ema.apply()
    logger.info("dense weights are averages over %d updates", ema.num_averaged)
    return report


def _dense_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    trainable, frozen = split_sparse_parameters(model)
    tables = {id(parameter) for parameter in [*trainable, *frozen]}
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) not in tables
    }
