"""The models of the comparison as an engineer writes them with TorchRec: tables, and a dense part.

The networks are those of our `run_tzrec.py`, layer by layer; nothing here is of tzrec.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from measure import ATTENTION, BOTTOM, CROSSES, DEEP, DIM, EXPERTS, LAST, TOP, TOWER
from shapes import LONGEST, Shape
from torch import Tensor, nn
from torchrec import (
    EmbeddingBagCollection,
    EmbeddingBagConfig,
    EmbeddingCollection,
    EmbeddingConfig,
    JaggedTensor,
    KeyedJaggedTensor,
    KeyedTensor,
)
from torchrec.streamable import Pipelineable

# FBGEMM wants widths that 4 divides: an id's linear weight is the sum of a row.
WIDE = 4


@dataclass
class Batch(Pipelineable):
    """Rows of a step, B of them.

    Attributes:
        numbers: (B, number columns).
        ids: one id a row and column.
        steps: the histories and the columns they share tables with; empty without histories.
        labels: (B, labels).
    """

    numbers: Tensor
    ids: KeyedJaggedTensor
    steps: KeyedJaggedTensor
    labels: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        """Returns the rows on a device."""
        parts = (self.numbers, self.ids, self.steps, self.labels)
        return Batch(*(part.to(device, non_blocking=non_blocking) for part in parts))

    def record_stream(self, stream: torch.Stream) -> None:
        """Tells the allocator of a GPU that a stream uses the rows."""
        for part in (self.numbers, self.ids, self.steps, self.labels):
            part.record_stream(stream)

    def pin_memory(self) -> Batch:
        """Returns the rows in memory that a GPU reads at once."""
        parts = (self.numbers, self.ids, self.steps, self.labels)
        return Batch(*(part.pin_memory() for part in parts))


class Task(nn.Module):
    """Tables, the dense part, the loss.

    Args:
        model: as `measure.Job.model`.
        shape: the columns.
        num_labels: L.
        precision: ``FP32``, or ``BF16`` for autocast of the dense part.
    """

    def __init__(self, model: str, shape: Shape, num_labels: int, precision: str) -> None:
        super().__init__()
        shared = tuple(shape.steps.values()) if model == "din" else ()
        pooled = [name for name in shape.ids if name not in shared]
        self.pooled_tables = EmbeddingBagCollection(
            tables=_tables(shape, pooled, wide=model == "deepfm"), device=torch.device("meta")
        )
        self.step_tables = _step_tables(shape) if shared else None
        kinds = {"deepfm": DeepFM, "dcn_v2": DCNv2, "dlrm": DLRM, "mmoe": MMoE, "din": DIN}
        self.dense = Dense(kinds[model](shape, num_labels), _groups(model, pooled), precision)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the loss, and the logits (B, L)."""
        pooled = self.pooled_tables(batch.ids)
        steps = self.step_tables(batch.steps) if self.step_tables is not None else None
        return self.dense(batch.numbers, pooled, steps, batch.labels)


def _tables(shape: Shape, names: list[str], *, wide: bool) -> list[EmbeddingBagConfig]:
    def table(name: str, feature: str, dim: int) -> EmbeddingBagConfig:
        return EmbeddingBagConfig(
            name=name, embedding_dim=dim, num_embeddings=shape.ids[feature], feature_names=[feature]
        )

    found = [table(name, name, DIM) for name in names]
    return found + [table(f"{name}_wide", name, WIDE) for name in names if wide]


def _step_tables(shape: Shape) -> EmbeddingCollection:
    tables = [
        EmbeddingConfig(
            name=of, embedding_dim=DIM, num_embeddings=shape.ids[of], feature_names=[of, name]
        )
        for name, of in shape.steps.items()
    ]
    return EmbeddingCollection(tables=tables, device=torch.device("meta"))


def _groups(model: str, names: list[str]) -> list[list[str]]:
    """Returns the keys of the pooled vectors of each input of the dense part."""
    if model != "deepfm":
        return [names]
    # A feature of two tables has a key for each.
    return [[f"{n}@{n}_wide" for n in names], [f"{n}@{n}" for n in names]]


