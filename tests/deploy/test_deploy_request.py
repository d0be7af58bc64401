"""`Predictor.predict_request`: a context and its items score like the rows they stand for."""

from __future__ import annotations

import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from deploy_jobs import MODELS, make_rows, write_config

from tzrec.config import prepare
from tzrec.datasets.data_parser import DataParser
from tzrec.deploy import Predictor
from tzrec.deploy.export import export_artefact
from tzrec.deploy.options import ExportOptions
from tzrec.deploy.rows import repeat_short
from tzrec.errors import DataError, FeatureError
from tzrec.fg import handler
from tzrec.training.build import build_features, build_model

FG_CONFIG = """
train_input_path: "{data}"
eval_input_path: ""
model_dir: "run"
train_config {{ num_epochs: 1
    sparse_optimizer {{ adagrad_optimizer {{ lr: 0.1 }} constant_learning_rate {{}} }}
    dense_optimizer {{ adam_optimizer {{ lr: 0.01 }} constant_learning_rate {{}} }} }}
data_config {{ dataset_type: ParquetDataset batch_size: 32 label_fields: "label"
    fg_mode: {fg_mode} fg_threads: 4 num_workers: 1 }}
feature_configs {{ id_feature {{ feature_name: "user" expression: "user:user"
    hash_bucket_size: 50 embedding_dim: 8 }} }}
feature_configs {{ id_feature {{ feature_name: "tags" expression: "user:tags"
    hash_bucket_size: 50 embedding_dim: 8 }} }}
feature_configs {{ id_feature {{ feature_name: "item" expression: "item:item"
    hash_bucket_size: 50 embedding_dim: 8 }} }}
feature_configs {{ raw_feature {{ feature_name: "age" expression: "user:age" boundaries: [20, 40]
    embedding_dim: 8 }} }}
feature_configs {{ raw_feature {{ feature_name: "price" expression: "item:price" }} }}
feature_configs {{ combo_feature {{ feature_name: "both" expression: ["user:user", "item:item"]
    hash_bucket_size: 90 embedding_dim: 8 }} }}
feature_configs {{ lookup_feature {{ feature_name: "seen" map: "user:counts" key: "item:item"
    default_value: "0" }} }}
feature_configs {{ match_feature {{ feature_name: "match" nested_map: "user:nested"
    pkey: "item:item" skey: "item:color" default_value: "0" }} }}
feature_configs {{ expr_feature {{ feature_name: "ratio" expression: "price / (1 + age)"
    variables: ["item:price", "user:age"] default_value: "0" }} }}
feature_configs {{ overlap_feature {{ feature_name: "title" query: "user:words"
    title: "item:words_of_item" method: "query_common_ratio" }} }}
feature_configs {{ sequence_feature {{ sequence_name: "click" sequence_length: 9
    sequence_delim: ";"
    features {{ id_feature {{ feature_name: "item" expression: "item:item"
        hash_bucket_size: 50 embedding_dim: 8 embedding_name: "item_emb" }} }}
    features {{ raw_feature {{ feature_name: "price" expression: "item:price" }} }} }} }}
model_config {{
feature_groups {{ group_name: "deep" group_type: DEEP feature_names: ["user", "tags", "item",
    "age", "price", "both", "seen", "match", "ratio", "title"] }}
feature_groups {{ group_name: "seq" group_type: SEQUENCE
    feature_names: ["item", "price", "click__item", "click__price"] }}
multi_tower_din {{ towers {{ input: "deep" mlp {{ hidden_units: 8 }} }}
    din_towers {{ input: "seq" attn_mlp {{ hidden_units: 8 }} }} final {{ hidden_units: 8 }} }}
losses {{ binary_cross_entropy {{}} }} metrics {{ auc {{}} }} }}
"""
FG_USER = ("user", "tags", "age", "counts", "nested", "words", "click__item", "click__price")
USER = ("user_id", "likes", "age", "click__item_id", "click__price")


def fg_rows(num_rows, seed=0):
    """Raw columns; about a third of the texts and numbers is missing."""
    rng = np.random.default_rng(seed)

    def pick(words):
        words = [*words, None]
        return pa.array([words[i] for i in rng.integers(0, len(words), num_rows)])

    names = ["a", "b", "c"]
    return pa.table(
        {
            "user": pick(["u1", "u2", "a user whose name takes more than sixty-four bytes " * 2]),
            "tags": pick(["x\x1dy", "x"]),
            "age": pa.array(rng.normal(30, 15, num_rows).astype(np.float32)),
            "counts": pick(["a:2\x1db:3.5", "c:1"]),
            "nested": pick(["a^red:1,blue:0.5|b^red:2"]),
            "words": pick(["red\x1dshoes", "green"]),
            "click__item": pick(["a;b;c", "c", ";".join("abc" * 10)]),
            "click__price": pick(["1;2.5;3", "7", ";".join("123" * 10)]),
            "item": pick(names),
            "price": pa.array(rng.exponential(3, num_rows)),
            "color": pick(["red", "blue"]),
            "words_of_item": pick(["red", "green\x1dshoes"]),
            "label": pa.array(rng.integers(0, 2, num_rows)),
        }
    )


