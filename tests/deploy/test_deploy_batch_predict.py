from __future__ import annotations

import logging
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from deploy_fakes import FakeFeature

from tzrec.batch import BASE_DATA_GROUP, Batch, KeyedJaggedTensor, KeyedTensor, RecordBatchTensor
from tzrec.constant import TARGET_REPEAT_INTERLEAVE_KEY
from tzrec.datasets.csv_dataset import CsvWriter
from tzrec.datasets.parquet_dataset import ParquetWriter
from tzrec.deploy import batch_predict
from tzrec.deploy.batch_predict import predict_table
from tzrec.deploy.columns import output_columns_of, select_outputs
from tzrec.errors import ConfigError, DataError, ServingError


def make_batches(num_rows, batch_size, *, reserved=("row",)):
    """Dense feature x = row number; reserved columns row and name."""
    batches = []
    for start in range(0, num_rows, batch_size):
        rows = np.arange(start, min(start + batch_size, num_rows))
        x = torch.from_numpy(rows).float()[:, None]
        kept = {"row": pa.array(rows), "name": pa.array([f"n{i}" for i in rows])}
        table = pa.RecordBatch.from_pydict({name: kept[name] for name in reserved})
        batches.append(
            Batch(
                dense_features={BASE_DATA_GROUP: KeyedTensor(["x"], [1], x)},
                reserves=RecordBatchTensor(table) if reserved else RecordBatchTensor(),
            )
        )
    return batches


def double(batch):
    x = batch.dense_features[BASE_DATA_GROUP].values()[:, 0]
    return {"probs": x * 2, "class": x.long(), "vector": torch.stack([x, -x], 1)}


def read_parquet(path):
    return pq.read_table(path / "part-0.parquet")


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 7, 200])
def test_every_row_once_in_order(tmp_path, threads, batch_size):
    def slow_at_times(batch):
        first = int(batch.dense_features[BASE_DATA_GROUP].values()[0, 0])
        time.sleep(0.002 * (first % 3))
        return double(batch)

    batches = make_batches(141, batch_size)
    summary = predict_table(slow_at_times, batches, ParquetWriter(str(tmp_path)), threads=threads)
    table = read_parquet(tmp_path)
    assert table["row"].to_pylist() == list(range(141))
    assert table["probs"].to_pylist() == [2.0 * i for i in range(141)]
    assert summary.num_rows == 141
    assert summary.num_batches == len(batches)
    assert summary.rows_per_second > 0
    assert "141 rows" in str(summary)


def test_column_order_and_types(tmp_path):
    predict_table(
        double, make_batches(5, 2, reserved=("row", "name")), ParquetWriter(str(tmp_path))
    )
    table = read_parquet(tmp_path)
    assert table.schema.names == ["class", "probs", "vector", "row", "name"]
    assert table.schema.field("probs").type == pa.float32()
    assert table.schema.field("class").type == pa.int64()
    assert table.schema.field("vector").type == pa.list_(pa.float32())
    assert table["vector"].to_pylist()[3] == [3.0, -3.0]


def test_chosen_columns(tmp_path):
    summary = predict_table(
        double,
        make_batches(5, 2, reserved=("row", "name")),
        ParquetWriter(str(tmp_path)),
        output_columns=["vector", "probs"],
        reserved=["name"],
    )
    assert summary.columns == ("vector", "probs", "name")
    assert read_parquet(tmp_path).schema.names == ["vector", "probs", "name"]


def test_csv(tmp_path):
    predict_table(double, make_batches(2, 2), CsvWriter(str(tmp_path)), output_columns=["probs"])
    lines = (tmp_path / "part-0.csv").read_text().replace('"', "").splitlines()
    assert lines[0] == "probs,row"
    assert [[float(v) for v in line.split(",")] for line in lines[1:]] == [[0, 0], [2, 1]]


