from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets_fakes import DenseFake, IdFake
from datasets_table import all_ids, ids_of, loader_of
from google.protobuf import text_format

from tzrec.constant import Mode
from tzrec.datasets.bad_rows import BadRows, find_failures
from tzrec.datasets.dataset import create_dataloader
from tzrec.datasets.position import DataPosition
from tzrec.errors import DataError, FeatureError
from tzrec.protos.data_pb2 import DataConfig

pytestmark = pytest.mark.usefixtures("nothing_left")

ROWS = 40
GROUP = 10


def write(folder, name: str = "a.parquet", first: int = 0, **bad: dict[int, object]) -> None:
    """40 rows, ids from ``first`` on; ``bad`` gives columns other values in some rows."""
    columns = {
        "id": list(range(first, first + ROWS)),
        "price": [float(i) for i in range(ROWS)],
        "label": [float(i % 2) for i in range(ROWS)],
        "weight": [1.0] * ROWS,
    }
    for column, values in bad.items():
        for row, value in values.items():
            columns[column][row] = value
    kinds = {"id": pa.int64(), **dict.fromkeys(["price", "label", "weight"], pa.float64())}
    table = pa.table(columns, schema=pa.schema(kinds))
    pq.write_table(table, folder / name, row_group_size=GROUP)


def loader(folder, limit: int, text: str = "", **kwargs):
    text = f'max_bad_rows: {limit} sample_weight_fields: "weight" {text}'
    features = kwargs.pop("features", None) or [
        IdFake("id", num_embeddings=1000),
        DenseFake("price"),
    ]
    return loader_of(folder, text, features=features, **kwargs)


def flat(batches) -> list[int]:
    return [i for batch in batches for i in batch]


@pytest.mark.parametrize("num_rows", [1, 2, 7, 64])
@pytest.mark.parametrize("seed", range(5))
def test_failures_are_found_in_order_with_few_attempts(num_rows, seed):
    random = np.random.default_rng(seed)
    bad = set(
        random.choice(num_rows, size=random.integers(1, num_rows + 1), replace=False).tolist()
    )
    attempts = []

    def attempt(start: int, stop: int) -> Exception | None:
        attempts.append(stop - start)
        found = sorted(bad & set(range(start, stop)))
        return ValueError(found) if found else None

    found = list(find_failures(num_rows, attempt))
    assert [row for row, _ in found] == sorted(bad)
    assert [str(error) for _, error in found] == [str([row]) for row in sorted(bad)]
    assert len(attempts) <= 2 + 2 * len(bad) * max(1, int(np.ceil(np.log2(num_rows))))


def test_no_row_is_to_blame_for_what_fails_without_rows():
    assert list(find_failures(8, lambda a, b: ValueError())) == []
    assert list(find_failures(0, lambda a, b: None)) == []
    # Rows that only fail together.
    assert list(find_failures(8, lambda a, b: ValueError() if b - a > 3 else None)) == []


def test_each_row_counts_once_and_one_too_many_is_an_error(caplog):
    rows = BadRows(7)
    for _ in range(2):
        for row in range(7):
            rows.add(0, row, DataError(f"row {row}"))
    assert rows.count == 7
    with pytest.raises(DataError, match=r"more than max_bad_rows: 7 rows .* now other file"):
        rows.add(1, 0, DataError("other file"))
    assert rows.count == 7
    assert caplog.text.count("left out a bad row") == 5
    assert "only counted, up to 7" in caplog.text
    found = rows.among(np.array([0, 0, 1]), np.array([3, 9, 3]))
    assert found.tolist() == [True, False, False]
    assert rows.among(np.array([1]), np.array([3])) is None