def export(root, path, rows, *, options=None):
    """An exported model with random weights, loaded."""
    pq.write_table(rows, root / "train.parquet")
    config = prepare(path).config
    features = build_features(config.data_config, config.feature_configs)
    torch.manual_seed(3)
    model = build_model(config, features, with_labels=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    parser = DataParser(features)
    read = rows.select(parser.input_columns).combine_chunks()
    return Predictor.load(
        export_artefact(
            config=config,
            model=model,
            features=features,
            golden=parser.parse({name: read[name].combine_chunks() for name in read.column_names}),
            rows=read.to_batches()[0],
            export_dir=root / "export",
            options=options,
        )
    )


@pytest.fixture(scope="module")
def predictors(tmp_path_factory):
    """Name of a model or fg_mode → its predictor; made when it is asked for."""
    made = {}

    def get(name):
        if name not in made:
            root = tmp_path_factory.mktemp("request")
            kind, _, tile = name.partition("-")
            options = ExportOptions(input_tile=int(tile or 0))
            if kind in MODELS:
                path = write_config(root / "job.config", kind, data=root / "train.parquet")
                made[name] = export(root, path, make_rows(48), options=options)
            else:
                path = root / "job.config"
                path.write_text(FG_CONFIG.format(data=root / "train.parquet", fg_mode=kind))
                made[name] = export(root, path, fg_rows(48), options=options)
        return made[name]

    return get


def columns_of(table, names, rows):
    taken = table.take(pa.array(rows, pa.int64()))
    return {name: taken[name].combine_chunks() for name in names}


def assert_request(predictor, table, user, rows, shared):
    """Scores a user with candidates, and the rows that this stands for, put together by Arrow."""
    names = predictor.input_columns
    own = [name for name in names if name not in shared]
    context = columns_of(table, [name for name in names if name in shared], [user])
    items = columns_of(table, own, rows)
    whole = columns_of(table, list(context), [user] * len(rows)) | items
    found = predictor.predict_request(context, items)
    expected = predictor.predict(whole)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["DeepFM", "MultiTower", "MultiTowerDIN"])
@pytest.mark.parametrize("rows", [[4], [1, 1], list(range(20))])
def test_encoded_columns(predictors, name, rows):
    predictor, table = predictors(name), make_rows(20, seed=9)
    names = predictor.input_columns
    for shared in (USER, (), names[:1], names[:-1], names[1:]):
        for user in (0, 3, 7):
            assert_request(predictor, table, user, rows, shared)


@pytest.mark.parametrize("name", ["FG_DAG", "FG_NORMAL", "FG_DAG-2", "FG_DAG-3"])
@pytest.mark.parametrize("rows", [[4], list(range(20))])
def test_generated_features(predictors, name, rows):
    """Also those that user and item make together, and histories."""
    predictor, table = predictors(name), fg_rows(20, seed=9)
    names = predictor.input_columns
    for shared in (FG_USER, (), ["price", "color"], names[:-1], [*FG_USER, "color"]):
        for user in range(6):
            assert_request(predictor, table, user, rows, shared)


def test_tiling_computes_the_user_once(predictors):
    table = fg_rows(20, seed=1)
    for name, user_rows in (("FG_DAG", 20), ("FG_DAG-3", 1)):
        predictor = predictors(name)
        others = [n for n in predictor.input_columns if n not in FG_USER]
        parsed = predictor.parse_request(
            columns_of(table, FG_USER, [0]), columns_of(table, others, range(20))
        )
        assert len(parsed["click__item.lengths"]) == len(parsed["user.lengths"]) == user_rows
        assert len(parsed["item.lengths"]) == len(parsed["both.lengths"]) == 20


@pytest.mark.parametrize("name", ["FG_DAG", "FG_DAG-2", "FG_DAG-3"])
def test_batches_of_a_loader(predictors, name):
    """Rows of many users, as `tzrec predict` has them, score alike whatever the export."""
    predictor, table = predictors(name), fg_rows(20, seed=5)
    parser = DataParser(predictor.features)
    batch = parser.to_batch(parser.parse(columns_of(table, parser.input_columns, range(20))))
    expected = predictors("FG_DAG").predict(table)
    for output, value in predictor.forward_batch(batch).items():
        np.testing.assert_allclose(value.numpy(), expected[output], rtol=0, atol=1e-6)


