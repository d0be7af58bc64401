"""Permutation importance, against shuffled raw columns and a model whose formula is known."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from google.protobuf import text_format
from models.models_contract import FEATURES, make_features, make_rows, parse
from sklearn.metrics import roc_auc_score

from tzrec.datasets.data_parser import DataParser
from tzrec.errors import DataError
from tzrec.features.feature import create_features
from tzrec.protos.feature_pb2 import FeatureConfig
from tzrec.training.permutation import RowPool, entries_of, permutation_importance

SIZES = (40, 40, 20)


def pool_of(rows, num_rows=1000):
    features = make_features()
    parser = DataParser(features, labels=["clk"])
    batches, start = [], 0
    for size in SIZES:
        part = {name: column[start : start + size] for name, column in rows.items()}
        batches.append(parser.to_batch(parse(features, part, ["clk"])))
        start += size
    return RowPool(batches, parser, num_rows)


def test_the_features_of_a_sequence_are_one_entry():
    assert "sequence_name" in FEATURES
    assert entries_of(make_features()) == {
        "user": ["user"],
        "item": ["item"],
        "tags": ["tags"],
        "price": ["price"],
        "click": ["click__item", "click__price"],
    }


@pytest.mark.parametrize(
    "features", [["user"], ["tags"], ["price"], ["click__item", "click__price"]]
)
def test_dealt_rows_are_those_of_shuffled_columns(features):
    rows = make_rows(sum(SIZES))
    pool = pool_of(rows)
    found = [shuffled.to_dict() for _, shuffled in pool.batches(features, torch.Generator())]
    order = torch.randperm(pool.num_rows, generator=torch.Generator()).tolist()
    moved = rows | {name: [rows[name][i] for i in order] for name in features}
    expected = [batch.to_dict() for batch, _ in pool_of(moved).batches()]
    assert [len(flat["clk"]) for flat in found] == list(SIZES)
    for flat, wanted in zip(found, expected, strict=True):
        assert flat.keys() == wanted.keys()
        for name, value in wanted.items():
            assert torch.equal(flat[name], value), name


def test_steps_keep_their_values():
    config = """sequence_id_feature { feature_name: "seen" expression: "user:seen"
      sequence_length: 9 sequence_delim: ";" value_dim: 0
      num_buckets: 50 embedding_dim: 8 }"""
    feature = text_format.Parse(config, FeatureConfig())
    parser = DataParser(create_features([feature]), labels=["clk"])
    texts = [text.replace(",", "\x03") for text in ("1,2;3", "", "4", "5,6,7;8,9", "10", "12,13")]

    def batch(texts):
        columns = {"seen": pa.array(texts), "clk": pa.array([0] * len(texts))}
        return parser.to_batch(parser.parse(columns))

    pool = RowPool([batch(texts[:4]), batch(texts[4:])], parser, 10)
    (first, second) = pool.batches(["seen"], torch.Generator().manual_seed(3))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3)).tolist()
    moved = [texts[i] for i in order]
    for (_, shuffled), part in ((first, moved[:4]), (second, moved[4:])):
        expected = batch(part).to_dict()
        assert "seen.key_lengths" in expected
        for name, value in shuffled.to_dict().items():
            assert torch.equal(value, expected[name]), name


def test_a_pool_takes_whole_batches_until_it_has_enough_rows():
    rows = make_rows(sum(SIZES))
    assert pool_of(rows, num_rows=41).num_rows == 80
    with pytest.raises(DataError, match="no row"):
        RowPool([], DataParser(make_features()), 10)


class PriceModel:
    """Scores a row by its price alone; wrapper and model in one."""

    def __init__(self):
        self.model, self.training = self, False
        self.scores, self.labels = [], []

    def eval(self):
        pass

    def train(self, mode):
        assert mode is self.training

    def __call__(self, batch):
        price = batch.dense_features["__BASE__"]["price"][:, 0]
        return price.sum(), ({}, {"probs": price}, batch)

    def loss(self, predictions, batch):
        return {"mean": predictions["probs"].mean()}

    def update_metric(self, predictions, batch, losses):
        self.scores.append(predictions["probs"])
        self.labels.append(batch.labels["clk"])

    def compute_metric(self):
        scores, labels = torch.cat(self.scores), torch.cat(self.labels)
        self.scores, self.labels = [], []
        return {"auc": torch.tensor(roc_auc_score(labels, scores))}


def test_only_what_a_model_reads_matters():
    rows = make_rows(sum(SIZES))
    rows["clk"] = [int(price > 0) for price in rows["price"]]
    entries = entries_of(make_features())
    base, found = permutation_importance(
        PriceModel(), pool_of(rows), entries, repeats=4, seed=1, device=torch.device("cpu")
    )
    assert base == {"auc": 1.0}
    changes = {one.name: one.changes["auc"] for one in found}
    assert list(changes) == list(entries)
    assert changes["user"] == changes["click"] == [0.0] * 4
    generator = torch.Generator().manual_seed(1)
    for name in entries:
        orders = [torch.randperm(100, generator=generator).numpy() for _ in range(4)]
        if name == "price":
            prices, labels = np.array(rows["price"]), np.array(rows["clk"])
            expected = [roc_auc_score(labels, prices[order]) - 1 for order in orders]
    np.testing.assert_allclose(changes["price"], expected, rtol=1e-6)


class PlaceModel(PriceModel):
    """Notes where the rows are that it gets."""

    def __init__(self):
        super().__init__()
        self.places = set()

    def __call__(self, batch):
        price = batch.dense_features["__BASE__"]["price"][:, 0]
        self.places.add(price.device.type)
        return price.sum(), ({}, {"probs": price}, batch)

    def update_metric(self, predictions, batch, losses):
        self.places |= {batch.labels["clk"].device.type, losses["mean"].device.type}

    def compute_metric(self):
        return {"second": torch.tensor(0.5), "first": torch.tensor(0.25)}


def test_rows_go_to_where_the_model_is():
    model, pool = PlaceModel(), pool_of(make_rows(sum(SIZES)))
    base, _ = permutation_importance(
        model, pool, {"price": ["price"]}, repeats=1, seed=1, device=torch.device("meta")
    )
    assert model.places == {"meta"}
    assert list(base) == ["second", "first"]  # as the model has them
