"""tzrec: a config, `train_and_evaluate` and `evaluate` in this process.

The clock runs from the end of the first step, which compiles or loads kernels, to the last step.
Settings: an optimizer of the tables and a precision, as ``adam-FP32``.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from measure import (
    ATTENTION,
    BOTTOM,
    CROSSES,
    DEEP,
    DIM,
    EXPERTS,
    LAST,
    RATE,
    TOP,
    TOWER,
    Job,
    Meter,
    cpu_seconds,
    finish,
    job,
    peak_mib,
)
from shapes import LONGEST, SEQUENCE, Shape, load

# Adagrad needs larger steps than Adam.
RATES = {"adam": RATE, "adagrad": 0.02}

CONFIG = """\
train_input_path: "{folder}/train.parquet"
eval_input_path: ""
model_dir: "{model_dir}"
train_config {{
  sparse_optimizer {{ {optimizer}_optimizer {{ lr: {rate} }} constant_learning_rate {{}} }}
  dense_optimizer {{ adam_optimizer {{ lr: {dense_rate} }} constant_learning_rate {{}} }}
  num_epochs: 1
  save_checkpoints_steps: 0
  use_tensorboard: false
  mixed_precision: "{precision}"
}}
data_config {{
  batch_size: {batch_size}
  dataset_type: ParquetDataset
  fg_mode: FG_NONE
  label_fields: [{labels}]
  num_workers: 1
}}
{features}
model_config {{ {model} }}
"""


def main() -> None:
    task, meter = job(), Meter()
    shape = load(task.data)
    config, model_dir = task.scratch / "run.config", task.scratch / "model"
    shutil.rmtree(model_dir, ignore_errors=True)
    task.scratch.mkdir(parents=True, exist_ok=True)
    config.write_text(config_text(task, shape, model_dir))
    wall, cpu = time.perf_counter(), cpu_seconds()
    clock = train(config)
    first, last = clock.ticks[0], clock.ticks[-1]
    meter.add("start", first[0] - wall, first[1] - cpu)
    meter.add("train", last[0] - first[0], last[1] - first[1])
    peak = peak_mib()
    from tzrec import __version__
    from tzrec.main import evaluate

    found = evaluate(
        str(model_dir / "pipeline.config"), eval_input_path=f"{task.data}/test.parquet"
    )
    scores = {name: found[key] for name, key in auc_names(task.model, shape.labels).items()}
    finish(meter, last[2] - first[2], scores, peak, version=__version__)


class Clock:
    """Notes wall time, CPU time and rows after each step.

    Attributes:
        ticks: those, step by step.
    """

    def __init__(self) -> None:
        self.ticks: list[tuple[float, float, int]] = []

    def tick(self, size: int) -> None:
        """Notes the end of a step of ``size`` rows."""
        rows = size + (self.ticks[-1][2] if self.ticks else 0)
        self.ticks.append((time.perf_counter(), cpu_seconds(), rows))


def train(config: Path) -> Clock:
    """Trains in this process with a clock as the trainer's last hook."""
    from tzrec.main import train_and_evaluate
    from tzrec.training.hooks.base import Hook
    from tzrec.training.trainer import Trainer

    clock, fit = Clock(), Trainer.fit

    class Tick(Hook):
        def after_step(self, trainer: Any, result: Any) -> None:
            clock.tick(result.num_rows)

    def clocked(trainer: Any) -> None:
        trainer.hooks = [*trainer.hooks, Tick()]
        fit(trainer)

    Trainer.fit = clocked  # type: ignore[method-assign]
    try:
        train_and_evaluate(str(config), report=False)
    finally:
        Trainer.fit = fit  # type: ignore[method-assign]
    return clock


