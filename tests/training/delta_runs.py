"""What a consumer of delta dumps does, for the tests of dumps."""

import re

import numpy as np
import pyarrow.parquet as pq
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

from tzrec.training.checkpoint.find import list_checkpoints, step_of

DUMP = "train_config.delta_embedding_dump_config"


def tables_of(checkpoint):
    """Returns weight → array of the embedding tables of a checkpoint."""
    state = _load_state_dict_from_keys(checkpoint_id=str(checkpoint / "model"))
    return {
        name: value.numpy()
        for name, value in state.items()
        if re.search(r"\.embedding(_bag)?s\.", name)
    }


def checkpoints(run):
    """Returns step → tables of the run's checkpoints."""
    return {step_of(path): tables_of(path) for path in list_checkpoints(run)}


def dumps(directory):
    """Returns step → rows of the run's dumps, those of all ranks together, steps ascending."""
    found = {}
    for path in directory.rglob("*.parquet"):
        step = int(re.search(r"_step_(\d+)", path.name)[1])
        found.setdefault(step, []).extend(pq.read_table(path).to_pylist())
    return dict(sorted(found.items()))


def keys(rows):
    """Returns last part of the table's name → sorted row numbers; each must come once."""
    found = {}
    for row in rows:
        found.setdefault(row["table_fqn"].split(".")[-2], []).append(row["key_id"])
    assert all(len(set(numbers)) == len(numbers) for numbers in found.values())
    return {table: sorted(numbers) for table, numbers in found.items()}


def apply(tables, rows):
    """Puts the rows of a dump into a copy of tables."""
    result = {name: value.copy() for name, value in tables.items()}
    for row in rows:
        result[row["table_fqn"]][row["key_id"]] = row["embedding"]
    return result


def equal(one, other):
    """Whether all tables are equal to the last bit."""
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)
