from __future__ import annotations

import multiprocessing

import pyarrow as pa
import pytest
from datasets_fakes import IdFake
from datasets_table import loader_of

from tzrec.constant import Mode
from tzrec.errors import DistributedError, FeatureError

pytestmark = pytest.mark.usefixtures("nothing_left")

PROCESS = "loader: PROCESS num_workers: 2"


def content_of(batch) -> tuple:
    reserves = batch.reserves.get()
    return (
        {key: tensor.tolist() for key, tensor in batch.to_dict().items()},
        batch.checkpoint_info,
        reserves and reserves.to_pydict(),
    )


def test_training_batches_are_those_of_the_thread_and_leaving_early_ends_the_processes(folder):
    text = "shuffle: true shuffle_buffer_size: 3 sample_mask_prob: 0.3 "
    features = [IdFake("id", use_mask=True)]
    with loader_of(folder, text, features=features) as loader:
        expected = [content_of(batch) for batch in loader]
    with loader_of(folder, text + PROCESS, features=features) as loader:
        assert [content_of(batch) for batch in loader] == expected
        batches = iter(loader)
        assert content_of(next(batches)) == expected[0]
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []


def test_prediction_keeps_columns_and_a_bad_row_names_file_and_row(bad_row):
    kwargs = {"mode": Mode.PREDICT, "reserved_columns": ["name"]}
    with loader_of(bad_row, **kwargs) as loader:
        expected = [content_of(batch) for _, batch in zip(range(7), loader, strict=False)]
    seen = []
    with loader_of(bad_row, "loader: PROCESS num_workers: 1", **kwargs) as loader:
        with pytest.raises(FeatureError, match=r"p2\.parquet: row 13 .* 'price' has no default"):
            seen.extend(content_of(batch) for batch in loader)
        assert seen == expected
        process = multiprocessing.active_children()[0]
        process.kill()
        process.join()
        with pytest.raises(DistributedError, match="a data worker process died"):
            list(loader)
    assert pa.concat_arrays([pa.array(c[2]["name"]) for c in seen]).to_pylist() == [
        f"n{i}" for i in range(35)
    ]
