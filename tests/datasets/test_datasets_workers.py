from __future__ import annotations

import multiprocessing

import pytest
from datasets_fakes import DenseFake, IdFake
from datasets_table import loader_of

from tzrec.errors import DistributedError, FeatureError

pytestmark = pytest.mark.usefixtures("nothing_left")


def content_of(batch) -> tuple:
    return (
        {key: tensor.tolist() for key, tensor in batch.to_dict().items()},
        batch.checkpoint_info,
        batch.reserves.get().to_pydict(),
    )


def test_processes_do_what_the_thread_does(bad_row):
    """One test for all, because processes take seconds to start."""
    text = "shuffle: true shuffle_buffer_size: 2 sample_mask_prob: 0.3 num_workers: 2 "
    kwargs = {
        "features": [IdFake("id", use_mask=True), DenseFake("price")],
        "reserved_columns": ["name"],
        "seed": 3,
    }
    named = r"p2\.parquet: row group 0, row 13 \(counted from 0\): feature 'price' has no default"
    expected, seen = [], []
    with loader_of(bad_row, text + "loader: THREAD", **kwargs) as loader:
        with pytest.raises(FeatureError, match=named):
            expected.extend(content_of(batch) for batch in loader)
        assert multiprocessing.active_children() == []
    assert len(expected) >= 3
    with loader_of(bad_row, text + "loader: PROCESS", **kwargs) as loader:
        batches = iter(loader)
        assert content_of(next(batches)) == expected[0]
        del batches
        with pytest.raises(FeatureError, match=named):
            seen.extend(content_of(batch) for batch in loader)
        assert seen == expected
        process, other = multiprocessing.active_children()
        process.kill()
        process.join()
        with pytest.raises(DistributedError, match="a data worker process died"):
            list(loader)
    assert not other.is_alive()