def test_all_forms(predictors):
    predictor, table = predictors("FG_DAG"), fg_rows(6, seed=2)
    user = table.select(FG_USER).slice(1, 1)
    items = table.drop_columns([*FG_USER, "label"])
    expected = predictor.predict_request(user, items)
    context = [user.to_pydict(), user.to_pandas(), user.to_batches()[0]]
    candidates = [items.to_pydict(), items.to_pandas(), items.combine_chunks().to_batches()[0]]
    for first, second in zip(context, candidates[1:] + candidates[:1], strict=True):
        for name, value in predictor.predict_request(first, second).items():
            np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-6)


def test_no_items(predictors):
    predictor, table = predictors("MultiTower"), make_rows(3)
    names = [name for name in predictor.input_columns if name not in USER]
    found = predictor.predict_request(columns_of(table, USER, [0]), columns_of(table, names, []))
    assert {name: value.shape for name, value in found.items()} == {
        "logits": (0, 3),
        "probs": (0, 3),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": {"age": [0.5]}, "items": {"age": [0.5, 1]}}, "both have the columns age"),
        ({"context": {"user_id": [1, 2]}}, "different numbers of rows: user_id 2"),
        ({"context": {"user_id": None}}, "rows lack the columns user_id"),
        ({"items": {"price": [1.0]}}, "different numbers of rows"),
        ({"items": {"price": 1.0}}, "'price' is 1.0, not a column"),
        ({"items": {"item_id": [1, 99]}}, "id 99 in row 1"),
    ],
)
def test_wrong_requests(predictors, change, message):
    predictor, table = predictors("MultiTower"), make_rows(2)
    names = predictor.input_columns
    parts = {
        "context": columns_of(table, USER, [0]),
        "items": columns_of(table, [name for name in names if name not in USER], [0, 1]),
    }
    for part, columns in change.items():
        parts[part] |= columns
        parts[part] = {name: value for name, value in parts[part].items() if value is not None}
    with pytest.raises((DataError, FeatureError), match=message):
        predictor.predict_request(**parts)


def test_rows_of_the_parts(predictors):
    predictor, table = predictors("MultiTower"), make_rows(2)
    names = predictor.input_columns
    with pytest.raises(DataError, match="the context has 2 rows"):
        predictor.predict_request(
            columns_of(table, USER, [0, 1]),
            columns_of(table, [name for name in names if name not in USER], [0, 1]),
        )
    with pytest.raises(DataError, match="reads no column of the items"):
        predictor.predict_request(columns_of(table, names, [0]), {"other": [1]})


def test_short_columns_are_repeated():
    """A history is left alone: its feature is repeated instead."""
    columns = {
        "id": pa.array(["u1"]),
        "missing": pa.array([None], pa.string()),
        "number": pa.array([7]),
        "history": pa.array([";".join(["item"] * 30)]),
        "list": pa.array([[1, 2]]),
        "own": pa.array([1, 2, 3]),
    }
    found = repeat_short(columns, 3)
    assert {name: len(column) for name, column in found.items()} == {
        "id": 3, "missing": 3, "number": 3, "history": 1, "list": 1, "own": 3,
    }  # fmt: skip
    assert found["missing"].to_pylist() == [None] * 3
    assert all(found[name].type == column.type for name, column in columns.items())


def test_threads_share_one_and_none_are_started(predictors, monkeypatch):
    """The config asks for four threads of feature generation, which serving leaves out."""
    predictor, table = predictors("FG_DAG"), fg_rows(30, seed=4)
    others = [name for name in predictor.input_columns if name not in FG_USER]
    assert predictor.config.data_config.fg_threads == 4
    monkeypatch.setattr(handler, "ThreadPoolExecutor", None)
    before = torch.get_num_threads(), pa.cpu_count()
    wanted = {
        n: predictor.predict_request(
            columns_of(table, FG_USER, [n]), columns_of(table, others, range(n + 1))
        )["probs"]
        for n in range(8)
    }
    wrong, started = [], threading.active_count()

    def work(shift):
        for n in [*range(shift, 8), *range(shift)]:
            context = columns_of(table, FG_USER, [n])
            found = predictor.predict_request(context, columns_of(table, others, range(n + 1)))
            if not np.allclose(found["probs"], wanted[n], rtol=0, atol=1e-6):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(2 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert threading.active_count() == started
    assert before == (torch.get_num_threads(), pa.cpu_count())