def test_steps(tmp_path):
    summary = predict_table(double, make_batches(9, 2), ParquetWriter(str(tmp_path)), steps=3)
    assert summary.num_rows == 6
    assert read_parquet(tmp_path).num_rows == 6
    assert (
        predict_table(double, make_batches(9, 2), ParquetWriter(str(tmp_path)), steps=1).num_rows
        == 2
    )


def test_no_reserved_columns(tmp_path):
    predict_table(double, make_batches(3, 2, reserved=()), ParquetWriter(str(tmp_path)))
    assert read_parquet(tmp_path).schema.names == ["class", "probs", "vector"]


def test_dummy_batches_are_not_written(tmp_path):
    batches = make_batches(4, 2)
    batches[1].dummy = True
    assert predict_table(double, batches, ParquetWriter(str(tmp_path))).num_rows == 2
    assert read_parquet(tmp_path)["row"].to_pylist() == [0, 1]


def test_no_gradients(tmp_path):
    weight = torch.ones(1, requires_grad=True)
    seen = []

    def forward(batch):
        out = double(batch)["probs"] * weight
        seen.append(out.requires_grad)
        return {"probs": out}

    predict_table(forward, make_batches(6, 2), ParquetWriter(str(tmp_path)), threads=2)
    assert seen == [False] * 3


class TestFailures:
    """Whatever fails: the error comes through, nothing is written, no thread is left."""

    @pytest.fixture(autouse=True)
    def no_threads_left(self, tmp_path):
        before = threading.active_count()
        yield
        deadline = time.monotonic() + 3
        while threading.active_count() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threading.active_count() <= before
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("at", [0, 1, 40])
    def test_forward(self, tmp_path, at):
        def fails(batch):
            if int(batch.reserves.get()["row"][0].as_py()) == at:
                raise ValueError(f"broken at {at}")
            return double(batch)

        with pytest.raises(ValueError, match=f"broken at {at}"):
            predict_table(fails, make_batches(99, 1), ParquetWriter(str(tmp_path)), threads=2)

    @pytest.mark.parametrize("at", [0, 1, 40])
    def test_loader(self, tmp_path, at):
        def loader():
            yield from make_batches(at, 1)
            raise DataError("row 41 is odd")

        with pytest.raises(DataError, match="row 41"):
            predict_table(double, loader(), ParquetWriter(str(tmp_path)), threads=2)

    @pytest.mark.parametrize("at", [0, 1, 40])
    def test_writer(self, tmp_path, at):
        class Full(ParquetWriter):
            written = 0

            def write(self, columns):
                if self.written == at:
                    raise DataError("disk full")
                self.written += 1
                super().write(columns)

        with pytest.raises(DataError, match="disk full"):
            predict_table(double, make_batches(99, 1), Full(str(tmp_path)), threads=2)

    def test_interrupt(self, tmp_path):
        def interrupted(batch):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            predict_table(interrupted, make_batches(9, 1), ParquetWriter(str(tmp_path)))

    def test_empty_input(self, tmp_path):
        with pytest.raises(DataError, match="no rows"):
            predict_table(double, [], ParquetWriter(str(tmp_path)))

    @pytest.mark.parametrize("at", [0, 3])
    def test_stuck_loader(self, tmp_path, monkeypatch, at):
        monkeypatch.setattr("tzrec.deploy.ordered._JOIN_SECONDS", 0.1)
        gate = threading.Event()

        def loader():
            yield from make_batches(at, 1)
            gate.wait(5)

        with pytest.raises(ServingError, match=r"no batch within 0\.2") as error:
            predict_table(double, loader(), ParquetWriter(str(tmp_path)), timeout=0.2)
        gate.set()
        text = str(error.value)
        assert "PREDICT_QUEUE_TIMEOUT" in text
        reader, forward = text.split("thread forward 0:\n")
        assert "thread reader:\n" in reader
        assert "gate.wait(5)" in reader
        assert "gate.wait(5)" not in forward

    def test_stuck_model(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tzrec.deploy.ordered._JOIN_SECONDS", 0.1)
        gate = threading.Event()

        def stuck(batch):
            if batch.reserves.get()["row"][0].as_py() == 4:
                gate.wait(5)
            return double(batch)

        writer = ParquetWriter(str(tmp_path))
        with pytest.raises(ServingError, match=r"did not score a batch within 0\.2") as error:
            predict_table(stuck, make_batches(9, 1), writer, threads=2, timeout=0.2)
        gate.set()
        # One thread hangs in the model, which line of it is said; the other one waits for work.
        stacks = str(error.value).split("thread forward ")[1:]
        assert len(stacks) == 2
        assert sum("in stuck\n    gate.wait(5)" in stack for stack in stacks) == 1

    def test_lost_rows(self, tmp_path):
        with pytest.raises(ServingError, match="'probs' has 3 rows for 4 input rows"):
            predict_table(
                lambda batch: {"probs": double(batch)["probs"][:3]},
                make_batches(4, 4),
                ParquetWriter(str(tmp_path)),
            )

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"output_columns": ["prob"]}, "'prob'.*did you mean 'probs'"),
            ({"output_columns": ["probs", "probs"]}, "twice"),
            ({"reserved": ["nowhere"]}, "reserved columns nowhere"),
            ({"threads": 0}, "predict_threads 0"),
            ({"steps": 0}, "predict_steps 0"),
            ({"timeout": 0}, "timeout 0"),
        ],
    )
    def test_wrong_arguments(self, tmp_path, kwargs, message):
        with pytest.raises(ConfigError, match=message):
            predict_table(double, make_batches(9, 2), ParquetWriter(str(tmp_path)), **kwargs)

    def test_output_and_reserved_column_collide(self, tmp_path):
        with pytest.raises(ConfigError, match="row would be written twice"):
            predict_table(
                lambda batch: {"row": double(batch)["probs"]},
                make_batches(9, 2),
                ParquetWriter(str(tmp_path)),
            )


