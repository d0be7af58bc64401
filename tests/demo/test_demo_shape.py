"""The generated rows: what the config's features can read, with the signal that they promise."""

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import text_format
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from tzrec.datasets.data_parser import DataParser
from tzrec.demo.shape.domains import Between, Ids, Normal, Positive, Words, settle
from tzrec.demo.shape.shape import Shape
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.training.build import build_features

CONFIG = r"""
train_input_path: "a" eval_input_path: "b" model_dir: "c"
data_config {
  batch_size: 8 fg_mode: FG_NONE label_fields: ["clk", "buy"] sample_weight_fields: "weight"
  fg_encoded_multival_sep: ","
}
feature_configs { id_feature {
  feature_name: "user" expression: "user:user" embedding_dim: 4 num_buckets: 50 } }
feature_configs { id_feature {
  feature_name: "tags" expression: "item:tags" embedding_dim: 4 num_buckets: 9 pooling: "mean" } }
feature_configs { id_feature {
  feature_name: "words" expression: "item:words" embedding_dim: 4 vocab_list: ["x", "y", "z"]
  weighted: true } }
feature_configs { raw_feature { feature_name: "price" expression: "item:price" } }
feature_configs { raw_feature {
  feature_name: "image" expression: "item:image" value_dim: 3 } }
feature_configs { raw_feature {
  feature_name: "age" expression: "user:age" boundaries: [18, 30] embedding_dim: 4 } }
feature_configs { sequence_raw_feature {
  feature_name: "dwell" expression: "user:dwell" sequence_length: 9 value_dim: 2 } }
feature_configs { sequence_feature {
  sequence_name: "click" sequence_length: 9 sequence_delim: "|"
  features { id_feature {
    feature_name: "item" expression: "item:item" embedding_dim: 4 num_buckets: 20 } }
  features { id_feature {
    feature_name: "tags" expression: "item:tags" embedding_dim: 4 num_buckets: 9
    value_dim: 0 pooling: "mean" } }
  features { raw_feature { feature_name: "price" expression: "item:price" } }
} }
"""


@pytest.fixture
def config():
    return text_format.Parse(CONFIG, EasyRecConfig())


def parse(config, table):
    data = config.data_config
    features = build_features(data, config.feature_configs)
    parser = DataParser(features, list(data.label_fields), list(data.sample_weight_fields))
    columns = {n: table[n].combine_chunks() for n in table.column_names}
    return {k: v.numpy() for k, v in parser.parse(columns).items()}


@pytest.mark.parametrize("as_text", [False, True])
def test_every_kind_of_encoded_column_can_be_parsed(config, as_text):
    table = Shape(config, as_text=as_text).table(500)
    parsed = parse(config, table)
    lengths = {n: set(parsed[f"{n}.lengths"].tolist()) for n in ("user", "tags", "words", "age")}
    assert lengths["user"] == lengths["age"] == {1}
    assert lengths["tags"] == {0, 1, 2, 3, 4}
    # A weighted id is there once.
    assert {0, 1, 2} <= lengths["words"] <= {0, 1, 2, 3, 4}
    sizes = {"user": 50, "tags": 9, "words": 5, "age": 3, "click__item": 20, "click__tags": 9}
    for name, size in sizes.items():
        ids = parsed[f"{name}.values"]
        assert set(ids.tolist()) == set(range(size)), name
    assert parsed["image.values"].shape == (500, 3)
    assert parsed["dwell.values"].shape[1] == 2
    assert parsed["words.weights"].min() >= 0.5
    steps = parsed["click__item.lengths"]
    assert set(steps.tolist()) == set(range(10))
    for name in ("click__tags", "click__price"):
        np.testing.assert_array_equal(parsed[f"{name}.lengths"], steps)
    assert set(parsed["click__tags.key_lengths"].tolist()) == {1, 2, 3, 4}
    assert len(parsed["click__tags.key_lengths"]) == steps.sum()
    nested = [name for name in table.column_names if pa.types.is_nested(table[name].type)]
    assert bool(nested) is not as_text


def test_text_says_the_same_as_lists(config):
    one, other = (parse(config, Shape(config, as_text=t).table(200, seed=3)) for t in (False, True))
    assert list(one) == list(other)
    for key, values in one.items():
        np.testing.assert_allclose(other[key], values, rtol=1e-6, err_msg=key)


def test_small_ids_are_frequent(config):
    users = parse(config, Shape(config).table(4000))["user.values"]
    counts = np.bincount(users, minlength=50)
    assert counts[0] > 2 * counts[3] > 0
    assert counts[40:].sum() < counts[0]


def test_the_seed_decides_the_rows_and_not_the_story(config):
    shape = Shape(config)
    first, again = shape.table(4000, seed=1), Shape(config).table(4000, seed=1)
    other = shape.table(4000, seed=2)
    assert first.equals(again)
    assert not first.equals(other)
    by_user = [
        np.bincount(t["user"], t["probability_clk"], 50) / np.bincount(t["user"], minlength=50)
        for t in (first, other)
    ]
    assert np.corrcoef(by_user[0][:20], by_user[1][:20])[0, 1] > 0.8


