"""The forms of the tables, and what is wrong with them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from sampler_tables import (
    EDGES,
    KINDS,
    NODES,
    batch_of,
    draw,
    ids,
    make_sampler,
    write_edges,
    write_items,
    write_lines,
)

from tzrec.datasets.samplers.attributes import Attributes, from_text
from tzrec.datasets.samplers.ids import ids_of
from tzrec.errors import ConfigError, DataError, Unsupported


def rows_of(sampler, positive=0):
    """What is drawn, by item id."""
    rows = draw(sampler, [positive], [positive])
    return {row["item_id"]: row for row in pa.table(rows.columns).to_pylist()}


# --- attributes --------------------------------------------------------------------------------

TYPED_TEXTS = [
    (pa.string(), ["a", "", "x\x1dy"], ["a", None, "x\x1dy"]),
    (pa.int64(), ["3", "", " -4 "], [3, None, -4]),
    (pa.int32(), ["3", "", "4"], [3, None, 4]),
    (pa.float32(), ["1.5", "", "1e3"], [1.5, None, 1000.0]),
    (pa.float64(), ["0.1", "", "-2"], [0.1, None, -2.0]),
    (pa.list_(pa.int64()), ["1\x1d2", "", "3"], [[1, 2], None, [3]]),
    (pa.list_(pa.float32()), ["1\x1d2.5", "", "3"], [[1.0, 2.5], None, [3.0]]),
    (pa.list_(pa.string()), ["a\x1d\x1db", "", "c"], [["a", "", "b"], None, ["c"]]),
    (
        pa.map_(pa.string(), pa.float32()),
        ["a:1\x1db:2.5", "", "c:3"],
        [[("a", 1.0), ("b", 2.5)], None, [("c", 3.0)]],
    ),
    (pa.map_(pa.int64(), pa.string()), ["1:x:y", "", "2:"], [[(1, "x:y")], None, [(2, "")]]),
]


@pytest.mark.parametrize(("kind", "texts", "expected"), TYPED_TEXTS, ids=lambda v: str(v)[:20])
def test_text_as_a_type(kind, texts, expected):
    column = from_text(pa.array(texts), kind, "a")
    column.validate(full=True)
    assert column.type == kind
    assert column.to_pylist() == expected
    part = from_text(pa.array(["9", *texts])[1:], kind, "a") if "map" not in str(kind) else column
    assert part.to_pylist() == expected


def test_attributes_keep_their_place():
    """An attribute that is no input column is not used, and still takes a place in the text."""
    attributes = Attributes(["a", "other", "b"], {"a": pa.int64(), "b": pa.string()}, "\x02")
    assert attributes.unknown == ["other"]
    columns = attributes.parse(pa.array(["1\x02x\x02y", "\x02\x02", "2\x02\x02z:w"]))
    assert [c.to_pylist() for c in columns] == [[1, None, 2], ["y", None, "z:w"]]


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (pa.int64(), "x", "attribute 'a' cannot be int64.*'x'"),
        (pa.float32(), "1,5", "attribute 'a' cannot be float.*'1,5'"),
        (pa.list_(pa.int64()), "1\x1dx", "attribute 'a' cannot be list.*'x'"),
        (pa.map_(pa.string(), pa.int64()), "k", "Parse KV error: 'k' is not key:value"),
        (pa.map_(pa.string(), pa.int64()), "k:v", "'v'"),
    ],
)
def test_text_that_is_not_of_the_type(kind, text, message):
    attributes = Attributes(["id", "a"], {"id": pa.int64(), "a": kind}, "|")
    with pytest.raises(DataError, match=message) as caught:
        attributes.parse(pa.array(["1|", "2|", f"3|{text}", f"4|{text}"]))
    assert caught.value.row == 2


def test_wrong_number_of_attributes():
    attributes = Attributes(["id", "a"], {"id": pa.int64(), "a": pa.string()}, ":")
    with pytest.raises(DataError, match="3 attributes in '2:x:y', attr_fields names 2") as caught:
        attributes.parse(pa.array(["1:x", "2:x:y"]))
    assert caught.value.row == 1
    assert "attr_delimiter is ':'" in caught.value.hint


def test_wrong_config_of_attributes():
    with pytest.raises(ConfigError, match="attr_delimiter is empty"):
        Attributes(["a"], {}, "")
    with pytest.raises(ConfigError, match="names 'a' more than once"):
        Attributes(["a", "b", "a"], {}, ":")
    with pytest.raises(ConfigError, match="text cannot be list<item: list"):
        from_text(pa.array(["1"]), pa.list_(pa.list_(pa.int64())), "a")


# --- forms -------------------------------------------------------------------------------------


def test_text_with_a_typed_header(graph, caplog):
    sampler = make_sampler(
        graph, num_sample=200, attrs=["item_id", "cat"], fields={"cat": pa.string()}
    )
    columns = draw(sampler, [1]).columns
    assert list(columns) == ["cat"]
    assert set(columns["cat"].to_pylist()) <= {f"c{i}" for i in range(2, 11)}
    assert "'item_id' is no input column" in caplog.text
    assert "draws repeat" in caplog.text


def test_a_weight_field_of_typed_text_is_said_to_do_nothing(graph, caplog):
    text = make_sampler(graph, text='weight_field: "cat"', with_log_q=True)
    assert "weight_field has no effect" in caplog.text
    plain = make_sampler(graph, with_log_q=True)
    found, expected = (s.arrays["items.log_q"] for s in (text, plain))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("delimiter", [",", ";", "\x02"])
def test_other_delimiters(tmp_path, delimiter):
    text = f"id:int64\tweight:double\tfoo:string\n7\t2\t7{delimiter}a:b\n8\t0\t8{delimiter}c\n"
    (tmp_path / "items.txt").write_text(text.replace("\t", "|"))
    options = f'attr_delimiter: "{delimiter}" field_delimiter: "|"'
    assert rows_of(make_sampler(tmp_path, text=options)) == {7: {"item_id": 7, "cat": "a:b"}}


def test_windows_line_ends_quotes_and_no_last_line_end(tmp_path):
    text = f'{NODES}\r\n7\t2\t7:"a\r\n\r\n8\t1\t8:b"'
    (tmp_path / "items.txt").write_bytes(text.encode())
    found = rows_of(make_sampler(tmp_path, num_sample=100))
    assert found == {7: {"item_id": 7, "cat": '"a'}, 8: {"item_id": 8, "cat": 'b"'}}


def test_several_files(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    for part in range(3):
        write_items(folder / f"part-{part}", {part * 10 + i: 1 for i in range(4)})
    (folder / "_SUCCESS").write_text("")
    for path in (folder, f"{folder}/part-*", ",".join(f"{folder}/part-{i}" for i in range(3))):
        sampler = make_sampler(tmp_path, text=f'input_path: "{path}"', num_sample=2000)
        assert sorted(rows_of(sampler, 21)) == [0, 1, 2, 3, 10, 11, 12, 13, 20, 22, 23]


@pytest.mark.parametrize("form", ["parquet", "csv", "tsv", "csv with |"])
def test_named_columns(tmp_path, form):
    table = pa.table(
        {
            "price": [1.5, 2.5, None, 9.0],
            "item_id": [5, 6, 7, 8],
            "w": [1, 1, 2, 0],
            "tags": ["1\x1d2", "3", "", "4"],
            "unused": ["x", "y", "z", "x"],
        }
    )
    options, suffix = 'weight_field: "w" ', form.partition(" ")[0]
    path = tmp_path / f"table.{suffix}"
    if form == "parquet":
        lists = [[1, 2], [3], None, [4]]
        pq.write_table(table.set_column(3, "tags", pa.array(lists, pa.list_(pa.int32()))), path)
    else:
        separator = {"csv": ",", "tsv": "\t"}.get(form, "|")
        options += 'field_delimiter: "|"' if separator == "|" else ""
        cells = [["" if v is None else str(v) for v in row.values()] for row in table.to_pylist()]
        lines = [separator.join(line) for line in [table.column_names, *cells]]
        path.write_text("\n".join(lines))
    fields = {"item_id": pa.int64(), "tags": pa.list_(pa.int64()), "price": pa.float32()}
    sampler = make_sampler(
        tmp_path,
        text=f'input_path: "{path}" {options}',
        attrs=["tags", "item_id", "price", "nowhere"],
        fields=fields,
        num_sample=1000,
    )
    rows = draw(sampler, [0])
    assert {name: column.type for name, column in rows.columns.items()} == fields
    assert rows_of(sampler) == {
        5: {"item_id": 5, "tags": [1, 2], "price": 1.5},
        6: {"item_id": 6, "tags": [3], "price": 2.5},
        7: {"item_id": 7, "tags": None, "price": None},
    }
    assert 400 < ids(rows).count(7) < 600


@pytest.mark.parametrize(
    ("values", "target"),
    [
        (pa.array([[1, 2]]), pa.string()),
        (pa.array([[1, 2]]), pa.int64()),
        (pa.array([[1, 2]]), pa.map_(pa.string(), pa.int64())),
        (pa.array([1]), pa.list_(pa.int64())),
        (pa.array([1]), pa.map_(pa.string(), pa.int64())),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), pa.string()),
    ],
)
def test_attributes_of_another_shape(tmp_path, values, target):
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": [5], "tags": values}), path)
    fields = {"item_id": pa.int64(), "tags": target}
    message = f"attribute 'tags' is .* in the table, the input column is {target}"
    with pytest.raises(ConfigError, match=message.replace("<", ".").replace("(", ".")):
        make_sampler(
            tmp_path, text=f'input_path: "{path}"', attrs=["item_id", "tags"], fields=fields
        )


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_named_edges(graph, suffix):
    tables = {
        "users": pa.table({"user_id": [1], "age": [3]}),
        "pos": pa.table({"item_id": [1, 2, 3, 99], "user_id": [1, 1, 2, 1]}),
    }
    for name, table in tables.items():
        if suffix == "parquet":
            pq.write_table(table, graph / f"{name}.parquet")
        else:
            pa.csv.write_csv(table, graph / f"{name}.csv")
    options = f"""
      user_input_path: "{graph}/users.{suffix}" pos_edge_input_path: "{graph}/pos.{suffix}"
    """
    sampler = make_sampler(graph, "negative_sampler_v2", text=options, num_sample=100)
    assert set(ids(draw(sampler, [0], [1]))) == {3}
    assert set(ids(draw(sampler, [0], [2]))) == {1, 2}


def test_candidate_sequences_name_their_columns_without_the_prefix(tmp_path):
    table = pa.table({"adgroup_id": [1, 2], "price": [1.0, 2.0]})
    fields = {"adgroup_id": pa.int64(), "cand__adgroup_id": pa.int64()}
    for suffix in ("parquet", "csv"):
        path = tmp_path / f"items.{suffix}"
        if suffix == "csv":
            pa.csv.write_csv(table, path)
        else:
            pq.write_table(table, path)
        sampler = make_sampler(
            tmp_path,
            text=f'input_path: "{path}" item_id_field: "cand__adgroup_id"',
            attrs=["adgroup_id"],
            fields=fields,
        )
        rows = sampler.get({"cand__adgroup_id": pa.array([1])}, np.random.default_rng(0))
        assert rows.columns["adgroup_id"].to_pylist() == [2] * 6


def test_long_text_needs_wide_offsets(tmp_path, monkeypatch):
    from tzrec.datasets.samplers import items

    monkeypatch.setattr(items, "_MAX_SHORT_BYTES", 3)
    write_items(tmp_path / "items.txt", {1: 1, 2: 1})
    found = draw(make_sampler(tmp_path), [2]).columns["cat"]
    assert found.type == pa.string()
    assert set(found.to_pylist()) == {"c1"}


# --- string ids --------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["config", "environment"])
def test_string_ids(graph, monkeypatch, by):
    write_lines(
        graph / "items.txt",
        "id:string\tweight:float\tattrs:string",
        [(f"i/{i}", 1, f"i/{i}:c{i}") for i in range(4)],
    )
    write_lines(graph / "pos.txt", "u:string\ti:string", [("ann", "i/0"), ("ann", "i/1")])
    write_lines(graph / "hard.txt", "u:string\ti:string", [("bob", "i/2"), ("bob", "i/9")])
    write_lines(graph / "users.txt", "u:string", [("ann",), ("bob",)])
    if by == "environment":
        monkeypatch.setenv("USE_HASH_NODE_ID", "1")
    options = "string_ids: true" if by == "config" else ""
    sampler = make_sampler(
        graph,
        "hard_negative_sampler",
        text=options,
        fields={"item_id": pa.string(), "cat": pa.string()},
        num_sample=200,
    )
    batch = {"item_id": pa.array(["i/3", None]), "user_id": pa.array(["bob", None])}
    rows = sampler.get(batch, np.random.default_rng(0))
    assert set(ids(rows, 0, 200)) == {"i/0", "i/1", "i/2"}
    assert rows.hard_neg_indices.tolist() == [[0, 0]]
    assert ids(rows, 200) == ["i/2"]
    monkeypatch.delenv("USE_HASH_NODE_ID", raising=False)
    with pytest.raises(ConfigError, match="id:string, but the sampler has integer ids") as caught:
        make_sampler(graph)
    assert "string_ids: true" in caught.value.hint


def test_string_ids_of_a_table_of_numbers(tmp_path):
    """Numbers are the text of numbers, in tables and in batches."""
    pq.write_table(pa.table({"item_id": [10, 20], "cat": ["a", "b"]}), tmp_path / "i.parquet")
    text = f'string_ids: true input_path: "{tmp_path}/i.parquet"'
    sampler = make_sampler(tmp_path, text=text)
    for column in (pa.array([10]), pa.array(["10"]), pa.array([10], pa.int32())):
        rows = sampler.get({"item_id": column}, np.random.default_rng(0))
        assert set(ids(rows)) == {20}


def test_hashes_of_ids():
    texts = ["", "a", "ann", "a longer one of some words", "é"]
    column = pa.array(["skipped", *texts])[1:]
    from tzrec.fg.hashing import murmur_hash64a

    expected = [murmur_hash64a(text.encode()) for text in texts]
    found = ids_of(column, "id", string_ids=True)
    assert found.view(np.uint64).tolist() == expected
    assert (
        ids_of(pa.array([None, "a"]), "id", string_ids=True).view(np.uint64).tolist()
        == (expected[:2])
    )


# --- wrong tables ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("id:int64\tweight\tattrs:string", "'weight' in the header .* is not name:type"),
        ("id:int64\tweight:string\tattrs:string", "'weight:string' .* type of float, double"),
        ("id:float\tweight:float\tattrs:string", "'id:float' in the header"),
        ("id:int64\tweight:float\tattrs:string\tmore:string", "has 4 columns"),
        ("id:int64,weight:float,attrs:string", "'id:int64,weight:float,attrs:string' in the head"),
        ("id:int64\tweight:float", "has no column for attrs"),
        ("id:int64", "has no column for weight, attrs"),
    ],
)
def test_malformed_headers(tmp_path, header, message):
    write_lines(tmp_path / "items.txt", header, [(1, 1.0, "1:a")])
    with pytest.raises(DataError, match=message) as caught:
        make_sampler(tmp_path)
    assert "id:int64<TAB>weight:float<TAB>attrs:string" in caught.value.hint
    assert str(caught.value).startswith("data_config.negative_sampler.input_path: ")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(1, 1, "1:a"), (2, -1, "2:b")], "row 2 after the header: the weight is -1"),
        ([(1, "nan", "1:a")], "row 1 after the header: the weight is nan"),
        ([(1, "inf", "1:a")], "the weight is inf"),
        ([(1, "", "1:a")], "the weight is None"),
        ([(1, "heavy", "1:a")], "cannot be read: .*heavy"),
        ([(1, 0, "1:a"), (2, 0, "2:b")], "sum to 0.0: no item can be drawn"),
        ([(1, 1, "1:a"), ("x", 1, "2:b")], "cannot be read: .*'x'"),
        ([(1, 1, "1:a"), ("", 1, "2:b")], "row 2 after the header: the id is empty"),
        ([(1, 1, "1:a"), (2, 1, "2")], "row 2 after the header: 1 attributes in '2'"),
        ([(1, 1, "1:a"), (2, 1, "z:b")], "row 2 after the header: attribute 'item_id' cannot be"),
        ([(1, 1)], "Expected 3 columns, got 2"),
        ([], "the item table has no rows"),
    ],
)
def test_wrong_items(tmp_path, rows, message):
    write_lines(tmp_path / "items.txt", NODES, rows)
    with pytest.raises(DataError, match=message):
        make_sampler(tmp_path)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_wrong_named_items(tmp_path, suffix):
    def build(columns, options=""):
        path = tmp_path / f"t.{suffix}"
        table = pa.table(columns)
        if suffix == "csv":
            pa.csv.write_csv(table, path)
        else:
            pq.write_table(table, path)
        make_sampler(tmp_path, text=f'input_path: "{path}" {options}')

    good = {"item_id": [1, 2], "cat": ["a", "b"], "w": [1.0, -2.0]}
    build(good)
    weight = 'weight_field: "w"'
    with pytest.raises(DataError, match=r"row 1 \(counted from 0\): the weight is -2"):
        build(good, weight)
    with pytest.raises(DataError, match="column 'weigth' is not in"):
        build(good, 'weight_field: "weigth"')
    with pytest.raises(DataError, match=r"column 'cat' is not in .*; did you mean 'Cat'"):
        build({"item_id": [1], "Cat": ["a"]})
    with pytest.raises(DataError, match="column 'item_id' is not in"):
        build({"id": [1], "cat": ["a"]})
    with pytest.raises(DataError, match=r"row 1 \(counted from 0\).* the id is empty"):
        build(good | {"item_id": [1, None]})
    with pytest.raises(DataError, match=r"row 0 .*('x'|cannot be the sampler's id)"):
        build(good | {"item_id": ["x", "y"]})


def test_items_of_the_same_id(tmp_path, caplog):
    """The first counts."""
    rows = [(1, 1, "1:a"), (2, 1, "2:b"), (1, 9, "1:c"), (3, 2, "3:d"), (2, 9, "2:e")]
    write_lines(tmp_path / "items.txt", NODES, rows)
    sampler = make_sampler(tmp_path, num_sample=400, with_log_q=True)
    found = rows_of(sampler)
    assert {i: row["cat"] for i, row in found.items()} == {1: "a", 2: "b", 3: "d"}
    np.testing.assert_allclose(
        draw(sampler, [1, 2, 3]).positive_log_q, np.log([0.25, 0.25, 0.5]), rtol=1e-6
    )
    assert "2 of 5 items have the id of an earlier item" in caplog.text
    assert "row 3 after the header" in caplog.text


def test_edges_to_items_that_are_not_there(graph, caplog):
    write_edges(graph / "pos.txt", [(0, 1), (0, 77), (1, 2), (1, 78)])
    sampler = make_sampler(graph, "negative_sampler_v2", num_sample=100)
    assert set(ids(draw(sampler, [0], [0]))) == {2}
    assert "2 of 4 positive edges lead to items that the item table does not have" in caplog.text
    assert "row 2 after the header" in caplog.text
    write_edges(graph / "pos.txt", [(1, 77), (2, 78)])
    with pytest.raises(DataError, match="none of the 2 edges leads to an item") as caught:
        make_sampler(graph, "negative_sampler_v2")
    where = "data_config.negative_sampler_v2.pos_edge_input_path"
    assert str(caught.value).startswith(where)


def test_users_are_those_of_the_edges(graph):
    """The user table must be there; what its rows say does not matter."""
    write_lines(graph / "users.txt", "id:int64\tweight:float", [(1, -5)])
    sampler = make_sampler(graph, "hard_negative_sampler")
    assert len(draw(sampler, [0], [2]).hard_neg_indices) == 3
    (graph / "users.txt").write_text("user,weight\n1,1\n")
    with pytest.raises(DataError, match="user_input_path: column 'user_id' is not in"):
        make_sampler(graph, "hard_negative_sampler")
    (graph / "users.txt").unlink()
    with pytest.raises(DataError, match=r"hard_negative_sampler.user_input_path: no files exist"):
        make_sampler(graph, "hard_negative_sampler")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(1, 1, 1), ("", 1, 1)], "row 2 after the header: the user is empty"),
        ([(1, "", 1)], "row 1 after the header: the item is empty"),
        ([(1, "x", 1)], "cannot be read: .*'x'"),
        ([], "none of the 0 edges"),
    ],
)
def test_wrong_edges(graph, rows, message):
    write_lines(graph / "pos.txt", EDGES, rows)
    with pytest.raises(DataError, match=message):
        make_sampler(graph, "negative_sampler_v2")


def test_files_that_cannot_be_read(tmp_path):
    for path, error, message in [
        (f"{tmp_path}/none.txt", DataError, "no files exist in"),
        ("odps://project/tables/items", Unsupported, "odps:// input is not supported"),
        ("", DataError, "names no file"),
    ]:
        with pytest.raises(error, match=message):
            make_sampler(tmp_path, text=f'input_path: "{path}"')
    write_items(tmp_path / "a.txt", {1: 1})
    write_lines(tmp_path / "b.txt", "id:string\tweight:float\tattrs:string", [(2, 1, "2:b")])
    with pytest.raises(DataError, match="have not the same types"):
        make_sampler(tmp_path, text=f'input_path: "{tmp_path}/a.txt,{tmp_path}/b.txt"')


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_of_files_fit_together(graph, kind, monkeypatch):
    """Many small pieces give the tables that one gives."""
    from tzrec.datasets.samplers import tables

    whole = draw(make_sampler(graph, kind), [1], [2])
    monkeypatch.setattr(tables, "_BLOCK_BYTES", 64)
    parts = draw(make_sampler(graph, kind), [1], [2])
    assert parts.columns == whole.columns


def test_unknown_ids_of_a_batch(graph):
    """They exclude nothing and have no hard negatives."""
    sampler = make_sampler(graph, "hard_negative_sampler_v2", num_sample=400)
    rows = sampler.get(batch_of([12345], [67890]), np.random.default_rng(0))
    assert set(ids(rows)) == set(range(1, 9))
    assert rows.hard_neg_indices is None


@pytest.mark.parametrize("suffix", ["txt", "parquet"])
def test_progress(tmp_path, monkeypatch, caplog, suffix):
    from tzrec.utils import progress

    monkeypatch.setattr(progress, "_QUIET_SECONDS", -1.0)
    path = tmp_path / f"items.{suffix}"
    if suffix == "txt":
        write_items(path, dict.fromkeys(range(20), 1))
        words = f"reading items: {path.stat().st_size} of {path.stat().st_size} bytes (100%)"
    else:
        pq.write_table(pa.table({"item_id": range(20), "cat": ["a"] * 20}), path)
        words = "reading items: 20 of 20 rows (100%)"
    with caplog.at_level("INFO", "tzrec"):
        make_sampler(tmp_path, text=f'input_path: "{path}"')
    assert words in caplog.text
    assert "NegativeSampler: 20 items" in caplog.text
