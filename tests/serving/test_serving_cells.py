"""Rows of JSON that are read without Python objects: the same columns, or left to the other way."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tzrec.serving.decode import read_rows
from tzrec.serving.errors import RequestError
from tzrec.serving.json_body import parse_json
from tzrec.serving.json_cells import CellReader
from tzrec.serving.options import ServeOptions
from tzrec.serving.schema import Column

COLUMNS = (
    Column("id", pa.int64()),
    Column("small", pa.int32()),
    Column("price", pa.float32()),
    Column("exact", pa.float64(), nullable=False),
    Column("name", pa.string()),
    Column("tags", pa.list_(pa.string())),
)
PLAIN = COLUMNS[:-1]
ROW = {"id": 7, "small": -1, "price": 0.5, "exact": 1e-5, "name": "a"}
OPTIONS = ServeOptions()
PLAIN_CHARACTERS = st.characters(codec="utf-8", exclude_characters='"\\', min_codepoint=32)


def read_quickly(body, columns=PLAIN, **options):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return CellReader(columns).read(content, ServeOptions(**options))


def check_same(body, columns=PLAIN):
    """Asserts that both ways give the same rows of a body that the quick one takes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    document = CellReader(columns).read(content, OPTIONS)
    assert document is not None
    quick = read_rows(document, columns, OPTIONS)
    slow = read_rows(parse_json(content), columns, OPTIONS)
    assert quick.num_rows == slow.num_rows
    assert quick.all_columns.keys() == slow.all_columns.keys()
    for name, array in slow.all_columns.items():
        quick.all_columns[name].validate(full=True)
        assert quick.all_columns[name].equals(array), name
        assert quick.where(name, 1) == slow.where(name, 1)
    rest = {name: value for name, value in parse_json(content).items() if name in ("outputs", "k")}
    assert {name: document[name] for name in rest} == rest


class TestSame:
    @pytest.mark.parametrize(
        "body",
        [
            {"rows": [ROW, {**ROW, "name": "b, {]}:"}]},
            {"rows": [ROW, dict(reversed(ROW.items()))]},
            {"rows": [{**ROW, "id": None, "name": None, "price": None}, ROW]},
            {"columns": {name: [value] * 3 for name, value in ROW.items()}, "outputs": ["probs"]},
            {"context": {"id": 7, "name": "x"}, "items": [{"small": 1, "price": 2, "exact": 3}]},
            {"items": {"small": [1, None], "price": [2, 1e30], "exact": [3, 4]},
             "k": 2, "context": {"name": "plain: items", "id": None}},
            b'\t{ "rows" :\n[ { "id":1 ,"small" : 2,"price":3e0, "exact":-0.0,"name":"" }\r]  }\n',
        ],
    )  # fmt: skip
    def test_shapes(self, body):
        check_same(body)

    def test_not_ascii(self):
        body = {"rows": [{**ROW, "name": "käse 芝士"}] * 2}
        check_same(json.dumps(body, ensure_ascii=False).encode())

    def test_list_in_context(self):
        rest = {name: [value] * 2 for name, value in ROW.items()}
        check_same({"context": {"tags": ["x", "y"]}, "items": rest}, COLUMNS)

    @given(
        st.lists(
            st.fixed_dictionaries(
                {
                    "id": st.none() | st.integers(-(2**63), 2**63 - 1),
                    "small": st.integers(-(2**31), 2**31 - 1),
                    "price": st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
                    "exact": st.floats(allow_nan=False, allow_infinity=False),
                    "name": st.none() | st.text(PLAIN_CHARACTERS),
                }
            ),
            min_size=1,
            max_size=5,
        )
    )  # fmt: skip
    def test_values(self, rows):
        body = json.dumps({"rows": rows}, ensure_ascii=False).encode()
        check_same(body)
        lists = {name: [row[name] for row in rows] for name in ROW}
        check_same(json.dumps({"columns": lists}, ensure_ascii=False).encode())


