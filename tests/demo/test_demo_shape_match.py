"""Generated rows of matching: users take items they like, and samplers find their tables."""

import csv
import itertools

import fg_feed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format

from tzrec.demo.shape.draw import draw, taken
from tzrec.demo.shape.raw import raw_columns
from tzrec.demo.shape.render import render
from tzrec.demo.shape.shape import Shape
from tzrec.demo.shape.tastes import Tastes
from tzrec.demo.shape.world import Size
from tzrec.demo.shape.write import Plan, write
from tzrec.errors import ConfigError
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.training.build import build_features

CONFIG = r"""
train_input_path: "a" eval_input_path: "b" model_dir: "c"
data_config {{
  batch_size: 64 dataset_type: ParquetDataset label_fields: ["clk", "seen"] {data}
}}
{features}
model_config {{
  feature_groups {{ group_name: "user" group_type: DEEP feature_names: ["user", "age"] }}
  feature_groups {{ group_name: "item" group_type: DEEP feature_names: ["item", "cate", "price"] }}
  dssm {{
    user_tower {{ input: "user" mlp {{ hidden_units: [8] }} }}
    item_tower {{ input: "item" mlp {{ hidden_units: [8] }} }}
    output_dim: 4
    {model}
  }}
  losses {{ softmax_cross_entropy {{}} }}
  metrics {{ recall_at_k {{ top_k: 5 }} }}
  metrics {{ hitrate_at_k {{ top_k: 10 }} }}
}}
"""
FEATURES = r"""
feature_configs { id_feature {
  feature_name: "user" expression: "user:user" embedding_dim: 4 num_buckets: 300 } }
feature_configs { id_feature {
  feature_name: "age" expression: "user:age" embedding_dim: 4 num_buckets: 9 } }
feature_configs { id_feature {
  feature_name: "item" expression: "item:item" embedding_dim: 4 num_buckets: 1000
  embedding_name: "item" } }
feature_configs { id_feature {
  feature_name: "cate" expression: "item:cate" embedding_dim: 4 num_buckets: 90 } }
feature_configs { id_feature {
  feature_name: "tags" expression: "item:tags" embedding_dim: 4 num_buckets: 90
  pooling: "mean" } }
feature_configs { raw_feature { feature_name: "price" expression: "item:price" } }
feature_configs { id_feature {
  feature_name: "hour" expression: "context:hour" embedding_dim: 4 num_buckets: 24 } }
feature_configs { sequence_id_feature {
  feature_name: "recent" expression: "user:recent" embedding_dim: 4 num_buckets: 1000
  sequence_length: 9 embedding_name: "item" } }
feature_configs { sequence_feature {
  sequence_name: "click" sequence_length: 9 sequence_delim: ";"
  features { id_feature {
    feature_name: "cate" expression: "item:cate" embedding_dim: 4 num_buckets: 90 } }
  features { raw_feature { feature_name: "dwell" expression: "item:dwell" } }
} }
"""
ATTRS = 'attr_fields: ["item", "cate", "gone", "tags", "price"] item_id_field: "item"'
NEGATIVE = f'negative_sampler {{ input_path: "i" num_sample: 50 {ATTRS} attr_delimiter: "\\x02" }}'
TABLES = {
    "hard_negative_sampler_v2": ["items", "users", "positives", "unwanted"],
    "hard_negative_sampler": ["items", "users", "unwanted"],
    "negative_sampler_v2": ["items", "users", "positives"],
}


def config_of(data=NEGATIVE, features=FEATURES, model=""):
    if "fg_mode" not in data:
        data += " fg_mode: FG_NONE"
    text = CONFIG.format(data=data, features=features, model=model)
    return text_format.Parse(text, EasyRecConfig())


