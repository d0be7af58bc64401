"""Messages with known rows, and what a loader makes of them."""

from __future__ import annotations

import json

import pyarrow as pa
from datasets_fakes import DenseFake, IdFake
from kafka_broker import payload

from tzrec.constant import Mode
from tzrec.datasets.dataset import create_dataloader
from tzrec.datasets.position import DataPosition
from tzrec.protos.data_pb2 import DataConfig

SECOND = 1000
T0 = 1_700_000_000_000
FEATURES = (IdFake("id"), DenseFake("price"))


def rows(first, number, **columns):
    """A table whose ids count from ``first``."""
    ids = list(range(first, first + number))
    table = {
        "id": pa.array(ids, pa.int64()),
        "price": pa.array([float(i) for i in ids], pa.float32()),
        "label": pa.array([i % 2 for i in ids], pa.int64()),
    }
    return pa.table({**table, **columns})


def fill(brokers, topic, sizes, partitions=1, first=0, start=T0):
    """Sends messages of so many rows, one a second, in turn to the partitions.

    Returns the number of rows. Their ids are in the order of time.
    """
    messages, row = [], first
    for number, size in enumerate(sizes):
        time = start + number * SECOND
        messages.append((number % partitions, payload(rows(row, size)), time))
        row += size
    brokers.send(topic, *messages)
    return row - first


def loader(path, mode=Mode.TRAIN, *, features=FEATURES, rank=0, world_size=1, **options):
    """A loader of ids and prices; options are those of a data config."""
    config = {"batch_size": 8, "num_workers": 0, "label_fields": ["label"], **options}
    config = DataConfig(dataset_type="KafkaDataset", **config)
    return create_dataloader(
        config, list(features), path, mode=mode, rank=rank, world_size=world_size, seed=3
    )


def ids(batch):
    """The ids of a batch."""
    return batch.sparse_features["__BASE__"].values().tolist()


def read(path, mode=Mode.TRAIN, *, epoch=0, position=None, **options):
    """The ids of each batch of a pass."""
    with loader(path, mode, **options) as made:
        made.set_epoch(epoch)
        if position is not None:
            made.resume(position)
        return [ids(batch) for batch in made]


def stored(position):
    """A position as it comes back from a checkpoint."""
    return DataPosition.from_json(json.loads(json.dumps(position.to_json())))
