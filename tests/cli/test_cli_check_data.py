# ruff: noqa: E501
"""``tzrec check --data``: columns, types and ranges, without reading rows."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from tzrec.cli import main
from tzrec.errors import DataError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "config"))
from config_samples import DEEPFM, DIN, write

COLUMNS = {
    "user_id": pa.array([0, 999, 3]),
    "item_id": pa.array([1, None, 499]),
    "price": pa.array([0, 1, 3]),
    "age": pa.array([1.0, 2.0, 3.0]),
    "clk": pa.array([0, 1, 1]),
}


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()

    def check(columns=None, text=DEEPFM, *changes, files=2, drop=()):
        table = pa.table({k: v for k, v in {**COLUMNS, **(columns or {})}.items() if k not in drop})
        for number in range(files):
            pq.write_table(table, f"data/train-{number}.parquet")
        pq.write_table(pa.table(COLUMNS), "data/eval.parquet")
        write(tmp_path / "c.config", text, *changes)
        code = main(["check", "c.config", "--data"])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return check


def test_good_data(check):
    code, text = check()
    assert code == 0
    assert "train data 6 rows in 2 files" in text
    assert "eval data 3 rows in 1 file" in text


BAD = [
    ({"user_id": pa.array([0, 1000])}, "holds the id 1000, but the table has 1000 rows (ids 0 to 999)"),
    ({"user_id": pa.array([0, -5])}, "holds the id -5; ids must not be negative"),
    ({"user_id": pa.array([0.5, 1.0])}, "feature 'user_id' cannot read a column of double; it takes integers, text, or a list of these"),
    ({"age": pa.array([1.0, None])}, "has 1 missing values; say what they mean with fg_encoded_default_value"),
    ({"age": pa.array([{"a": 1.0}, {"a": 2.0}])}, "feature column 'age' of "),
    ({"clk": pa.array([1, 2])}, "holds values from 1 to 2, but the loss takes 0 to 1"),
    ({"clk": pa.array(["a", "b"])}, "is string, but labels must be numbers"),
    ({"clk": pa.array([1, None])}, "has 1 missing values"),
    ({"age": pa.array([None, None], pa.float32())}, "has 3 missing values; say what they mean"),
    ({"clk": pa.array([None, None], pa.int64())}, "has 3 missing values"),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "words"), BAD)
def test_bad_data(check, columns, words):
    columns = {
        name: pa.concat_arrays([array, array.slice(0, 1)]) for name, array in columns.items()
    }
    code, text = check(columns)
    assert code == 3
    lines = [line for line in text.splitlines() if not line.startswith("  ")]
    assert len(lines) == 1, lines
    assert words in lines[0]
    assert "/data/train-0.parquet" in lines[0]


def test_missing_columns_all_at_once(check):
    code, text = check({"user_idd": pa.array([1, 2, 3])}, drop=("user_id", "clk"))
    assert code == 3
    assert (
        "c.config:26: feature_configs[0].id_feature.feature_name: feature column 'user_id' is "
        in text
    )
    assert "did you mean 'user_idd'?" in text
    assert "c.config:21: data_config.label_fields[0]: label column 'clk' is not in file" in text


def test_a_default_makes_missing_numbers_fine(check):
    columns = {"age": pa.array([1.0, None, 2.0])}
    change = ('expression: "user:age"', 'fg_encoded_default_value: "0"')
    assert check(columns, DEEPFM, change)[0] == 0


def test_lists_and_text_are_fine_for_ids(check):
    assert check({"user_id": pa.array([[1, 2], [], None])})[0] == 0
    assert check({"user_id": pa.array(["1\x032", "", None])})[0] == 0


def test_files(check, tmp_path):
    code, text = check(None, DEEPFM, ("data/eval.parquet", "data/evl.parquet"))
    assert code == 3
    assert "eval_input_path: no parquet files exist in 'data/evl.parquet'" in text
    assert check(None, DEEPFM, ("data/train-*.parquet", "data"))[0] == 0
    empty = {name: array.slice(0, 0) for name, array in COLUMNS.items()}
    code, text = check(empty)
    assert code == 3
    assert "train_input_path: the files of 'data/train-*.parquet' hold no rows" in text
    (tmp_path / "data" / "train-9.parquet").write_text("no parquet")
    code, text = check()
    assert code == 3
    assert "/data/train-9.parquet' cannot be read: " in text


ONES, ZEROS = {"clk": pa.array([1, 1, 1])}, {"clk": pa.array([0, 0, 0])}


def test_a_label_of_one_class_is_told(check):
    code, text = check(ONES)
    assert code == 0
    assert "label column 'clk' is always 1 in 'data/train-*.parquet'" in text
    assert "eval.parquet" not in text


def test_files_of_one_class_each_are_fine(check, tmp_path):
    """As files are that were written sorted by label."""
    pq.write_table(pa.table({**COLUMNS, **ZEROS}), tmp_path / "data" / "train-9.parquet")
    code, text = check(ONES)
    assert code == 0
    assert "train data 9 rows in 3 files" in text
    assert "is always" not in text


def test_a_warning_does_not_hide_an_error_at_the_same_place(check, tmp_path):
    negative = {"clk": pa.array([0, -1, 1])}
    pq.write_table(pa.table({**COLUMNS, **negative}), tmp_path / "data" / "train-9.parquet")
    weights = ('label_fields: "clk"', 'label_fields: "clk" sample_weight_fields: "age"')
    code, text = check({"age": pa.array([-1.0, 2.0, 3.0])}, DEEPFM, weights)
    assert code == 3
    assert "holds values from -1 to 1, but the loss takes 0 to 1" in text
    text_weights = {"age": pa.array(["1", "2", "3"])}
    pq.write_table(pa.table({**COLUMNS, **text_weights}), tmp_path / "data" / "train-9.parquet")
    code, text = check({"age": pa.array([-1.0, 2.0, 3.0])}, DEEPFM, weights)
    assert code == 3
    assert "sample weight column 'age' is string, but weights must be float" in text


def test_csv(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    columns = {
        "user": [1],
        "item": [2],
        "click__item": ["1;2"],
        "click__price": ["1;2"],
        "clk": [1],
    }
    pa_csv.write_csv(pa.table(columns), "data/train.csv")
    write(tmp_path / "c.config", DIN)
    assert main(["check", "c.config", "--data"]) == 0
    pa_csv.write_csv(pa.table({**columns, "clk": ["x"]}).drop_columns("item"), "data/train.csv")
    assert main(["check", "c.config", "--data"]) == 3
    err = capsys.readouterr().err
    assert "feature column 'item' is not in file 'data/train.csv'" in err
    assert "label column 'clk' is string, but labels must be numbers" in err


def test_the_files_are_those_that_training_reads(check, tmp_path):
    """Any depth below a folder, without hidden files and those of other kinds."""
    deep = ("data/train-*.parquet", "data")
    (tmp_path / "data" / "a" / "b").mkdir(parents=True)
    pq.write_table(pa.table(COLUMNS), "data/a/b/more.parquet")
    pq.write_table(pa.table({"x": [1]}), "data/a/_other.parquet")
    pq.write_table(pa.table({"x": [1]}), "data/a/.hidden.parquet")
    (tmp_path / "data" / "a" / "notes.csv").write_text("x\n1\n")
    code, text = check(None, DEEPFM, deep)
    assert code == 0, text
    assert "train data 12 rows in 4 files" in text


def test_a_flag_is_named_once(check, capsys):
    check()
    for path, words in [
        ("none.parquet", "--train_input_path: no parquet files exist in 'none.parquet'"),
        ("nos://x/*.parquet", "--train_input_path: no file system for 'nos://x/*.parquet'"),
    ]:
        assert main(["check", "c.config", "--data", "--train-input-path", path]) == 3
        assert capsys.readouterr().err.startswith(words)


def test_rows_that_may_be_skipped_only_warn(check):
    skips = ("batch_size: 256", "batch_size: 256 max_bad_rows: 3")
    for columns, words in [
        ({"user_id": pa.array([0, 1000, 1])}, "holds the id 1000, but the table has 1000 rows"),
        ({"age": pa.array([1.0, None, 2.0])}, "has 1 missing values; say what they mean"),
        ({"clk": pa.array([1, None, 0])}, "label column 'clk' has 1 missing values"),
    ]:
        assert check(columns)[0] == 3
        code, text = check(columns, DEEPFM, skips)
        assert code == 0, text
        assert text.startswith("warning: c.config:")
        assert words in text.splitlines()[0]
    assert check({"clk": pa.array([1, 2, 0])}, DEEPFM, skips)[0] == 3, "a label is no bad row"


def test_types_that_training_reads_are_fine(check):
    """The rules are those of the parser: what it takes is not complained about."""
    columns = {
        "user_id": pa.array([1, 2, 3], pa.uint8()),
        "item_id": pa.array(["1", "2", None]).dictionary_encode(),
        "price": pa.array([[0], [1], []], pa.large_list(pa.int16())),
        "age": pa.array([True, False, True]),
        "clk": pa.array([True, False, True]),
    }
    code, text = check(columns)
    assert code == 0, text


def test_types_of_several_files_must_fit_each_other(check):
    check()
    pq.write_table(
        pa.table({**COLUMNS, "user_id": pa.array(["a", "b", "c"])}), "data/train-1.parquet"
    )
    assert main(["check", "c.config", "--data"]) == 3


def test_before_a_run_only_the_first_files_are_looked_at(check, capsys, monkeypatch):
    from tzrec.cli import check_data
    from tzrec.config.pipeline import prepare

    check(files=3)
    pq.write_table(pa.table({"x": [1]}), "data/train-2.parquet")
    pipeline = prepare("c.config")
    looked, _ = check_data.check_data(pipeline, ["train_input_path"], check_data.Effort(files=2))
    assert looked == [("train data", "6 rows in 2 files (of 3)")]
    with pytest.raises(DataError, match=r"none of the columns .* is in file '.*train-2.parquet'"):
        check_data.check_data(pipeline, ["train_input_path"])


def test_ranges_are_left_out_where_there_are_too_many(check):
    from tzrec.cli import check_data
    from tzrec.config.pipeline import prepare

    check({"user_id": pa.array([0, 5000, 1])})
    pipeline = prepare("c.config")
    with pytest.raises(DataError, match="holds the id 5000"):
        check_data.check_data(pipeline, effort=check_data.Effort(statistics=5))
    check_data.check_data(pipeline, effort=check_data.Effort(statistics=4))


def test_files_by_scheme(check):
    import fsspec

    check()
    memory = fsspec.filesystem("memory")
    with memory.open("/check/train.parquet", "wb") as stream:
        pq.write_table(pa.table(COLUMNS).drop_columns("age"), stream)
    flags = ["--train-input-path", "memory://check/train.parquet"]
    assert main(["check", "c.config", "--data", *flags]) == 3
    memory.rm("/check", recursive=True)


def test_a_file_in_which_no_column_fits_is_one_problem(check):
    code, text = check({"a": pa.array([1, 2, 3])}, drop=tuple(COLUMNS))
    assert code == 3
    problems = [line for line in text.splitlines() if not line.startswith("  ")]
    assert len(problems) == 1
    assert "none of the columns that the config reads is in file" in problems[0]
    assert "columns of the file: a" in text
