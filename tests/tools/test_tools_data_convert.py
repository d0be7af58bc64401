"""Conversion of public data sets, on made-up files of the same shape."""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format

from tzrec.config import prepare
from tzrec.errors import DataError
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.tools.convert import census_income, frappe
from tzrec.tools.data_convert import DATASETS, add_arguments, convert, run

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
FRAPPE_SIZES = [957, 4082, 7, 7, 2, 3, 2, 9, 80, 233]


def frappe_like(directory, *, rows=60, **changes):
    """Three fields of the ten are large enough to tell them apart."""
    sizes = dict(zip(frappe._SIDES, [5, 9, 2, 2, 2, 2, 2, 3, 2, 4], strict=True)) | changes
    rng = np.random.default_rng(0)
    for part, num_rows in {"train": rows, "valid": 12, "test": 9}.items():
        columns, start = {"label": rng.integers(0, 2, num_rows)}, 0
        for name, size in sizes.items():
            values = rng.integers(0, size, num_rows)
            if part == "train":
                values[:size] = np.arange(size)  # every id is used somewhere
            columns[name] = values + start
            start += size
        pq.write_table(pa.table(columns), directory / f"{part}.parquet")
    return sizes


def census_like(directory):
    rng = np.random.default_rng(1)
    for part, rows in {"train": 40, "test": 11}.items():
        columns = {name: rng.integers(0, 100, rows) for name in census_income._NUMBERS}
        for name in census_income._CATEGORIES:
            if name in ("year", "own_or_self"):
                columns[name] = rng.integers(94, 96, rows)
            else:
                columns[name] = pa.array(rng.choice(["a", "b", "?"], rows), pa.large_string())
        columns["education"] = (["a", "b"] if part == "train" else ["b", "new"]) * rows
        columns["education"] = columns["education"][:rows]
        columns["income_50k"] = [" 50000+." if i % 5 == 0 else "- 50000." for i in range(rows)]
        columns["marital_stat"] = ["Never married" if i % 2 else "Widowed" for i in range(rows)]
        columns["instance_weight"] = rng.uniform(1, 2, rows)
        pq.write_table(pa.table(columns), directory / f"{part}.parquet")


def movies_like(directory):
    # User 7 rates movies 5 4 3 2 1 in this order, user 2 rates 3 1 9; one rating has no place.
    rows = [(7, movie, 5 - i, i) for i, movie in enumerate([5, 4, 3, 2, 1])]
    rows += [(2, 9, 2, 2), (2, 3, 4, 0), (2, 1, 5, 1), (2, 4, 5, -1)]
    names = ["user_id", "movie_id", "rating", "pos"]
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    pq.write_table(pa.table(columns), directory / "ratings.parquet")
    (directory / "users.dat").write_text("2::M::25::3::11111\n7::F::1::10::22222\n")
    movies = [
        f"{m}::Film: No. {m} (199{m})::{'Drama' if m % 2 else 'Action|War'}" for m in range(1, 10)
    ]
    (directory / "movies.dat").write_text("\n".join(movies) + "\nÉ"[:0], encoding="latin-1")


MAKERS = {"frappe": frappe_like, "census_income": census_like, "ml-1m": movies_like}


@pytest.fixture(params=MAKERS)
def dataset(request, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    MAKERS[request.param](source)
    return request.param, source, tmp_path / "out"


def make(name, tmp_path, **changes):
    source = tmp_path / "in"
    source.mkdir()
    MAKERS[name](source, **changes)
    convert(name, source, tmp_path / "out")
    return {p: pq.read_table(tmp_path / "out" / f"{p}.parquet") for p in ("train", "valid", "test")}


def test_the_command_says_what_came_out(dataset, capsys):
    name, source, out = dataset
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args(["convert", name, str(source), str(out)])) == 0
    text = capsys.readouterr().out
    snippet = (out / "features.config").read_text()
    assert snippet in text
    assert f"tzrec train {out / f'{name}.config'}" in text