def sampler(name, suffix="", more=""):
    paths = " ".join(
        f'{field}: "{field}{suffix}"'
        for field in ("item_input_path", "user_input_path")
        + (("pos_edge_input_path",) if "v2" in name else ())
        + (("hard_neg_edge_input_path",) if "hard" in name else ())
    )
    hard = "num_hard_sample: 3" if "hard" in name else ""
    return (
        f'{name} {{ {paths} num_sample: 50 {hard} {ATTRS} user_id_field: "user" '
        f'attr_delimiter: "\\x02" {more} }}'
    )


def lists(table, name):
    return table[name].to_pylist()


# --- rows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_sampler", [True, False])
def test_rows_are_users_with_items(with_sampler):
    config = config_of() if with_sampler else config_of("", model="in_batch_negative: true")
    table = Shape(config, size=Size(800, 200)).table(5000, seed=1)
    assert lists(table, "clk") == lists(table, "seen") == [1] * 5000
    assert set(lists(table, "item")) <= set(range(800))
    assert set(lists(table, "user")) == set(range(200))
    names = ("cate", "price", "tags") if with_sampler else ("cate", "price")
    about = {"item": names, "user": ("age",)}
    for owner, columns in about.items():
        for column in columns:
            values = {}
            for key, value in zip(lists(table, owner), lists(table, column), strict=True):
                assert values.setdefault(key, value) == value, (owner, column)
    # What belongs to the moment is another one each time.
    assert len(set(zip(lists(table, "user"), lists(table, "hour"), strict=True))) > 1000
    assert "probability" not in table.column_names


def test_histories_hold_items():
    table = Shape(config_of(), size=Size(800, 200)).table(3000, seed=1)
    cates = dict(zip(lists(table, "item"), lists(table, "cate"), strict=True))
    kinds = {item: cate % 10 for item, cate in cates.items()}
    same = []
    for item, recent in zip(lists(table, "item"), lists(table, "recent"), strict=True):
        same += [kinds[step] == kinds[item] for step in recent if step in kinds]
    assert np.mean(same) > 0.4
    # Another sequence of the row is one of its own.
    clicks, dwells = lists(table, "click__cate"), lists(table, "click__dwell")
    assert [len(steps) for steps in clicks] == [len(steps) for steps in dwells]
    assert {len(steps) for steps in clicks} == set(range(10))
    assert set(itertools.chain(*clicks)) <= set(cates.values()) | set(range(90))


def test_columns_of_one_sequence_speak_of_the_same_items():
    features = FEATURES.replace(
        'features { raw_feature { feature_name: "dwell" expression: "item:dwell" } }',
        'features { id_feature { feature_name: "item" expression: "item:item" embedding_dim: 4 '
        "num_buckets: 1000 } }",
    )
    shape = Shape(config_of(features=features), size=Size(800, 200))
    table = shape.table(500)
    cates = shape.item_columns()["cate"].to_pylist()
    for items, steps in zip(lists(table, "click__item"), lists(table, "click__cate"), strict=True):
        assert steps == [cates[item] for item in items]


def test_the_seed_decides_the_rows_and_not_the_items():
    one, other = (Shape(config_of(), size=Size(800, 200)) for _ in range(2))
    assert one.item_columns() == other.item_columns()
    first, again, fresh = one.table(50, seed=1), other.table(50, seed=1), one.table(50, seed=2)
    assert first.equals(again)
    assert not first.equals(fresh)


def test_there_are_never_more_items_than_ids():
    shape = Shape(config_of(), size=Size(10_000, 10_000))
    assert len(shape.item_columns()["item"]) == 1000
    assert len(shape.user_ids()) == 300