def test_bounded_read_ahead(tmp_path):
    """A slow writer holds the reader back."""
    read, written, ahead = [0], [0], []

    def loader():
        for batch in make_batches(60, 1):
            read[0] += 1
            yield batch

    class Slow(ParquetWriter):
        def write(self, columns):
            time.sleep(0.003)
            written[0] += 1
            ahead.append(read[0] - written[0])
            super().write(columns)

    predict_table(double, loader(), Slow(str(tmp_path)), threads=2)
    # Waiting in order: 2 per thread; one more with the reader, one more with the writer.
    assert max(ahead) <= 2 * 2 + 2


def test_forward_runs_on_several_threads(tmp_path):
    both = threading.Barrier(2, timeout=5)

    def meets(batch):
        both.wait()
        return double(batch)

    predict_table(meets, make_batches(4, 1), ParquetWriter(str(tmp_path)), threads=2)


def test_progress_lines(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(batch_predict, "_QUIET_SECONDS", 0.0)
    monkeypatch.setattr(logging.getLogger("tzrec"), "propagate", True)
    with caplog.at_level(logging.INFO, "tzrec"):
        predict_table(double, make_batches(6, 2), ParquetWriter(str(tmp_path)))
    assert "predict: 3 batches, 6 rows [" in caplog.text


class TestColumns:
    def test_nested(self):
        value = torch.arange(12.0).reshape(2, 3, 2)
        (column,) = output_columns_of({"v": value}, ["v"]).values()
        assert column.to_pylist() == value.tolist()
        assert column.type == pa.list_(pa.list_(pa.float32()))

    def test_no_entries(self):
        (column,) = output_columns_of({"v": torch.zeros(2, 0)}, ["v"]).values()
        assert column.to_pylist() == [[], []]

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_floats_become_float32(self, dtype):
        (column,) = output_columns_of({"v": torch.tensor([0.5, 2.0], dtype=dtype)}, ["v"]).values()
        assert column.type == pa.float32()
        assert column.to_pylist() == [0.5, 2.0]

    def test_not_contiguous(self):
        value = torch.arange(6.0).reshape(2, 3).T
        (column,) = output_columns_of({"v": value}, ["v"]).values()
        assert column.to_pylist() == value.tolist()

    def test_bool(self):
        (column,) = output_columns_of({"v": torch.tensor([True, False])}, ["v"]).values()
        assert column.to_pylist() == [True, False]

    def test_one_number_for_all_rows(self):
        with pytest.raises(ServingError, match="one number for the whole batch"):
            output_columns_of({"v": torch.tensor(1.0)}, ["v"])

    def test_generated_lists_are_regrouped(self):
        predictions = {
            "item": torch.arange(5),
            "code": torch.arange(10).reshape(5, 2),
            TARGET_REPEAT_INTERLEAVE_KEY: torch.tensor([2, 0, 3]),
        }
        assert select_outputs(predictions, None) == ["code", "item"]
        columns = output_columns_of(predictions, ["item", "code"])
        assert columns["item"].to_pylist() == [[0, 1], [], [2, 3, 4]]
        assert columns["code"].to_pylist() == [[[0, 1], [2, 3]], [], [[4, 5], [6, 7], [8, 9]]]
        with pytest.raises(ServingError, match="adds up to 5"):
            output_columns_of(predictions | {"item": torch.arange(4)}, ["item"])


def test_debug_text(tmp_path):
    def lengths(*values):
        return torch.tensor(values, dtype=torch.int32)

    batch = Batch(
        dense_features={
            BASE_DATA_GROUP: KeyedTensor(["x", "v"], [1, 2], torch.tensor([[0.1, 1, 2], [3, 4, 5]]))
        },
        sparse_features={
            BASE_DATA_GROUP: KeyedJaggedTensor(
                keys=["a", "w", "s", "m"],
                values=torch.tensor([1, 2, 30, 7, 8, 9, 4, 5, 6]),
                lengths=lengths(2, 0, 2, 0, 1, 1, 1, 2),
                weights=torch.tensor([1, 1, 0.5, 2.0, 1, 1, 1, 1, 1]),
            )
        },
        sequence_mulval_lengths={
            BASE_DATA_GROUP: KeyedJaggedTensor(
                keys=["m"], values=lengths(1, 2), lengths=lengths(1, 1)
            )
        },
    )
    features = [
        FakeFeature("a"),
        FakeFeature("w", is_weighted=True),
        FakeFeature("s", is_sequence=True, sequence_delim=";"),
        FakeFeature("m", is_sequence=True, sequence_delim="#"),
        FakeFeature("x", is_sparse=False),
        FakeFeature("v", is_sparse=False),
    ]
    predict_table(
        lambda batch: {"probs": torch.zeros(2)},
        [batch],
        ParquetWriter(str(tmp_path)),
        debug_features=features,
    )
    table = read_parquet(tmp_path)
    assert table.schema.names == ["probs", "__features__"]
    assert table["__features__"].to_pylist() == [
        "a:1,2 | w:30:0.5,7:2.0 | s:8 | m:4 | x:0.1 | v:1.0,2.0",
        "a: | w: | s:9 | m:5,6 | x:3.0 | v:4.0,5.0",
    ]


def test_debug_text_of_sequences():
    from tzrec.batch import JaggedTensor
    from tzrec.deploy.debug_text import features_text

    batch = Batch(
        sparse_features={
            BASE_DATA_GROUP: KeyedJaggedTensor(
                keys=["s"], values=torch.arange(3), lengths=torch.tensor([3, 0])
            )
        },
        sequence_dense_features={
            "d": JaggedTensor(values=torch.tensor([[1.5, 2], [3, 4]]), lengths=torch.tensor([0, 2]))
        },
    )
    features = [
        FakeFeature("s", is_sequence=True, sequence_delim=";"),
        FakeFeature("d", is_sequence=True, sequence_delim=";"),
    ]
    assert features_text(batch, features).to_pylist() == ["s:0;1;2 | d:", "s: | d:1.5,2.0;3.0,4.0"]
