"""Options of the loader that change which batches come, in which order and with what."""

from __future__ import annotations

import datetime as dt
import os
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets_fakes import IdFake
from datasets_table import all_ids, config_of, ids_of, loader_of

from tzrec.constant import Mode
from tzrec.datasets.dataset import create_dataloader
from tzrec.datasets.event_time import newest
from tzrec.datasets.position import DataPosition
from tzrec.errors import DataError

pytestmark = pytest.mark.usefixtures("nothing_left")

TIME = 'event_time_field: "time"'
UTC = dt.timezone.utc


def write(folder, time_column: pa.Array, name: str = "a.parquet") -> None:
    rows = len(time_column)
    table = pa.table({"id": range(rows), "label": [0] * rows, "time": time_column})
    pq.write_table(table, folder / name, row_group_size=4)


def times(folder, text: str = TIME, **kwargs) -> list[float]:
    with loader_of(folder, text, features=[IdFake("id")], batch_size=3, **kwargs) as loader:
        return [batch.data_timestamp for batch in loader]


@pytest.mark.parametrize("kind", [pa.int64(), pa.int32(), pa.float64(), pa.uint32()])
def test_a_batch_has_the_newest_time_of_its_rows(kind, tmp_path):
    write(tmp_path, pa.array([5, 9, 7, None, 2, 1, None, None], kind))
    assert times(tmp_path) == [9, 2, -1]
    assert times(tmp_path, "") == [-1, -1, -1]
    assert times(tmp_path, mode=Mode.EVAL) == [-1, -1, -1]
    assert times(tmp_path, "", mode=Mode.PREDICT) == [-1, -1, -1]


@pytest.mark.parametrize(
    "kind",
    [pa.timestamp("s"), pa.timestamp("ns", "UTC"), pa.timestamp("us"), pa.date32(), pa.date64()],
)
def test_times_and_dates_become_seconds(kind):
    moment = dt.datetime(2024, 2, 29, tzinfo=UTC)
    value = moment.date() if pa.types.is_date(kind) else moment
    if pa.types.is_timestamp(kind) and kind.tz is None:
        value = moment.replace(tzinfo=None)
    assert newest(pa.array([None, value], kind)) == moment.timestamp()


def test_fractions_of_a_second_are_kept():
    assert newest(pa.array([1_500_000_000_250], pa.timestamp("ms"))) == 1_500_000_000.25
    assert newest(pa.array([1_500_000_000.25])) == 1_500_000_000.25


def test_milliseconds_are_refused(tmp_path):
    write(tmp_path, pa.array([1_700_000_000_000] * 3))
    with pytest.raises(DataError, match="1700000000000 is no time in seconds since 1970"):
        times(tmp_path)


def test_a_column_without_times_is_found_before_the_first_batch(tmp_path):
    write(tmp_path, pa.array(["2024-01-01"] * 3))
    with pytest.raises(DataError, match="event_time_field 'time' is string"):
        times(tmp_path)
    with pytest.raises(DataError, match="did you mean 'time'"):
        times(tmp_path, 'event_time_field: "tiem"')


def test_a_feature_may_be_the_time(tmp_path):
    write(tmp_path, pa.array([3, 4, 8]))
    features = [IdFake("id"), IdFake("time")]
    with loader_of(tmp_path, TIME, features=features) as loader:
        (batch,) = list(loader)
    assert batch.data_timestamp == 8
    assert batch.to(batch.labels["label"].device).data_timestamp == 8


class SlowFirst(IdFake):
    """Takes long for the batch that begins with id 0, until the next one was parsed."""

    later = threading.Event()

    def parse(self, input_data, is_training=False):
        if input_data["id"][0].as_py() == 0:
            self.later.wait(5)
        else:
            self.later.set()
        return super().parse(input_data, is_training)


class HeldFirst(IdFake):
    """Holds the batch that begins with id 0 until it is let go."""

    free = threading.Event()

    def parse(self, input_data, is_training=False):
        if input_data["id"][0].as_py() == 0:
            self.free.wait(5)
        return super().parse(input_data, is_training)


@pytest.mark.parametrize("in_order", [True, False])
def test_without_order_the_first_batch_that_is_parsed_comes_first(
    in_order, tmp_path, workers_as_threads
):
    write(tmp_path, pa.array(range(20)))
    if in_order:
        HeldFirst.free.set()
    else:
        HeldFirst.free.clear()
    text = f"in_order: {str(in_order).lower()} loader: PROCESS num_workers: 2"
    position = DataPosition()
    with loader_of(tmp_path, text, features=[HeldFirst("id")], batch_size=4) as loader:
        first = next(iter(loader))
        HeldFirst.free.set()
        batches = list(loader)
    assert (ids_of(first)[0] == 0) == in_order
    assert sorted(i for batch in batches for i in ids_of(batch)) == list(range(20))
    position.add(first.checkpoint_info)
    with loader_of(tmp_path, text, features=[IdFake("id")], batch_size=4) as loader:
        loader.resume(position)
        rest = [i for batch in all_ids(loader) for i in batch]
    assert sorted(ids_of(first) + rest) == list(range(20))


def test_prediction_is_always_in_order(tmp_path, workers_as_threads):
    write(tmp_path, pa.array(range(20)))
    SlowFirst.later.clear()
    text = "in_order: false loader: PROCESS num_workers: 2"
    kwargs = {"mode": Mode.PREDICT, "batch_size": 4}
    with loader_of(tmp_path, text, features=[SlowFirst("id")], **kwargs) as loader:
        assert [i for batch in all_ids(loader) for i in batch] == list(range(20))


SPELLINGS = {
    "glob": "{folder}/*.parquet",
    "directory": "{folder}",
    "names": "{folder}/p0.parquet,{folder}/p2.parquet,{folder}/p1.parquet,{folder}/p3.parquet",
    "relative": "*.parquet",
    "dots": "{folder}/../{name}/p*.parquet",
    "scheme": "file://{folder}/*.parquet",
    "link": "{folder}-link/*.parquet",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_resume_knows_files_however_the_path_is_written(spelling, folder, monkeypatch, caplog):
    monkeypatch.chdir(folder)
    os.symlink(folder, f"{folder}-link")
    position, seen = DataPosition(), []
    with loader_of(folder) as loader:
        for _, batch in zip(range(4), loader, strict=False):
            position.add(batch.checkpoint_info)
            seen += ids_of(batch)
    path = SPELLINGS[spelling].format(folder=folder, name=folder.name)
    config = config_of()
    with create_dataloader(config, [IdFake("id")], path) as loader:
        loader.resume(DataPosition.from_json(position.to_json()))
        seen += [i for batch in all_ids(loader) for i in batch]
    assert sorted(seen) == list(range(49))
    assert "not in the input" not in caplog.text