class Dense(nn.Module):
    """Regroups the vectors, runs a network, in BF16 where asked, and takes the loss."""

    def __init__(self, network: nn.Module, groups: list[list[str]], precision: str) -> None:
        super().__init__()
        self.network, self.groups, self.bf16 = network, groups, precision == "BF16"

    def forward(
        self,
        numbers: Tensor,
        pooled: KeyedTensor,
        steps: dict[str, JaggedTensor] | None,
        labels: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Returns the loss, and the logits (B, L)."""
        parts: list[Any] = [numbers, *KeyedTensor.regroup([pooled], self.groups)]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            logits = self.network(*(parts if steps is None else [*parts, steps]))
        logits = logits.float()
        return nn.functional.binary_cross_entropy_with_logits(logits, labels), logits.detach()


def mlp(width: int, sizes: tuple[int, ...], last: int = 0) -> nn.Sequential:
    """Returns linear layers, a ReLU after each, and a linear layer of ``last`` outputs."""
    layers: list[nn.Module] = []
    for size in sizes:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return nn.Sequential(*layers, *([nn.Linear(width, last)] if last else []))


class DeepFM(nn.Module):
    def __init__(self, shape: Shape, num_labels: int) -> None:
        super().__init__()
        self.deep = mlp(len(shape.floats) + DIM * len(shape.ids), DEEP, num_labels)

    def forward(self, numbers: Tensor, wide: Tensor, vectors: Tensor) -> Tensor:
        fields = vectors.unflatten(1, (-1, DIM))
        pairs = 0.5 * (fields.sum(dim=1).square() - fields.square().sum(dim=1))
        deep = self.deep(torch.cat([numbers, vectors], dim=1))
        return wide.sum(dim=1, keepdim=True) + pairs.sum(dim=1, keepdim=True) + deep


class DCNv2(nn.Module):
    def __init__(self, shape: Shape, num_labels: int) -> None:
        super().__init__()
        width = len(shape.floats) + DIM * len(shape.ids)
        self.crosses = nn.ModuleList(nn.Linear(width, width) for _ in range(CROSSES))
        self.deep = mlp(width, DEEP)
        self.final = mlp(width + DEEP[-1], LAST, num_labels)

    def forward(self, numbers: Tensor, vectors: Tensor) -> Tensor:
        first = crossed = torch.cat([numbers, vectors], dim=1)
        for cross in self.crosses:
            crossed = first * cross(crossed) + crossed
        return self.final(torch.cat([crossed, self.deep(first)], dim=1))


class DLRM(nn.Module):
    pairs: Tensor

    def __init__(self, shape: Shape, num_labels: int) -> None:
        super().__init__()
        fields = len(shape.ids) + 1
        self.bottom = mlp(len(shape.floats), BOTTOM)
        rows, columns = torch.triu_indices(fields, fields, offset=1)
        self.register_buffer("pairs", rows * fields + columns, persistent=False)
        self.top = mlp(len(self.pairs) + fields * DIM, TOP, num_labels)

    def forward(self, numbers: Tensor, vectors: Tensor) -> Tensor:
        every = torch.cat([self.bottom(numbers), vectors], dim=1)
        fields = every.unflatten(1, (-1, DIM))
        dots = torch.bmm(fields, fields.transpose(1, 2)).flatten(1).index_select(1, self.pairs)
        return self.top(torch.cat([dots, every], dim=1))


class MMoE(nn.Module):
    def __init__(self, shape: Shape, num_labels: int) -> None:
        super().__init__()
        width = DIM * len(shape.ids)
        self.experts = nn.ModuleList(mlp(width, DEEP) for _ in range(EXPERTS))
        self.gates = nn.ModuleList(nn.Linear(width, EXPERTS) for _ in range(num_labels))
        self.towers = nn.ModuleList(mlp(DEEP[-1], TOWER, 1) for _ in range(num_labels))

    def forward(self, numbers: Tensor, vectors: Tensor) -> Tensor:
        experts = torch.stack([expert(vectors) for expert in self.experts], dim=1)
        logits = []
        for gate, tower in zip(self.gates, self.towers, strict=True):
            weights = gate(vectors).softmax(dim=1).unsqueeze(1)
            logits.append(tower(torch.bmm(weights.to(experts.dtype), experts).squeeze(1)))
        return torch.cat(logits, dim=1)


class DIN(nn.Module):
    """The candidate attends to its history, padded to the longest of the set."""

    def __init__(self, shape: Shape, num_labels: int) -> None:
        super().__init__()
        self.steps = dict(shape.steps)
        width = DIM * len(self.steps)
        self.attention = mlp(4 * width, ATTENTION, 1)
        self.deep = mlp(len(shape.floats) + DIM * len(shape.ids), DEEP)
        self.final = mlp(DEEP[-1] + width, LAST, num_labels)

    def forward(self, numbers: Tensor, vectors: Tensor, steps: dict[str, JaggedTensor]) -> Tensor:
        query = torch.cat([steps[of].values() for of in self.steps.values()], dim=1)
        padded = [steps[name].to_padded_dense(LONGEST) for name in self.steps]
        history = torch.cat(padded, dim=2)
        lengths = steps[next(iter(self.steps))].lengths()
        queries = query.unsqueeze(1).expand_as(history)
        pairs = [queries, history, queries - history, queries * history]
        scores = self.attention(torch.cat(pairs, dim=2)).squeeze(2)
        beyond = torch.arange(LONGEST) >= lengths.unsqueeze(1)
        weights = scores.float().masked_fill(beyond, float("-inf")).softmax(dim=1)
        interest = torch.bmm(weights.unsqueeze(1), history).squeeze(1)
        deep = self.deep(torch.cat([numbers, vectors, query], dim=1))
        return self.final(torch.cat([deep, interest], dim=1))
