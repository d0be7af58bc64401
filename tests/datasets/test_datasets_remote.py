"""Whole files by scheme: local, in memory and on an S3 server."""

from __future__ import annotations

import builtins
import os
import uuid

import numpy as np
import pyarrow as pa
import pytest
from datasets_fakes import DenseFake, IdFake
from datasets_table import all_ids
from google.protobuf import text_format

from tzrec import storage
from tzrec.config.vocab import read_vocab_file
from tzrec.datasets.dataset import create_dataloader, create_reader, create_writer
from tzrec.errors import DataError
from tzrec.protos.data_pb2 import DataConfig

pytestmark = pytest.mark.usefixtures("nothing_left")

ROWS = 300


@pytest.fixture(params=["local", "memory", "s3"])
def root(request, tmp_path) -> str:
    """A directory on each kind of storage."""
    if request.param == "s3":
        return f"{request.getfixturevalue('s3_url')}/data"
    return str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4()}"


def columns(first: int, rows: int) -> dict[str, pa.Array]:
    ids = np.arange(first, first + rows)
    return {
        "id": pa.array(ids),
        "price": pa.array(ids / 4),
        "label": pa.array(ids % 2),
        "name": pa.array([f"n {i}, é" for i in ids]),
    }


def write_files(root: str, kind: str) -> None:
    for rank, first in enumerate([0, ROWS // 3, ROWS // 2, ROWS]):
        stop = [ROWS // 3, ROWS // 2, ROWS, ROWS][rank]
        with create_writer(root, f"{kind}Writer", rank=rank) as writer:
            for start in range(first, stop, 40):
                writer.write(columns(start, min(40, stop - start)))


def loader_of(path: str, kind: str):
    text = f'dataset_type: {kind}Dataset batch_size: 32 label_fields: "label" with_header: true'
    features = [IdFake("id"), DenseFake("price")]
    return create_dataloader(text_format.Parse(text, DataConfig()), features, path)


@pytest.mark.parametrize("kind", ["Csv", "Parquet"])
def test_files_are_written_found_and_read(kind, root):
    write_files(root, kind)
    suffix = kind.lower()
    assert storage.list_directory(root) == [f"part-{i}.{suffix}" for i in range(3)]
    storage.open_file(f"{root}/_SUCCESS", "wb").close()
    single = ",".join(f"{root}/part-{i}.{suffix}" for i in range(3))
    for path in (root, f"{root}/", f"{root}/*.{suffix}", f"{root}/part-[0-9].{suffix}", single):
        with loader_of(path, kind) as loader:
            assert loader.num_rows == ROWS
            assert [i for batch in all_ids(loader) for i in batch] == list(range(ROWS))
    whole = create_reader(root, reader_type=f"{kind}Reader")
    table = pa.Table.from_batches(whole.to_batches())
    expected = columns(0, ROWS)
    assert {name: table.column(name).to_pylist() for name in expected} == {
        name: column.to_pylist() for name, column in expected.items()
    }


@pytest.mark.parametrize("kind", ["Csv", "Parquet"])
def test_an_aborted_file_leaves_nothing(kind, root):
    writer = create_writer(root, f"{kind}Writer")
    writer.write(columns(0, 10))
    writer.__exit__(KeyError, KeyError(), None)
    assert storage.list_directory(root) == []


def test_a_file_that_is_not_there_says_so(root):
    with pytest.raises(DataError, match=r"no parquet files exist in '.*none\.parquet'"):
        loader_of(f"{root}/none.parquet", "Parquet")


def test_vocabularies(root):
    if "://" not in root:
        os.makedirs(root, exist_ok=True)
    with storage.open_file(f"{root}/words", "wb") as file:
        file.write("a\nb\né\n".encode())
    assert read_vocab_file(f"{root}/words") == {"a": 0, "b": 1, "é": 2}


def test_nothing_is_patched():
    assert builtins.open is __import__("io").open
    assert os.path.exists.__module__ in ("genericpath", "posixpath", "nt", "posix")
