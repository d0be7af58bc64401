"""The artefact that the serving benchmarks load: DeepFM with feature generation, Criteo-shaped.

13 numbers and 26 ids over tables of 100 to 1,000,000 rows, as `criteo_shaped` has them. The user
has 7 and 13 of them, the item the others. The weights are random: how fast a model is does not
depend on what it has learnt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import criteo_shaped
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tzrec.config import prepare
from tzrec.deploy.commands import golden_rows
from tzrec.deploy.export import export_artefact
from tzrec.deploy.options import ExportOptions
from tzrec.models.model import BaseModel
from tzrec.options import from_environment
from tzrec.training.build import build_features, build_model

FG_MODES = ("FG_NORMAL", "FG_DAG", "FG_NONE")
USER_COLUMNS = tuple(f"int_{i}" for i in range(7)) + tuple(f"cat_{i}" for i in range(13))
_ROWS = 4096


def build(
    directory: Path, fg_mode: str, *, options: ExportOptions | None = None, seed: int = 0
) -> Path:
    """Returns an exported directory, made where it is missing.

    Args:
        directory: of the benchmark's files.
        fg_mode: one of `FG_MODES`; ``FG_NONE`` takes ids that are made already.
        options: of the export; None = the defaults.
        seed: of the weights.
    """
    raw = fg_mode != "FG_NONE"
    kind = ""
    if options is not None:
        narrow = options.quantisation + options.mixed_precision
        kind = f"-{options.target}-{options.input_tile}{narrow}"
    export = directory / f"{fg_mode.lower()}{kind}{f'-seed{seed}' if seed else ''}"
    if export.exists():
        return export
    data = directory / ("raw.parquet" if raw else "ids.parquet")
    if not data.exists():
        criteo_shaped.write_data(data, _ROWS, raw=raw)
    path = directory / f"{fg_mode.lower()}.config"
    path.write_text(config_text(data, directory, fg_mode))
    config = prepare(path).config
    features = build_features(config.data_config, config.feature_configs)
    golden, rows = golden_rows(config, features, from_environment())
    model = random_model(config, features, seed)
    export_artefact(
        config=config,
        model=model,
        features=features,
        golden=golden,
        rows=rows,
        export_dir=export,
        options=options,
    )
    return export


def config_text(data: Path, directory: Path, fg_mode: str) -> str:
    """Returns the config: numbers are log-scaled where features are generated."""
    raw = fg_mode != "FG_NONE"
    text = criteo_shaped.config_text(data, directory / "model", "adagrad", raw=raw)
    text = text.replace("fg_mode: FG_DAG", f"fg_mode: {fg_mode}")
    for column in set(columns()) - set(USER_COLUMNS):
        text = text.replace(f'"user:{column}"', f'"item:{column}"')
    if raw:
        log = 'normalizer: "method=log10,threshold=1e-10,default=-10"'
        text = text.replace('feature_name: "int_', f'{log} feature_name: "int_')
    return text


def columns() -> list[str]:
    """Returns the columns of the inputs."""
    ids = range(criteo_shaped.NUM_IDS)
    return [f"int_{i}" for i in range(criteo_shaped.NUM_FLOATS)] + [f"cat_{i}" for i in ids]


def random_model(config: Any, features: list[Any], seed: int = 0) -> BaseModel:
    """Returns the model with random weights."""
    torch.manual_seed(seed)
    return build_model(config, features, with_labels=False)


class Requests:
    """Requests of one user and candidates, drawn from rows of the training data's form.

    Args:
        directory: of the benchmark's files.
        fg_mode: as in `build`.
    """

    def __init__(self, directory: Path, fg_mode: str) -> None:
        name = "ids.parquet" if fg_mode == "FG_NONE" else "raw.parquet"
        table = pq.read_table(directory / name, columns=columns()).combine_chunks()
        self._table = table.to_batches()[0]
        self._random = np.random.default_rng(0)

    def draw(self, candidates: int) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """Returns a user's columns, one value each, and those of the candidates."""
        user = int(self._random.integers(0, _ROWS))
        rows = pa.array(self._random.integers(0, _ROWS, candidates))
        taken = self._table.take(rows).to_pydict()
        context = {name: self._table[name].slice(user, 1).to_pylist() for name in USER_COLUMNS}
        return context, {name: taken[name] for name in columns() if name not in USER_COLUMNS}

    @staticmethod
    def repeated(
        context: dict[str, list[Any]], items: dict[str, list[Any]]
    ) -> dict[str, list[Any]]:
        """Returns the rows that a request stands for."""
        candidates = len(next(iter(items.values())))
        both = {name: values * candidates for name, values in context.items()} | items
        return {name: both[name] for name in columns()}