def test_the_config_is_valid_and_fits_the_files(dataset):
    name, source, out = dataset
    convert(name, source, out)
    config = prepare(str(out / f"{name}.config")).config
    schema = pq.read_schema(config.train_input_path)
    assert pq.read_schema(config.eval_input_path) == schema
    assert schema.field(config.data_config.label_fields[0]).type == pa.float32()
    for part in ("train", "valid", "test"):
        table = pq.read_table(out / f"{part}.parquet")
        for wrapper in config.feature_configs:
            kind = wrapper.WhichOneof("feature")
            feature = getattr(wrapper, kind)
            if kind == "sequence_feature":
                step = feature.features[0].id_feature
                check_ids(table[f"{feature.sequence_name}__{step.feature_name}"], step.num_buckets)
            elif kind == "id_feature":
                check_ids(table[feature.feature_name], feature.num_buckets)
            else:
                assert table.schema.field(feature.feature_name).type == pa.float32()


def check_ids(column, num_buckets):
    values = column.combine_chunks()
    if pa.types.is_list(values.type):
        values = values.values
    assert pa.types.is_integer(values.type)
    ids = values.to_numpy()
    assert ids.min() >= 0
    assert ids.max() < num_buckets


def test_the_snippet_is_the_features_of_the_config(dataset):
    name, source, out = dataset
    convert(name, source, out)
    snippet, whole = EasyRecConfig(), EasyRecConfig()
    text_format.Parse((out / "features.config").read_text(), snippet)
    text_format.Parse((out / f"{name}.config").read_text(), whole)
    assert list(snippet.feature_configs) == list(whole.feature_configs)


def test_frappe_ids_start_at_zero_in_each_field(tmp_path):
    parts = make("frappe", tmp_path)
    assert parts["train"].num_rows == 60
    source = pq.read_table(tmp_path / "in" / "train.parquet")
    assert parts["train"]["label"].to_pylist() == [float(v) for v in source["label"].to_pylist()]
    assert parts["train"]["user"].to_pylist() == source["user"].to_pylist()
    assert parts["train"]["item"].to_pylist() == [v - 5 for v in source["item"].to_pylist()]
    config = prepare(str(tmp_path / "out" / "frappe.config")).config
    sizes = [f.id_feature.num_buckets for f in config.feature_configs]
    assert sizes == [5, 9, 2, 2, 2, 2, 2, 3, 2, 4]


