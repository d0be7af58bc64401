"""``tzrec fg``: one row shown, tables generated, values counted."""

import json
import subprocess
import sys
from pathlib import Path

import fg_feed
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from tzrec.cli import main
from tzrec.features.feature import FgMode, create_features
from tzrec.fg import FgHandler
from tzrec.tools.fg_setup import load_config, setup_of

ROWS = 1500
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def feed(tmp_path, monkeypatch):
    """A config and its raw data; returns the raw columns."""
    monkeypatch.chdir(tmp_path)
    table = fg_feed.feed(ROWS)
    pq.write_table(table, "raw.parquet", row_group_size=400)
    Path("c.config").write_text(fg_feed.config_text("."))
    return {name: table[name] for name in table.column_names}


def written(directory):
    files = sorted(Path(directory).iterdir())
    table = pa.concat_tables([pq.read_table(path) for path in files])
    return {name: table[name] for name in table.column_names}, [path.name for path in files]


def expected(columns):
    """What FG_DAG makes of the raw columns."""
    config = load_config("c.config")
    results = setup_of(config).handler().process_arrow(columns)
    features = create_features(config.feature_configs, FgMode.FG_DAG)
    return {f.name: f.reshape(results[f.name]) for f in features if not f.is_stub}


def parsed(columns, mode):
    features = create_features(load_config("c.config").feature_configs, mode)
    return {feature.name: feature.parse(columns) for feature in features}


def assert_equal(wanted, found):
    assert list(found) == list(wanted)
    for name, one in wanted.items():
        for part in ("values", "lengths", "key_lengths", "weights"):
            np.testing.assert_array_equal(
                getattr(one, part), getattr(found[name], part), f"{name} {part}"
            )


@pytest.mark.parametrize(
    ("flags", "mode"),
    [
        ([], FgMode.FG_NONE),
        (["--encoded"], FgMode.FG_NONE),
        (["--bucketize-later"], FgMode.FG_BUCKETIZE),
    ],
)
def test_output_reads_back_as_the_features(feed, capsys, flags, mode):
    args = ["--data", "raw.parquet", "--out", "out", "--workers", "1", "--batch-size", "311"]
    assert main(["fg", "c.config", *args, *flags]) == 0
    columns, files = written("out")
    assert files == ["part-00000.parquet"]
    assert_equal(expected(feed), parsed(columns, mode))
    for name in ("clicked", "weight"):
        assert columns[name].to_pylist() == feed[name].to_pylist()
    assert "request" not in columns
    out = capsys.readouterr().out
    assert "out: 1,500 rows in" in out
    assert f"--train-input-path out --set data_config.fg_mode={mode.name}" in out
    assert not Path("out.partial").exists()


