"""Permutation importance of the features of a trained model: ``tzrec importance``."""

from __future__ import annotations

import logging
import posixpath
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tzrec.config import prepare
from tzrec.config.messages import which_field
from tzrec.constant import Mode
from tzrec.errors import ConfigError, Unsupported, did_you_mean
from tzrec.storage import file_system
from tzrec.tools.importance_files import draw_bars, write_csv
from tzrec.training.permutation import Importance
from tzrec.training.report.tasks import is_loss, larger_is_better, split_name, tasks_of

logger = logging.getLogger("tzrec")


def feature_importance(
    pipeline_config_path: str,
    output_dir: str,
    *,
    checkpoint_path: str | None = None,
    eval_input_path: str | None = None,
    metric: str | None = None,
    num_rows: int = 100_000,
    repeats: int = 3,
    seed: int = 42,
    edits: Sequence[str] = (),
) -> list[Importance]:
    """Writes ``importance.csv`` and ``importance.png``; the most important features come first.

    Args:
        pipeline_config_path: config file.
        output_dir: gets the files.
        checkpoint_path: ``latest`` (default), ``best`` or a directory.
        eval_input_path: overrides the config's.
        metric: orders the features; default the first one of the config, else the first loss.
        num_rows: rows to measure on, in memory.
        repeats: shuffles per feature.
        seed: of the shuffles.
        edits: config edits as ``a.b.c=v``.

    Returns:
        The features, in that order.

    Raises:
        TzrecError: config, data or checkpoint are wrong, or the model has no such metric.
    """
    config = prepare(pipeline_config_path, eval_input_path=eval_input_path, edits=edits).config
    if not config.eval_input_path:
        raise ConfigError(
            "eval_input_path is empty: there are no rows to measure on",
            hint="give --eval-input-path",
        )
    base, found = _measure(config, checkpoint_path, num_rows=num_rows, repeats=repeats, seed=seed)
    plain = {name: split_name(name, tasks_of(config))[0] for name in base}
    metric = _choose(metric, plain)
    sign = -1.0 if larger_is_better(plain[metric]) else 1.0
    found.sort(key=lambda one: -sign * statistics.fmean(one.changes[metric]))
    _write(output_dir, found, metric, sign)
    width = max(len(one.name) for one in found)
    logger.info("%s is %.6f; with one feature shuffled it gets worse by", metric, base[metric])
    for one in found:
        mean, spread = _worse(one, metric, sign)
        told = f" ± {spread:.6f}" if repeats > 1 else ""
        logger.info("  %-*s %10.6f%s", width, one.name, mean, told)
    if not any(abs(change) > 0 for one in found for change in one.changes[metric]):
        logger.warning(
            "shuffling never changes %s: do the rows have labels of one class only? take more "
            "(--rows) or others (--eval-input-path), or another --metric",
            metric,
        )
    logger.info("wrote importance.csv and importance.png to %s", output_dir)
    return found


def _measure(
    config: Any, checkpoint_path: str | None, *, num_rows: int, repeats: int, seed: int
) -> tuple[dict[str, float], list[Importance]]:
    from tzrec.options import from_environment
    from tzrec.training import build, permutation
    from tzrec.training.averages import restore_weights, uses_averages
    from tzrec.training.checkpoint.find import resolve
    from tzrec.training.distributed.process_group import process_group
    from tzrec.training.job import closing

    options = from_environment()
    if options.world_size > 1:
        raise ConfigError("tzrec importance runs in one process", hint="start it without torchrun")
    if which_field(config.data_config, "sampler"):
        raise Unsupported(
            "tzrec importance with a sampler: rows that it draws belong to no row of the data, so "
            "their values cannot be exchanged",
            hint="a two-tower model with in_batch_negative: true has only rows of the data",
        )
    with process_group(options) as device:
        checkpoint, _ = resolve(config.model_dir, checkpoint_path or "latest", config.export_config)
        features = build.build_features(config.data_config, config.feature_configs)
        model = build.build_train_wrapper(config, features, device).to(device)
        averages = uses_averages(config.eval_config, config.train_config)
        report = restore_weights(model, checkpoint, averages=averages)
        logger.info("weights of %s: %s", checkpoint, report)
        loader = build.build_loader(
            config, features, config.eval_input_path, mode=Mode.EVAL, options=options
        )
        with closing(loader):
            pool = permutation.RowPool(loader, loader.parser, num_rows)
        groups = config.model_config.feature_groups
        read = model.model.get_features_in_feature_groups(groups)
        entries = permutation.entries_of(read)
        logger.info("%d features, %d times each, on %d rows", len(entries), repeats, pool.num_rows)
        return permutation.permutation_importance(
            model, pool, entries, repeats=repeats, seed=seed, device=device
        )


def _choose(metric: str | None, known: Mapping[str, str]) -> str:
    """Returns the metric that orders; ``known`` are those of the model, and without their task."""
    if metric is None:
        return next((name for name in known if not is_loss(known[name])), next(iter(known)))
    if metric not in known:
        raise ConfigError(
            f"--metric: the model has no metric {metric!r}{did_you_mean(metric, known)}",
            hint=f"it has {', '.join(known)}",
        )
    return metric


def _worse(one: Importance, metric: str, sign: float) -> tuple[float, float]:
    """Returns the mean over the repeats, and their standard deviation."""
    changes = [sign * change for change in one.changes[metric]]
    spread = statistics.stdev(changes) if len(changes) > 1 else 0.0
    return statistics.fmean(changes), spread


def _write(output_dir: str, found: list[Importance], metric: str, sign: float) -> None:
    system, inner = file_system(output_dir)
    system.makedirs(inner, exist_ok=True)
    metrics = list(found[0].changes)
    header = ["feature", "worse", "worse_sd", *(f"{m}_change" for m in metrics)]
    rows = []
    for one in found:
        changes = (statistics.fmean(one.changes[m]) for m in metrics)
        rows.append([one.name, *_worse(one, metric, sign), *changes])
    write_csv(posixpath.join(output_dir, "importance.csv"), header, rows)
    worse = [_worse(one, metric, sign) for one in found]
    draw_bars(
        posixpath.join(output_dir, "importance.png"),
        [(one.name, mean) for one, (mean, _) in zip(found, worse, strict=True)],
        label=f"{metric} gets worse by",
        errors=[sd for _, sd in worse],
    )
