"""Requests that mean no good, each with what its answer must be."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
REFUSED = (400, 413, 415, 422)


@dataclasses.dataclass(frozen=True)
class Hostile:
    """A body, and the answers that are right.

    Attributes:
        name: of the test.
        body: bytes that are sent.
        status: one of these.
        field: that the answer names; None = any.
        kind: content type.
    """

    name: str
    body: bytes
    status: tuple[int, ...] = (400,)
    field: str | None = None
    kind: str = JSON


def texts(row: dict[str, Any]) -> Iterator[Hostile]:
    """Yields bodies of JSON; ``row`` is one that the model scores."""
    good = json.dumps({"rows": [row]})
    first = next(iter(row))
    yield from _broken(good)
    yield from _numbers(row)
    yield from _keys(row, good)
    for name, text in {
        "empty_object": "{}",
        "null": "null",
        "list": "[]",
        "text": '"rows"',
        "number": "1",
        "null_rows": '{"rows": null}',
        "text_rows": '{"rows": "abc"}',
        "rows_of_numbers": '{"rows": [1, 2]}',
        "object_rows": '{"rows": {"0": {}}}',
        "empty_row": '{"rows": [{}]}',
        "both_shapes": '{"rows": [], "columns": {}}',
        "lone_context": '{"context": {}}',
        "items_twice": '{"context": {}, "items": [[]]}',
        "columns_of_texts": json.dumps({"columns": dict.fromkeys(row, "abc")}),
    }.items():
        yield Hostile(name, text.encode(), (422,))
    second = good[:-2] + ", " + json.dumps({**row, first: {}}) + "]}"
    yield Hostile("second_row", second.encode(), (422,), f"rows[1].{first}")
    if len(row) > 1:
        lengths = {"columns": {name: [row[name]] * (1 + (name == first)) for name in row}}
        yield Hostile("lengths", json.dumps(lengths).encode(), (422,))
    for depth, code in ((900, 422), (100_000, 400)):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            inner = opening * depth + "1" + closing * depth
            for name in row:
                body = _with(row, name, inner)
                field = f"rows[0].{name}" if code == 422 else None
                yield Hostile(f"{depth}_{opening}_in_{name}", body, (code,), field)
    yield Hostile("deep", b"[" * 1_000_000)
    yield Hostile("deep_rows", b'{"rows":' * 50_000)


def _with(row: dict[str, Any], name: str, text: str) -> bytes:
    """Returns a body with a value that is written like this."""
    rest = ", ".join(f"{json.dumps(n)}: {json.dumps(v)}" for n, v in row.items() if n != name)
    comma = ", " if rest else ""
    return f'{{"rows": [{{{rest}{comma}{json.dumps(name)}: {text}}}]}}'.encode()


def _broken(good: str) -> Iterator[Hostile]:
    """Yields what is no JSON."""
    for name, body in {
        "empty": b"",
        "blank": b" \n\t ",
        "nul": b"\x00",
        "bom": b"\xef\xbb\xbf" + good.encode(),
        "utf16": good.encode("utf-16"),
        "utf32": good.encode("utf-32"),
        "surrogate_bytes": b'{"rows": "\xed\xa0\x80"}',
        "overlong": b'{"rows": "\xc0\xaf"}',
        "beyond_unicode": b'{"rows": "\xf4\x90\x80\x80"}',
        "lone_surrogate": b'{"rows": "\\ud800"}',
        "swapped_surrogates": b'{"rows": "\\udc00\\ud800"}',
        "half_escape": b'{"rows": "\\u12"}',
        "control_character": b'{"rows": "\x01"}',
        "single_quotes": b"{'rows': []}",
        "comment": b'{"rows": [] /* all */}',
        "trailing_comma": b'{"rows": [],}',
        "two_documents": good.encode() * 2,
        "trailing": good.encode() + b"x",
        "yaml": b"rows: []",
        "xml": b"<?xml version='1.0'?><!DOCTYPE r [<!ENTITY a 'aaaa'>]><r>&a;</r>",
        "pickle": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.",
        "random": np.random.default_rng(0).bytes(5000),
    }.items():
        yield Hostile(name, body)
    data = good.encode()
    for end in range(1, len(data), 7):
        yield Hostile(f"cut_at_{end}", data[:end])


def _numbers(row: dict[str, Any]) -> Iterator[Hostile]:
    """Yields values that no column takes."""
    for name in row:
        field = f"rows[0].{name}"
        for text in ("NaN", "Infinity", "-Infinity", "nan", "1e400", "-1e400", "0x10", "1_0", "+1"):
            yield Hostile(f"{text}_in_{name}", _with(row, name, text))
        for text in ("01", ".5", "1.", "--1", "1e", "True", "undefined"):
            yield Hostile(f"{text}_in_{name}", _with(row, name, text))
        digits = ("1" * 5000, "-" + "9" * 400)
        for text in digits:
            yield Hostile(f"{len(text)}_digits_in_{name}", _with(row, name, text), (400, 422))
        for text in ('[[["a"]]]', '{"a": {"b": {"c": 1}}}', "[{}]", "[[1, [2]]]"):
            yield Hostile(f"{text}_in_{name}", _with(row, name, text), (422,), field)
        long = json.dumps("x" * 70_000)
        for text in (long, f"[{long}]", f"{{{long}: 1}}"):
            yield Hostile(f"{text[:2]}_long_in_{name}", _with(row, name, text), (422,), field)


def _keys(row: dict[str, Any], good: str) -> Iterator[Hostile]:
    """Yields names that are none."""
    first = json.dumps(next(iter(row)))
    yield Hostile("twice", good.replace("{" + first, "{" + first + ": null, " + first).encode())
    yield Hostile("rows_twice", b'{"rows": [], "rows": []}')
    yield Hostile("huge_key", json.dumps({"k" * 1_000_000: 1}).encode(), (422,))
    huge = {"rows": [{**row, "k" * 1_000_000: 1}]}
    yield Hostile("huge_column", json.dumps(huge).encode(), (422,), f"rows[0].{'k' * 40}…")
    many = {f"k{i}": 0 for i in range(100_000)}
    yield Hostile("many_keys", json.dumps(many).encode(), (422,))
    yield Hostile("many_columns", json.dumps({"rows": [{**row, **many}]}).encode(), (422,))
    repeated = json.dumps(many)[:-1] + ', "k99999": 1}'
    yield Hostile("repeated_at_last", repeated.encode(), (400,), "k99999")
    for name in ("__proto__", "__class__", "../../etc/passwd", "\x00", "'; drop table--", "${a}"):
        body = json.dumps({"rows": [{**row, name: 1}]}).encode()
        yield Hostile(f"column_{name!r}", body, (422,), f"rows[0].{name}")
    yield Hostile("many_rows", json.dumps({"rows": [{}] * 200_000}).encode(), (413,), "rows")


def arguments(path: str, row: dict[str, Any]) -> Iterator[Hostile]:
    """Yields documents with arguments that are none."""
    wrong: dict[str, list[Any]] = {
        "/v1/predict": [
            {"outputs": ["nothing"]},
            {"outputs": [None]},
            {"outputs": "probs"},
            {"outputs": {"probs": 1}},
            {"outputs": [["probs"]]},
            {"features": 1},
            {"features": "true"},
            {"features": None},
        ],
        "/v1/retrieve": [
            *({"k": k} for k in (0, -1, 1.5, 1e300, 2**63, "10", True, [1], {}, 1_000_001)),
            *({"exclude": e} for e in (5, "a", {}, [], [1], [["a", 1]], [{}], [[1.5]], [[2**70]])),
        ],
        "/v1/embed": [{"tower": t} for t in (1, "", "nothing", ["user"], {}, "u" * 100_000)],
    }
    for argument in wrong[path]:
        name = next(iter(argument))
        body = json.dumps({"rows": [row]} | argument).encode()
        yield Hostile(f"{name}_{str(argument[name])[:20]}", body, (422,))


def streams(table: pa.Table) -> Iterator[Hostile]:
    """Yields bodies of Arrow; ``table`` is one that the model scores."""
    good = stream_of(table)
    for name, body in {
        "empty": b"",
        "json": b'{"rows": []}',
        "only_eos": b"\xff\xff\xff\xff\x00\x00\x00\x00",
        "negative_length": b"\xff\xff\xff\xff\xff\xff\xff\xff",
        "huge_length": b"\xff\xff\xff\xff\xff\xff\xff\x7f" + good[8:],
        "no_padding": good[1:],
        "file_format": _file_of(table),
    }.items():
        yield Hostile(f"arrow_{name}", body, (400,), kind=ARROW)
    for name, values in odd_columns(table.num_rows).items():
        for column in table.schema.names[:2]:
            index = table.schema.names.index(column)
            body = stream_of(table.set_column(index, column, values))
            yield Hostile(f"arrow_{name}_as_{column}", body, (422,), column, ARROW)
    for codec in ("lz4", "zstd"):
        yield Hostile(f"arrow_{codec}", stream_of(table, compression=codec), (415,), kind=ARROW)
    last = table.schema.names[-1]
    wide = pa.array([{f"x{i}": 1 for i in range(5000)}] * table.num_rows)
    extra = {
        "wide_struct": (table.append_column("y" * 100_000, wide), "y" * 40 + "…"),
        "missing": (table.drop_columns([last]), last),
        "unknown": (table.append_column("x" * 100_000, table[last]), "x" * 40 + "…"),
        "twice": (table.append_column(last, table[last]), last),
        "many_columns": (
            pa.table({f"c{i}": pa.array([1]) for i in range(20_000)}),
            "c0",
        ),
        "no_columns": (table.select([]), table.schema.names[0]),
    }
    for name, (odd, field) in extra.items():
        yield Hostile(f"arrow_{name}", stream_of(odd), (422,), field, ARROW)
    crumbs = pa.concat_tables([table.slice(0, 1)] * 2000)
    yield Hostile("arrow_crumbs", stream_of(crumbs, chunk=1), (413,), kind=ARROW)
    nothing = pa.table({"x": pa.nulls(10_000_000)})
    yield Hostile("arrow_rows_of_nothing", stream_of(nothing), (413,), kind=ARROW)
    nested = pa.array([1])
    for _ in range(60):
        nested = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), nested)
    yield Hostile("arrow_deep", stream_of(pa.table({"x": nested})), (400, 422), kind=ARROW)


def odd_columns(num_rows: int) -> dict[str, pa.Array]:
    """Returns values of layouts and types that no column takes."""
    lengths = pa.array([num_rows], pa.int32())
    numbers = pa.array(range(num_rows), pa.int64())
    lists = [[1, 2]] * num_rows
    return {
        "decimal": pa.array([1] * num_rows, pa.decimal128(20, 2)),
        "decimal256": pa.array([1] * num_rows, pa.decimal256(60, 2)),
        "struct": pa.array([{"a": 1}] * num_rows),
        "list_of_struct": pa.array([[{"a": 1}]] * num_rows),
        "extension": pa.ExtensionArray.from_storage(
            pa.uuid(), pa.array([b"0" * 16] * num_rows, pa.binary(16))
        ),
        "unknown_extension": pa.ExtensionArray.from_storage(
            pa.opaque(pa.int64(), "nothing", "nobody"), numbers
        ),
        "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((num_rows, 2, 2))),
        "string_view": pa.array(["a"] * num_rows, pa.string_view()),
        "binary_view": pa.array([b"a"] * num_rows, pa.binary_view()),
        "list_view": pa.array(lists, pa.list_view(pa.int64())),
        "large_list_view": pa.array(lists, pa.large_list_view(pa.int64())),
        "runs": pa.RunEndEncodedArray.from_arrays(lengths, pa.array(["x"])),
        "binary": pa.array([b"\xff"] * num_rows, pa.binary()),
        "fixed_binary": pa.array([b"ab"] * num_rows, pa.binary(2)),
        "timestamp": pa.array([0] * num_rows, pa.timestamp("ns", "UTC")),
        "date": pa.array([0] * num_rows, pa.date32()),
        "duration": pa.array([0] * num_rows, pa.duration("s")),
        "interval": pa.array([(1, 2, 3)] * num_rows, pa.month_day_nano_interval()),
        "dense_union": pa.UnionArray.from_dense(
            pa.array([0] * num_rows, pa.int8()), pa.array(range(num_rows), pa.int32()), [numbers]
        ),
        "sparse_union": pa.UnionArray.from_sparse(pa.array([0] * num_rows, pa.int8()), [numbers]),
        "lists_of_nothing": pa.array([[None]] * num_rows, pa.list_(pa.null())),
        "dictionary_in_list": pa.array(
            [["a"]] * num_rows, pa.list_(pa.dictionary(pa.int32(), pa.string()))
        ),
        "dictionary_of_lists": pa.DictionaryArray.from_arrays(
            pa.array([0] * num_rows, pa.int32()), pa.array([[["a"]]])
        ),
        "lists_of_lists_of_lists": pa.array([[[[1]]]] * num_rows),
    }


def changed(body: bytes, number: int, rng: np.random.Generator) -> Iterator[bytes]:
    """Yields a body with bytes changed, cut out, repeated or put in, in so many ways."""
    data = np.frombuffer(body, np.uint8)
    tokens = b'" { } [ ] , : - null 1e999 \\u0000 \xff'.split(b" ")
    for _ in range(number):
        one = data.copy()
        for at in rng.integers(0, len(one), rng.integers(1, 5)):
            one[at] = rng.integers(0, 256)
        first, last = np.sort(rng.integers(0, len(one) + 1, 2))
        what = rng.integers(0, 5)
        head, middle, tail = (part.tobytes() for part in np.split(one, [first, last]))
        token = tokens[rng.integers(0, len(tokens))]
        yield (
            head + middle + tail,
            head + tail,
            head + middle * 3 + tail,
            body[:first] + token + body[first:],
            body[:first],
        )[what]


def stream_of(table: pa.Table, *, chunk: int | None = None, **options: Any) -> bytes:
    """Returns a table as an Arrow IPC stream."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as out:
        out.write_table(table, max_chunksize=chunk)
    return sink.getvalue()


def _file_of(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)
    return sink.getvalue()


Send = Callable[[Hostile], tuple[int, Any]]


def check(case: Hostile, status: int, body: Any) -> str:
    """Returns what is wrong with an answer, "" for nothing."""
    if status not in case.status:
        return f"{case.name}: {status}, not {case.status}: {str(body)[:300]}"
    if status == 200:
        return ""
    if list(body) != ["error"] or list(body["error"]) != ["code", "message", "field", "hint"]:
        return f"{case.name}: no error as described: {str(body)[:300]}"
    if len(json.dumps(body)) > 3000:
        return f"{case.name}: an answer of {len(json.dumps(body))} bytes"
    if case.field is not None and body["error"]["field"] != case.field:
        return f"{case.name}: names {body['error']['field']}, not {case.field}"
    return ""
