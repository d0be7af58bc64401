"""Rules for the towers of several tasks: names, columns, weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tzrec.config.messages import AnyField, is_required, shortest_float
from tzrec.config.model_facts import MODELS
from tzrec.config.model_facts.base import name_of_parameters
from tzrec.config.problem import Problem, warning
from tzrec.config.tasks import Task
from tzrec.config.validate.frame import Context
from tzrec.errors import did_you_mean

# Fields by which a tower may read other towers; one that is read needs no loss of its own.
_RELATIONS = ("relation_tower_names", "intervention_tower_names")


def _towers(context: Context) -> list[Task]:
    return [task for task in context.tasks if task.is_tower]


def _is_multi_task(context: Context) -> bool:
    facts = MODELS.get(context.model_type)
    return facts is not None and not facts.single_task and not context.has_twin_models


def names(context: Context) -> Iterator[Problem]:
    """There are towers, each with a name of its own."""
    if not _is_multi_task(context):
        return
    towers = _towers(context)
    if not towers and not context.is_broken(context.model_path):
        field = MODELS[context.model_type].towers[0]
        yield Problem(
            f"{context.model_path}.{field}",
            "is missing: the model has no task",
            f'{field} {{ tower_name: "ctr" label_name: ... losses {{ binary_cross_entropy {{}} }} '
            "mlp { hidden_units: ... } }",
        )
    seen: set[str] = set()
    for task in towers:
        name, where = task.message.tower_name, f"{task.path}.tower_name"
        if name in seen and name:
            yield Problem(where, f"two towers are called {name!r}", "rename one of them")
        seen.add(name)
        if task.message.HasField("tower_name"):
            yield from name_of_parameters(where, name)


def learning(context: Context) -> Iterator[Problem]:
    """Every tower learns something."""
    if not _is_multi_task(context):
        return
    towers = _towers(context)
    read = {name for task in towers for f in _RELATIONS for name in getattr(task.message, f, ())}
    for task in towers:
        if task.message.losses or context.is_broken(task.path):
            if task.message.weight == 0 and not context.for_serving:
                yield warning(f"{task.path}.weight", "is 0: nothing is learnt from this task")
            continue
        if task.message.tower_name in read:
            if task.message.metrics or task.message.train_metrics:
                yield Problem(
                    f"{task.path}.losses", "is missing: without a loss there are no metrics"
                )
            continue
        yield Problem(
            f"{task.path}.losses",
            f"is missing: tower {task.message.tower_name!r} has nothing to learn",
            "for a click label: losses { binary_cross_entropy {} }",
        )


def columns(context: Context) -> Iterator[Problem]:
    """Columns that towers read are loaded."""
    if not _is_multi_task(context) or context.is_broken("data_config"):
        return
    labels = list(context.config.data_config.label_fields)
    weights = list(context.config.data_config.sample_weight_fields)
    for task in _towers(context):
        tower, path = task.message, task.path
        if not tower.label_name:
            yield from _no_label(context, task)
        named = {
            "label_name": (tower.label_name, "label_fields", labels),
            "task_space_indicator_label": (
                tower.task_space_indicator_label,
                "label_fields",
                labels,
            ),
            "sample_weight_name": (
                getattr(tower, "sample_weight_name", ""),
                "sample_weight_fields",
                weights,
            ),
        }
        for where, column in named.items():
            yield from _loaded(f"{path}.{where}", *column)
    for field in MODELS[context.model_type].label_columns:
        name = getattr(context.model, field)
        yield from _loaded(f"{context.model_path}.{field}", name, "label_fields", labels)


def _no_label(context: Context, task: Task) -> Iterator[Problem]:
    field: AnyField = task.message.DESCRIPTOR.fields_by_name["label_name"]
    said = is_required(field) and not task.message.HasField("label_name")
    if task.message.losses and not said and not context.is_broken(task.path):
        yield Problem(
            f"{task.path}.label_name", "is missing: the column that the losses learn from"
        )


def _loaded(where: str, name: str, field: str, loaded: Sequence[str]) -> Iterator[Problem]:
    if name and name not in loaded:
        yield Problem(
            where,
            f"column {name!r} is not in data_config.{field}{did_you_mean(name, loaded)}",
            f'add {field}: "{name}" to data_config',
        )


def unread_columns(context: Context) -> Iterator[Problem]:
    """Every label and weight is read by a task."""
    if not _is_multi_task(context) or context.for_serving or context.is_broken(context.model_path):
        return
    towers = [task.message for task in _towers(context)]
    labels = {tower.label_name for tower in towers}
    labels |= {tower.task_space_indicator_label for tower in towers}
    labels |= {getattr(context.model, f) for f in MODELS[context.model_type].label_columns}
    weights = {getattr(tower, "sample_weight_name", "") for tower in towers}
    read = {"label_fields": labels, "sample_weight_fields": weights}
    for field, known in read.items():
        for index, column in enumerate(getattr(context.config.data_config, field)):
            if column and column not in known:
                near = did_you_mean(column, [name for name in known if name])
                where = f"data_config.{field}[{index}]"
                yield warning(where, f"{column!r} has no effect: no tower names it{near}")


def weights(context: Context) -> Iterator[Problem]:
    """Weights of the task space have a task space, and leave something to learn."""
    if not _is_multi_task(context) or context.for_serving:
        return
    for task in _towers(context):
        tower = task.message
        if tower.task_space_indicator_label:
            if not tower.in_task_space_weight and not tower.out_task_space_weight:
                yield warning(
                    f"{task.path}.in_task_space_weight",
                    "is 0, and so is out_task_space_weight: nothing is learnt from this task",
                )
            continue
        for field in ("in_task_space_weight", "out_task_space_weight"):
            if tower.HasField(field):
                yield warning(
                    f"{task.path}.{field}", "has no effect without task_space_indicator_label"
                )


def pareto(context: Context) -> Iterator[Problem]:
    """The least Pareto weights leave something to distribute."""
    if not _is_multi_task(context) or context.for_serving:
        return
    used = context.config.model_config.use_pareto_loss_weight
    towers = _towers(context)
    for task in towers:
        if task.message.HasField("pareto_min_loss_weight") and not used:
            yield warning(
                f"{task.path}.pareto_min_loss_weight",
                "has no effect without model_config.use_pareto_loss_weight: true",
            )
    bounds = [task.message.pareto_min_loss_weight for task in towers for _ in task.message.losses]
    total = shortest_float(sum(bounds))
    if used and len(bounds) == 1:
        yield warning(
            "model_config.use_pareto_loss_weight", "has no effect: there is one loss to weigh"
        )
    elif used and total >= 1:
        yield Problem(
            f"{towers[0].path}.pareto_min_loss_weight",
            f"the least weights of the {len(bounds)} losses add up to {total:g}, but all weights "
            "add up to 1",
            "lower pareto_min_loss_weight of the towers; a tower with two losses counts twice",
        )


def above_the_towers(context: Context) -> Iterator[Problem]:
    """Nothing is configured that only a single-task model reads."""
    if not _is_multi_task(context):
        return
    model = context.config.model_config
    for field in ("losses", "metrics", "train_metrics"):
        if getattr(model, field):
            yield _unread(context, f"{field}[0]", field)
    if model.HasField("num_class"):
        yield _unread(context, "num_class", "num_class")


def _unread(context: Context, where: str, field: str) -> Problem:
    return warning(
        f"model_config.{where}",
        f"has no effect: {context.model_type} has a task per tower, and {field} stand"
        f"{'s' if field == 'num_class' else ''} in {MODELS[context.model_type].towers[0]}",
    )


RULES = (names, learning, columns, unread_columns, weights, pareto, above_the_towers)
