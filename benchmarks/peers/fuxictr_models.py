"""The models of the comparison of FuxiCTR's layers, in the manner of its model zoo."""

from __future__ import annotations

from typing import Any

import torch
from fuxictr.pytorch.layers import (
    CrossNetV2,
    DIN_Attention,
    FactorizationMachine,
    FeatureEmbedding,
    FeatureEmbeddingDict,
    InnerProductInteraction,
    MLP_Block,
)
from fuxictr.pytorch.models import BaseModel, MultiTaskModel
from torch import Tensor, nn


class Clocked:
    """Notes what `fit` spends on validation and checkpoints, which is no part of the comparison."""

    def eval_step(self):
        self.meter_evaluation(super().eval_step)


class Model(Clocked, BaseModel):
    """A rank model that is ready once its layers are there."""

    def ready(self, rate: float) -> None:
        self.compile("adam", "binary_crossentropy", rate)
        self.reset_parameters()
        self.model_to_device()

    def answer(self, logit: Tensor) -> dict[str, Tensor]:
        return {"y_pred": self.output_activation(logit)}


class DeepFM(Model):
    def __init__(self, feature_map, dim: int, rate: float, sizes: dict[str, Any], **kwargs):
        super().__init__(feature_map, **kwargs)
        self.embedding_layer = FeatureEmbedding(feature_map, dim)
        self.fm = FactorizationMachine(feature_map)
        width = dim * feature_map.num_fields
        self.mlp = MLP_Block(input_dim=width, output_dim=1, hidden_units=list(sizes["deep"]))
        self.ready(rate)

    def forward(self, inputs):
        X = self.get_inputs(inputs)
        vectors = self.embedding_layer(X)
        return self.answer(self.fm(X, vectors) + self.mlp(vectors.flatten(start_dim=1)))


class DCNv2(Model):
    def __init__(self, feature_map, dim: int, rate: float, sizes: dict[str, Any], **kwargs):
        super().__init__(feature_map, **kwargs)
        self.embedding_layer = FeatureEmbedding(feature_map, dim)
        width = dim * feature_map.num_fields
        self.cross = CrossNetV2(width, sizes["crosses"])
        self.mlp = MLP_Block(input_dim=width, hidden_units=list(sizes["deep"]))
        self.fc = nn.Linear(width + sizes["deep"][-1], 1)
        self.ready(rate)

    def forward(self, inputs):
        vectors = self.embedding_layer(self.get_inputs(inputs)).flatten(start_dim=1)
        both = torch.cat([self.cross(vectors), self.mlp(vectors)], dim=1)
        return self.answer(self.fc(both))


class DLRM(Model):
    """Dot products of the ids' vectors and of one that an MLP makes of all numbers."""

    def __init__(self, feature_map, dim: int, rate: float, sizes: dict[str, Any], **kwargs):
        super().__init__(feature_map, **kwargs)
        self.numbers, ids = sizes["numbers"], sizes["ids"]
        self.embedding_layer = FeatureEmbedding(feature_map, dim, required_feature_columns=ids)
        bottom, fields = list(sizes["bottom"]), len(ids) + 1
        self.bottom = MLP_Block(input_dim=len(self.numbers), hidden_units=bottom)
        self.dots = InnerProductInteraction(fields, output="inner_product")
        width = fields * (fields - 1) // 2 + fields * dim
        self.top = MLP_Block(input_dim=width, output_dim=1, hidden_units=list(sizes["top"]))
        self.ready(rate)

    def forward(self, inputs):
        X = self.get_inputs(inputs)
        numbers = torch.stack([X[name].view(-1) for name in self.numbers], dim=1).float()
        fields = torch.cat([self.bottom(numbers).unsqueeze(1), self.embedding_layer(X)], dim=1)
        return self.answer(self.top(torch.cat([self.dots(fields), fields.flatten(1)], dim=1)))


class DIN(Model):
    """The candidate's category, brand and id attend to their histories at once."""

    def __init__(self, feature_map, dim: int, rate: float, sizes: dict[str, Any], **kwargs):
        super().__init__(feature_map, **kwargs)
        self.steps = sizes["steps"]
        self.embedding_layer = FeatureEmbeddingDict(feature_map, dim)
        self.attention = DIN_Attention(
            dim * len(self.steps), attention_units=list(sizes["attention"])
        )
        width = dim * feature_map.num_fields
        self.mlp = MLP_Block(input_dim=width, output_dim=1, hidden_units=list(sizes["deep"]))
        self.ready(rate)

    def forward(self, inputs):
        X = self.get_inputs(inputs)
        vectors = self.embedding_layer(X)
        target = torch.cat([vectors[of] for of in self.steps.values()], dim=-1)
        history = torch.cat([vectors.pop(name) for name in self.steps], dim=-1)
        mask = X[next(iter(self.steps))].long() != 0
        pooled = self.attention(target, history, mask)
        return self.answer(self.mlp(torch.cat([*vectors.values(), pooled], dim=-1)))


class MMoE(Clocked, MultiTaskModel):
    def __init__(self, feature_map, dim: int, rate: float, sizes: dict[str, Any], **kwargs):
        tasks = kwargs["task"]
        super().__init__(feature_map, num_tasks=len(tasks), **kwargs)
        self.embedding_layer = FeatureEmbedding(feature_map, dim)
        width, deep = dim * feature_map.num_fields, list(sizes["deep"])
        count = range(len(tasks))
        self.experts = nn.ModuleList(
            MLP_Block(input_dim=width, hidden_units=deep) for _ in range(sizes["experts"])
        )
        self.gates = nn.ModuleList(nn.Linear(width, sizes["experts"]) for _ in count)
        self.towers = nn.ModuleList(
            MLP_Block(input_dim=deep[-1], output_dim=1, hidden_units=list(sizes["tower"]))
            for _ in count
        )
        self.compile("adam", ["binary_crossentropy"] * len(tasks), rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs):
        vectors = self.embedding_layer(self.get_inputs(inputs)).flatten(start_dim=1)
        experts = torch.stack([expert(vectors) for expert in self.experts], dim=1)
        found = {}
        for i, label in enumerate(self.feature_map.labels):
            weights = self.gates[i](vectors).softmax(dim=-1).unsqueeze(-1)
            logit = self.towers[i]((weights * experts).sum(dim=1))
            found[f"{label}_pred"] = self.output_activation[i](logit)
        return found
