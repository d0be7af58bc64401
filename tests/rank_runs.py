"""Runs of several ranks, as users start them."""

import json
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
_LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--standalone")


def environment(*more):
    """Returns the variables of a rank: one thread, our modules, the tests' and those of ``more``.

    ``more`` are directories.
    """
    paths = os.pathsep.join(map(str, (TESTS.parent, TESTS, *more)))
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}  # noqa: TID251


def start(*words, ranks=2, **options):
    """Starts a script, or ``-m`` and a module, under torchrun; returns the process.

    ``options`` are those of `subprocess.Popen`.
    """
    return subprocess.Popen(
        [*_LAUNCHER, f"--nproc_per_node={ranks}", *map(str, words)],
        env=environment(),
        text=True,
        **options,
    )


def torchrun(*words, ranks=2, seconds=300):
    """Runs a script, or ``-m`` and a module, under torchrun; returns what it wrote to stderr."""
    process = start(*words, ranks=ranks, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        _, said = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert process.returncode == 0, said[-5000:]
    return said


def training(config, *flags, edits):
    """Returns the words that train a config with changes in it."""
    words = ("-m", "tzrec.train_eval", "--pipeline_config_path", config)
    return (*words, "--edit_config_json", json.dumps(edits), *flags)
