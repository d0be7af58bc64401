"""Hash tables on several ranks: the map and the rows of one process, whoever goes on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hash_runs import (
    BATCH,
    DYNAMIC,
    MAPS,
    ROWS,
    TABLES,
    maps,
    stored,
    train,
    train_on,
    weight_of,
    write,
)
from torch.distributed.checkpoint._nested_dict import flatten_state_dict

from tzrec.modules.hash_tables.id_map import EMPTY
from tzrec.training.checkpoint.find import read_results
from tzrec.training.checkpoint.restore import read_data_position

pytestmark = pytest.mark.slow


def own_shards(config, ranks):
    """Writes the rows in the order in which one process reads what several read together."""
    root = Path(config).parent
    order = np.arange(ROWS).reshape(ranks, -1, BATCH // 2).transpose(1, 0, 2).ravel()
    pq.write_table(pq.read_table(root / "train.parquet").take(order), root / "one.parquet")
    return f"train_input_path={root}/one.parquet"


def placed(kind):
    return f'{DYNAMIC} embedding_constraints {{ sharding_types: "{kind}" }}'


def assert_same_tables(found, expected):
    for key, value in maps(expected).items():
        assert torch.equal(maps(found)[key], value), key
    for table in TABLES:
        weights = weight_of(found, table), weight_of(expected, table)
        torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("ranks", "kind"), [(2, "row_wise"), (2, "table_wise"), (3, "row_wise")])
def test_several_ranks_have_the_map_and_the_rows_of_one(tmp_path, ranks, kind):
    """Stopped and resumed within an interval of one of the tables."""
    config = write(tmp_path, user=placed(kind))
    together = [own_shards(config, ranks), f"data_config.batch_size={BATCH // 2 * ranks}"]
    train(config, tmp_path / "one", steps=6, more=together)
    edits = {"num_epochs": 0, "batch_size": BATCH // 2}
    train_on(ranks, config, tmp_path / "run", num_steps=5, **edits)
    train_on(ranks, config, tmp_path / "run", "--continue_train", num_steps=6, **edits)
    assert_same_tables(stored(tmp_path / "run"), stored(tmp_path / "one"))
    plan = json.loads((tmp_path / "run/plan.json").read_text())
    assert {t["sharding_type"] for t in plan["tables"] if t["name"] == "user_emb"} == {kind}


def test_another_number_of_ranks_goes_on(tmp_path):
    """The ids that came since the maps last changed are those of all ranks of before."""
    config = write(tmp_path, user=placed("row_wise"))
    train(config, tmp_path / "run", steps=4)
    shutil.copytree(tmp_path / "run", tmp_path / "still")
    lr = {"sparse_optimizer.rowwise_adagrad_optimizer.lr": 0}
    train_on(
        3,
        config,
        tmp_path / "run",
        "--continue_train",
        num_steps=5,
        num_epochs=0,
        batch_size=16,
        **lr,
    )
    before, after = stored(tmp_path / "still"), stored(tmp_path / "run")
    assert int(maps(after)["item_emb", "steps"]) == 5
    # Neither table of zch is due at step 5, so that nothing of it has changed.
    for name in MAPS[:3]:
        key = ("item_emb", name)
        assert torch.equal(maps(after)[key], maps(before)[key]), name
    assert torch.equal(weight_of(after, "item_emb"), weight_of(before, "item_emb"))
    # A step of one process brings back what three have saved.
    train(config, tmp_path / "run", steps=6, continue_train=True)
    found = maps(stored(tmp_path / "run"))
    assert int(found["item_emb", "steps"]) == 6
    assert int(found["item_emb", "counts"].sum()) > int(maps(before)["item_emb", "counts"].sum())


def rows_of_steps(run, steps):
    """Returns the rows that were read from each of some steps to the next, as checkpoints say."""
    known, found = set(), []
    for step in steps:
        position = read_data_position(run / f"model.ckpt-{step - 1}")["position"]
        (intervals,) = position["sources"].values()
        rows = {row for begin, end in intervals for row in range(begin, end)}
        found.append(sorted(rows - known))
        known = rows
    return found


@pytest.mark.parametrize("kind", ["row_wise", "table_wise"])
def test_one_three_and_one_rank_are_one_run_of_one(tmp_path, kind):
    """Steps 1 to 4, 5 to 7 and 8 to 9; maps change before, in and after the ones of three ranks."""
    config, size = write(tmp_path, user=placed(kind)), 48
    one = [f"data_config.batch_size={size}", "train_config.save_checkpoints_steps=1"]
    run = tmp_path / "run"
    train(config, run, steps=4, more=one)
    edits = {"num_epochs": 0, "save_checkpoints_steps": 1, "batch_size": size // 3}
    train_on(3, config, run, "--continue_train", num_steps=7, **edits)
    train(config, run, steps=9, more=one, continue_train=True)
    # The same rows in the same steps, for a run that nobody stopped.
    order = rows_of_steps(run, [4, 5, 6, 7, 8, 9])
    assert order[0] == list(range(4 * size))
    assert [len(rows) for rows in order[1:]] == [size] * 5
    assert order[1] != list(range(4 * size, 5 * size))
    table = pq.read_table(tmp_path / "train.parquet")
    pq.write_table(table.take(np.concatenate(order)), tmp_path / "whole.parquet")
    path = f"train_input_path={tmp_path}/whole.parquet"
    train(config, tmp_path / "whole", steps=9, more=[*one, path])
    found, expected = stored(run), stored(tmp_path / "whole")
    assert_same_tables(found, expected)
    dense = [n for n in expected if ".id_maps." not in n and "_emb" not in n]
    assert dense
    paths = run, tmp_path / "whole"
    states = [flatten_state_dict(stored(path, "optimizer"))[0] for path in paths]
    momenta = [n for n, v in states[1].items() if "_emb" in n and isinstance(v, torch.Tensor)]
    assert momenta
    for names, (one_of, other) in ((dense, (found, expected)), (momenta, states)):
        for name in names:
            torch.testing.assert_close(one_of[name], other[name], rtol=1e-4, atol=1e-6, msg=name)
    ends = [read_results(path)[-1] for path in paths]
    assert ends[0]["binary_cross_entropy"] == pytest.approx(ends[1]["binary_cross_entropy"], 1e-5)


def test_a_table_grows_when_other_ranks_go_on(tmp_path):
    """On its own run: 30 rows of one process become 50 of two, without moving anything."""
    run = tmp_path / "run"
    train(write(tmp_path), run, steps=4)
    old = stored(run)
    grown = write(tmp_path, user="zch { zch_size: 50 eviction_interval: 9 lfu {} }")
    edits = {
        "num_epochs": 0,
        "num_steps": 5,
        "batch_size": 32,
        "sparse_optimizer.rowwise_adagrad_optimizer.lr": 0,
        "on_table_mismatch": "REMAP",
    }
    train_on(2, grown, run, "--continue_train", **edits)
    new = stored(run)
    before, after = maps(old), maps(new)
    for name, empty in (("ids", EMPTY), ("counts", 0)):
        values = after["user_emb", name]
        assert len(values) == 50
        assert torch.equal(values[:29], before["user_emb", name][:29])
        assert (values[29:] == empty).all()
    kept = [*range(29), 49]
    assert torch.equal(weight_of(new, "user_emb")[kept], weight_of(old, "user_emb"))
    assert int(after["user_emb", "steps"]) == 5