def test_frappe_fields_must_not_share_ids(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    frappe_like(source)
    table = pq.read_table(source / "test.parquet")
    index = table.schema.get_field_index("item")
    pq.write_table(table.set_column(index, "item", table["user"]), source / "test.parquet")
    with pytest.raises(DataError, match="share the ids 0 to"):
        convert("frappe", source, tmp_path / "out")


def test_census_labels_words_and_numbers(tmp_path):
    parts = make("census_income", tmp_path)
    assert parts["train"]["income"].to_pylist() == [float(i % 5 == 0) for i in range(40)]
    assert parts["train"]["marital"].to_pylist() == [float(i % 2) for i in range(40)]
    for leak in ("income_50k", "marital_stat", "instance_weight"):
        assert leak not in parts["train"].column_names
    # a, b of the train part are 1, 2; a word that only the test part has is 0.
    assert set(parts["train"]["education"].to_pylist()) == {1, 2}
    held_out = pa.concat_tables([parts["valid"], parts["test"]])
    assert set(held_out["education"].to_pylist()) == {0, 2}
    assert (parts["valid"].num_rows, parts["test"].num_rows) == (5, 6)
    age = parts["train"]["age"].to_numpy()
    raw = np.log1p(pq.read_table(tmp_path / "in" / "train.parquet")["age"].to_numpy())
    np.testing.assert_allclose(age, (raw - raw.mean()) / raw.std(), rtol=1e-5)


def test_census_without_a_positive_label_is_an_error(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    census_like(source)
    table = pq.read_table(source / "train.parquet")
    index = table.schema.get_field_index("income_50k")
    no = pa.array(["no"] * table.num_rows)
    pq.write_table(table.set_column(index, "income_50k", no), source / "train.parquet")
    with pytest.raises(DataError, match="income is never 1"):
        convert("census_income", source, tmp_path / "out")


def test_movielens_rows_labels_and_histories(tmp_path):
    parts = make("ml-1m", tmp_path)
    columns = ["user_id", "movie_id", "label", "history__movie_id"]
    rows = {p: [tuple(r[c] for c in columns) for r in t.to_pylist()] for p, t in parts.items()}
    assert rows["train"] == [
        (2, 3, 1.0, []),
        (7, 5, 1.0, []),
        (7, 4, 1.0, [5]),
        (7, 3, 0.0, [5, 4]),
    ]
    assert rows["valid"] == [(2, 1, 1.0, [3]), (7, 2, 0.0, [5, 4, 3])]
    assert rows["test"] == [(2, 9, 0.0, [3, 1]), (7, 1, 0.0, [5, 4, 3, 2])]
    # Action 0, Drama 1, War 2.
    assert parts["test"]["genres"].to_pylist() == [[1], [1]]
    assert parts["valid"]["genres"].to_pylist() == [[1], [0, 2]]
    assert parts["test"]["age"].to_pylist() == [1, 0]


def test_movielens_history_keeps_the_newest(tmp_path, monkeypatch):
    monkeypatch.setattr("tzrec.tools.convert.movielens.HISTORY_LENGTH", 2)
    parts = make("ml-1m", tmp_path)
    assert parts["test"]["history__movie_id"].to_pylist() == [[3, 1], [3, 2]]


def test_a_movie_without_a_line_is_an_error(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    movies_like(source)
    lines = (source / "movies.dat").read_text("latin-1").splitlines()
    (source / "movies.dat").write_text(
        "\n".join(line for line in lines if line[0] != "9"), encoding="latin-1"
    )
    with pytest.raises(DataError, match=r"movies.dat: has no line for \[9\]"):
        convert("ml-1m", source, tmp_path / "out")


def test_a_broken_line_is_named(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    movies_like(source)
    (source / "users.dat").write_text("2::M::25::3::11111\n7::F\n")
    with pytest.raises(DataError, match=r"users.dat:2: "):
        convert("ml-1m", source, tmp_path / "out")


@pytest.mark.parametrize("name", DATASETS)
def test_a_missing_file_is_named(name, tmp_path):
    with pytest.raises(DataError, match="has no") as caught:
        convert(name, tmp_path, tmp_path / "out")
    assert "consists of" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_missing_column_is_named(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    frappe_like(source)
    table = pq.read_table(source / "valid.parquet").rename_columns({"weekday": "week_day"})
    pq.write_table(table, source / "valid.parquet")
    with pytest.raises(DataError, match=r"no column 'weekday'; did you mean 'week_day'"):
        convert("frappe", source, tmp_path / "out")


def test_no_parquet_is_named(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    frappe_like(source)
    (source / "valid.parquet").write_text("user,item\n")
    with pytest.raises(DataError, match=r"valid.parquet: cannot be read as Parquet"):
        convert("frappe", source, tmp_path / "out")


def test_the_input_is_not_overwritten(tmp_path):
    frappe_like(tmp_path)
    with pytest.raises(DataError, match="is the input itself"):
        convert("frappe", tmp_path, tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data is not here")
def test_real_frappe_has_the_published_sizes(tmp_path):
    converted = convert("frappe", SHARED / "frappe", tmp_path)
    assert [f.num_buckets for f in converted.features] == FRAPPE_SIZES
    rows = {part: table.num_rows for part, table in converted.parts.items()}
    assert rows == {"train": 202_005, "valid": 57_722, "test": 28_860}


def test_the_frappe_example_is_what_the_conversion_writes(tmp_path):
    """Made-up rows with the published vocabularies give the shipped config, but for paths."""
    source = tmp_path / "in"
    source.mkdir()
    frappe_like(source, rows=5000, **dict(zip(frappe._SIDES, FRAPPE_SIZES, strict=True)))
    convert("frappe", source, tmp_path / "out")
    written = prepare(str(tmp_path / "out" / "frappe.config")).config
    example = prepare(str(ROOT / "examples" / "deepfm_frappe.config")).config
    for config in (written, example):
        config.train_input_path = config.eval_input_path = config.model_dir = "anywhere"
    assert written == example
