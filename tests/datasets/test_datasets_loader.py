from __future__ import annotations

import gc
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets_fakes import DenseFake, IdFake
from datasets_table import ROWS, TOTAL, all_ids, config_of, ids_of, loader_of
from google.protobuf import text_format

from tzrec.constant import Mode
from tzrec.datasets import dataset as dataset_module
from tzrec.datasets import loader as loader_module
from tzrec.datasets.dataset import create_dataloader, get_dataset_class, num_parser_processes
from tzrec.datasets.position import DataPosition
from tzrec.errors import ConfigError, DataError, FeatureError, Unsupported
from tzrec.protos.data_pb2 import DataConfig

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_a_pass_gives_every_row_in_order(folder):
    with loader_of(folder) as loader:
        assert (loader.num_rows, loader.num_batches) == (TOTAL, 10)
        batches = list(loader)
    assert [i for batch in batches for i in ids_of(batch)] == list(range(TOTAL))
    assert [len(ids_of(batch)) for batch in batches] == [5] * 9 + [4]
    for batch in batches:
        ids = ids_of(batch)
        assert batch.labels["label"].tolist() == [i % 2 for i in ids]
        assert batch.dense_features["__BASE__"].values()[:, 0].tolist() == ids
        assert batch.reserves.get() is None


def test_checkpoint_info_names_file_and_rows(folder):
    with loader_of(folder) as loader:
        infos = [batch.checkpoint_info for batch in loader]
    name = str(folder / "p{}.parquet")
    assert infos[0] == {name.format(0): [(0, 5)]}
    assert infos[4] == {name.format(0): [(20, 23)], name.format(2): [(0, 2)]}


@pytest.mark.parametrize("text", ["", "shuffle: true shuffle_buffer_size: 3"])
def test_passes_can_be_repeated(folder, text):
    with loader_of(folder, text) as loader:
        first, second = all_ids(loader), all_ids(loader)
        loader.set_epoch(1)
        third = all_ids(loader)
    assert first == second
    assert (first == third) == (not text)
    for found in (first, third):
        assert sorted(i for batch in found for i in batch) == list(range(TOTAL))


def test_shuffle_depends_on_the_seed_and_only_in_training(folder):
    text = "shuffle: true shuffle_buffer_size: 3"
    orders = []
    for seed, mode in [(1, Mode.TRAIN), (1, Mode.TRAIN), (2, Mode.TRAIN), (1, Mode.EVAL)]:
        with loader_of(folder, text, seed=seed, mode=mode) as loader:
            orders.append([i for batch in all_ids(loader) for i in batch])
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[3] == list(range(TOTAL))


@pytest.mark.parametrize("text", ["", "shuffle: true shuffle_buffer_size: 2"])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_ranks_share_the_rows_and_agree_on_the_number_of_batches(folder, world_size, text):
    ranks = []
    for rank in range(world_size):
        with loader_of(folder, text, rank=rank, world_size=world_size) as loader:
            ranks.append(all_ids(loader))
            assert len(ranks[-1]) == loader.num_batches
    assert len({len(rank) for rank in ranks}) == 1
    assert sorted(i for rank in ranks for batch in rank for i in batch) == list(range(TOTAL))


def test_eval_batch_size_and_drop_remainder(folder):
    text = "eval_batch_size: 20 drop_remainder: true"
    sizes = {}
    for mode in Mode:
        with loader_of(folder, text, mode=mode) as loader:
            sizes[mode] = [len(batch) for batch in all_ids(loader)]
    assert sizes == {Mode.TRAIN: [5] * 9, Mode.EVAL: [20, 20], Mode.PREDICT: [20, 20, 9]}


@pytest.mark.parametrize(
    ("reserved", "expected"),
    [
        (["name"], ["name"]),
        (["name", "id"], ["name", "id"]),
        (["ALL_COLUMNS"], ["id", "price", "label", "name"]),
        (["ALL_EFFECTIVE_COLUMNS"], ["id", "price"]),
    ],
)
def test_prediction_keeps_columns_and_needs_no_label(folder, reserved, expected):
    with loader_of(folder, mode=Mode.PREDICT, reserved_columns=reserved) as loader:
        batches = list(loader)
    assert not batches[0].labels
    kept = pa.Table.from_batches([batch.reserves.get() for batch in batches])
    assert kept.schema.names == expected
    if "name" in expected:
        assert kept.column("name").to_pylist() == [f"n{i}" for i in range(TOTAL)]


