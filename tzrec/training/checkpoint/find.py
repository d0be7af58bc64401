"""Which checkpoint is meant: names, order, best and latest."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tzrec.constant import TRAIN_EVAL_RESULT_FILENAME
from tzrec.errors import CheckpointError
from tzrec.protos.export_pb2 import ExportConfig
from tzrec.training.checkpoint.manifest import incomplete_because

_NAME = re.compile(r"model\.ckpt-(\d+)$")


def checkpoint_name(step: int) -> str:
    """Returns the directory name of the checkpoint after 0-based step ``step``."""
    return f"model.ckpt-{step}"


def step_of(path: Path) -> int:
    """Returns the step in a checkpoint's name; 0 for a directory with another name."""
    match = _NAME.search(path.name)
    return int(match[1]) if match else 0


def list_checkpoints(model_dir: str | Path) -> list[Path]:
    """Returns the checkpoint directories of a run, oldest first, whole or not."""
    root = Path(model_dir)
    if not root.is_dir():
        return []
    found = [path for path in root.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=step_of)


def latest_checkpoint(model_dir: str | Path) -> tuple[Path | None, int]:
    """Returns the newest whole checkpoint of a run and its step, or ``(None, -1)``.

    A half-written checkpoint is passed over; `skipped_checkpoints` tells which.
    """
    for path in reversed(list_checkpoints(model_dir)):
        if incomplete_because(path) is None:
            return path, step_of(path)
    return None, -1


def skipped_checkpoints(model_dir: str | Path) -> dict[Path, str]:
    """Returns the checkpoints that cannot be used, and why."""
    reasons = {path: incomplete_because(path) for path in list_checkpoints(model_dir)}
    return {path: reason for path, reason in reasons.items() if reason is not None}


def best_checkpoint(model_dir: str | Path, export_config: ExportConfig) -> tuple[Path, int]:
    """Returns the checkpoint with the best evaluation in ``train_eval_result_v2.txt``.

    The metric is ``export_config.best_exporter_metric`` (default ``auc``); of equal values
    the earliest wins. Without any evaluation the newest checkpoint is returned.

    Raises:
        CheckpointError: the metric was not evaluated, or the best checkpoint is gone.
    """
    results = read_results(model_dir)
    if not results:
        path, step = latest_checkpoint(model_dir)
        if path is None:
            raise _nothing_in(model_dir)
        return path, step
    metric = export_config.best_exporter_metric
    missing = [row for row in results if metric not in row]
    if missing:
        known = ", ".join(sorted(set(missing[0]) - {"global_step"}))
        raise CheckpointError(
            f"export_config.best_exporter_metric: {metric!r} was not evaluated; there is {known}",
            hint="set export_config.best_exporter_metric to one of these",
        )
    sign = 1 if export_config.metric_larger_is_better else -1
    best = max(results, key=lambda row: sign * row[metric])
    path = Path(model_dir) / checkpoint_name(int(best["global_step"]))
    reason = incomplete_because(path)
    if reason is not None:
        raise CheckpointError(
            f"the best checkpoint ({metric} {best[metric]:.6f}) is {path}, but {reason}",
            hint="raise train_config.keep_checkpoint_max, or name a checkpoint",
        )
    return path, int(best["global_step"])


def read_results(model_dir: str | Path) -> list[dict[str, float]]:
    """Returns the evaluations of a run in the order they were made, one per step.

    A resumed run that evaluates a step again replaces the earlier line.
    """
    path = Path(model_dir) / TRAIN_EVAL_RESULT_FILENAME
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return list({int(row["global_step"]): row for row in rows}.values())


def resolve(
    model_dir: str | Path, checkpoint: str | None, export_config: ExportConfig | None = None
) -> tuple[Path, int]:
    """Returns the checkpoint directory that a user means.

    Args:
        model_dir: the run.
        checkpoint: ``latest``, ``best``, a checkpoint directory or a run directory; None is
            ``latest``, or ``best`` when ``export_config.exporter_type`` says so.
        export_config: how ``best`` is chosen.

    Raises:
        CheckpointError: there is no such checkpoint.
    """
    export_config = export_config or ExportConfig()
    if checkpoint is None:
        checkpoint = "best" if export_config.exporter_type == "best" else "latest"
    if checkpoint == "best":
        return best_checkpoint(model_dir, export_config)
    if checkpoint == "latest":
        path, step = latest_checkpoint(model_dir)
        if path is None:
            raise _nothing_in(model_dir)
        return path, step
    return _from_path(Path(checkpoint))


def _from_path(path: Path) -> tuple[Path, int]:
    if not path.is_dir():
        raise CheckpointError(f"checkpoint {path} does not exist")
    if (path / "model").is_dir() or (path / "optimizer").is_dir():
        reason = incomplete_because(path)
        if reason is not None:
            raise CheckpointError(f"checkpoint {path} cannot be used: {reason}")
        return path, step_of(path)
    found, step = latest_checkpoint(path)
    if found is None:
        raise _nothing_in(path)
    return found, step


def _nothing_in(model_dir: str | Path) -> CheckpointError:
    skipped = skipped_checkpoints(model_dir)
    if skipped:
        listed = "; ".join(f"{path.name}: {why}" for path, why in skipped.items())
        return CheckpointError(f"{model_dir} holds no whole checkpoint ({listed})")
    return CheckpointError(
        f"{model_dir} holds no checkpoint (model.ckpt-<step>)",
        hint="train first, or name a checkpoint directory",
    )
