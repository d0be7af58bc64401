from __future__ import annotations

from types import SimpleNamespace

import pytest
from match_jobs import make_items, make_rows, run, write_job


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A trained two-tower model, its export and its retriever."""
    root = tmp_path_factory.mktemp("match")
    config = write_job(root, with_sampler=True)
    assert run("train", config) == 0
    export = root / "export"
    assert run("export", config, "--export-dir", export, "--item-input-path",
               root / "items.parquet") == 0  # fmt: skip
    assert run("index", export, "--items", root / "items.parquet", "--out", root / "ret") == 0
    return SimpleNamespace(
        root=root,
        config=config,
        export=export,
        retriever=root / "ret",
        items=make_items(),
        test=make_rows(300, seed=1),
    )