class TestLeft:
    @pytest.mark.parametrize(
        "change",
        [
            {"id": 1.0}, {"id": 2**63}, {"small": 2**31}, {"price": 1e39}, {"exact": None},
            {"name": "a\\b"}, {"name": 7}, {"id": "7"}, {"price": True}, {"name": ["a"]},
            {"more": 1}, {"name": "x" * 9},
        ],
    )  # fmt: skip
    def test_values(self, change):
        assert read_quickly({"rows": [ROW, {**ROW, **change}]}, max_text=8) is None

    @pytest.mark.parametrize("shape", ["items", "columns"])
    def test_nulls_of_lists(self, shape):
        """A list column twice, once with nulls only, is a column that is repeated."""
        body = {"context": {**ROW, "tags": ["x"]}, "items": [{"tags": None}, {"tags": None}]}
        if shape == "columns":
            body = {"columns": {**{name: [value] for name, value in ROW.items()}, "tags": [None]}}
        assert read_quickly(body, COLUMNS) is None

    @pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb"])
    def test_names_that_are_written_otherwise(self, name):
        body = b'{"rows": [{"%b": 1}]}' % name.encode()
        assert read_quickly(body, (Column(name, pa.int64()),)) is None

    @pytest.mark.parametrize(
        "text",
        [
            b"", b"[]", b"{}", b'{"rows": []}', b'{"rows": [{}]}', b'{"rows": [',
            b'{"rows": [{"id": 1', b'{"rows": [{"id": 1}, ]}',
            b'{"rows": [{"id": 1}]', b'{"rows": [{"id": 1}]} x',
            b'{"rows": [{"id": 1}], "rows": [{"id": 1}]}', b'{"rows": [{"id": 1, "id": 2}]}',
            b'{"rows": [{"id": 1}, {}]}', b'{"rows": [{"id": 01}]}', b'{"rows": [{"id": -0}]}',
            b'{"rows": [{"id": 1}], "ro\\u0077s": 1}', b'{"rows": {"id": [1]}, "x": NaN}',
            b'{"x": {"rows": [{"id": 1}]}}', b'{"rows": [{"id": 1}\x00]}',
            b'{"rows": [{"id": nul}]}',
            b'{"context": {"id": 1}, "items": [{"id": 1}]}', b'{"columns": {"id": [1], "id": [1]}}',
            b'{"columns": {"id": []}}', b'{"columns": {"id": [1,]}}', b'{"columns": {"id": [1}}',
            b'{"columns": {"no": [1]}}', b'{"rows": [{"id": 1}], "\xff": 1}',
        ],
    )  # fmt: skip
    def test_bodies(self, text):
        assert read_quickly(text, PLAIN[:1]) is None

    @pytest.mark.parametrize("number", ["1.", ".5", "+1", "1e", "--1", "0x1", "1_0", "1e999", "-"])
    def test_numbers(self, number):
        text = b'{"rows": [{"price": %s}]}' % number.encode()
        assert read_quickly(text, PLAIN[2:3]) is None

    def test_bytes_that_are_no_text(self):
        assert read_quickly(b'{"rows": [{"name": "\xed\xa0\x80"}]}', PLAIN[4:]) is None

    def test_limit_of_rows(self):
        assert read_quickly({"rows": [ROW] * 3}, max_rows=3) is not None
        assert read_quickly({"rows": [ROW] * 3}, max_rows=2) is None

    @given(st.binary(max_size=8), st.integers(0, 200), st.integers(0, 4))
    def test_damage(self, more, at, gone):
        """What the quick way takes of damaged bodies, the other one takes, too."""
        items = [{"small": 1, "price": 0.5, "exact": -2e3}] * 3
        body = json.dumps({"context": {"id": 7, "name": "n"}, "items": items}).encode()
        body = body[:at] + more + body[at + gone :]
        if read_quickly(body) is None:
            return
        check_same(body)


def test_refusals_are_those_of_the_other_way():
    body = json.dumps({"rows": [ROW] * 30 + [{**ROW, "small": "x"}]}).encode()
    assert read_quickly(body) is None
    with pytest.raises(RequestError, match="small") as caught:
        read_rows(parse_json(body), PLAIN, OPTIONS)
    assert caught.value.field == "rows[30].small"
