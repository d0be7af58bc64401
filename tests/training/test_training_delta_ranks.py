"""Dumps of several ranks: together they hold each moved row once, whatever the sharding."""

import shutil

import numpy as np
import pytest
from delta_runs import DUMP, apply, checkpoints, dumps, equal
from rank_runs import torchrun, training

pytestmark = pytest.mark.slow

EDITS = {
    "eval_input_path": "",
    "data_config.batch_size": 8,
    "train_config.num_epochs": 0,
    "train_config.num_steps": 13,
    "train_config.save_checkpoints_steps": 4,
    f"{DUMP}.dump_interval_steps": 3,
}
SHARDING = "train_config.global_embedding_constraints"


def train(config, run, ranks, *flags, **edits):
    changes = {**EDITS, **edits}
    torchrun(*training(config, "--model_dir", run, *flags, edits=changes), ranks=ranks)
    return run / "delta_embedding_dump"


def names(directory):
    return {str(path.relative_to(directory)) for path in directory.rglob("*.parquet")}


def follow(saved, found, base, last):
    """Returns the tables of step ``base`` with all dumps up to ``last``."""
    tables = saved[base]
    for step, rows in found.items():
        if base < step <= last:
            tables = apply(tables, rows)
    return tables


@pytest.mark.parametrize("sharding", ["row_wise", "table_wise", "table_wise, 3 ranks"])
def test_a_base_and_the_dumps_after_it_are_the_tables(click_config, tmp_path, sharding):
    ranks = 3 if "3" in sharding else 2
    constraint = {SHARDING: f'sharding_types: "{sharding.split(",")[0]}"'}
    every_2 = {f"{DUMP}.dump_interval_steps": 2}
    directory = train(click_config(), tmp_path / "run", ranks, **constraint, **every_2)
    found, saved = dumps(directory), checkpoints(tmp_path / "run")
    assert names(directory) == {
        f"step_{step}/delta_embedding_step_{step}_rank_{rank}_of_{ranks}.parquet"
        for step in (2, 4, 6, 8, 10, 12)
        for rank in range(ranks)
    }
    for rows in found.values():
        pairs = [(row["table_fqn"], row["key_id"]) for row in rows]
        assert len(set(pairs)) == len(pairs)
        assert {row["world_size"] for row in rows} == {ranks}
    assert len({row["rank"] for row in found[12]}) == ranks
    for step in (8, 12):
        assert equal(follow(saved, found, 4, step), saved[step])
    # No row is dumped that no rank has looked up: those of a table that have moved are all.
    for weight in saved[4]:
        between = found[6] + found[8]
        dumped = {row["key_id"] for row in between if row["table_fqn"] == weight}
        moved = np.flatnonzero((saved[4][weight] != saved[8][weight]).any(axis=1))
        if "user_id" in weight:
            assert dumped == set(moved.tolist())
        assert dumped >= set(moved.tolist())


@pytest.mark.parametrize("others", [1, 3])
def test_another_number_of_ranks_goes_on(click_config, tmp_path, others):
    """The checkpoint of step 4 knows what both ranks have moved since the dump of step 3."""
    config, run = click_config(), tmp_path / "run"
    whole = dumps(train(config, run, 2))
    base = checkpoints(run)[4]
    for step in (8, 12):
        shutil.rmtree(run / f"model.ckpt-{step}")
    for step in (6, 9, 12):
        shutil.rmtree(run / f"delta_embedding_dump/step_{step}")
    # No step after the one that the checkpoint holds but for one: the dump's rows are of step 4,
    # moved by the two ranks, and of step 5.
    edits = {"train_config.num_steps": 6, "train_config.sparse_optimizer.adagrad_optimizer.lr": 0}
    found = dumps(train(config, run, others, "--continue_train", **edits))
    assert list(found) == [3, 5]
    assert found[3] == whole[3]
    # A consumer that follows the dumps knows the rows of step 4 from nowhere else.
    assert equal(apply(base, found[5]), base)
    ours = {(row["table_fqn"], row["key_id"]) for row in found[5]}
    of_step_4 = moved_between(run, tmp_path, config)
    assert of_step_4
    assert of_step_4 <= ours


def moved_between(run, tmp_path, config):
    """Returns (weight, row) of what two ranks move in step 4."""
    edits = {"train_config.num_steps": 4}
    train(config, tmp_path / "short", 2, **edits)
    before, after = checkpoints(tmp_path / "short")[3], checkpoints(run)[4]
    return {
        (weight, row)
        for weight in before
        for row in np.flatnonzero((before[weight] != after[weight]).any(axis=1)).tolist()
    }


def test_minutes_of_several_ranks(click_config, tmp_path):
    """Shorter than a minute: all ranks write what is left at the end."""
    steps = EDITS.pop(f"{DUMP}.dump_interval_steps")
    try:
        edits = {f"{DUMP}.dump_interval_minutes": 1}
        directory = train(click_config(), tmp_path / "run", 2, **edits)
    finally:
        EDITS[f"{DUMP}.dump_interval_steps"] = steps
    found = names(directory)
    assert {name.partition("/")[0] for name in found} == {"step_12"}
    assert len(found) == 2
