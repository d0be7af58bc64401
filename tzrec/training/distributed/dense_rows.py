"""Un-pooled look-ups of tables that every rank holds whole, on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from fbgemm_gpu.split_embedding_configs import SparseType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    DenseTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor, nn


class DenseRows(DenseTableBatchedEmbeddingBagsCodegen):
    """FBGEMM's kernel of dense tables, whose CPU form sums up what was not to be pooled.

    Here each id gives a row, as its form for GPUs does.

    Attributes:
        table_of: number of the table of each feature.
    """

    table_of: list[int]

    def forward(
        self,
        indices: Tensor,
        offsets: Tensor,
        per_sample_weights: Tensor | None = None,
        feature_requires_grad: Tensor | None = None,
        batch_size_per_feature_per_rank: list[list[int]] | None = None,
    ) -> Tensor:
        """Returns the row of each id, (ids, dim).

        Args:
            indices: ids, feature by feature.
            offsets: where the ids of each row of each feature begin, and the end.
            per_sample_weights: not for rows.
            feature_requires_grad: not for rows.
            batch_size_per_feature_per_rank: only for batches that differ from feature to feature.
        """
        assert per_sample_weights is None
        assert not batch_size_per_feature_per_rank
        features = len(self.table_of)
        rows = (len(offsets) - 1) // features
        ends = offsets[rows::rows].tolist() if rows else [0] * features
        parts, start = [], 0
        weights = self._tables()
        for table, end in zip(self.table_of, ends, strict=True):
            parts.append(F.embedding(indices[start:end].long(), weights[table]))
            start = end
        return parts[0] if features == 1 else torch.cat(parts)

    def _tables(self) -> list[Tensor]:
        """Returns the tables as views of the one parameter, so that it gets the gradient."""
        tables, start = [], 0
        for rows, dim in self.embedding_specs:
            tables.append(self.weights[start : start + rows * dim].view(rows, dim))
            start += rows * dim
        return tables


def look_up_rows(model: nn.Module) -> None:
    """Mends the un-pooled data-parallel look-ups of a sharded model on a CPU."""
    lookups = [
        lookup for module in model.modules() for lookup in getattr(module, "_lookups", None) or ()
    ]
    for embedding in (module for lookup in lookups for module in lookup.modules()):
        kernel: Any = getattr(embedding, "_emb_module", None)
        if (
            type(kernel) is DenseTableBatchedEmbeddingBagsCodegen
            and kernel.use_cpu
            and kernel.pooling_mode == PoolingMode.NONE
        ):
            assert kernel.weights_precision == SparseType.FP32
            kernel.__class__ = DenseRows
            kernel.table_of = list(getattr(embedding, "_feature_table_map", ()))