def test_two_processes_write_two_files_in_order(feed):
    args = ["--data", "raw.parquet", "--out", "out", "--workers", "2", "--reserve", "request"]
    done = subprocess.run(
        [sys.executable, "-m", "tzrec.cli", "fg", "c.config", *args],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    columns, files = written("out")
    assert files == ["part-00000.parquet", "part-00001.parquet"]
    assert columns["request"].to_pylist() == feed["request"].to_pylist()
    assert_equal(expected(feed), parsed(columns, FgMode.FG_NONE))


def test_values_before_ids_become_ids_in_a_second_step(feed):
    assert main(["fg", "c.config", "--data", "raw.parquet", "--out", "v", "--bucketize-later"]) == 0
    edit = ["--set", "data_config.fg_mode=FG_BUCKETIZE"]
    assert main(["fg", "c.config", "--data", "v", "--out", "ids", *edit]) == 0
    columns, _ = written("ids")
    assert_equal(expected(feed), parsed(columns, FgMode.FG_NONE))


def test_csv_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = pa.table({"x": ["a|b", "", "c"], "n": [1, None, 3], "clicked": [0, 1, 0]})
    pa_csv.write_csv(table, "raw.csv")
    features = """
    feature_configs { id_feature { feature_name: "fx" expression: "user:x" separator: "|" hash_bucket_size: 9 embedding_dim: 2 } }
    feature_configs { raw_feature { feature_name: "fn" expression: "user:n" default_value: "7" } }
    """  # noqa: E501
    text = fg_feed.config_text(".", features=features, with_header="true")
    text = text.replace("ParquetDataset", "CsvDataset").replace(
        'sample_weight_fields: "weight"', ""
    )
    Path("c.config").write_text(text)
    assert main(["fg", "c.config", "--data", "raw.csv", "--out", "out"]) == 0
    columns, _ = written("out")
    assert columns["fn"].to_pylist() == [1.0, 7.0, 3.0]
    assert list(map(len, columns["fx"].to_pylist())) == [2, 0, 1]
    assert columns["clicked"].to_pylist() == [0, 1, 0]


def test_all_columns_are_passed_on_but_those_named_like_features(feed):
    table = pq.read_table("raw.parquet").append_column("user", pa.array(["u"] * ROWS))
    pq.write_table(table, "more.parquet")
    args = ["--data", "more.parquet", "--out", "out", "--reserve", "ALL_COLUMNS"]
    assert main(["fg", "c.config", *args]) == 0
    columns, _ = written("out")
    assert set(table.column_names) <= set(columns)
    assert pa.types.is_list(columns["user"].type)
    assert columns["nested"].to_pylist() == feed["nested"].to_pylist()


def failure(capsys, *args, code=2):
    assert main(["fg", "c.config", *args]) == code
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_a_bad_value_names_file_and_row_and_leaves_nothing(feed, capsys):
    table = pq.read_table("raw.parquet")
    ages = table["age_text"].to_pylist()
    ages[1234] = "old"
    index = table.column_names.index("age_text")
    table = table.set_column(index, "age_text", pa.array(ages))
    pq.write_table(table, "bad.parquet", row_group_size=500)
    error = failure(capsys, "--data", "bad.parquet", "--out", "out", code=3)
    assert "row 1234 (counted from 0): feature text_bin of age_text" in error
    assert "'old'" in error
    assert "of the batch" not in error
    assert not Path("out").exists()
    assert not Path("out.partial").exists()
    edit = ["--set", "data_config.max_bad_rows=1"]
    assert main(["fg", "c.config", "--data", "bad.parquet", "--out", "out", *edit]) == 0
    assert "1 bad rows left out" in capsys.readouterr().out
    columns, _ = written("out")
    rest = {name: column.to_pylist() for name, column in feed.items()}
    assert columns["clicked"].to_pylist() == rest["clicked"][:1234] + rest["clicked"][1235:]


def test_an_output_is_not_mixed_with_an_old_one(feed, capsys):
    args = ["--data", "raw.parquet", "--out", "out"]
    assert main(["fg", "c.config", *args]) == 0
    before = Path("out/part-00000.parquet").stat().st_mtime_ns
    Path("out/part-00007.parquet").write_bytes(b"old")
    assert "holds 2 Parquet file(s)" in failure(capsys, *args)
    assert main(["fg", "c.config", *args, "--overwrite"]) == 0
    assert [path.name for path in Path("out").iterdir()] == ["part-00000.parquet"]
    assert Path("out/part-00000.parquet").stat().st_mtime_ns > before
    again = ["--data", "out", "--out", "out", "--overwrite", "--set", "data_config.fg_mode=FG_DAG"]
    failure(capsys, *again, code=3)  # not the raw columns
    Path("data").mkdir()
    Path("raw.parquet").rename("data/raw.parquet")
    error = failure(capsys, "--data", "data/raw.parquet", "--out", "data", "--overwrite")
    assert "holds the input" in error
    assert "is a file" in failure(capsys, "--data", "data", "--out", "c.config")


def test_names_that_clash(feed, capsys):
    error = failure(capsys, "--data", "raw.parquet", "--out", "o", "--reserve", "price")
    assert "column 'price' cannot be passed on" in error
    edit = ["--set", 'data_config.label_fields=["ratio"]']
    assert "column 'ratio'" in failure(capsys, "--data", "raw.parquet", "--out", "o", *edit)


def test_nothing_to_generate(feed, capsys):
    edit = ["--set", "data_config.fg_mode=FG_NONE"]
    for args in (["--row", "{}"], ["--data", "x", "--out", "y"], ["--stats", "x"]):
        assert "there is nothing to generate" in failure(capsys, *args, *edit)
    edit = ["--set", "data_config.fg_mode=FG_BUCKETIZE", "--bucketize-later"]
    assert "values before ids are what" in failure(capsys, "--data", "x", "--out", "y", *edit)


WRONG = [
    ([], "one of the arguments --row --data --stats is required"),
    (["--data", "x"], "--data needs --out DIR"),
    (["--row", "{}", "--out", "x"], "--out has no effect here"),
    (["--stats", "x", "--features", "a"], "--features has no effect here"),
    (["--row", "{"], "--row is no JSON"),
    (["--row", "[1]"], "--row must be a JSON object"),
    (["--row", '{"user_idd": 1}'], "no feature reads column 'user_idd'; did you mean 'user_id'?"),
    (["--row", "{}", "--features", "prices"], "no feature 'prices'; did you mean 'price'?"),
    (["--row", "{}", "--data", "x"], "not allowed with"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "words"), WRONG)
def test_wrong_command_lines(feed, capsys, args, words):
    assert words in failure(capsys, *args)


def test_a_missing_column_is_named(feed, capsys):
    pq.write_table(pq.read_table("raw.parquet").drop_columns(["city"]), "less.parquet")
    error = failure(capsys, "--data", "less.parquet", "--out", "out", code=3)
    assert "column 'city' is not in less.parquet" in error


def test_a_row_is_shown(feed, capsys):
    row = {"city": "a", "tags": "x|q", "interests": {"x": 1.5}, "price": 10, "recent": ["x", ""]}
    assert main(["fg", "c.config", "--row", json.dumps(row)]) == 0
    out = capsys.readouterr().out
    assert "not given, so missing: user_id, slot" in out
    blocks = {block.split()[0]: block.splitlines() for block in out.split("\n\n")[1:]}
    assert set(FgHandler(setup_of(load_config("c.config")).fg_json).features) <= set(blocks)
    assert blocks["city"][-1].split() == ["id", "2"]
    assert blocks["tags"][-1].split() == ["id", "2", "|", "1", "(1", "unknown)"]
    assert blocks["price"][-1].split() == ["number", "1.0"]
    assert blocks["interests"][1].split()[-1] == "x:1.5"
    assert main(["fg", "c.config", "--row", json.dumps(row), "--features", "age_city"]) == 0
    names = [block.split()[0] for block in capsys.readouterr().out.split("\n\n")[1:]]
    assert names == ["age_bin", "age_city"]


def test_row_values_have_the_declared_types(feed, capsys):
    fields = "data_config.input_fields_str=price:FLOAT;age:BIGINT"
    flags = ["--features", "ratio", "--set", fields]
    assert main(["fg", "c.config", "--row", '{"price": 0.1, "age": 1}', *flags]) == 0
    assert "0.10000000149" in capsys.readouterr().out
    error = failure(capsys, "--row", '{"price": "cheap", "age": 1}', *flags, code=3)
    assert "column 'price': 'cheap' is not a value of type float" in error


def test_statistics(feed, capsys):
    assert main(["fg", "c.config", "--stats", "raw.parquet", "--batch-size", "200"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = {line.split()[0]: line.split() for line in lines}
    missing = feed["user_id"].null_count / ROWS
    assert table["user"][:3] == ["user", "1,500", f"{100 * missing:.2f}%"]
    cities = [city for city in feed["city"].to_pylist() if city]
    assert table["city"][3] == f"{100 * cities.count('d') / len(cities):.2f}%"
    prices = expected(feed)["price"].values
    assert table["price"][-2:] == [f"{prices.min():.6g}", f"{prices.max():.6g}"]


def batches(columns, mode):
    """What the loader's parser makes of columns."""
    from tzrec.datasets.data_parser import DataParser

    features = create_features(load_config("c.config").feature_configs, mode)
    parser = DataParser(features, labels=["clicked"], sample_weights=["weight"])
    assert set(parser.input_columns) <= set(columns)
    whole = {name: column.combine_chunks() for name, column in columns.items()}
    return parser.parse(whole)


@pytest.mark.parametrize(
    ("flags", "mode"), [([], FgMode.FG_NONE), (["--bucketize-later"], FgMode.FG_BUCKETIZE)]
)
def test_training_batches_are_the_same_bits(feed, flags, mode):
    assert main(["fg", "c.config", "--data", "raw.parquet", "--out", "out", *flags]) == 0
    wanted, found = batches(feed, FgMode.FG_DAG), batches(written("out")[0], mode)
    assert list(found) == list(wanted)
    for key, tensor in wanted.items():
        assert tensor.dtype == found[key].dtype
        assert tensor.numpy().tobytes() == found[key].numpy().tobytes(), key