def test_ids_may_be_columns_that_no_feature_reads(tmp_path):
    features = FEATURES[FEATURES.index("feature_configs", 1) :]
    features = features.replace(
        '"item" expression: "item:item"', '"other" expression: "item:other"'
    )
    data = (
        sampler("negative_sampler_v2") + ' input_fields { input_name: "user" input_type: STRING }'
    )
    config = config_of(data, features=features)
    write(config, Plan(str(tmp_path), rows=900, eval_rows=20, items=300, users=70))
    rows = pq.read_table(tmp_path / "train")
    assert set(lists(rows, "user")) == set(map(str, range(70)))
    assert set(lists(rows, "item")) <= set(range(300))
    text = (tmp_path / "tables" / "positives.txt").read_text()
    assert text.startswith("userid:string\titemid:int64\tweight:float\n")


FG = FEATURES.replace(
    'feature_name: "item" expression: "item:item" embedding_dim: 4 num_buckets: 1000',
    'feature_name: "item" expression: "item:item" embedding_dim: 4 hash_bucket_size: 1000',
).replace(
    'feature_name: "tags" expression: "item:tags"',
    'feature_name: "tags" expression: "item:tags" separator: "|"',
)
FG += """
feature_configs { lookup_feature {
  feature_name: "rate" map: "item:rates" key: "item:cate" } }
feature_configs { combo_feature {
  feature_name: "words" expression: ["item:word", "item:cate"] hash_bucket_size: 100
  embedding_dim: 4 } }
feature_configs { id_feature {
  feature_name: "word" expression: "item:word" vocab_list: ["red", "blue"] embedding_dim: 4 } }
"""
RAW_ATTRS = ATTRS.replace('"price"', '"price", "rates", "word"')


def test_raw_columns_of_items_follow_from_the_item():
    text = NEGATIVE.replace(ATTRS, RAW_ATTRS) + " fg_mode: FG_DAG"
    shape = Shape(config_of(text, features=FG), size=Size(500, 100))
    table, items = shape.table(2000), shape.item_columns()
    assert pa.types.is_map(items["rates"].type)
    chosen = table["item"].combine_chunks()
    for name, column in items.items():
        found, wanted = table[name].combine_chunks().to_pylist(), column.take(chosen).to_pylist()
        assert found == wanted, name
    hits = [
        str(cate) in dict(rates)
        for cate, rates in zip(items["cate"].to_pylist(), items["rates"].to_pylist(), strict=True)
    ]
    assert np.mean(hits) > 0.6


def test_candidates_are_steps_of_a_sequence():
    features = (
        FEATURES
        + """
feature_configs { sequence_feature {
  sequence_name: "cand" sequence_length: 9 sequence_delim: ";"
  features { id_feature {
    feature_name: "item" expression: "item:item" embedding_dim: 4 num_buckets: 1000 } }
  features { id_feature {
    feature_name: "cate" expression: "item:cate" embedding_dim: 4 num_buckets: 90 } }
} }
"""
    )
    data = sampler("negative_sampler_v2").replace(
        'item_id_field: "item"', 'item_id_field: "cand__item"'
    )
    shape = Shape(config_of(data, features=features), size=Size(800, 200))
    table = shape.table(300)
    cates = shape.item_columns()["cate"].to_pylist()
    for row in table.to_pylist():
        assert 1 <= len(row["cand__item"]) <= 3
        assert row["cand__cate"] == [cates[item] for item in row["cand__item"]]
        assert row["clk"] == [1] * len(row["cand__item"])
    pairs = shape.positives(table)
    assert pairs["item"].to_pylist() == list(itertools.chain(*lists(table, "cand__item")))
    assert pairs.num_rows == len(pairs["user"]) > 400


def test_rows_can_be_taken_of_any_column():
    config = text_format.Parse(fg_feed.config_text("."), EasyRecConfig())
    columns = raw_columns(build_features(config.data_config, config.feature_configs))
    cells = draw(columns, 200, np.random.default_rng(0))
    rows = np.random.default_rng(1).integers(0, 200, 500)
    for column in columns:
        whole = render(column, cells[column.name])
        found = render(column, taken(cells[column.name], rows))
        assert found.to_pylist() == whole.take(pa.array(rows)).to_pylist(), column.name


# --- tastes ------------------------------------------------------------------------------------


