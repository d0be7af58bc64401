"""Single-task models on two gloo ranks learn and measure what one process does.

pytest starts this file under torchrun as the worker.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

import test_models_autoint as autoint
import test_models_final_mlp as final_mlp
import test_models_rocket_launching as rocket_launching
import test_models_transact as transact
from models_contract import BCE, make_rows
from test_models_multi_task_ranks import run

from tzrec.options import Options, from_environment
from tzrec.training.distributed.process_group import process_group

METRICS = "metrics { auc {} } metrics { accuracy {} }"


@dataclasses.dataclass
class RankCase:
    """A model with what `run` reads beside its config."""

    config: str
    labels: tuple[str, ...] = ("clk",)

    def rows(self, num_rows, seed):
        """The rows of a batch."""
        return make_rows(num_rows, seed)


MODELS = {
    "autoint": autoint.CASES["autoint_plus"],
    "final_mlp": final_mlp.CASES["gates"],
    "rocket_launching": rocket_launching.CASES["light"],
    "transact": transact.CASES["small"],
}


def runs():
    """The metrics of every model, and the weights that `run` picks."""
    return {name: run(RankCase(case.config + BCE + METRICS)) for name, case in MODELS.items()}


@pytest.mark.slow
def test_two_ranks_are_as_one(tmp_path):
    with process_group(Options()):
        one = runs()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, "--nproc_per_node=2", __file__, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},  # noqa: TID251
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    for name, expected in one.items():
        assert first[name]["metrics"] == pytest.approx(expected["metrics"], abs=1e-5), name
        for parameter, values in expected["weights"].items():
            found = first[name]["weights"][parameter]
            assert found == pytest.approx(values, rel=1e-3, abs=1e-6), name


if __name__ == "__main__":
    with process_group(from_environment()):
        target = Path(sys.argv[1]) / f"{dist.get_rank()}.json"
        target.write_text(json.dumps(runs()))