@pytest.mark.parametrize("column", ["features", "labels", "reserved"])
def test_missing_columns_are_found_before_the_first_batch(folder, column):
    features = [IdFake("idd")] if column == "features" else [IdFake("id")]
    text = 'label_fields: "lable"' if column == "labels" else ""
    reserved = ["naem"] if column == "reserved" else None
    with pytest.raises(DataError, match="did you mean"):
        loader_of(folder, text, features=features, reserved_columns=reserved)


@pytest.mark.parametrize("seed", range(20))
def test_killed_and_resumed_equals_uninterrupted(folder, seed):
    random = np.random.default_rng(seed)
    text = f"shuffle: {'true' if seed % 2 else 'false'} shuffle_buffer_size: 3"
    batch_size, epoch = int(random.integers(1, 9)), int(random.integers(4))

    def fresh():
        loader = loader_of(folder, text, batch_size=batch_size, seed=seed)
        loader.set_epoch(epoch)
        return loader

    with fresh() as loader:
        expected = all_ids(loader)
    stop = int(random.integers(1, len(expected) + 1))
    position, seen = DataPosition(), []
    with fresh() as loader:
        for batch in loader:
            position.add(batch.checkpoint_info)
            seen.append(ids_of(batch))
            if len(seen) == stop:
                break
    with fresh() as loader:
        loader.resume(DataPosition.from_json(position.to_json()))
        assert loader.num_batches == len(expected)
        for batch in loader:
            position.add(batch.checkpoint_info)
            seen.append(ids_of(batch))
        assert seen == expected
        assert all_ids(loader) == expected  # the next pass reads everything
    assert position.num_rows == TOTAL
    assert position.num_batches == len(expected)


def test_resume_on_other_ranks_reads_the_rest_once(folder):
    text = "shuffle: true shuffle_buffer_size: 3"
    position, seen = DataPosition(), []
    for rank in range(2):
        with loader_of(folder, text, rank=rank, world_size=2) as loader:
            part = DataPosition()
            for _, batch in zip(range(3), loader, strict=False):
                part.add(batch.checkpoint_info)
                seen += ids_of(batch)
            position.merge(part)
    for rank in range(3):
        with loader_of(folder, text, rank=rank, world_size=3, batch_size=4) as loader:
            loader.resume(position)
            seen += [i for batch in all_ids(loader) for i in batch]
    assert sorted(seen) == list(range(TOTAL))


def test_resume_says_where_and_checks_the_files(folder, caplog):
    caplog.set_level("INFO", logger="tzrec")
    name = str(folder / "p0.parquet")
    position = DataPosition()
    for start in range(0, 20, 5):
        position.add({name: [(start, start + 5)]})
    with loader_of(folder) as loader:
        loader.resume(position)
        assert all_ids(loader)[0] == list(range(20, 25))
        assert "batch 4/10: file 1/4" in caplog.text
        assert "row 20" in caplog.text
        position.add({"gone.parquet": [(0, 3)]})
        loader.resume(position)
        assert "gone.parquet" in caplog.text
        position.add({name: [(23, 24)]})
        with pytest.raises(DataError, match=r"24 rows .* but it has 23"):
            loader.resume(position)


def test_too_few_rows_to_go_on_are_reported(folder, caplog):
    position = DataPosition()
    for number, rows in enumerate(ROWS):
        position.add({str(folder / f"p{number}.parquet"): [(0, rows - 1 if number == 3 else rows)]})
    with loader_of(folder, rank=1, world_size=2) as loader:
        loader.resume(position)
        assert all_ids(loader) == []
    assert "1 rows are left" in caplog.text


def test_masks_are_seeded_and_for_training(folder):
    def masked(mode: Mode = Mode.TRAIN, **kwargs) -> list[list[int]]:
        features = [IdFake("id", use_mask=True)]
        text = "sample_mask_prob: 0.4"
        with loader_of(folder, text, features=features, mode=mode, **kwargs) as loader:
            loader.set_epoch(kwargs.get("seed", 0))
            return [b.sparse_features["__BASE__"].lengths().tolist() for b in loader]

    rows = [length for batch in masked() for length in batch]
    assert len(rows) == TOTAL
    assert 0.2 < rows.count(0) / TOTAL < 0.6
    assert masked() == masked()
    assert masked() != masked(seed=1)
    assert sum(map(sum, masked(Mode.EVAL))) == TOTAL


@pytest.mark.parametrize("text", ["loader: THREAD", "shuffle: true"])
def test_a_bad_row_names_file_and_row(bad_row, text):
    with (
        loader_of(bad_row, text, batch_size=8) as loader,
        pytest.raises(FeatureError) as caught,
    ):
        list(loader)
    message = str(caught.value)
    assert f"{bad_row}/p2.parquet: row group 0, row 13 (counted from 0): " in message
    assert "feature 'price' has no default" in message
    assert "hint: set one" in message


