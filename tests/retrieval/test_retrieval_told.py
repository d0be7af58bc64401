"""What new users are told where a command does something that they hardly mean."""

import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from match_jobs import run

from tzrec.errors import ConfigError, ServingError
from tzrec.retrieval import Index, build_index
from tzrec.retrieval.build import index_export
from tzrec.retrieval.index_info import IndexOptions
from tzrec.retrieval.towers import load_tower


@pytest.fixture
def retrieve(tmp_path):
    """Searches an index of the items 0 to 9 for three users, with more flags."""
    rng = np.random.default_rng(0)
    items = rng.normal(size=(10, 4)).astype(np.float32)
    build_index(pa.array(range(10)), items, id_field="item_id").save(tmp_path / "index")
    rows = {"user_id": [1, 2, 3], "v": rng.normal(size=(3, 4)).tolist(), "age": [1.5, 2, 3]}
    pq.write_table(pa.table(rows | {"item_id": [1, 2, 3]}), tmp_path / "users.parquet")
    count = iter(range(9))

    def call(*words, command="retrieve"):
        more = ["--reserved-columns", "user_id", "--out", tmp_path / f"o{next(count)}"]
        users = ["--input", tmp_path / "users.parquet", "--user-field", "user_id"]
        if command == "hitrate":
            more = []
        return run(command, tmp_path / "index", *users, *more, *words)

    return call


def write_log(path, users, items):
    pq.write_table(pa.table({"user_id": users, "item_id": items}), path)
    return path


def test_more_items_than_there_are(retrieve, capsys):
    assert retrieve("--k", 10) == 0
    assert retrieve("--k", "5,10", command="hitrate") == 0
    assert "the index has" not in capsys.readouterr().err
    assert retrieve("--k", 11) == 0
    assert "k is 11, the index has 10 items: lists are shorter" in capsys.readouterr().err
    assert retrieve("--k", "5,12", command="hitrate") == 0
    assert "K is 12, the index has 10 items" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["retrieve", "hitrate"])
@pytest.mark.parametrize(
    ("users", "items", "told"),
    [
        ([1, 900], [4, 5], ""),
        ([900, 901], [4, 5], "column 'user_id' has none of the users of the input"),
        (["a", "b"], [4, 5], "column 'user_id' has none of the users of the input"),
        ([1, 2], [400, 500], "column 'item_id' has none of the items of the index"),
    ],
    ids=["known", "other users", "text", "other items"],
)
def test_a_log_of_others(retrieve, tmp_path, capsys, command, users, items, told):
    log = write_log(tmp_path / "log.parquet", users, items)
    assert retrieve("--seen", log, "--k", 3, command=command) == 0
    error = capsys.readouterr().err
    assert told in error
    assert error.count("nothing is left out") == bool(told)


def test_a_column_that_holds_no_items(retrieve, capsys):
    assert retrieve("--seen-column", "age") == 3
    assert "column 'age': a list of ids has type double" in capsys.readouterr().err


def test_an_id_that_comes_again_is_named(caplog):
    caplog.set_level(logging.WARNING, "tzrec")
    build_index(pa.array(["x", "b", "c", "b"]), np.eye(4, dtype=np.float32))
    assert "1 ids occur more than once, as b" in caplog.text


def test_paths_that_are_not_there(tmp_path):
    with pytest.raises(ServingError, match=r"none does not exist"):
        Index.load(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"none does not exist"):
        load_tower(str(tmp_path / "none"), "user")
    with pytest.raises(ConfigError, match=r"none does not exist"):
        index_export(str(tmp_path / "none"), "i.parquet", str(tmp_path / "r"), IndexOptions())


def test_an_export_is_no_index(tmp_path):
    for part in ("user", "item"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "manifest.json").write_text("{}")
    with pytest.raises(ServingError, match="is an export and holds no index") as caught:
        Index.load(tmp_path)
    assert f"tzrec index {tmp_path} --items ITEMS" in str(caught.value)