def test_items_are_taken_as_often_as_the_scores_say():
    tastes, rng = Tastes(600, 5), np.random.default_rng(0)
    count = 400_000
    for user, last in ((0, -1), (3, 7)):
        users, before = np.full(count, user), np.full(count, last)
        counts = np.bincount(tastes.next(users, before, rng), minlength=600)
        items = np.arange(600)[None, :]
        shares = tastes.weights * tastes.scores(users[:1], before[:1], items)[0]
        assert shares.sum() == pytest.approx(1, abs=1e-9)
        expected = count * shares
        chi_square = ((counts - expected) ** 2 / expected).sum()
        # 599 degrees of freedom: six deviations.
        assert chi_square < 599 + 6 * (2 * 599) ** 0.5


def test_popular_items_are_popular():
    tastes = Tastes(300, 5)
    counts = np.bincount(tastes.popular(200_000, np.random.default_rng(0)), minlength=300)
    expected = 200_000 * tastes.weights
    assert ((counts - expected) ** 2 / expected).sum() < 299 + 6 * (2 * 299) ** 0.5
    assert tastes.weights[0] > 3 * tastes.weights[-1]


def test_no_one_is_shown_as_unwanted_what_interests_them():
    tastes = Tastes(600, 50)
    users, items = tastes.unwanted(6, np.random.default_rng(0))
    assert len(users) == len(set(zip(users.tolist(), items.tolist(), strict=True))) > 150
    for user, item in zip(users, items, strict=True):
        assert tastes.facets[0, item] not in tastes.interests[user, :, 0]


def test_ceilings_are_what_ranking_by_the_scores_reaches():
    tastes, rng = Tastes(2000, 100), np.random.default_rng(5)
    users = rng.integers(0, 100, 600)
    last = tastes.next(users, np.full(600, -1), rng)
    hits = []
    for user, before, wanted in zip(users, last, tastes.next(users, last, rng), strict=True):
        drawn = np.append(wanted, rng.choice(2000, 200, p=tastes.weights))
        drawn = np.append(wanted, drawn[drawn != wanted])
        score = tastes.scores(user[None], before[None], drawn[None])[0]
        order = np.lexsort((rng.random(len(drawn)), -score))
        hits.append(np.flatnonzero(order == 0)[0])
    found = tastes.ceilings(200, (1, 5), past=True)
    for top, recall in found.items():
        assert recall == pytest.approx(np.mean(np.array(hits) < top), abs=0.06)
        assert recall > 12 * top / 201
    assert tastes.ceilings(200, (5,), past=False)[5] > found[5]


# --- tables ------------------------------------------------------------------------------------