def test_labels_follow_the_probabilities(config):
    table = Shape(config).table(8000)
    for label in ("clk", "buy"):
        probability = table[f"probability_{label}"]
        assert 0.75 < roc_auc_score(table[label], probability) < 0.97
        assert abs(np.mean(table[label]) - np.mean(probability)) < 0.02
    # Who buys has clicked, and what is bought is not all that is clicked.
    clicked, bought = (np.array(table[name]) for name in ("clk", "buy"))
    assert bought[clicked == 0].sum() == 0
    assert 0.2 < bought[clicked == 1].mean() < 0.8
    # Which of the clicks ends in a purchase has reasons of its own.
    of_clicks = table["probability_buy"].to_numpy()[clicked == 1]
    assert roc_auc_score(bought[clicked == 1], of_clicks) > 0.6


def test_ids_and_numbers_both_matter(config):
    del config.data_config.label_fields[1:]
    table = Shape(config).table(20_000)
    parsed = parse(config, table)
    logit = np.log(table["probability"].to_numpy() / (1 - table["probability"].to_numpy()))
    users = np.eye(50)[parsed["user.values"]]
    by_user = users @ np.linalg.lstsq(users, logit, rcond=None)[0]
    assert 0.1 < np.corrcoef(by_user, logit)[0, 1] ** 2 < 0.4
    assert 0.1 < np.corrcoef(table["price"], logit)[0, 1] ** 2 < 0.4
    nothing = np.corrcoef(parsed["dwell.values"][:, 0], np.repeat(logit, parsed["dwell.lengths"]))
    assert abs(nothing[0, 1]) < 0.3


def test_only_features_of_groups_matter(config):
    group = config.model_config.feature_groups.add(group_name="deep")
    group.feature_names.append("price")
    table = Shape(config).table(3000)
    score = LogisticRegression().fit(table["price"].to_numpy()[:, None], table["clk"])
    found = score.predict_proba(table["price"].to_numpy()[:, None])[:, 1]
    auc = roc_auc_score(table["clk"], found)
    assert auc == pytest.approx(roc_auc_score(table["clk"], table["probability_clk"]), abs=0.01)


def test_a_candidate_like_the_history_is_clicked(config):
    del config.data_config.label_fields[1:]
    feature = config.feature_configs.add().id_feature
    text_format.Parse(
        'feature_name: "item" expression: "item:item" embedding_dim: 4 num_buckets: 20 '
        'embedding_name: "item_emb"',
        feature,
    )
    config.feature_configs[7].sequence_feature.features[0].id_feature.embedding_name = "item_emb"
    table = Shape(config).table(20_000)
    parsed = parse(config, table)
    probability = table["probability"].to_numpy()
    steps = parsed["click__item.values"]
    rows = np.repeat(np.arange(20_000), parsed["click__item.lengths"])
    candidates = parsed["item.values"][rows]
    sums, counts = np.zeros((20, 20)), np.zeros((20, 20))
    np.add.at(sums, (candidates, steps), probability[rows])
    np.add.at(counts, (candidates, steps), 1)
    mean = sums / counts
    # What candidate and step do together, without what each does alone.
    together = mean - mean.mean(axis=0) - mean.mean(axis=1)[:, None] + mean.mean()
    assert np.diag(together).mean() > 0.02
    assert np.diag(together).mean() > 5 * abs(together.mean())


@pytest.mark.parametrize(
    ("claims", "wanted"),
    [
        ([], Ids(50)),
        ([Ids(7), Ids(9)], Ids(9)),
        ([Ids(7), Ids(5, strict=True), Ids(9, strict=True)], Ids(5, strict=True)),
        ([Words(("a", "b", "c")), Ids(9)], Words(("a", "b", "c"))),
        ([Words(("a", "b", "c")), Words(("c", "b"))], Words(("b", "c"))),
        ([Positive(), Between(edges=(1.0, 2.0))], Between(edges=(1.0, 2.0))),
        ([Positive(), Normal(3.0, 1.0), Ids(9)], Normal(3.0, 1.0)),
        ([Positive(), Words(("1", "2.5"))], Words(("1", "2.5"))),
        ([Positive(), Words(("one", "two"))], Positive()),
        ([Words(("a", "b"), others=False), Ids(9)], Ids(9)),
    ],
)
def test_readers_of_a_column_agree(claims, wanted):
    assert settle(claims) == wanted


def test_numbers_fall_into_every_bucket():
    rng = np.random.default_rng(0)
    for edges in ((0.5, 1.5, 10.0), (-3.0, 0.0), (18.0,)):
        found = Between(edges=edges).draw(rng, 2000)
        counts = np.bincount(np.searchsorted(edges, found, side="right"), minlength=len(edges) + 1)
        assert counts.min() > 0.7 * 2000 / (len(edges) + 1)
    assert Between(edges=(0.5, 1.5)).draw(rng, 2000).min() >= 0
