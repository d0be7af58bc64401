"""A model with embedding tables and bucketised features, as small as checkpoints need."""

from types import SimpleNamespace

import torch
from torch import nn
from torchrec.modules.embedding_configs import DataType, EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from tzrec.features.bucketizer import create_bucketizer
from tzrec.protos.feature_pb2 import IdFeature, RawFeature
from tzrec.training.checkpoint.save import Snapshot
from tzrec.training.checkpoint.tables import model_tables, vocabulary_files

WEIGHT = "model.ebc.embedding_bags.t.weight"


class Inner(nn.Module):
    def __init__(self, features, dim, data_type):
        super().__init__()
        self.features = features
        config = EmbeddingBagConfig(
            name="t",
            num_embeddings=max(feature.bucketizer.rows for feature in features),
            embedding_dim=dim,
            feature_names=[feature.name for feature in features],
            data_type=data_type,
        )
        self.ebc = EmbeddingBagCollection(tables=[config])
        self.head = nn.Linear(2, 1)


class Tables(nn.Module):
    """One table ``t`` of the features f0, f1, …, each given by the fields of its message."""

    def __init__(self, *fields, dim=2, data_type=DataType.FP32):
        super().__init__()
        features = [
            SimpleNamespace(name=f"f{i}", bucketizer=create_bucketizer(message(of)))
            for i, of in enumerate(fields)
        ]
        self.model = Inner(features, dim, data_type)

    @property
    def rows(self):
        return self.model.ebc.embedding_bags["t"].weight.detach()

    def fill(self):
        """Gives row r the values r + 0.25, r + 0.25, …"""
        values = torch.arange(len(self.rows)).float() + 0.25
        self.rows.copy_(values[:, None].expand_as(self.rows))
        return self


def message(fields):
    if "boundaries" in fields:
        return RawFeature(feature_name="f", **fields)
    return IdFeature(feature_name="f", embedding_dim=2, **fields)


class States:
    """An optimizer with row states, a row-wise state and a step of the table."""

    def __init__(self, model, value=0.0):
        rows, dim = model.rows.shape
        by_row = value + torch.arange(rows) * bool(value)
        self.table = {
            "t.momentum1": by_row[:, None].repeat(1, dim),
            "t.row": by_row.clone(),
            "t.step": torch.tensor(int(value)),
        }
        self.head = {"exp_avg": torch.full((1, 2), value)}

    def state_dict(self):
        return {"state": {WEIGHT: self.table, "model.head.weight": self.head}}

    def load_state_dict(self, state):
        self.table = state["state"][WEIGHT]
        self.head = state["state"]["model.head.weight"]


def snapshot(step, model, optimizer=None, **more):
    """Returns what a checkpoint of the model holds."""
    tables = model_tables(model)
    return Snapshot(
        step=step,
        model=model.state_dict(),
        optimizer=optimizer.state_dict() if optimizer else {},
        trainer={"state": {"step": step + 1}},
        data={"epoch": 0, "position": {"version": 1, "num_batches": 0, "sources": {}}},
        tables={weight: table.to_json() for weight, table in tables.items()},
        vocabularies=vocabulary_files(tables),
        **more,
    )
