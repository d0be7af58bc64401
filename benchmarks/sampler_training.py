"""What a sampler costs while DSSM trains.

    python benchmarks/sampler_training.py [--rows 60000] [--batch-size 2048] [--repeat 3]

Generates the data and item table of ``examples/dssm_taobao.config``, and trains on them twice in
turn: with the sampler, and with one that gives the rows of its first draw again and again, so that
all but the drawing is the same. Then the CPU time of what a batch needs beside its parsing.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tzrec.cli import main as tzrec
from tzrec.config import prepare
from tzrec.constant import Mode
from tzrec.datasets.batch_parser import BatchParser, columns_of
from tzrec.datasets.start import plan_pass
from tzrec.optim.optimizer import build_optimizer
from tzrec.options import Options
from tzrec.training import build
from tzrec.training.distributed.process_group import process_group
from tzrec.training.distributed.wrap import distribute
from tzrec.training.trainer import Trainer

CONFIG = Path(__file__).resolve().parents[1] / "examples/dssm_taobao.config"


class Frozen:
    """Gives the rows of its first draw, as many as it is asked for."""

    def __init__(self, sampler: Any) -> None:
        self._sampler, self._rows = sampler, None
        self.item_id_field, self.user_id_field = sampler.item_id_field, None

    def get(self, columns: Any, rng: np.random.Generator) -> Any:
        if self._rows is None:
            self._rows = self._sampler.get(columns, rng)
        return self._rows


def loader_of(config: Any, features: Any, *, frozen: bool = False) -> Any:
    options = Options()
    loader = build.build_loader(
        config, features, config.train_input_path, mode=Mode.TRAIN, options=options
    )
    if frozen:
        loader.joiner.sampler = Frozen(loader.joiner.sampler)
    return loader


def train(config: Any, features: Any, device: torch.device, *, frozen: bool) -> tuple[float, int]:
    """Returns the seconds of a pass and its steps."""
    torch.manual_seed(0)
    wrapper = build.build_train_wrapper(config, features, device)
    model = distribute(wrapper, train_config=config.train_config, device=device)
    optimizer = build_optimizer(model, config.train_config)
    with loader_of(config, features, frozen=frozen) as loader:
        trainer = Trainer(
            model, optimizer, loader=loader, hooks=[], num_steps=0, num_epochs=1, device=device
        )
        started = time.perf_counter()
        trainer.fit()
        return time.perf_counter() - started, trainer.state.step


def milliseconds(call: Any, items: list[Any], repeat: int) -> float:
    """Returns the CPU time of a call per item, the least of several passes."""
    best = float("inf")
    for _ in range(repeat + 1):
        started = time.process_time()
        for item in items:
            call(item)
        best = min(best, time.process_time() - started)
    return best * 1e3 / len(items)


def parts(config: Any, features: Any, repeat: int) -> None:
    with loader_of(config, features) as loader:
        joiner, alone = loader.joiner, BatchParser(loader.parser)
        batches = list(loader._slicer(plan_pass(loader._blocks, loader.config)))
        drawn = {id(b): joiner.draw(columns_of(b.columns), b.stream) for b in batches}
        calls = {
            "draw": lambda b: joiner.draw(columns_of(b.columns), b.stream),
            "join": lambda b: joiner.join(columns_of(b.columns), drawn[id(b)], b.stream),
            "parse the batch alone": lambda b: alone.parse(b.columns, b.stream),
            "all with the sampler": lambda b: loader._batches.parse(b.columns, b.stream),
        }
        for name, call in calls.items():
            print(f"  {name:<22} {milliseconds(call, batches, repeat):.2f} ms CPU a batch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(sys.stderr):  # of the benchmark's output, figures only
            words = ["data", "generate", "--for", str(CONFIG), "--rows", str(args.rows)]
            tzrec([*words, "--out", folder])
        config = prepare(
            CONFIG,
            train_input_path=f"{folder}/train",
            eval_input_path=f"{folder}/eval",
            edits=[
                f"data_config.negative_sampler.input_path={folder}/tables/items.txt",
                f"data_config.batch_size={args.batch_size}",
                "data_config.loader=THREAD",
            ],
            log_warnings=False,
        ).config
        logging.getLogger("tzrec").setLevel(logging.ERROR)
        features = build.build_features(config.data_config, config.feature_configs)
        with process_group(Options()) as device:
            runs: dict[bool, list[float]] = {True: [], False: []}
            for _ in range(args.repeat):
                for frozen, seconds in runs.items():
                    spent, steps = train(config, features, device, frozen=frozen)
                    seconds.append(spent * 1e3 / steps)
        with_, without = (float(np.median(runs[frozen])) for frozen in (False, True))
        print(f"batches of {args.batch_size}, {torch.get_num_threads()} threads")
        print(f"  with the sampler       {with_:.1f} ms a step")
        print(f"  always the same rows   {without:.1f} ms a step ({with_ / without - 1:+.1%})")
        parts(config, features, args.repeat)


if __name__ == "__main__":
    main()
