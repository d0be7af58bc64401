"""What a run says at its start and at its end: one screen each."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tzrec.optim.sparse_parameters import split_sparse_parameters, table_configs
from tzrec.training.hooks.progress import ProgressHook
from tzrec.training.timing import PARTS, PartTimer
from tzrec.training.trainer import Loader, Trainer

_WIDTH = 14


def start_facts(
    trainer: Trainer,
    *,
    features: Sequence[Any],
    model_dir: str | os.PathLike[str],
    batch_size: int,
    eval_loader: Loader | None,
    precision: str,
) -> dict[str, str]:
    """Returns what is known before the first step: rows, features, parameters, steps."""
    base_model = trainer.base_model
    sparse, dense = count_parameters(base_model)
    rows = trainer.loader.num_rows
    per_pass = trainer.loader.num_batches
    total = trainer.total_steps
    steps = f"{total:,}" if total else "until stopped"
    if per_pass:
        steps += f" ({per_pass:,} per pass)"
    kinds = _count_kinds(features)
    held_out = f"{_count(eval_loader.num_rows)} eval" if eval_loader else "no evaluation"
    lines = {
        "model": type(base_model).__name__,
        "rows": f"{_count(rows)} train, {held_out}, batch {batch_size:,}",
        "features": f"{len(features)} ({kinds})",
        "parameters": f"{sparse:,} in embedding tables, {dense:,} dense",
        "steps": steps,
        "device": f"{trainer.device}, {torch.get_num_threads()} threads, {precision}",
        "model_dir": str(model_dir),
    }
    if trainer.state.step:
        lines["resumed"] = f"after step {trainer.state.last_step}, pass {trainer.state.epoch + 1}"
    return lines


def start_summary(facts: Mapping[str, str]) -> str:
    """Returns the lines shown before the first step."""
    return _table(facts)


def final_summary(
    trainer: Trainer,
    progress: ProgressHook,
    *,
    metrics: dict[str, float],
    model_dir: str | os.PathLike[str],
    best: str = "",
    notes: Sequence[str] = (),
    report: str = "",
) -> str:
    """Returns the lines shown after the last step: rows/s, loss, metrics, where things are.

    Args:
        trainer: after its last step.
        progress: what it counted.
        metrics: of the last evaluation.
        model_dir: the run.
        best: the best checkpoint, "" = unknown.
        notes: what was left out or looks wrong, one line each.
        report: path of the report, "" = there is none.
    """
    timer = trainer.timer
    rate = row_rate(trainer, progress)
    passes = f" ({trainer.state.epoch} passes)" if trainer.state.epoch > 1 else ""
    lines = {
        "steps": f"{trainer.state.step:,}{passes}",
        "time": f"{timer.training:,.1f} s training, {timer.seconds['saving']:,.1f} s saving, "
        f"{timer.seconds['evaluation']:,.1f} s evaluation",
        "": _shares(timer),
        "speed": f"{rate:,.0f} rows/s",
    }
    if trainer.stop_reason:
        lines["stopped"] = trainer.stop_reason
    if progress.last_losses:
        lines["last loss"] = _values(progress.last_losses)
    if metrics:
        lines["evaluation"] = _values(metrics)
    if notes:
        lines["note"] = f"\n{' ' * (_WIDTH + 2)}".join(notes)
    if trainer.state.step:
        lines["checkpoint"] = f"{model_dir}/model.ckpt-{trainer.state.last_step}"
    if best:
        lines["best"] = best
    if report:
        lines["report"] = report
    lines["go on"] = go_on(trainer, model_dir)
    return _table(lines)


def row_rate(trainer: Trainer, progress: ProgressHook) -> float:
    """Returns the rows that this rank has trained on per second."""
    seconds = trainer.timer.training
    return progress.num_rows / seconds if seconds > 0 else 0.0


def go_on(trainer: Trainer, model_dir: str | os.PathLike[str]) -> str:
    """Returns the command that goes on with a run."""
    config = shlex.quote(f"{model_dir}/pipeline.config")
    return f"tzrec train {config} --continue{_further(trainer)}"


def _shares(timer: PartTimer) -> str:
    """Returns the parts of the training time in percent."""
    parts = [part for part in PARTS if part not in ("saving", "evaluation")]
    whole = timer.training or 1.0
    return " ".join(f"{part} {100 * timer.seconds[part] / whole:.0f}%" for part in parts)


def _further(trainer: Trainer) -> str:
    """Returns the edit that lets a finished run go on, "" for one that can."""
    if trainer.num_steps and trainer.state.step >= trainer.num_steps:
        return f" --set train_config.num_steps={2 * trainer.num_steps}"
    if trainer.num_epochs and trainer.state.epoch >= trainer.num_epochs:
        return f" --set train_config.num_epochs={trainer.num_epochs + 1}"
    return ""


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Returns the number of parameters in embedding tables, of all ranks, and elsewhere."""
    sparse = sum(c.num_embeddings * c.embedding_dim for c in table_configs(model))
    trainable, frozen = split_sparse_parameters(model)
    tables = {id(parameter) for parameter in [*trainable, *frozen]}
    dense = sum(p.numel() for p in model.parameters() if id(p) not in tables)
    return sparse, dense


def _count_kinds(features: Sequence[Any]) -> str:
    counts: dict[str, int] = {}
    for feature in features:
        kind = "sparse" if feature.is_sparse else "dense"
        if feature.is_sequence:
            kind = f"{kind} sequence"
        counts[kind] = counts.get(kind, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def _values(values: dict[str, float]) -> str:
    return " ".join(f"{key}:{value:.5f}" for key, value in values.items())


def _count(rows: int | None) -> str:
    return "?" if rows is None else f"{rows:,}"


def _table(lines: Mapping[str, str]) -> str:
    return "\n".join(f"  {key:<{_WIDTH}}{value}" for key, value in lines.items())
