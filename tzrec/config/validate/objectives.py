"""Rules for losses and metrics of single-task models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tzrec.config.messages import which_field
from tzrec.config.model_facts import MODELS
from tzrec.config.problem import Problem, unsupported, warning
from tzrec.config.specs import (
    LOSSES,
    METRICS,
    TRAIN_METRICS,
    LossFacts,
    MetricFacts,
    class_range,
    eval_metric_names,
)
from tzrec.config.validate.frame import Context
from tzrec.errors import did_you_mean


def _chosen_losses(context: Context) -> list[tuple[str, str, LossFacts, Any]]:
    """Returns path, name, facts and message of every loss of this version."""
    found = []
    for index, wrapper in enumerate(context.config.model_config.losses):
        name = which_field(wrapper, "loss")
        if name in LOSSES:
            path = f"model_config.losses[{index}].{name}"
            found.append((path, str(name), LOSSES[str(name)], getattr(wrapper, str(name))))
    return found


def metric_names(context: Context) -> list[str] | None:
    """Returns the names of the evaluation metrics, None when only the model knows them."""
    if context.model_type == "CustomModel":
        return None
    metrics = []
    for wrapper in context.config.model_config.metrics:
        name = which_field(wrapper, "metric")
        if name:
            metrics.append((name, getattr(getattr(wrapper, name), "top_k", 0)))
    return eval_metric_names([name for _, name, _, _ in _chosen_losses(context)], metrics)


def losses(context: Context) -> Iterator[Problem]:
    """There is a loss, and none twice."""
    model = context.config.model_config
    facts = MODELS.get(context.model_type)
    if facts is None or not facts.single_task:
        return
    if not model.losses and facts.needs_loss and not context.is_broken("model_config"):
        yield Problem(
            "model_config.losses",
            "is missing: there is nothing to learn",
            "for a click label: losses { binary_cross_entropy {} }",
        )
    seen: set[str] = set()
    for index, wrapper in enumerate(model.losses):
        here = f"model_config.losses[{index}]"
        name = which_field(wrapper, "loss")
        sid = which_field(wrapper, "sid_loss")
        if sid:
            yield unsupported(f"{here}.{sid}", f"loss {sid} is for semantic-id models only")
        elif name is None:
            if not context.is_broken(here):
                yield Problem(here, "is empty: choose a loss", f"losses: {', '.join(LOSSES)}")
        elif name in seen:
            yield Problem(f"{here}.{name}", f"loss {name} is given twice")
        seen.add(name or "")


def silent_losses(context: Context) -> Iterator[Problem]:
    """Every loss and every label is learnt from."""
    facts = MODELS.get(context.model_type)
    config = context.config
    if facts is None or not facts.single_task or not facts.needs_loss or context.for_serving:
        return
    for index, wrapper in enumerate(config.model_config.losses):
        if wrapper.weight == 0 and wrapper.HasField("weight"):
            yield warning(f"model_config.losses[{index}].weight", "is 0: nothing is learnt from it")
    for name in ("label_fields", "sample_weight_fields"):
        for index, column in enumerate(getattr(config.data_config, name)):
            if index and column:
                yield warning(
                    f"data_config.{name}[{index}]",
                    f"{column!r} has no effect: {context.model_type} has one task and reads the "
                    "first only",
                )


def num_class(context: Context) -> Iterator[Problem]:
    """The number of classes fits every loss."""
    facts = MODELS.get(context.model_type)
    if facts is None or not facts.single_task or context.is_broken("model_config.num_class"):
        return
    classes = context.config.model_config.num_class
    for path, name, loss, _ in _chosen_losses(context):
        least, most = loss.num_class
        if classes < (least or 1) or (most is not None and classes > most):
            written = context.config.model_config.HasField("num_class")
            yield Problem(
                path,
                f"{name} needs num_class {class_range(loss.num_class)}, but it is {classes}"
                + ("" if written else " (the default)"),
                _class_hint(classes, loss),
            )


def _class_hint(classes: int, loss: LossFacts) -> str:
    fitting = [
        name
        for name, facts in LOSSES.items()
        if (facts.num_class[0] or 1) <= classes <= (facts.num_class[1] or classes)
        and (facts.kind == "regression") == (loss.kind == "regression")
    ]
    cure = f"set model_config.num_class: {loss.num_class[0]}"
    return f"{cure}, or use {' or '.join(fitting)}" if fitting else cure


def metrics(context: Context) -> Iterator[Problem]:
    """Metrics read what the losses make the model predict."""
    model = context.config.model_config
    yield from _metrics(context, "metrics", model.metrics, METRICS)
    yield from _metrics(context, "train_metrics", model.train_metrics, TRAIN_METRICS)


def _metrics(
    context: Context, field: str, wrappers: Any, table: Mapping[str, MetricFacts]
) -> Iterator[Problem]:
    facts = MODELS.get(context.model_type)
    if facts is None or not facts.single_task:
        return
    seen: set[str] = set()
    for index, wrapper in enumerate(wrappers):
        here = f"model_config.{field}[{index}]"
        name = which_field(wrapper, "metric")
        if name is None:
            if not context.is_broken(here):
                yield Problem(here, "is empty: choose a metric", f"metrics: {', '.join(table)}")
            continue
        if name in seen:
            yield Problem(f"{here}.{name}", f"metric {name} is given twice")
        seen.add(name)
        if facts.needs_loss:
            yield from _metric_fits(context, f"{here}.{name}", name)
        config = getattr(wrapper, name)
        if name == "accuracy" and config.top_k > max(1, model_classes(context)):
            classes = model_classes(context)
            yield Problem(f"{here}.{name}.top_k", f"is {config.top_k} of {classes} classes")


def model_classes(context: Context) -> int:
    """Returns the configured number of classes."""
    return int(context.config.model_config.num_class)


def _metric_fits(context: Context, path: str, name: str) -> Iterator[Problem]:
    metric = METRICS[name]
    chosen = _chosen_losses(context)
    predicted = {loss.predicts for _, _, loss, _ in chosen}
    classes = model_classes(context)
    if metric.needs == "similarity":
        yield Problem(path, f"{name} is for two-tower models only, not for {context.model_type}")
    elif chosen and metric.needs not in predicted:
        able = [loss for loss, facts in LOSSES.items() if facts.predicts == metric.needs]
        given = " and ".join(loss for _, loss, _, _ in chosen)
        needed = "probabilities" if metric.needs == "probs" else "a regression"
        yield Problem(
            path,
            f"{name} needs {needed}, which {given} does not give",
            f"add a loss that does ({', '.join(able)}), or use "
            f"{_fitting_metrics(predicted, classes)}",
        )
    elif metric.max_class is not None and classes > metric.max_class:
        yield Problem(
            path,
            f"{name} takes at most {metric.max_class} classes, but num_class is {classes}",
            f"use {_fitting_metrics(predicted, classes)}",
        )
    elif classes < metric.min_class:
        yield Problem(
            path,
            f"{name} needs num_class at least {metric.min_class}, but it is {classes}",
            f"use {_fitting_metrics(predicted, classes)}",
        )


def _fitting_metrics(predicted: set[Any], classes: int) -> str:
    fitting = [
        name
        for name, facts in METRICS.items()
        if facts.needs in predicted and facts.min_class <= classes <= (facts.max_class or classes)
    ]
    return " or ".join(fitting[:4]) or "another metric"


def row_groups(context: Context) -> Iterator[Problem]:
    """Features that group rows (sessions, users) are configured and are ids."""
    for path, _, loss, config in _chosen_losses(context):
        if loss.session:
            yield from _id_feature(context, f"{path}.{loss.session}", getattr(config, loss.session))
    for index, wrapper in enumerate(context.config.model_config.metrics):
        name = which_field(wrapper, "metric") or ""
        grouping = METRICS[name].grouping if name in METRICS else ""
        if grouping:
            where = f"model_config.metrics[{index}].{name}.{grouping}"
            yield from _id_feature(context, where, getattr(getattr(wrapper, name), grouping))


def _id_feature(context: Context, where: str, name: str) -> Iterator[Problem]:
    feature = context.features_by_name.get(name)
    if not name or (feature is None and not context.knows_all_names):
        return  # a missing name is reported as such
    if feature is None:
        ids = [known.name for known in context.features if known.is_sparse]
        yield Problem(
            where,
            f"there is no feature {name!r}{did_you_mean(name, ids)}",
            "rows are grouped by the value of a configured id feature",
        )
    elif not feature.is_sparse:
        yield Problem(where, f"feature {name!r} holds plain numbers, must hold ids")


def pareto(context: Context) -> Iterator[Problem]:
    """Pareto weights balance several tasks."""
    if context.config.model_config.use_pareto_loss_weight and context.model_type in MODELS:
        yield Problem(
            "model_config.use_pareto_loss_weight",
            f"is for models with several tasks, {context.model_type} has one",
            "remove it",
        )


RULES = (losses, silent_losses, num_class, metrics, row_groups, pareto)
