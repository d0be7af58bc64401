"""What input tiling saves: one user and his candidates, parsed and scored, with and without.

    python benchmarks/tiling.py [--candidates 200] [--steps 50] [--repeats 30]

MultiTowerDIN as examples/multi_tower_din_taobao.config has it (ids ready to use, three histories
of ``--steps`` clicks), and DeepFM on the Criteo-shaped set, half of the columns the user's, with
and without feature generation. Weights are random, models are TorchScript, one thread; medians of
CPU time in ms. Scores of the tiled models are compared with those of the repeated rows.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import serving_model
import torch

from tzrec.config import prepare
from tzrec.datasets.data_parser import DataParser
from tzrec.deploy import torchscript
from tzrec.models.wrappers import ScriptWrapper
from tzrec.training.build import build_features, build_model

TAOBAO = Path(__file__).parent.parent / "examples" / "multi_tower_din_taobao.config"
FG_MODES = {"DeepFM, FG_NORMAL": "FG_NORMAL", "DeepFM, FG_DAG": "FG_DAG", "DeepFM": "FG_NONE"}
MODES = (0, 2, 3)
Columns = dict[str, pa.Array]


def taobao(candidates: int, steps: int) -> tuple[Any, Columns]:
    """Returns the config, and the columns of a user (one row) and of the candidates."""
    config = prepare(TAOBAO).config
    random = np.random.default_rng(0)
    columns: Columns = {}
    for feature in build_features(config.data_config, config.feature_configs):
        rows = feature.num_embeddings
        if feature.is_sequence:
            columns[feature.name] = pa.array([random.integers(0, rows, steps)])
        else:
            is_item = feature.config.expression.startswith("item:")
            columns[feature.name] = pa.array(random.integers(0, rows, candidates if is_item else 1))
    return config, columns


def criteo(candidates: int, fg_mode: str, directory: Path) -> tuple[Any, Columns]:
    """Returns the config, and the columns of a user (one row) and of the candidates."""
    serving_model.build(directory, fg_mode)
    config = prepare(directory / f"{fg_mode.lower()}.config").config
    context, items = serving_model.Requests(directory, fg_mode).draw(candidates)
    return config, {name: pa.array(values) for name, values in (context | items).items()}


def medians_ms(calls: dict[Any, Callable[[], object]], repeats: int) -> dict[Any, float]:
    """Returns the median CPU time of each call; the first ones, which compile, are left out.

    They take turns and CPU time counts, so that other work on the machine does little harm.
    """
    times: dict[Any, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 5):
        for name, call in calls.items():
            start = time.thread_time()
            call()
            times[name].append(time.thread_time() - start)
    return {name: 1000 * float(np.median(found[5:])) for name, found in times.items()}


def measure(name: str, config: Any, columns: Columns, candidates: int, repeats: int) -> None:
    """Prints a line for each mode."""
    features = build_features(config.data_config, config.feature_configs)
    torch.manual_seed(0)
    model = build_model(config, features, with_labels=False)
    zeros = pa.array(np.zeros(candidates, np.int64))
    repeated = {n: c.take(zeros) if len(c) == 1 else c for n, c in columns.items()}
    calls: dict[tuple[str, int], Callable[[], Any]] = {}
    for mode in MODES:
        wrapper, parser = (
            ScriptWrapper(model, input_tile=mode),
            DataParser(features, input_tile=mode),
        )
        parse = partial(parser.parse_request, columns, candidates)
        if not mode:
            parse = partial(parser.parse, repeated)
        with torchscript.inference_mode_of(wrapper):
            scripted = torchscript.script_model(wrapper).module
        calls["parse", mode] = parse
        calls["forward", mode] = partial(scripted, parse())
    with torch.inference_mode():
        times = medians_ms(calls, repeats)
        scores = {mode: calls["forward", mode]() for mode in MODES}
    for mode in MODES:
        parse_ms, forward_ms = times["parse", mode], times["forward", mode]
        gain = (times["parse", 0] + times["forward", 0]) / (parse_ms + forward_ms)
        worst = max(float((scores[0][k] - scores[mode][k]).abs().max()) for k in scores[0])
        print(
            f"{name:<18} input_tile {mode}  parse {parse_ms:6.2f}  forward {forward_ms:6.2f}  "
            f"both {parse_ms + forward_ms:6.2f}  x {gain:4.2f}  difference {worst:.1e}"
        )


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--folder", type=Path, help="keeps the Criteo-shaped files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    count, repeats = options.candidates, options.repeats
    measure("MultiTowerDIN", *taobao(count, options.steps), count, repeats)
    with tempfile.TemporaryDirectory() as folder:
        for name, fg_mode in FG_MODES.items():
            made = criteo(count, fg_mode, options.folder or Path(folder))
            measure(name, *made, count, repeats)


if __name__ == "__main__":
    main()