def test_text_tables_say_what_the_rows_do(tmp_path):
    features = FEATURES.replace(
        "num_buckets: 1000\n  embedding_name", "num_buckets: 400 embedding_name"
    )
    config = config_of(sampler("hard_negative_sampler_v2"), features=features)
    written = write(config, Plan(str(tmp_path), rows=3000, eval_rows=20, users=150))
    assert [table.path for table in written.tables] == [
        f"{tmp_path}/tables/{name}.txt" for name in TABLES["hard_negative_sampler_v2"]
    ]
    fields = [table.field.split(".")[-1] for table in written.tables]
    assert fields == [
        "item_input_path",
        "user_input_path",
        "pos_edge_input_path",
        "hard_neg_edge_input_path",
    ]
    tables = {}
    for table in written.tables:
        with open(table.path) as file:
            header, *rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        assert len(rows) == table.rows
        tables[table.path.rpartition("/")[2]] = header, rows
    header, items = tables["items.txt"]
    assert header == ["id:int64", "weight:float", "attrs:string"]
    assert len({row[0] for row in items}) == len(items)
    assert all(float(row[1]) >= 1 for row in items)
    attributes = {int(row[0]): row[2].split("\x02") for row in items}
    rows = pq.read_table(tmp_path / "train")
    for row in rows.slice(0, 300).to_pylist():
        item, cate, gone, tags, price = attributes[row["item"]]
        assert (int(item), int(cate), gone) == (row["item"], row["cate"], "")
        assert [int(tag) for tag in tags.split("\x1d") if tag] == row["tags"]
        assert float(price) == row["price"]
    header, users = tables["users.txt"]
    assert header == ["id:int64", "weight:float"]
    assert [int(row[0]) for row in users] == list(range(150))
    pairs = list(zip(lists(rows, "user"), lists(rows, "item"), strict=True))
    header, positives = tables["positives.txt"]
    assert header == ["userid:int64", "itemid:int64", "weight:float"]
    assert {(int(u), int(i)): float(w) for u, i, w in positives} == {
        pair: pairs.count(pair) for pair in set(pairs)
    }
    _, unwanted = tables["unwanted.txt"]
    assert {int(row[0]) for row in unwanted} <= set(range(150))


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_tables_of_named_columns(tmp_path, name, suffix):
    config = config_of(sampler(name, suffix, more='weight_field: "popularity"'))
    written = write(config, Plan(str(tmp_path), rows=500, eval_rows=20, items=300))
    files = [f"{tmp_path}/tables/{table}{suffix}" for table in TABLES[name]]
    assert [table.path for table in written.tables] == files
    if suffix == ".csv":
        return
    items = pq.read_table(tmp_path / "tables" / "items.parquet")
    assert items.column_names == ["item", "popularity", "cate", "gone", "tags", "price"]
    assert items["tags"].type == pa.list_(pa.int64())
    for edges in TABLES[name][2:]:
        columns = pq.read_table(tmp_path / "tables" / f"{edges}.parquet").column_names
        assert columns == ["user", "item", "popularity"]


def test_weights_are_written_where_the_config_reads_them(tmp_path):
    data = NEGATIVE.replace('"i"', '"i.parquet"')
    write(config_of(data), Plan(str(tmp_path), rows=500, eval_rows=20, items=300))
    items = pq.read_table(tmp_path / "tables" / "items.parquet")
    assert items.column_names == ["item", "cate", "gone", "tags", "price"]


def test_ids_can_be_text(tmp_path):
    data = NEGATIVE.replace("num_sample", "string_ids: true num_sample")
    data += ' input_fields { input_name: "item" input_type: STRING }'
    write(config_of(data), Plan(str(tmp_path), rows=500, eval_rows=20, items=300))
    assert (tmp_path / "tables" / "items.txt").read_text().startswith("id:string\t")
    assert pq.read_table(tmp_path / "train")["item"].type == pa.string()


def test_a_separator_that_values_contain_is_refused(tmp_path):
    data = NEGATIVE.replace(r' attr_delimiter: "\x02"', ' attr_delimiter: "."')
    with pytest.raises(ConfigError, match=r"attr_delimiter is '\.', which values of 'price'"):
        write(config_of(data), Plan(str(tmp_path), rows=500, eval_rows=20))


def test_what_can_be_reached_is_said(tmp_path):
    written = write(config_of(), Plan(str(tmp_path / "a"), rows=500, eval_rows=20))
    assert written.num_negatives == 50
    assert list(written.recalls) == [5, 10]
    assert 5 / 51 < written.recalls[5] < written.recalls[10] < 1
    fewer = config_of(NEGATIVE.replace("num_sample: 50", "num_sample: 50 num_eval_sample: 20"))
    assert write(fewer, Plan(str(tmp_path / "b"), rows=90, eval_rows=9)).num_negatives == 20
    in_batch = config_of("", model="in_batch_negative: true")
    written = write(in_batch, Plan(str(tmp_path / "c"), rows=90, eval_rows=9))
    assert written.num_negatives == 63
    assert not written.tables
    assert not (tmp_path / "c" / "tables").exists()
