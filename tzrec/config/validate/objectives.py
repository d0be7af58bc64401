"""Rules for losses and metrics, of each task alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tzrec.config.messages import which_field
from tzrec.config.model_facts import MODELS
from tzrec.config.problem import Problem, unsupported, warning
from tzrec.config.specs import (
    LOSSES,
    MATCH_LOSS,
    METRICS,
    TRAIN_METRICS,
    LossFacts,
    MetricFacts,
    class_range,
    metric_name,
)
from tzrec.config.tasks import Task
from tzrec.config.validate.frame import Context
from tzrec.errors import did_you_mean


def _tasks(context: Context) -> list[Task]:
    """Returns the tasks of a model of this version."""
    return context.tasks if context.model_type in MODELS else []


def _chosen_losses(task: Task) -> list[tuple[str, str, LossFacts, Any]]:
    """Returns path, name, facts and message of every loss of this version."""
    found = []
    for index, wrapper in enumerate(task.message.losses):
        name = which_field(wrapper, "loss")
        if name in LOSSES:
            path = f"{task.path}.losses[{index}].{name}"
            found.append((path, str(name), LOSSES[str(name)], getattr(wrapper, str(name))))
    return found


def _is_match(context: Context) -> bool:
    facts = MODELS.get(context.model_type)
    return facts is not None and facts.is_match


def metric_names(context: Context) -> list[str] | None:
    """Returns the names of the evaluation metrics, None when only the model knows them."""
    if context.model_type == "CustomModel":
        return None
    facts = MODELS.get(context.model_type)
    if facts is not None and facts.metric_names is not None:
        return facts.metric_names(context)
    names = [name for task in context.tasks for name in task.metric_names()]
    return names + [name for task in context.tasks for name in task.loss_names()]


def losses(context: Context) -> Iterator[Problem]:
    """There is a loss, and none twice."""
    facts = MODELS.get(context.model_type)
    needed = facts is not None and facts.single_task and facts.needs_loss
    for task in _tasks(context):
        if needed and not task.message.losses and not context.is_broken(task.path):
            yield Problem(
                f"{task.path}.losses",
                "is missing: there is nothing to learn",
                f"losses {{ {MATCH_LOSS} {{}} }}"
                if _is_match(context)
                else "for a click label: losses { binary_cross_entropy {} }",
            )
        seen: set[str] = set()
        for index, wrapper in enumerate(task.message.losses):
            here = f"{task.path}.losses[{index}]"
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


def match_losses(context: Context) -> Iterator[Problem]:
    """A two-tower model learns from one softmax over candidates, which are no classes."""
    if not _is_match(context) or context.has_twin_models:
        return
    model = context.config.model_config
    for index, wrapper in enumerate(model.losses):
        name = which_field(wrapper, "loss")
        where = f"model_config.losses[{index}].{name}"
        if name and name != MATCH_LOSS:
            yield Problem(
                where,
                f"{context.model_type} learns from a single loss, {MATCH_LOSS}, not from {name}",
                f"losses {{ {MATCH_LOSS} {{}} }}",
            )
        elif name and wrapper.softmax_cross_entropy.label_smoothing:
            yield warning(
                f"{where}.label_smoothing", f"has no effect: {context.model_type} has no classes"
            )
    if model.HasField("num_class"):
        yield warning("model_config.num_class", f"has no effect: {context.model_type} has none")


def silent_losses(context: Context) -> Iterator[Problem]:
    """Every loss and every label is learnt from."""
    facts = MODELS.get(context.model_type)
    if facts is None or not facts.needs_loss or context.for_serving:
        return
    for task in context.tasks:
        for index, wrapper in enumerate(task.message.losses):
            if wrapper.weight == 0 and wrapper.HasField("weight"):
                where = f"{task.path}.losses[{index}].weight"
                yield warning(where, "is 0: nothing is learnt from it")
    for name in ("label_fields", "sample_weight_fields") if facts.single_task else ():
        for index, column in enumerate(getattr(context.config.data_config, name)):
            if index and column:
                yield warning(
                    f"data_config.{name}[{index}]",
                    f"{column!r} has no effect: {context.model_type} has one task and reads the "
                    "first only",
                )


def num_class(context: Context) -> Iterator[Problem]:
    """The number of classes fits every loss."""
    if _is_match(context):
        return
    for task in _tasks(context):
        if context.is_broken(f"{task.path}.num_class"):
            continue
        classes = task.message.num_class
        for path, name, loss, _ in _chosen_losses(task):
            least, most = loss.num_class
            if classes < (least or 1) or (most is not None and classes > most):
                written = task.message.HasField("num_class")
                yield Problem(
                    path,
                    f"{name} needs num_class {class_range(loss.num_class)}, but it is {classes}"
                    + ("" if written else " (the default)"),
                    _class_hint(task, loss),
                )


def _class_hint(task: Task, loss: LossFacts) -> str:
    classes = task.message.num_class
    fitting = [
        name
        for name, facts in LOSSES.items()
        if (facts.num_class[0] or 1) <= classes <= (facts.num_class[1] or classes)
        and (facts.kind == "regression") == (loss.kind == "regression")
    ]
    place = "its num_class" if task.is_tower else "model_config.num_class"
    cure = f"set {place}: {loss.num_class[0]}"
    return f"{cure}, or use {' or '.join(fitting)}" if fitting else cure


def metrics(context: Context) -> Iterator[Problem]:
    """Metrics read what the losses make the model predict."""
    for task in _tasks(context):
        yield from _metrics(context, task, "metrics", METRICS)
        yield from _metrics(context, task, "train_metrics", TRAIN_METRICS)


def _metrics(
    context: Context, task: Task, field: str, table: Mapping[str, MetricFacts]
) -> Iterator[Problem]:
    seen: set[str] = set()
    classes = task.message.num_class
    for index, wrapper in enumerate(getattr(task.message, field)):
        here = f"{task.path}.{field}[{index}]"
        name = which_field(wrapper, "metric")
        if name is None:
            if not context.is_broken(here):
                yield Problem(here, "is empty: choose a metric", f"metrics: {', '.join(table)}")
            continue
        reported = metric_name(name, getattr(getattr(wrapper, name), "top_k", 0))
        if reported in seen:
            yield Problem(f"{here}.{name}", f"metric {reported} is given twice")
        seen.add(reported)
        if MODELS[context.model_type].needs_loss:
            yield from _metric_fits(context, task, f"{here}.{name}", name)
        config = getattr(wrapper, name)
        if name == "accuracy" and config.top_k > max(1, classes):
            yield Problem(f"{here}.{name}.top_k", f"is {config.top_k} of {classes} classes")


def _metric_fits(context: Context, task: Task, path: str, name: str) -> Iterator[Problem]:
    metric = METRICS[name]
    chosen = _chosen_losses(task)
    predicted = {loss.predicts for _, _, loss, _ in chosen}
    classes = task.message.num_class
    if _is_match(context):
        if metric.needs != "similarity":
            able = [other for other, facts in METRICS.items() if facts.needs == "similarity"]
            yield Problem(
                path,
                f"{name} is not for {context.model_type}, which ranks candidates",
                f"use {' or '.join(able)}",
            )
    elif metric.needs == "similarity":
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
    for task in context.tasks:
        for where, name in row_group_features(task):
            yield from _id_feature(context, where, name)


def row_group_features(task: Task) -> Iterator[tuple[str, str]]:
    """Yields config path and feature of everything that groups the rows of a task."""
    for path, _, loss, config in _chosen_losses(task):
        if loss.session:
            yield f"{path}.{loss.session}", getattr(config, loss.session)
    for index, wrapper in enumerate(task.message.metrics):
        name = which_field(wrapper, "metric") or ""
        grouping = METRICS[name].grouping if name in METRICS else ""
        if grouping:
            where = f"{task.path}.metrics[{index}].{name}.{grouping}"
            yield where, getattr(getattr(wrapper, name), grouping)


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
    facts = MODELS.get(context.model_type)
    single = facts is not None and facts.single_task and facts.needs_loss
    if context.config.model_config.use_pareto_loss_weight and single:
        yield Problem(
            "model_config.use_pareto_loss_weight",
            f"is for models with several tasks, {context.model_type} has one",
            "remove it",
        )


RULES = (losses, match_losses, silent_losses, num_class, metrics, row_groups, pareto)