def config_text(task: Job, shape: Shape, model_dir: Path) -> str:
    """Returns the config of a job."""
    optimizer, precision = task.setting.split("-")
    labels = shape.labels if task.model == "mmoe" else shape.labels[:1]
    return CONFIG.format(
        folder=task.data,
        model_dir=model_dir,
        optimizer=optimizer,
        rate=RATES[optimizer],
        dense_rate=RATE,
        precision=precision,
        batch_size=task.batch_size,
        labels=_names(labels),
        features=_features(shape, sequences=task.model == "din"),
        model=_model(task.model, shape),
    )


def _names(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _features(shape: Shape, *, sequences: bool) -> str:
    lines = [
        f'feature_configs {{ raw_feature {{ feature_name: "{n}" expression: "user:{n}" }} }}'
        for n in shape.floats
    ]

    def table(name: str) -> str:
        shared = f'embedding_name: "{name}_table"' if name in shape.steps.values() else ""
        return (
            f'id_feature {{ feature_name: "{name}" expression: "user:{name}" '
            f"num_buckets: {shape.ids[name]} embedding_dim: {DIM} {shared} }}"
        )

    lines += [f"feature_configs {{ {table(name)} }}" for name in shape.ids]
    if sequences:
        steps = "\n".join(f"    features {{ {table(of)} }}" for of in shape.steps.values())
        lines.append(
            f'feature_configs {{ sequence_feature {{ sequence_name: "{SEQUENCE}"\n'
            f'    sequence_length: {LONGEST} sequence_delim: "|"\n{steps}\n}} }}'
        )
    return "\n".join(lines)


def _model(name: str, shape: Shape) -> str:
    """Returns the body of `model_config`."""
    everything = [*shape.floats, *shape.ids]
    deep = f"{{ hidden_units: {list(DEEP)} }}"
    loss = "losses { binary_cross_entropy {} } metrics { auc { thresholds: 20000 } }"

    def group(title: str, names: Iterable[str], kind: str = "DEEP") -> str:
        return (
            f'feature_groups {{ group_name: "{title}" group_type: {kind} '
            f"feature_names: [{_names(names)}] }}\n"
        )

    if name == "deepfm":
        groups = group("wide", shape.ids, "WIDE") + group("fm", shape.ids)
        return f"{groups}{group('deep', everything)} deepfm {{ deep {deep} }} {loss}"
    if name == "dcn_v2":
        # Whole matrices, as the peers' have by default or at all.
        cross = f"cross {{ cross_num: {CROSSES} low_rank: 0 }}"
        return (
            f"{group('all', everything)} dcn_v2 {{ {cross} deep {deep} "
            f"final {{ hidden_units: {list(LAST)} }} }} {loss}"
        )
    if name == "dlrm":
        groups = group("dense", shape.floats) + group("sparse", shape.ids)
        return (
            f"{groups} dlrm {{ dense_mlp {{ hidden_units: {list(BOTTOM)} }} arch_with_sparse: true "
            f"final {{ hidden_units: {list(TOP)} }} }} {loss}"
        )
    if name == "mmoe":
        towers = " ".join(
            f'task_towers {{ tower_name: "{label}" label_name: "{label}" '
            f"mlp {{ hidden_units: {list(TOWER)} }} {loss} }}"
            for label in shape.labels
        )
        body = f"mmoe {{ expert_mlp {deep} num_expert: {EXPERTS} {towers} }}"
        return group("all", everything) + body
    sequence = group("seq", [*shape.steps.values(), *shape.steps], "SEQUENCE")
    return (
        f'{group("deep", everything)}{sequence} multi_tower_din {{ towers {{ input: "deep" '
        f'mlp {deep} }} din_towers {{ input: "seq" '
        f"attn_mlp {{ hidden_units: {list(ATTENTION)} }} }} final {{ hidden_units: {list(LAST)} }} "
        f"}} {loss}"
    )


def auc_names(model: str, labels: tuple[str, ...]) -> dict[str, str]:
    """Returns label -> name of its metric."""
    if model == "mmoe":
        return {label: f"auc_{label}" for label in labels}
    return {labels[0]: "auc"}


if __name__ == "__main__":
    main()
