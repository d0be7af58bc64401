"""Features and batches made by hand, so that the tests of the modules need no data room."""

import dataclasses
from types import SimpleNamespace
from typing import Any, Dict  # noqa: UP035

import numpy as np
import torch
from torch import nn
from torchrec.fx import Tracer
from torchrec.modules.embedding_configs import (
    DataType,
    EmbeddingBagConfig,
    EmbeddingConfig,
    PoolingType,
)

from tzrec.batch import (
    BASE_DATA_GROUP,
    Batch,
    JaggedTensor,
    KeyedJaggedTensor,
    KeyedTensor,
)


@dataclasses.dataclass
class FakeFeature:
    """The properties of a `BaseFeature` that the modules read."""

    name: str
    is_sparse: bool = True
    is_sequence: bool = False
    is_weighted: bool = False
    value_dim: int = 1
    num_embeddings: int = 10
    embedding_dim: int = 4
    embedding_name: str = ""
    pooling: str = "sum"
    data_group: str = BASE_DATA_GROUP
    trainable: bool = True
    init_fn: Any = None
    data_type: DataType = DataType.FP32
    dense_emb_config: Any = None

    @property
    def output_dim(self) -> int:
        if self.is_sparse or self.dense_emb_config is not None:
            return self.embedding_dim
        return self.value_dim

    def _config(self, cls: type, **more: Any) -> Any:
        return cls(
            num_embeddings=self.num_embeddings,
            embedding_dim=self.embedding_dim,
            name=self.embedding_name or f"{self.name}_emb",
            feature_names=[self.name],
            data_type=self.data_type,
            init_fn=self.init_fn,
            **more,
        )

    @property
    def emb_bag_config(self) -> EmbeddingBagConfig | None:
        if not self.is_sparse:
            return None
        pooling = PoolingType.MEAN if self.pooling == "mean" else PoolingType.SUM
        return self._config(EmbeddingBagConfig, pooling=pooling)

    @property
    def emb_config(self) -> EmbeddingConfig | None:
        return self._config(EmbeddingConfig) if self.is_sparse else None


def ids(name: str, **more: Any) -> FakeFeature:
    return FakeFeature(name, **more)


def dense(name: str, value_dim: int = 1, **more: Any) -> FakeFeature:
    return FakeFeature(name, is_sparse=False, value_dim=value_dim, **more)


def autodis(**fields: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"num_channels": 3, "temperature": 0.1, "keep_prob": 0.8} | fields)


# One row of a feature: ids, (ids, weights), ids per element, or vectors per step.
Rows = dict[str, list[Any]]


def to_parsed(features: list[FakeFeature], rows: Rows) -> dict[str, torch.Tensor]:
    """Returns the parse keys (reference 02 section 2.9) of rows given as Python lists."""
    parsed: dict[str, torch.Tensor] = {}
    for feature in features:
        name, column = feature.name, rows[feature.name]
        if not feature.is_sparse:
            if feature.is_sequence:
                parsed[f"{name}.lengths"] = torch.tensor(
                    [len(row) for row in column], dtype=torch.int32
                )
                column = [step for row in column for step in row]
            values = np.array(column, np.float32).reshape(len(column), feature.value_dim)
            parsed[f"{name}.values"] = torch.from_numpy(values)
            continue
        if feature.is_weighted:
            weights = [w for row in column for w in row.values()]
            parsed[f"{name}.weights"] = torch.tensor(weights, dtype=torch.float32)
            column = [list(row) for row in column]
        parsed[f"{name}.lengths"] = torch.tensor([len(row) for row in column], dtype=torch.int32)
        if feature.is_sequence and feature.value_dim != 1:
            column = [element for row in column for element in row]
            parsed[f"{name}.key_lengths"] = torch.tensor(
                [len(e) for e in column], dtype=torch.int32
            )
        values = [value for row in column for value in row]
        parsed[f"{name}.values"] = torch.tensor(values, dtype=torch.int64)
    return parsed


def to_batch(features: list[FakeFeature], parsed: dict[str, torch.Tensor]) -> Batch:
    """Builds the batch from parse keys with static keys only, so that it can be traced."""
    groups = list(dict.fromkeys(feature.data_group for feature in features))
    batch = Batch()
    for group in groups:
        own = [f for f in features if f.data_group == group]
        sparse = [f for f in own if f.is_sparse]
        plain = [f for f in own if not f.is_sparse and not f.is_sequence]
        multi = [f for f in sparse if f.is_sequence and f.value_dim != 1]
        if plain:
            batch.dense_features[group] = KeyedTensor(
                keys=[f.name for f in plain],
                length_per_key=[f.value_dim for f in plain],
                values=torch.cat([parsed[f"{f.name}.values"] for f in plain], dim=1),
            )
        if sparse:
            weighted = any(f.is_weighted for f in sparse)
            batch.sparse_features[group] = KeyedJaggedTensor(
                keys=[f.name for f in sparse],
                values=torch.cat([parsed[f"{f.name}.values"] for f in sparse]),
                lengths=torch.cat([_id_lengths(f, parsed) for f in sparse]),
                weights=torch.cat([_weights(f, parsed) for f in sparse]) if weighted else None,
            )
        if multi:
            batch.sequence_mulval_lengths[group] = KeyedJaggedTensor(
                keys=[f.name for f in multi],
                values=torch.cat([parsed[f"{f.name}.key_lengths"] for f in multi]),
                lengths=torch.cat([parsed[f"{f.name}.lengths"] for f in multi]),
            )
    for f in features:
        if not f.is_sparse and f.is_sequence:
            batch.sequence_dense_features[f.name] = JaggedTensor(
                values=parsed[f"{f.name}.values"], lengths=parsed[f"{f.name}.lengths"]
            )
    return batch


def _weights(feature: FakeFeature, parsed: dict[str, torch.Tensor]) -> torch.Tensor:
    if feature.is_weighted:
        return parsed[f"{feature.name}.weights"]
    return torch.ones_like(parsed[f"{feature.name}.values"], dtype=torch.float32)


def _id_lengths(feature: FakeFeature, parsed: dict[str, torch.Tensor]) -> torch.Tensor:
    lengths = parsed[f"{feature.name}.lengths"]
    if not feature.is_sequence or feature.value_dim == 1:
        return lengths
    ends = torch.ops.fbgemm.asynchronous_complete_cumsum(lengths)
    total = torch.ops.fbgemm.asynchronous_complete_cumsum(parsed[f"{feature.name}.key_lengths"])
    return total.index_select(0, ends[1:]) - total.index_select(0, ends[:-1])


class FromParsed(nn.Module):
    """Parse keys → batch → module, the shape of an exported model."""

    def __init__(self, features: list[FakeFeature], module: nn.Module) -> None:
        super().__init__()
        self._features = features
        self.module = module

    # typing.Dict: the tracer turns dict[...] into a name that TorchScript does not know.
    def forward(
        self,
        parsed: Dict[str, torch.Tensor],  # noqa: UP006
    ) -> Dict[str, torch.Tensor]:  # noqa: UP006
        return self.module(to_batch(self._features, parsed))


def script(module: nn.Module) -> Any:
    """Traces with TorchRec's tracer, then compiles."""
    module = module.eval()
    return torch.jit.script(torch.fx.GraphModule(module, Tracer().trace(module)))
