"""A long run of the demo's config needs as much memory at its end as at its beginning.

pytest starts this file as the worker: ``python FILE CONFIG LIMITS``.
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tzrec.demo.run import Demo, _shop

ROOT = Path(__file__).resolve().parents[1]
MEGABYTE = 1 << 20
# Address space beyond what the run had after its first steps, saves and evaluations. Threads of
# Arrow and torch that start late reserve some.
ROOM = 512 * MEGABYTE


def work(config, limits):
    """Trains; from step ``first`` on no more than ``ROOM`` address space can be had."""
    from tzrec.main import train_and_evaluate
    from tzrec.training.hooks.base import Hook
    from tzrec.training.job import TrainingJob

    process, measured = psutil.Process(), []
    first, last, every = limits

    class Watch(Hook):
        def after_step(self, trainer, result):
            if trainer.state.step < first or trainer.state.step % every:
                return
            memory = process.memory_info()
            if not measured:
                limit = memory.vms + ROOM
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            measured.append(memory.rss / MEGABYTE)

    hooks = TrainingJob._hooks
    TrainingJob._hooks = lambda job, *loaders: [*hooks(job, *loaders), Watch()]
    edits = {
        "data_config.batch_size": 256,
        "train_config.num_epochs": 0,
        "train_config.num_steps": last,
        "train_config.save_checkpoints_epochs": 0,
        "train_config.save_checkpoints_steps": every,
        "train_config.keep_checkpoint_max": 2,
    }
    train_and_evaluate(config, edits=[f"{name}={value}" for name, value in edits.items()])
    print(json.dumps(measured))


@pytest.mark.parametrize(
    ("first", "last", "every"),
    [(300, 900, 100), pytest.param(2000, 30_000, 1000, marks=pytest.mark.slow)],
)
def test_the_demo_config_in_flat_memory(tmp_path, first, last, every):
    demo = Demo(tmp_path / "demo", _shop(quick=True))
    demo.make_data()
    done = subprocess.run(
        [sys.executable, __file__, str(demo.config), str(first), str(last), str(every)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},  # noqa: TID251
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    measured = json.loads(done.stdout.splitlines()[-1])
    assert len(measured) == (last - first) // every + 1
    print("resident megabytes:", [round(value) for value in measured])
    # Freed memory goes back late, so single values swing; a leak would lift the last third.
    third = max(len(measured) // 3, 1)
    early, late = max(measured[:third]), min(measured[-third:])
    assert late < early + 16, measured


if __name__ == "__main__":
    work(sys.argv[1], [int(value) for value in sys.argv[2:]])