BAD = {
    "label is nan": ({"label": {13: float("nan")}}, "label 'label' is nan, which is not finite"),
    "label is missing": ({"label": {13: None}}, "label 'label' is null"),
    "weight is inf": ({"weight": {13: float("inf")}}, "sample weight 'weight' is inf"),
    "id outside": ({"id": {13: 1000}}, "feature 'id': id 1000 is outside 0 … 999"),
    "no number": ({"price": {13: None}}, "feature 'price' has no default for a null"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("text", ["", "shuffle: true shuffle_buffer_size: 2"])
def test_a_bad_row_is_named_or_left_out(name, text, tmp_path, caplog):
    bad, message = BAD[name]
    write(tmp_path, **bad)
    with (
        loader(tmp_path, 0, text) as strict,
        pytest.raises((DataError, FeatureError)) as caught,
    ):
        list(strict)
    first, hint = str(caught.value).split("\n")
    value = next(iter(bad.values()))[13]
    column = next(iter(bad))
    shown = "null" if value is None else repr(value)
    place = f"{tmp_path}/a.parquet: row group 1, row 13 (counted from 0): "
    assert first.startswith(place + message)
    assert first.endswith(f"(column {column!r} is {shown})")
    assert "data_config.max_bad_rows: n leaves out up to n such rows" in hint
    with loader(tmp_path, 1, text) as lenient:
        batches = list(lenient)
        assert lenient.num_bad_rows == 1
        rows = [row for batch in batches for row in batch.labels["label"].tolist()]
        assert sorted(flat(map(ids_of, batches))) == [i for i in range(ROWS) if i != 13]
        assert len(rows) == ROWS - 1
        list(lenient)
        assert lenient.num_bad_rows == 1  # in another pass it is not counted again
    assert place + message in caplog.text


def test_the_good_rows_stay_together_with_their_values(tmp_path):
    write(tmp_path, price={3: None, 4: None}, label={17: None})
    with loader(tmp_path, 9) as found:
        batches = list(found)
    for batch in batches:
        ids = ids_of(batch)
        assert batch.labels["label"].tolist() == [i % 2 for i in ids]
        assert batch.dense_features["__BASE__"].values()[:, 0].tolist() == ids
        assert [batch.locate(row).split(": ")[1] for row in range(len(ids))] == [
            f"row {i} (counted from 0)" for i in ids
        ]
    assert [len(ids_of(batch)) for batch in batches] == [3, 5, 5, 4, 5, 5, 5, 5]


def test_one_row_too_many_ends_the_run_and_says_which(tmp_path):
    write(tmp_path, label={3: None, 8: None, 30: None})
    seen = []
    with loader(tmp_path, 2) as found, pytest.raises(DataError) as caught:
        seen.extend(ids_of(batch) for batch in found)
    assert "more than max_bad_rows: 2 rows cannot be used, now " in str(caught.value)
    assert "row group 3, row 30 " in str(caught.value)
    assert flat(seen) == [i for i in range(30) if i not in (3, 8)]


def test_numbers_that_are_not_finite_are_left_to_the_guard_or_left_out(tmp_path, caplog):
    write(tmp_path, price={6: float("nan"), 21: float("-inf")})
    with loader(tmp_path, 0) as strict:
        assert len(flat(all_ids(strict))) == ROWS
    with loader(tmp_path, 2) as lenient:
        assert flat(all_ids(lenient)) == [i for i in range(ROWS) if i not in (6, 21)]
        assert lenient.num_bad_rows == 2
        lenient.close()
    # Said once, also where no summary of a training run follows (evaluation, prediction).
    assert [r.message for r in caplog.records if "2 bad rows left out" in r.message] == [
        f"{lenient.reader.input_path}: 2 bad rows left out"
    ]
    with (
        loader(tmp_path, 1) as one,
        pytest.raises(DataError, match=r"row 21 .* 'price' holds -inf"),
    ):
        list(one)


@pytest.mark.parametrize("shuffle", ["", "shuffle: true shuffle_buffer_size: 2"])
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_resume_is_exact_with_rows_left_out(shuffle, stop, tmp_path):
    bad = {2, 7, *range(15, 20), 33}
    write(tmp_path, label=dict.fromkeys(bad))
    with loader(tmp_path, 8, shuffle) as whole:
        expected = all_ids(whole)
    position = DataPosition()
    with loader(tmp_path, 8, shuffle) as first:
        seen = []
        for batch in first:
            seen.append(ids_of(batch))
            position.add(batch.checkpoint_info)
            if len(seen) == stop:
                break
    with loader(tmp_path, 8, shuffle) as rest:
        rest.resume(DataPosition.from_json(position.to_json()))
        for batch in rest:
            seen.append(ids_of(batch))
            position.add(batch.checkpoint_info)
    assert seen == expected
    assert sorted(flat(seen)) == [i for i in range(ROWS) if i not in bad]
    assert position.num_rows == ROWS  # also what was left out is consumed


def test_a_batch_without_rows_is_passed_over(tmp_path):
    write(tmp_path, label=dict.fromkeys(range(5, 15)))
    with loader(tmp_path, 10) as found:
        batches = list(found)
    assert [len(ids_of(batch)) for batch in batches] == [5] * 6
    assert list(batches[1].checkpoint_info.values()) == [[(5, 20)]]


def test_no_row_at_all_is_an_error_and_no_endless_loop(tmp_path):
    write(tmp_path, label=dict.fromkeys(range(ROWS)))
    with loader(tmp_path, 100) as found, pytest.raises(DataError, match="no row that can be used"):
        list(found)


@pytest.mark.parametrize("bad", [range(20, 40), range(5, 10), range(35, 40), [0, *range(32, 40)]])
def test_ranks_stay_in_step_whatever_is_left_out(bad, tmp_path):
    write(tmp_path, label=dict.fromkeys(bad))
    ranks = []
    for rank in range(2):
        with loader(tmp_path, 40, rank=rank, world_size=2, batch_size=4) as found:
            if rank and len(bad) >= 20:
                with pytest.raises(DataError, match="have no row that can be used"):
                    list(found)
                return
            ranks.append(list(found))
    assert [len(rank) for rank in ranks] == [5, 5]
    ids = [flat(map(ids_of, rank)) for rank in ranks]
    assert sorted(flat(ids)) == [i for i in range(ROWS) if i not in bad]
    assert all(ids_of(batch) for rank in ranks for batch in rank)
    position = DataPosition()
    for batch in flat(ranks):
        position.add(batch.checkpoint_info)
    assert position.num_rows == ROWS


def test_workers_leave_out_what_the_thread_does(tmp_path, workers_as_threads):
    write(tmp_path, label={3: None, **dict.fromkeys(range(10, 15))}, price={22: float("inf")})
    found = []
    for kind in ("THREAD", "PROCESS"):
        with loader(tmp_path, 9, f"loader: {kind} num_workers: 2") as one:
            found.append([(ids_of(batch), batch.checkpoint_info) for batch in one])
            assert one.num_bad_rows == 7
            assert [(ids_of(batch), batch.checkpoint_info) for batch in one] == found[-1]
    assert found[0] == found[1]


def test_prediction_leaves_out_rows_from_the_kept_columns_too(tmp_path):
    write(tmp_path, price={3: None, 4: None})
    with loader(tmp_path, 2, mode=Mode.PREDICT, reserved_columns=["id"]) as found:
        batches = list(found)
    kept = flat(batch.reserves.get().column("id").to_pylist() for batch in batches)
    assert kept == [i for i in range(ROWS) if i not in (3, 4)]
    assert kept == flat(map(ids_of, batches))


def test_a_value_that_no_column_type_holds(tmp_path):
    ids = pa.array([2**63 if i == 13 else i for i in range(ROWS)], pa.uint64())
    table = pa.table(
        {"id": ids, "price": [0.5] * ROWS, "label": [0] * ROWS, "weight": [1.0] * ROWS}
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=GROUP)
    with loader(tmp_path, 0) as strict, pytest.raises(DataError) as caught:
        list(strict)
    assert "a.parquet: row group 1, row 13 (counted from 0): column 'id'" in str(caught.value)
    assert str(2**63) in str(caught.value)
    with loader(tmp_path, 1) as lenient:
        assert flat(all_ids(lenient)) == [i for i in range(ROWS) if i != 13]
        assert lenient.num_bad_rows == 1


def damage(path, group: int) -> None:
    """Overwrites the pages of the first column in a row group."""
    column = pq.read_metadata(path).row_group(group).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    with open(path, "r+b") as file:
        file.seek(start)
        file.write(os.urandom(column.total_compressed_size))


@pytest.mark.parametrize("text", ["", "shuffle: true shuffle_buffer_size: 3"])
def test_a_damaged_row_group_is_named_or_left_out(text, tmp_path):
    for number in range(2):
        write(tmp_path, f"{number}.parquet", first=ROWS * number)
    damage(tmp_path / "1.parquet", 2)
    with loader(tmp_path, 0, text) as strict, pytest.raises(DataError) as caught:
        list(strict)
    message = str(caught.value)
    assert f"{tmp_path}/1.parquet: row group 2: rows 20 … 29 (counted from 0) cannot" in message
    assert "the file is damaged" in message
    with loader(tmp_path, 10, text) as lenient:
        ids = sorted(flat(all_ids(lenient)))
        assert ids == [i for i in range(80) if not 60 <= i < 70]
        assert lenient.num_bad_rows == 10
    with loader(tmp_path, 9, text) as few, pytest.raises(DataError, match="row group 2"):
        list(few)


def test_a_file_cut_off_is_an_error_before_the_first_batch(tmp_path):
    write(tmp_path)
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.parquet is not a readable Parquet file"):
        loader(tmp_path, 1000)


# --- CSV ---

CSV = 'label_fields: "label" with_header: true dataset_type: CsvDataset batch_size: 7 '
TYPES = 'input_fields_str: "id:BIGINT;price:DOUBLE;label:INT;name:STRING" '


def csv_loader(path, text: str):
    config = text_format.Parse(CSV + TYPES + text, DataConfig())
    return create_dataloader(config, [IdFake("id"), DenseFake("price")], str(path))


def csv_lines(bad: dict[int, str], quote: str = "") -> list[str]:
    lines = [f"{i},{i / 2},{i % 2},{quote}n{i}{quote}" for i in range(100)]
    for row, text in bad.items():
        lines[row] = text
    return ["id,price,label,name", *lines]


CSV_BAD = {
    "word": ("x1,1.5,0,n", "column 'id': CSV conversion error to int64: invalid value 'x1'"),
    "float": ("7.5,1.5,0,n", "column 'id': CSV conversion error to int64: invalid value '7.5'"),
    "more": ("7,1.5,0,n,5", "CSV parse error: Expected 4 columns, got 5: 7,1.5,0,n,5"),
    "fewer": ("7,1.5", "CSV parse error: Expected 4 columns, got 2: 7,1.5"),
    "no label": ("7,1.5,,n", "label 'label' is null"),
    "no id": ("7,,1,n", "feature 'price' has no default for a null"),
}


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("row", [0, 57, 99])
@pytest.mark.parametrize("name", CSV_BAD)
def test_a_bad_csv_row_is_named_or_left_out(name, row, quote, tmp_path, monkeypatch):
    monkeypatch.setattr("tzrec.datasets.csv_files._BLOCK_BYTES", 256)
    text, message = CSV_BAD[name]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(csv_lines({row: text}, quote)) + "\n")
    with csv_loader(path, "") as strict, pytest.raises((DataError, FeatureError)) as caught:
        list(strict)
    assert f"{path}: row {row} (counted from 0): {message}" in str(caught.value)
    with csv_loader(path, "max_bad_rows: 1") as lenient:
        assert lenient.num_rows == 100
        batches = list(lenient)
        assert flat(map(ids_of, batches)) == [i for i in range(100) if i != row]
        prices = flat(b.dense_features["__BASE__"].values()[:, 0].tolist() for b in batches)
        assert prices == [i / 2 for i in range(100) if i != row]
        assert lenient.num_bad_rows == 1


def test_many_bad_csv_rows_with_blank_lines_and_nulls(tmp_path, monkeypatch):
    monkeypatch.setattr("tzrec.datasets.csv_files._BLOCK_BYTES", 300)
    random = np.random.default_rng(0)
    rows = random.choice(100, 30, replace=False).tolist()
    kinds = list(CSV_BAD.values())
    lines = csv_lines({row: kinds[i % len(kinds)][0] for i, row in enumerate(rows)}, '"')
    spaced = "\n".join(line + "\n" * int(random.integers(0, 3)) for line in lines)
    path = tmp_path / "a.csv"
    path.write_text(spaced)
    with csv_loader(path, "max_bad_rows: 30 shuffle: true shuffle_buffer_size: 2") as lenient:
        for _ in range(2):
            assert sorted(flat(all_ids(lenient))) == [i for i in range(100) if i not in rows]
        assert lenient.num_bad_rows == 30


def test_text_that_is_not_utf8_names_the_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("\n".join(csv_lines({40: "40,1.0,0,caf\xe9"})).encode("latin-1"))
    config = text_format.Parse(CSV + TYPES, DataConfig())
    kept = {"reserved_columns": ["name"], "mode": Mode.PREDICT}
    with (
        create_dataloader(config, [IdFake("id")], str(path), **kept) as strict,
        pytest.raises(DataError, match=r"row 40 .*column 'name': .*invalid UTF8 data b'caf"),
    ):
        list(strict)
    config.max_bad_rows = 1
    with create_dataloader(config, [IdFake("id")], str(path), **kept) as lenient:
        assert len(flat(all_ids(lenient))) == 99
