"""A long file trains in the memory of a short one.

pytest starts this file as the worker: ``python FILE CONFIG DATA MODEL_DIR``.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[1]
MEGABYTE = 1 << 20
# A short run ends before all buffers of Arrow's threads are filled; freed memory goes back late.
ROOM = 128


def work(config, data, model_dir):
    """Trains one pass; prints the most resident megabytes of each million of rows."""
    from tzrec.main import train_and_evaluate
    from tzrec.training.hooks.base import Hook
    from tzrec.training.job import TrainingJob

    process, facts = psutil.Process(), {"peaks": {}, "rows": 0, "waited": 0.0, "trained": 0.0}

    class Watch(Hook):
        def after_step(self, trainer, result):
            million = facts["rows"] // 1_000_000
            memory = process.memory_info().rss / MEGABYTE
            facts["peaks"][million] = max(facts["peaks"].get(million, 0.0), memory)
            facts["rows"] += result.num_rows
            facts["waited"] = trainer.timer.seconds["data"]
            facts["trained"] = trainer.timer.training

    hooks = TrainingJob._hooks
    TrainingJob._hooks = lambda job, *loaders: [*hooks(job, *loaders), Watch()]
    edits = [
        "data_config.batch_size=8192",
        "train_config.num_epochs=1",
        "train_config.save_checkpoints_steps=0",
        "data_config.shuffle=true",
    ]
    train_and_evaluate(
        config, train_input_path=data, eval_input_path="", model_dir=model_dir, edits=edits
    )
    print(json.dumps(facts))


def write_rows(path, millions):
    rng = np.random.default_rng(0)
    part = pa.table(
        {
            "user": rng.integers(0, 20, 1_000_000),
            "price": rng.random(1_000_000, dtype=np.float32),
            "clk": rng.integers(0, 2, 1_000_000),
        }
    )
    with pq.ParquetWriter(path, part.schema) as writer:
        for _ in range(millions):
            writer.write_table(part)


@pytest.mark.slow
def test_a_long_file_trains_in_the_memory_of_a_short_one(tmp_path):
    from knob_runs import CONFIG

    config = tmp_path / "long.config"
    config.write_text(CONFIG)
    found = {}
    for millions in (1, 20):
        data = tmp_path / f"{millions}.parquet"
        write_rows(data, millions)
        done = subprocess.run(
            [sys.executable, __file__, str(config), str(data), str(tmp_path / f"run-{millions}")],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},  # noqa: TID251
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found[millions] = json.loads(done.stdout.splitlines()[-1])
        print(millions, found[millions])
    assert [found[millions]["rows"] for millions in (1, 20)] == [1_000_000, 20_000_000]
    short, long = (found[millions]["peaks"] for millions in (1, 20))
    assert max(long.values()) < max(short.values()) + ROOM
    # What swings is no growth: the last quarter needs what the second one needed.
    values = list(long.values())
    assert max(values[-5:]) < max(values[5:10]) + ROOM / 5


if __name__ == "__main__":
    work(*sys.argv[1:])
