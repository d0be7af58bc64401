"""Which checkpoint is meant: names, order, best and latest."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Iterator

from tzrec import storage
from tzrec.constant import TRAIN_EVAL_RESULT_FILENAME
from tzrec.errors import CheckpointError, TzrecError, did_you_mean
from tzrec.protos.export_pb2 import ExportConfig
from tzrec.training.checkpoint.manifest import incomplete_because
from tzrec.training.location import Location, location

logger = logging.getLogger("tzrec")

_NAME = re.compile(r"model\.ckpt-(\d+)$")


def checkpoint_name(step: int) -> str:
    """Returns the directory name of the checkpoint after 0-based step ``step``."""
    return f"model.ckpt-{step}"


def step_of(path: Location) -> int:
    """Returns the step in a checkpoint's name; 0 for a directory with another name."""
    match = _NAME.search(path.name)
    return int(match[1]) if match else 0


def list_checkpoints(model_dir: str | os.PathLike[str]) -> list[Location]:
    """Returns the checkpoint directories of a run, oldest first, whole or not.

    Raises:
        CheckpointError: the directory cannot be listed.
    """
    root = location(model_dir)
    try:
        names = [name for name in storage.list_directory(root) if _NAME.fullmatch(name)]
        found = [root / name for name in names if storage.is_directory(root / name)]
    except TzrecError:
        raise
    except Exception as error:  # a remote file system may raise anything
        raise CheckpointError(f"{model_dir} cannot be listed: {error}") from error
    return sorted(found, key=step_of)


def newest_first(
    model_dir: str | os.PathLike[str],
) -> Iterator[tuple[Location, str | None]]:
    """Yields the checkpoints of a run from the newest down, and why each cannot be used."""
    for path in reversed(list_checkpoints(model_dir)):
        yield path, incomplete_because(path)


def latest_checkpoint(
    model_dir: str | os.PathLike[str],
) -> tuple[Location | None, int]:
    """Returns the newest whole checkpoint of a run and its step, or ``(None, -1)``.

    A half-written or damaged checkpoint is passed over with a warning.
    """
    for path, reason in newest_first(model_dir):
        if reason is None:
            return path, step_of(path)
        logger.warning("passing over %s: %s", path, reason)
    return None, -1


def skipped_checkpoints(model_dir: str | os.PathLike[str]) -> dict[Location, str]:
    """Returns the checkpoints that cannot be used, and why."""
    return {path: reason for path, reason in newest_first(model_dir) if reason is not None}


def best_checkpoint(
    model_dir: str | os.PathLike[str], export_config: ExportConfig
) -> tuple[Location, int]:
    """Returns the checkpoint with the best evaluation in ``train_eval_result_v2.txt``.

    The metric is ``export_config.best_exporter_metric``; where it is not written, the only one
    that was evaluated, else ``auc``. Of equal values the earliest wins, NaN never does. Without
    any evaluation the newest checkpoint is returned.

    Raises:
        CheckpointError: the metric was not evaluated, or the best checkpoint is gone.
    """
    results = read_results(model_dir)
    if not results:
        path, step = latest_checkpoint(model_dir)
        if path is None:
            raise _nothing_in(model_dir)
        return path, step
    metric = _best_metric(results, export_config)
    sign = 1 if export_config.metric_larger_is_better else -1
    comparable = [row for row in results if not math.isnan(row[metric])]
    if not comparable:
        raise CheckpointError(f"{metric} is NaN in every evaluation, so none is the best")
    best = max(comparable, key=lambda row: sign * row[metric])
    path = location(model_dir) / checkpoint_name(int(best["global_step"]))
    reason = incomplete_because(path)
    if reason is not None:
        raise CheckpointError(
            f"the best checkpoint ({metric} {best[metric]:.6f}) is {path}, but {reason}",
            hint="raise train_config.keep_checkpoint_max, or name a checkpoint",
        )
    return path, int(best["global_step"])


def _best_metric(results: list[dict[str, float]], export_config: ExportConfig) -> str:
    metric = export_config.best_exporter_metric
    known = sorted(set().union(*results) - {"global_step"})
    if not export_config.HasField("best_exporter_metric") and len(known) == 1:
        return known[0]
    missing = [row for row in results if metric not in row]
    if missing:
        there = ", ".join(sorted(set(missing[0]) - {"global_step"}))
        where = f" at step {int(missing[0]['global_step'])}" if metric in known else ""
        raise CheckpointError(
            f"export_config.best_exporter_metric: {metric!r} was not evaluated{where}; "
            f"there is {there}",
            hint="set export_config.best_exporter_metric to one of these",
        )
    return metric


def read_results(model_dir: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Returns the evaluations of a run in the order they were made, one per step.

    A resumed run that evaluates a step again replaces the earlier line. A line that a killed run
    left unfinished is passed over with a warning.
    """
    path = location(model_dir) / TRAIN_EVAL_RESULT_FILENAME
    if not storage.exists(path):
        return []
    with storage.open_file(path, "r", encoding="utf-8") as stream:
        lines = stream.read().split("\n")
    rows: dict[int, dict[str, float]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows[int(row["global_step"])] = row
        except (ValueError, KeyError, TypeError):
            logger.warning("passing over %s:%d, no evaluation: %.80r", path, number, line)
    return list(rows.values())


def resolve(
    model_dir: str | os.PathLike[str],
    checkpoint: str | None,
    export_config: ExportConfig | None = None,
) -> tuple[Location, int]:
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
    return _from_path(location(checkpoint))


def _from_path(path: Location) -> tuple[Location, int]:
    if not storage.is_directory(path):
        near = did_you_mean(str(path), ("best", "latest"))
        what = "is a file, not a directory" if storage.exists(path) else f"does not exist{near}"
        raise CheckpointError(f"checkpoint {path} {what}", hint=_near(path))
    if any(storage.is_directory(path / part) for part in ("model", "optimizer")):
        reason = incomplete_because(path)
        if reason is not None:
            raise CheckpointError(f"checkpoint {path} cannot be used: {reason}", hint=_near(path))
        return path, step_of(path)
    found, step = latest_checkpoint(path)
    if found is None:
        raise _nothing_in(path)
    return found, step


def _near(path: Location) -> str:
    """Returns the checkpoints beside a path, as a hint."""
    beside = [other.name for other in list_checkpoints(path.parent) if other.name != path.name]
    return f"{path.parent} holds {', '.join(beside[-5:])}" if beside else ""


def _nothing_in(model_dir: str | os.PathLike[str]) -> CheckpointError:
    skipped = skipped_checkpoints(model_dir)
    if skipped:
        listed = "; ".join(f"{path.name}: {why}" for path, why in skipped.items())
        return CheckpointError(f"{model_dir} holds no whole checkpoint ({listed})")
    return CheckpointError(
        f"{model_dir} holds no checkpoint (model.ckpt-<step>)",
        hint="train first, or name a checkpoint directory",
    )
