"""Every field of data_config changes the batches, how they are made, or that they are refused.

What the change is right for is tested in tests/datasets.
"""

import functools

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from knob_runs import load, rows

from tzrec.constant import Mode
from tzrec.datasets.dataset import create_dataloader
from tzrec.errors import TzrecError
from tzrec.training.build import build_features

NUM_ROWS = 96
DATA = "data_config"
CSV = f"{DATA}.dataset_type=CsvDataset"
NAMED = (
    CSV,
    f'{DATA}.input_fields=[{{ input_name: "user" input_type: INT64 }}, '
    '{ input_name: "price" input_type: FLOAT }, { input_name: "clk" input_type: INT64 }]',
)
COSTS = (f"{DATA}.sample_cost_field=cost", f"{DATA}.batch_cost_size=100")
# Field → file, its other value, what both loaders set so that it matters.
# Only feature generation normalises.
NORMALISED = ("feature_configs[1].raw_feature.normalizer=method=minmax,min=0,max=2",)
BATCHES = {
    "batch_size": ("data.parquet", "16", ()),
    "dataset_type": ("data.bin", "CsvDataset", ()),
    "fg_encoded": ("data.parquet", "false", NORMALISED),
    "fg_encoded_multival_sep": ("lists.parquet", ";", (f"{DATA}.fg_encoded_multival_sep=|",)),
    "fg_mode": ("data.parquet", "FG_DAG", NORMALISED),
    "label_fields": ("data.parquet", '["other"]', ()),
    "input_fields.input_name": ("bare.csv", "cost", NAMED),
    "input_fields.input_type": ("bare.csv", "DOUBLE", NAMED),
    "input_fields_str": (
        "bare.csv",
        "user:INT64;price:FLOAT;clk:DOUBLE",
        (CSV, f"{DATA}.input_fields_str=user:INT64;price:FLOAT;clk:INT64"),
    ),
    "delimiter": ("data.csv", ";", (CSV, f"{DATA}.with_header=true")),
    "with_header": ("data.csv", "true", NAMED),
    "eval_batch_size": ("data.parquet", "16", ()),
    "drop_remainder": ("data.parquet", "true", (f"{DATA}.batch_size=40",)),
    "sample_mask_prob": ("data.parquet", "0.5", ("feature_configs[0].id_feature.use_mask=true",)),
    "sample_weight_fields": ("data.parquet", '["weight"]', ()),
    "shuffle": ("data.parquet", "true", ()),
    "shuffle_buffer_size": (
        "data.parquet",
        "1",
        (f"{DATA}.shuffle=true", f"{DATA}.batch_size=8"),
    ),
    "sample_cost_field": ("data.parquet", "weight", COSTS),
    "batch_cost_size": ("data.parquet", "200", COSTS),
    "max_bad_rows": ("bad.parquet", "1", ()),
    "event_time_field": ("data.parquet", "time", ()),
}
EVAL = {"eval_batch_size"}
# Fields that say how batches are made, not what is in them.
PROCESSES = (f"{DATA}.loader=PROCESS", f"{DATA}.num_workers=1")
OPTIONS = {
    "num_workers": ("0", PROCESSES),
    "loader": ("THREAD", PROCESSES),
    "in_order": ("false", PROCESSES),
    "pin_memory": ("false", ()),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    table = pa.table(rows(0, NUM_ROWS))
    pq.write_table(table, path / "bare.parquet")
    pa.csv.write_csv(table, path / "data.csv")
    options = pa.csv.WriteOptions(include_header=False)
    pa.csv.write_csv(table, path / "bare.csv", options)
    more = {
        "other": [i % 3 % 2 for i in range(NUM_ROWS)],
        "weight": [1.0 + i % 2 for i in range(NUM_ROWS)],
        "time": list(range(NUM_ROWS)),
        "cost": [float(i % 7) + 1 for i in range(NUM_ROWS)],
    }
    for name, column in more.items():
        table = table.append_column(name, pa.array(column))
    pq.write_table(table, path / "data.parquet")
    pq.write_table(table, path / "data.bin")
    lists = pa.array([f"{i % 20}|{i % 7}" for i in range(NUM_ROWS)])
    pq.write_table(table.set_column(0, "user", lists), path / "lists.parquet")
    bad = pa.array(["x" if i == 9 else str(i % 20) for i in range(NUM_ROWS)])
    pq.write_table(table.set_column(0, "user", bad), path / "bad.parquet")
    return path


def make_loader(path, edits, mode=Mode.TRAIN):
    paths = (f"train_input_path={path}", f"eval_input_path={path}")
    config = load((*paths, *edits))
    features = build_features(config.data_config, config.feature_configs)
    return create_dataloader(config.data_config, features, str(path), mode=mode, seed=3)


@functools.cache
def seen(path, edits, mode):
    """The batches of a pass, or the error that there are none."""
    try:
        loader = make_loader(path, edits, mode)
        try:
            return [content(batch) for batch in loader]
        finally:
            loader.close()
    except TzrecError as error:
        return f"{type(error).__name__} {error}"


def content(batch):
    tensors = {**batch.labels, **batch.sample_weights, **batch.dense_features}
    ids = batch.sparse_features["__BASE__"]
    return (
        {name: str(value) for name, value in tensors.items() if torch.is_tensor(value)},
        [part.tolist() for part in (ids.values(), ids.lengths())],
        [column.values().tolist() for column in batch.dense_features.values()],
        batch.data_timestamp,
    )


@pytest.mark.parametrize("name", BATCHES)
def test_batches_change(name, folder):
    file, value, base = BATCHES[name]
    path = f"{DATA}.{name}"
    if name.startswith("input_fields."):
        path = path.replace("input_fields", "input_fields[2]")
    mode = Mode.EVAL if name in EVAL else Mode.TRAIN
    before = seen(folder / file, base, mode)
    after = seen(folder / file, (*base, f"{path}={value}"), mode)
    assert isinstance(before, list) or isinstance(after, list)
    assert before != after


def test_batches_without_a_change_are_the_same(folder):
    seen.cache_clear()
    first = seen(folder / "data.parquet", (), Mode.TRAIN)
    seen.cache_clear()
    assert first == seen(folder / "data.parquet", (), Mode.TRAIN)
    assert len(first) == NUM_ROWS // 32


@pytest.mark.parametrize("name", OPTIONS)
def test_how_batches_are_made_changes(name, folder, monkeypatch):
    if name == "pin_memory":  # takes a GPU
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    value, base = OPTIONS[name]
    options = []
    for edits in (base, (*base, f"{DATA}.{name}={value}")):
        loader = make_loader(folder / "data.parquet", edits)
        options.append(loader.options)
        loader.close()
    assert options[0] != options[1]