def test_batches_before_a_bad_row_are_delivered(bad_row):
    seen = []
    with loader_of(bad_row) as loader, pytest.raises(FeatureError):
        seen.extend(ids_of(batch) for batch in loader)
    assert seen == [list(range(s, s + 5)) for s in range(0, 35, 5)]


def test_an_id_outside_the_table_names_file_and_row(folder):
    with (
        loader_of(folder, features=[IdFake("id", num_embeddings=30)]) as loader,
        pytest.raises(
            DataError, match=r"p2\.parquet: row group 1, row 7 .* 'id': id 30 is outside 0 … 29"
        ),
    ):
        list(loader)


def test_a_wrong_column_type_names_no_row(folder):
    with (
        loader_of(folder, features=[DenseFake("id")]) as loader,
        pytest.raises(FeatureError, match=r"p0\.parquet: feature 'id' cannot read int64"),
    ):
        list(loader)


def test_leaving_early_ends_the_thread(folder, monkeypatch):
    monkeypatch.setattr(loader_module, "_AHEAD_BATCHES", 2)
    loader = loader_of(folder, batch_size=1)
    try:
        for _, _ in zip(range(3), loader, strict=False):
            pass
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    finally:
        loader.close()
    with pytest.raises(RuntimeError, match="closed"):
        iter(loader)


def test_dropping_an_iterator_ends_its_thread(folder, monkeypatch):
    monkeypatch.setattr(loader_module, "_AHEAD_BATCHES", 2)
    loader = loader_of(folder, batch_size=1)
    batches = iter(loader)
    next(batches)
    del batches
    gc.collect()
    assert not [t for t in threading.enumerate() if t.name == "tzrec-loader"]
    loader.close()


@pytest.mark.parametrize(
    ("text", "gpu", "expected"),
    [
        ("", False, 0),
        ("", True, 3),
        ("fg_mode: FG_DAG", False, 3),
        ("loader: THREAD fg_mode: FG_DAG", True, 0),
        ("loader: PROCESS", False, 3),
        ("loader: PROCESS num_workers: 0", False, 0),
        ("loader: PROCESS num_workers: 99", False, 4),
    ],
)
def test_who_parses(text, gpu, expected, monkeypatch):
    monkeypatch.setattr(dataset_module.torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)))
    config = DataConfig(dataset_type="CsvDataset", num_workers=3)
    text_format.Merge(text, config) if "num_workers" not in text else None
    if "num_workers" in text:
        config = text_format.Parse(text + " dataset_type: CsvDataset", DataConfig())
    assert num_parser_processes(config) == expected


@pytest.mark.parametrize("name", ["OdpsDataset", "OdpsDatasetV1"])
def test_later_dataset_types(name):
    with pytest.raises(Unsupported, match=name):
        get_dataset_class(name)
    with pytest.raises(ConfigError, match="did you mean"):
        get_dataset_class("ParketDataset")


@pytest.mark.parametrize(
    ("text", "batch_size"), [("", 0), ("shuffle: true shuffle_buffer_size: 0", 4)]
)
def test_sizes_of_nothing(folder, text, batch_size):
    with pytest.raises(ConfigError):
        loader_of(folder, text, batch_size=batch_size)


def test_the_suffix_tells_the_format_whatever_the_type(folder):
    config = config_of()
    config.dataset_type = 3  # CsvDataset
    with create_dataloader(config, [IdFake("id")], f"{folder}/*.parquet") as loader:
        assert loader.num_rows == TOTAL
    config.dataset_type = 2
    with create_dataloader(config, [IdFake("id")], str(folder)) as loader:
        assert loader.num_rows == TOTAL


def test_csv_gives_the_same_batches(folder):
    table = pq.read_table(folder / "p0.parquet")
    lines = [",".join(map(str, row.values())) for row in table.to_pylist()]
    (folder / "x.csv").write_text("\n".join(lines) + "\n")
    config = text_format.Parse(
        'dataset_type: CsvDataset batch_size: 5 label_fields: "label" '
        'input_fields_str: "id:BIGINT;price:DOUBLE;label:INT;name:STRING"',
        DataConfig(),
    )
    features = [IdFake("id"), DenseFake("price")]
    with create_dataloader(config, features, f"{folder}/x.csv") as from_csv:
        csv_batches = [batch.to_dict() for batch in from_csv]
    with create_dataloader(config, features, f"{folder}/p0.parquet") as from_parquet:
        parquet_batches = [batch.to_dict() for batch in from_parquet]
    for left, right in zip(csv_batches, parquet_batches, strict=True):
        assert left.keys() == right.keys()
        assert all(left[key].equal(right[key]) for key in left)
